"""Generic ephemeral volumes: a pod that brings the template of a claim gets the claim, which goes with the pod.

In: pods with `ephemeral` volumes. Out: one claim per such volume, named after pod and volume and owned by the pod.
Invariant: a claim of that name that belongs to somebody else is never used for the pod.
"""

from __future__ import annotations

import copy
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, controller_of, controller_reference, is_deleting, key_of, name_of, uid_of
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PODS
from navarch.controllers.base import Context, Controller, Requeue, is_namespace_terminating
from navarch.kinds.core.pod_state import is_finished


class EphemeralVolumeController(Controller):
    name: ClassVar[str] = "ephemeral-volume"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._pods = self.informer(PODS)
        # What a pod's volumes are never changes, so that its coming is all there is to see.
        self._pods.add_handler(added=self._pod_added)
        self._claims = self.informer(PERSISTENT_VOLUME_CLAIMS)
        self._claims.add_handler(deleted=self._claim_deleted)
        self._recorder = context.recorder("ephemeral_volume")

    def _pod_added(self, pod: Obj) -> None:
        if _ephemeral(pod) and not is_deleting(pod) and not is_finished(pod):
            self.enqueue(key_of(pod))

    def _claim_deleted(self, claim: Obj) -> None:
        owner = controller_of(claim)
        if owner is not None and owner["kind"] == "Pod":
            self.enqueue(Key(key_of(claim).namespace, owner["name"]))

    async def reconcile(self, key: Key) -> Requeue | None:
        pod = self._pods.get(*key)
        if pod is None or is_deleting(pod) or is_finished(pod):
            return None
        for volume in _ephemeral(pod):
            try:
                await self._ensure(key, pod, volume)
            except StatusError as error:
                if is_namespace_terminating(error):
                    return None
                message = f"ephemeral volume {volume['name']}: {error.message}"
                self._recorder.event(pod, "Warning", "FailedBinding", message)
                raise
        return None

    async def _ensure(self, key: Key, pod: Obj, volume: Obj) -> None:
        wanted = make_claim(pod, volume)
        name = name_of(wanted)
        existing = self._claims.get(key.namespace, name)
        if existing is None:
            try:
                await self.client.create(PERSISTENT_VOLUME_CLAIMS, wanted)
                return
            except StatusError as error:
                if error.reason != "AlreadyExists":
                    raise
            existing = await self.client.get(PERSISTENT_VOLUME_CLAIMS, name, key.namespace)
        owner = controller_of(existing)
        if owner is None or owner["uid"] != uid_of(pod):
            message = f'PVC "{key.namespace}/{name}" was not created for pod "{key}" (pod is not owner)'
            raise StatusError(409, "Conflict", message)


def _ephemeral(pod: Obj) -> list[Obj]:
    return [volume for volume in pod["spec"].get("volumes") or () if volume.get("ephemeral")]


def make_claim(pod: Obj, volume: Obj) -> Obj:
    template = volume["ephemeral"].get("volumeClaimTemplate") or {}
    origin = template.get("metadata") or {}
    metadata: Obj = {
        "name": f"{name_of(pod)}-{volume['name']}",
        "namespace": key_of(pod).namespace,
        "ownerReferences": [controller_reference({**pod, "apiVersion": "v1", "kind": "Pod"})],
    }
    metadata |= {field: dict(origin[field]) for field in ("labels", "annotations") if origin.get(field)}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": copy.deepcopy(template.get("spec") or {}),
    }
