"""The volume binder: each claim gets the smallest volume that meets it, and keeps it.

In: PersistentVolumeClaims, PersistentVolumes, StorageClasses, pods. Out: the binding on both sides (`spec.claimRef`,
`spec.volumeName`), phases, and what the reclaim policy says of volumes whose claim is gone. Volumes are made by people
or by provisioners of their own; a claim of a class with WaitForFirstConsumer waits until its pod has a node.
"""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

from navarch.api import quantity
from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, Resource, annotations_of, is_deleting, key_of, labels_of, name_of, uid_of
from navarch.api.selectors import label_selector_of
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.pods import same_semantics
from navarch.controllers.volumes.protection import claims_of, index_by_claim
from navarch.controllers.volumes.references import claim_reference

_BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
_BOUND_BY = "pv.kubernetes.io/bound-by-controller"
_SELECTED_NODE = "volume.kubernetes.io/selected-node"
_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
_PROVISIONER_BETA = "volume.beta.kubernetes.io/storage-provisioner"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_DEFAULT = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_NO_PROVISIONER = "kubernetes.io/no-provisioner"


class VolumeBinder(Controller):
    """Keys with a namespace are claims, those without are volumes. One worker, as every claim competes for volumes."""

    name: ClassVar[str] = "persistentvolume-binder"
    workers: ClassVar[int] = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._claims = self.watch_primary(PERSISTENT_VOLUME_CLAIMS)
        self._claims.add_handler(deleted=self._claim_deleted)
        self._volumes = self.watch_primary(PERSISTENT_VOLUMES)
        self._volumes.add_handler(
            added=self._volume_seen,
            updated=self._volume_updated,
            deleted=self._its_claim,
        )
        self._classes = self.informer(STORAGE_CLASSES)
        self._classes.add_handler(added=lambda _class: self._all_pending(), updated=self._class_updated)
        self._pods = self.informer(PODS)
        index_by_claim(self._pods)
        self._pods.add_handler(updated=self._pod_updated)
        self._recorder = context.recorder("persistentvolume-controller")

    def _claim_deleted(self, claim: Obj) -> None:
        if claim["spec"].get("volumeName"):
            self.enqueue(Key("", claim["spec"]["volumeName"]))

    def _volume_seen(self, volume: Obj) -> None:
        if not volume["spec"].get("claimRef"):
            self._all_pending(name_of(volume))
        else:
            self._its_claim(volume)

    def _volume_updated(self, old: Obj, new: Obj) -> None:
        if old["spec"].get("claimRef") != new["spec"].get("claimRef"):
            # Whose it was may have lost it.
            self._its_claim(old)
        self._volume_seen(new)

    def _its_claim(self, volume: Obj) -> None:
        if reference := volume["spec"].get("claimRef"):
            self.enqueue(Key(reference.get("namespace", ""), reference.get("name", "")))

    def _all_pending(self, volume: str = "") -> None:
        """Claims that could have a volume that is free, among them those that ask for it by name."""
        for claim in self._claims.list():
            if claim["spec"].get("volumeName") in (None, "", volume):
                self.enqueue(key_of(claim))

    def _class_updated(self, old: Obj, new: Obj) -> None:
        if is_default_class(new) and not is_default_class(old):
            self._all_pending()

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        if pod["spec"].get("nodeName") and not old["spec"].get("nodeName"):
            for name in claims_of(pod):
                self.enqueue(Key(pod["metadata"]["namespace"], name))

    async def reconcile(self, key: Key) -> Requeue | None:
        if key.namespace:
            claim = self._claims.get(*key)
            if claim is not None and not is_deleting(claim):
                await self._sync_claim(self.newest(PERSISTENT_VOLUME_CLAIMS, claim))
        else:
            volume = self._volumes.get("", key.name)
            if volume is not None:
                await self._sync_volume(self.newest(PERSISTENT_VOLUMES, volume))
        return None

    # Claims.

    async def _sync_claim(self, claim: Obj) -> None:
        name = claim["spec"].get("volumeName")
        if name:
            cached = self._volumes.get("", name)
            if cached is None:
                bound = _BIND_COMPLETED in annotations_of(claim)
                if bound and await self.client.find(PERSISTENT_VOLUMES, name) is not None:
                    # Claims and volumes are told of separately; the volume's own event is still to come.
                    return
                if bound:
                    message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
                    await self._lose(claim, "ClaimLost", message)
                else:
                    await self._set_phase(PERSISTENT_VOLUME_CLAIMS, claim, "Pending")
                return
            volume = self.newest(PERSISTENT_VOLUMES, cached)
            reference = volume["spec"].get("claimRef")
            if reference is None and (problem := mismatch(volume, claim)):
                message = f'Cannot bind to requested volume "{name}": {problem}'
                self._recorder.event(claim, "Warning", "VolumeMismatch", message)
                await self._set_phase(PERSISTENT_VOLUME_CLAIMS, claim, "Pending")
            elif reference is None or _refers(reference, claim):
                await self._bind(volume, claim)
            elif _BIND_COMPLETED in annotations_of(claim):
                message = "Two claims are bound to the same volume, this one is bound incorrectly"
                await self._lose(claim, "ClaimMisbound", message)
            else:
                message = f'volume "{name}" already bound to a different claim.'
                self._recorder.event(claim, "Warning", "FailedBinding", message)
                await self._set_phase(PERSISTENT_VOLUME_CLAIMS, claim, "Pending")
            return
        await self._find(claim)

    async def _find(self, claim: Obj) -> None:
        if claim["spec"].get("storageClassName") is None and (default := default_class(self._classes.list())):
            # It came before there was a default class, and had none since.
            spec = {**claim["spec"], "storageClassName": default}
            claim = await self.write(PERSISTENT_VOLUME_CLAIMS, {**claim, "spec": spec})
        volumes = [self.newest(PERSISTENT_VOLUMES, volume) for volume in self._volumes.list()]
        volume = best_volume(claim, volumes)
        storage_class = self._classes.get("", claim["spec"].get("storageClassName") or "")
        prebound = volume is not None and volume["spec"].get("claimRef") is not None
        waits = storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"
        selected = _SELECTED_NODE in annotations_of(claim) or self._has_scheduled_pod(claim)
        if volume is not None and (prebound or not waits or selected):
            await self._bind(volume, claim)
            return
        await self._set_phase(PERSISTENT_VOLUME_CLAIMS, claim, "Pending")
        provisioner = (storage_class or {}).get("provisioner") or ""
        if waits and not selected:
            reason, message = "WaitForFirstConsumer", "waiting for first consumer to be created before binding"
            if unplaced := self._unplaced_pods(claim):
                reason = "WaitForPodScheduled"
                message = f"waiting for pod {','.join(unplaced)} to be scheduled"
            self._recorder.event(claim, "Normal", reason, message)
        elif provisioner and provisioner != _NO_PROVISIONER:
            await self._ask_for_provisioning(claim, provisioner)
        else:
            message = "no persistent volumes available for this claim and no storage class is set"
            wanted = claim["spec"].get("storageClassName")
            if wanted and storage_class is None:
                message = f'storageclass.storage.k8s.io "{wanted}" not found'
                self._recorder.event(claim, "Warning", "ProvisioningFailed", message)
            else:
                self._recorder.event(claim, "Normal", "FailedBinding", message)

    async def _ask_for_provisioning(self, claim: Obj, provisioner: str) -> None:
        if annotations_of(claim).get(_PROVISIONER) != provisioner:
            marks = {_PROVISIONER: provisioner, _PROVISIONER_BETA: provisioner}
            metadata = {**claim["metadata"], "annotations": {**annotations_of(claim), **marks}}
            claim = await self.write(PERSISTENT_VOLUME_CLAIMS, {**claim, "metadata": metadata})
        message = f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually "
        message += "by the system administrator. If volume creation is delayed, please verify that the provisioner is "
        message += "running and correctly registered."
        self._recorder.event(claim, "Normal", "ExternalProvisioning", message)

    def _has_scheduled_pod(self, claim: Obj) -> bool:
        namespace, name = key_of(claim)
        users = self._pods.by_index("claim", f"{namespace}/{name}")
        return any(pod["spec"].get("nodeName") for pod in users)

    def _unplaced_pods(self, claim: Obj) -> list[str]:
        """Pods that use the claim and have no node."""
        namespace, name = key_of(claim)
        users = self._pods.by_index("claim", f"{namespace}/{name}")
        return sorted(name_of(pod) for pod in users if not pod["spec"].get("nodeName") and not is_deleting(pod))

    async def _bind(self, volume: Obj, claim: Obj) -> None:
        """The volume's side first: two claims cannot both win it, as the write carries its resourceVersion."""
        reference = volume["spec"].get("claimRef")
        if reference is None or reference.get("uid") != uid_of(claim):
            made = claim_reference(claim)
            metadata = dict(volume["metadata"])
            if reference is None:
                metadata["annotations"] = {**annotations_of(volume), _BOUND_BY: "yes"}
            volume = await self.write(
                PERSISTENT_VOLUMES, {**volume, "metadata": metadata, "spec": {**volume["spec"], "claimRef": made}}
            )
        await self._set_phase(PERSISTENT_VOLUMES, volume, "Bound")
        annotations = dict(annotations_of(claim))
        if not claim["spec"].get("volumeName"):
            annotations[_BOUND_BY] = "yes"
        annotations[_BIND_COMPLETED] = "yes"
        if claim["spec"].get("volumeName") != name_of(volume) or annotations != annotations_of(claim):
            metadata = {**claim["metadata"], "annotations": annotations}
            spec = {**claim["spec"], "volumeName": name_of(volume)}
            claim = await self.write(PERSISTENT_VOLUME_CLAIMS, {**claim, "metadata": metadata, "spec": spec})
        known = claim.get("status") or {}
        status = {**known, "phase": "Bound", "accessModes": volume["spec"].get("accessModes") or []}
        if known.get("phase") != "Bound":
            # Later, it is told by whoever makes it bigger: first the driver's controller, then the node.
            status["capacity"] = {"storage": (volume["spec"].get("capacity") or {}).get("storage", "0")}
            if attributes := volume["spec"].get("volumeAttributesClassName"):
                status["currentVolumeAttributesClassName"] = attributes
        if not same_semantics(status, known):
            await self.write_status(PERSISTENT_VOLUME_CLAIMS, claim, status)

    async def _set_phase(self, resource: Resource, obj: Obj, phase: str) -> Obj:
        status = obj.get("status") or {}
        if status.get("phase") == phase:
            return obj
        if resource == PERSISTENT_VOLUME_CLAIMS:
            # Without a volume it has nothing of one.
            status = {name: value for name, value in status.items() if name not in ("accessModes", "capacity")}
        return await self.write_status(resource, obj, {**status, "phase": phase})

    async def _lose(self, claim: Obj, reason: str, message: str) -> None:
        """What was bound is so no longer, and never will be: told once."""
        if (claim.get("status") or {}).get("phase") != "Lost":
            claim = await self._set_phase(PERSISTENT_VOLUME_CLAIMS, claim, "Lost")
            self._recorder.event(claim, "Warning", reason, message)

    # Volumes.

    async def _sync_volume(self, volume: Obj) -> None:
        reference = volume["spec"].get("claimRef")
        if reference is None:
            await self._set_phase(PERSISTENT_VOLUMES, volume, "Available")
            return
        if not reference.get("uid"):
            await self._set_phase(PERSISTENT_VOLUMES, volume, "Available")
            return
        claim = self._claims.get(reference.get("namespace", ""), reference.get("name", ""))
        if claim is not None and uid_of(claim) == reference["uid"]:
            if claim["spec"].get("volumeName") in (None, "", name_of(volume)):
                return
            if not annotations_of(volume).get(_PROVISIONED_BY) or not _is_deleted_when_released(volume):
                await self._unbind(volume)
                return
            # Made for a claim that has taken another one meanwhile: nobody wants it.
        else:
            live = await self.client.find(PERSISTENT_VOLUME_CLAIMS, reference["name"], reference["namespace"])
            if live is not None and uid_of(live) == reference["uid"]:
                return
        await self._release(volume)

    async def _unbind(self, volume: Obj) -> None:
        """The volume's claim has another one: it is free again, or, where people reserved it, waits for that claim."""
        metadata, spec = dict(volume["metadata"]), dict(volume["spec"])
        if _BOUND_BY in annotations_of(volume):
            metadata["annotations"] = {k: v for k, v in annotations_of(volume).items() if k != _BOUND_BY}
            del spec["claimRef"]
        else:
            spec["claimRef"] = {k: v for k, v in spec["claimRef"].items() if k != "uid"}
        if spec == volume["spec"]:
            return
        volume = await self.write(PERSISTENT_VOLUMES, {**volume, "metadata": metadata, "spec": spec})
        await self._set_phase(PERSISTENT_VOLUMES, volume, "Available")

    async def _release(self, volume: Obj) -> None:
        """Nobody uses the volume any more: what its reclaim policy says."""
        if (volume.get("status") or {}).get("phase") != "Failed":
            # Why it failed stays told until whoever deletes it has.
            volume = await self._set_phase(PERSISTENT_VOLUMES, volume, "Released")
        policy = volume["spec"].get("persistentVolumeReclaimPolicy")
        if is_deleting(volume):
            return
        if policy == "Recycle":
            # Deprecated long since; as where Kubernetes has no plugin that wipes volumes of the type.
            await self._fail(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
        if policy != "Delete":
            return
        if annotations_of(volume).get(_PROVISIONED_BY):
            # Whoever made it deletes it.
            return
        if volume["spec"].get("hostPath"):
            # What is on a node's own disk is not this controller's to wipe; only the object goes.
            try:
                await self.client.delete(PERSISTENT_VOLUMES, name_of(volume), uid=uid_of(volume))
            except StatusError as error:
                if error.code != 404:
                    raise
        else:
            why = f'error getting deleter volume plugin for volume "{name_of(volume)}": no deletable volume plugin'
            why += " matched"
            await self._fail(volume, "VolumeFailedDelete", why)

    async def _fail(self, volume: Obj, reason: str, why: str) -> None:
        status = {**(volume.get("status") or {}), "phase": "Failed", "message": why}
        if status != volume.get("status"):
            self._recorder.event(volume, "Warning", reason, why)
            await self.write_status(PERSISTENT_VOLUMES, volume, status)


def _is_deleted_when_released(volume: Obj) -> bool:
    return bool(volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete")


def is_default_class(storage_class: Obj) -> bool:
    annotations = annotations_of(storage_class)
    return any(annotations.get(name) == "true" for name in _DEFAULT)


def default_class(classes: list[Obj]) -> str:
    """The default class, of several the newest, as Kubernetes has it; empty where there is none."""
    marked = [one for one in classes if is_default_class(one)]
    marked.sort(key=name_of)
    marked.sort(key=lambda one: one["metadata"].get("creationTimestamp") or "", reverse=True)
    return name_of(marked[0]) if marked else ""


def _refers(reference: Obj, claim: Obj) -> bool:
    same_name = (reference.get("namespace"), reference.get("name")) == tuple(key_of(claim))
    return same_name and reference.get("uid") in (None, "", uid_of(claim))


def mismatch(volume: Obj, claim: Obj) -> str:
    """Why a free volume does not do for the claim; empty if it does."""
    offered, spec = volume["spec"], claim["spec"]
    if _storage(offered.get("capacity")) < _storage((spec.get("resources") or {}).get("requests")):
        return "requested PV is too small"
    if (offered.get("storageClassName") or "") != (spec.get("storageClassName") or ""):
        return "storageClassName does not match"
    if _volume_mode(volume) != _volume_mode(claim):
        return "incompatible volumeMode"
    if not set(spec.get("accessModes") or ()) <= set(offered.get("accessModes") or ()):
        return "incompatible accessMode"
    if (offered.get("volumeAttributesClassName") or "") != (spec.get("volumeAttributesClassName") or ""):
        return "volumeAttributesClassName does not match"
    return ""


def _volume_mode(obj: Obj) -> str:
    return obj["spec"].get("volumeMode") or "Filesystem"


def best_volume(claim: Obj, volumes: list[Obj]) -> Obj | None:
    """The volume reserved for the claim, else the smallest free one that meets it."""
    spec = claim["spec"]
    selector = label_selector_of(spec["selector"]) if spec.get("selector") else None
    best: tuple[Fraction, str, Obj] | None = None
    for volume in volumes:
        if is_deleting(volume):
            continue
        reference = volume["spec"].get("claimRef")
        if reference is not None:
            if _refers(reference, claim) and _volume_mode(volume) == _volume_mode(claim):
                return volume
            continue
        if mismatch(volume, claim):
            continue
        size = _storage(volume["spec"].get("capacity"))
        if (volume.get("status") or {}).get("phase") not in (None, "Pending", "Available"):
            continue
        if selector is not None and not selector.matches(labels_of(volume)):
            continue
        if best is None or (size, name_of(volume)) < best[:2]:
            best = (size, name_of(volume), volume)
    return best[2] if best is not None else None


def _storage(amounts: Obj | None) -> Fraction:
    return quantity.parse((amounts or {}).get("storage") or "0")
