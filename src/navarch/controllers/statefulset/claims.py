"""The PersistentVolumeClaims of a StatefulSet: made before the pod, and kept or given up by the retention policy.

The policy is carried out by owner references: a claim that goes with the set is owned by the set, one that goes when
the set shrinks is owned by the pod that goes.
"""

from __future__ import annotations

import copy

from navarch.api.errors import StatusError
from navarch.api.meta import (
    Obj,
    controller_reference,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    owner_references_of,
    uid_of,
)
from navarch.client.base import Client
from navarch.client.events import EventRecorder
from navarch.client.informer import Informer
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS
from navarch.controllers.statefulset.identity import claim_name, pod_name


class ClaimError(StatusError):
    """Claims of a pod cannot be made; of all of them together."""


class Claims:
    def __init__(self, client: Client, informer: Informer, recorder: EventRecorder) -> None:
        self._client = client
        self._informer = informer
        self._recorder = recorder

    async def ensure(self, stateful_set: Obj, ordinal: int) -> None:
        """Make the claims of one ordinal that do not exist.  Raises ClaimError, after having tried all."""
        errors: list[StatusError] = []
        for template in stateful_set["spec"].get("volumeClaimTemplates") or ():
            try:
                await self._ensure(stateful_set, template, ordinal)
            except StatusError as error:
                errors.append(error)
        if errors:
            messages = [error.message for error in errors]
            told = messages[0] if len(messages) == 1 else f"[{', '.join(messages)}]"
            raise ClaimError(errors[0].code, errors[0].reason, told, details=errors[0].details)

    def check_fresh(self, stateful_set: Obj, ordinal: int) -> None:
        """Where claims go with the pod that is scaled away, those of an earlier pod of this ordinal are about to be
        collected: the next pod waits for that and gets new ones.  Raises StatusError."""
        policy = stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
        if policy.get("whenScaled") != "Delete":
            return
        pod = pod_name(stateful_set, ordinal)
        for template in stateful_set["spec"].get("volumeClaimTemplates") or ():
            name = claim_name(stateful_set, template, ordinal)
            claim = self._informer.get(namespace_of(stateful_set), name)
            owners = owner_references_of(claim) if claim is not None else []
            if any(owner["kind"] == "Pod" and owner["name"] == pod for owner in owners):
                raise StatusError(409, "Conflict", f"pvc {name} belongs to an earlier pod")

    async def _ensure(self, stateful_set: Obj, template: Obj, ordinal: int) -> None:
        name, pod = claim_name(stateful_set, template, ordinal), pod_name(stateful_set, ordinal)
        existing = self._informer.get(namespace_of(stateful_set), name)
        if existing is not None:
            if is_deleting(existing):
                raise StatusError(409, "Conflict", f"pvc {name} is being deleted")
            return
        where = f"Pod {pod} in StatefulSet {name_of(stateful_set)}"
        try:
            await self._client.create(PERSISTENT_VOLUME_CLAIMS, _claim(stateful_set, template, name))
        except StatusError as error:
            if error.reason == "AlreadyExists":
                return
            message = f"create Claim {name} for {where} failed error: {error.message}"
            self._recorder.event(stateful_set, "Warning", "FailedCreate", message)
            told = f"failed to create PVC {name}: {error.message}"
            raise StatusError(error.code, error.reason, told, details=error.details) from error
        self._recorder.event(stateful_set, "Normal", "SuccessfulCreate", f"create Claim {name} {where} success")

    async def sync_owners(self, stateful_set: Obj, ordinal: int, pod: Obj | None, *, condemned: bool) -> None:
        """Set the owner references that the retention policy asks for."""
        policy = stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
        owned_by_set = policy.get("whenDeleted") == "Delete"
        owned_by_pod = policy.get("whenScaled") == "Delete" and condemned and pod is not None
        for template in stateful_set["spec"].get("volumeClaimTemplates") or ():
            claim = self._informer.get(namespace_of(stateful_set), claim_name(stateful_set, template, ordinal))
            if claim is None or is_deleting(claim):
                continue
            kept = [
                reference
                for reference in owner_references_of(claim)
                if reference["uid"] != uid_of(stateful_set)
                and not (reference["kind"] == "Pod" and reference["name"] == pod_name(stateful_set, ordinal))
            ]
            if any(reference.get("controller") for reference in kept):
                # Somebody else manages it.
                continue
            if owned_by_pod and pod is not None:
                kept.append(controller_reference({**pod, "apiVersion": "v1", "kind": "Pod"}))
            elif owned_by_set:
                kept.append(controller_reference({**stateful_set, "apiVersion": "apps/v1", "kind": "StatefulSet"}))
            if kept != owner_references_of(claim):
                metadata = {**claim["metadata"], "ownerReferences": kept}
                await self._client.update(PERSISTENT_VOLUME_CLAIMS, {**claim, "metadata": metadata})


def _claim(stateful_set: Obj, template: Obj, name: str) -> Obj:
    origin = template.get("metadata") or {}
    selector = (stateful_set["spec"].get("selector") or {}).get("matchLabels") or {}
    metadata: Obj = {
        "name": name,
        "namespace": namespace_of(stateful_set),
        "labels": {**labels_of(template), **selector},
    }
    if origin.get("annotations"):
        metadata["annotations"] = dict(origin["annotations"])
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": copy.deepcopy(template.get("spec") or {}),
    }
