"""Protection: a claim that a pod uses, a volume that a claim is bound to, and a class of attributes that either has are
not deleted from under it.

In: claims, volumes and classes with the protection finalizer that are being deleted. Out: the finalizer taken off once
nobody uses them; put on where admission did not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from navarch.api.meta import Key, Obj, Resource, is_deleting, name_of, namespace_of
from navarch.client.informer import Informer
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, VOLUME_ATTRIBUTES_CLASSES
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.optional import OptionalController
from navarch.kinds.core.pod_state import is_finished

_CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
_CLASS_FINALIZER = "kubernetes.io/vac-protection"
_VOLUME_FINALIZER = "kubernetes.io/pv-protection"


class _Protection(Controller):
    finalizer: ClassVar[str]

    _resource: Resource
    _objects: Informer

    def protect(self, resource: Resource) -> None:
        self._resource = resource
        self._objects = self.watch_primary(resource, self._concerns)

    def _concerns(self, obj: Obj) -> bool:
        return is_deleting(obj) == (self.finalizer in (obj["metadata"].get("finalizers") or ()))

    def _in_use(self, obj: Obj) -> bool:
        raise NotImplementedError

    async def reconcile(self, key: Key) -> Requeue | None:
        obj = self._objects.get(*key)
        if obj is None or not self._concerns(obj):
            return None
        finalizers = list(obj["metadata"].get("finalizers") or ())
        if not is_deleting(obj):
            finalizers.append(self.finalizer)
        elif self._in_use(obj):
            return None
        else:
            finalizers.remove(self.finalizer)
        await self.client.update(self._resource, {**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}})
        return None


class ClaimProtectionController(_Protection):
    name: ClassVar[str] = "pvc-protection"
    finalizer: ClassVar[str] = _CLAIM_FINALIZER

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.protect(PERSISTENT_VOLUME_CLAIMS)
        self._pods = self.informer(PODS)
        index_by_claim(self._pods)
        self._pods.add_handler(updated=self._pod_updated, deleted=self._pod_gone)

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        if is_finished(pod) and not is_finished(old):
            self._pod_gone(pod)

    def _pod_gone(self, pod: Obj) -> None:
        for name in claims_of(pod):
            claim = self._objects.get(namespace_of(pod), name)
            if claim is not None and is_deleting(claim):
                self.enqueue(Key(namespace_of(pod), name))

    def _in_use(self, obj: Obj) -> bool:
        users = self._pods.by_index("claim", f"{namespace_of(obj)}/{name_of(obj)}")
        # A pod without a node has nothing mounted yet, and will find the claim gone.
        return any(pod["spec"].get("nodeName") and not is_finished(pod) for pod in users)


class VolumeProtectionController(_Protection):
    name: ClassVar[str] = "pv-protection"
    finalizer: ClassVar[str] = _VOLUME_FINALIZER

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.protect(PERSISTENT_VOLUMES)

    def _in_use(self, obj: Obj) -> bool:
        return (obj.get("status") or {}).get("phase") == "Bound"


class AttributesClassProtectionController(OptionalController, _Protection):
    name: ClassVar[str] = "vac-protection"
    needs = VOLUME_ATTRIBUTES_CLASSES
    finalizer: ClassVar[str] = _CLASS_FINALIZER

    def follow(self, served: Resource) -> None:
        self.protect(served)
        self._users = [self.informer(PERSISTENT_VOLUME_CLAIMS), self.informer(PERSISTENT_VOLUMES)]
        for users in self._users:
            users.add_handler(updated=self._changed, deleted=self._gone)

    def _changed(self, old: Obj, new: Obj) -> None:
        if _classes_of(old) != _classes_of(new):
            self._gone(old)

    def _gone(self, user: Obj) -> None:
        for name in sorted(_classes_of(user)):
            held = self._objects.get("", name)
            if held is not None and is_deleting(held):
                self.enqueue(Key("", name))

    def _in_use(self, obj: Obj) -> bool:
        return any(name_of(obj) in _classes_of(user) for users in self._users for user in users.list())


def _classes_of(user: Obj) -> set[str]:
    """The classes of attributes that a claim or a volume has, is to have, or is being given."""
    status = user.get("status") or {}
    named = (
        user["spec"].get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )
    return {name for name in named if name}


def claims_of(pod: Obj) -> Iterable[str]:
    """Names of the claims that a pod mounts, those of its ephemeral volumes among them."""
    for volume in pod["spec"].get("volumes") or ():
        if volume.get("persistentVolumeClaim"):
            yield volume["persistentVolumeClaim"]["claimName"]
        elif volume.get("ephemeral"):
            yield f"{name_of(pod)}-{volume['name']}"


def index_by_claim(pods: Informer) -> None:
    pods.add_indexer("claim", lambda pod: [f"{namespace_of(pod)}/{name}" for name in claims_of(pod)])
