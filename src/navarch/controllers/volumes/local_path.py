"""The provisioner of the class `local-path`: a claim gets a directory of the node that its pod was placed on.

In: claims of its classes with a selected node; released volumes; nodes. Out: the class itself, made when a cluster
with nodes starts without it; a PersistentVolume per claim, bound to its node. The directory is made by the node's
kubelet when a pod first mounts it (`node/volumes/local_path.py`), and wiped by it: a Node's annotation says which are
to go and which have gone, and a volume's object goes last.
"""

from __future__ import annotations

import logging
from typing import ClassVar, Final

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, annotations_of, is_deleting, key_of, labels_of, name_of, uid_of
from navarch.client.base import PatchKind
from navarch.client.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.volumes.references import claim_reference
from navarch.kinds.core.kubelets import is_real, is_simulated
from navarch.kinds.storage import local_path
from navarch.kinds.storage.local_path import PROVISIONER

log = logging.getLogger(__name__)

_STORAGE_PROVISIONER: Final = "volume.kubernetes.io/storage-provisioner"
_SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
_DEFAULT: Final = "storageclass.kubernetes.io/is-default-class"
_HOSTNAME: Final = "kubernetes.io/hostname"
_CLASS_KEY: Final = Key("", "/class")
_RETRY_S: Final = 30.0


class LocalPathProvisioner(Controller):
    """Keys with a namespace are claims, others are volumes."""

    name: ClassVar[str] = "local-path-provisioner"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._claims = self.informer(PERSISTENT_VOLUME_CLAIMS)
        self._claims.add_handler(added=self._claim_seen, updated=lambda _old, new: self._claim_seen(new))
        self._volumes = self.informer(PERSISTENT_VOLUMES)
        self._volumes.add_handler(self._volume_seen, lambda _old, new: self._volume_seen(new), self._volume_seen)
        self._classes = self.informer(STORAGE_CLASSES)
        self._nodes = self.informer(NODES)
        self._nodes.add_handler(self._node_seen, self._node_updated, self._node_gone)
        self._recorder = context.recorder(PROVISIONER)
        self._class_is_due = context.config.local_path

    def _claim_seen(self, claim: Obj) -> None:
        if annotations_of(claim).get(_STORAGE_PROVISIONER) == PROVISIONER and not claim["spec"].get("volumeName"):
            self.enqueue(key_of(claim))

    def _volume_seen(self, volume: Obj) -> None:
        if local_path.is_ours(volume) and _is_released(volume):
            self.enqueue(Key("", name_of(volume)))

    def _node_seen(self, node: Obj) -> None:
        """Where there are no nodes that keep directories, such as beside the API server of a test, nobody has to have
        a default class."""
        if self._class_is_due and (is_real(node) or is_simulated(node)):
            self._class_is_due = False
            self.enqueue(_CLASS_KEY)

    def _node_updated(self, old: Obj, node: Obj) -> None:
        self._node_seen(node)
        told = local_path.removals(node)
        if told != local_path.removals(old):
            for name in told:
                self.enqueue(Key("", name))

    def _node_gone(self, node: Obj) -> None:
        for volume in self._volumes.list():
            if local_path.is_ours(volume) and _node_of(volume) == labels_of(node).get(_HOSTNAME):
                self._volume_seen(volume)

    async def reconcile(self, key: Key) -> Requeue | None:
        if key == _CLASS_KEY:
            await self._have_class()
        elif key.namespace:
            claim = self._claims.get(*key)
            if claim is not None and not is_deleting(claim) and not claim["spec"].get("volumeName"):
                await self._provision(claim)
        else:
            volume = self._volumes.get("", key.name)
            if volume is None:
                await self._forget(key.name)
            elif local_path.is_ours(volume) and _is_released(volume):
                return await self._remove(volume)
        return None

    async def _have_class(self) -> None:
        """A cluster that starts has the class, as its default where it has no other, once it has nodes."""
        if self._classes.get("", local_path.CLASS) is not None:
            return
        default = not any(annotations_of(one).get(_DEFAULT) == "true" for one in self._classes.list())
        made = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": local_path.CLASS, "annotations": {_DEFAULT: "true"} if default else {}},
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        try:
            await self.client.create(STORAGE_CLASSES, made)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise

    # Provisioning.

    async def _provision(self, claim: Obj) -> None:
        storage_class = self._classes.get("", claim["spec"].get("storageClassName") or "")
        if storage_class is None or storage_class["provisioner"] != PROVISIONER:
            return
        selected = annotations_of(claim).get(_SELECTED_NODE)
        node = self._nodes.get("", selected) if selected else None
        problem = _problem(claim)
        if not problem and node is None:
            problem = "no node was selected: the class has to bind when the first consumer is there"
            if selected:
                # As in Kubernetes, the scheduler has to choose again.
                problem = f'node "{selected}" not found'
                metadata = dict(claim["metadata"])
                metadata["annotations"] = {k: v for k, v in annotations_of(claim).items() if k != _SELECTED_NODE}
                await self.write(PERSISTENT_VOLUME_CLAIMS, {**claim, "metadata": metadata})
        if problem or node is None:
            words = f'failed to provision volume with StorageClass "{name_of(storage_class)}": {problem}'
            self._recorder.event(claim, "Warning", "ProvisioningFailed", words)
            return
        where = f"{key_of(claim).namespace}/{name_of(claim)}"
        doing = f'External provisioner is provisioning volume for claim "{where}"'
        self._recorder.event(claim, "Normal", "Provisioning", doing)
        volume = make_volume(claim, storage_class, node)
        try:
            await self.client.create(PERSISTENT_VOLUMES, volume)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
            return
        self._recorder.event(
            claim, "Normal", "ProvisioningSucceeded", f"Successfully provisioned volume {name_of(volume)}"
        )

    # Removing.

    async def _remove(self, volume: Obj) -> Requeue | None:
        """Have the node wipe the directory, then delete the volume."""
        if volume["spec"].get("persistentVolumeReclaimPolicy") != "Delete":
            return None
        name = name_of(volume)
        node = next((one for one in self._nodes.list() if labels_of(one).get(_HOSTNAME) == _node_of(volume)), None)
        if node is not None and not is_simulated(node):
            told = local_path.removals(node)
            if told.get(name) != local_path.DONE:
                if name not in told:
                    await self._say(node, {**told, name: local_path.WANTED})
                elif told[name] != local_path.WANTED:
                    await self._tell_failure(volume, told[name])
                    await self._say(node, {**told, name: local_path.WANTED})
                    return Requeue(_RETRY_S)
                return None
        try:
            await self.client.delete(PERSISTENT_VOLUMES, name, uid=uid_of(volume))
        except StatusError as error:
            if error.code != 404:
                raise
        return None

    async def _tell_failure(self, volume: Obj, problem: str) -> None:
        if (volume.get("status") or {}).get("message") != problem:
            self._recorder.event(volume, "Warning", "VolumeFailedDelete", problem)
            status = {**(volume.get("status") or {}), "phase": "Failed", "message": problem}
            await self.write_status(PERSISTENT_VOLUMES, volume, status)

    async def _forget(self, name: str) -> None:
        """The volume is gone; nobody needs to know of its directory."""
        for node in self._nodes.list():
            told = local_path.removals(node)
            if name in told:
                await self._say(node, {one: state for one, state in told.items() if one != name})

    async def _say(self, node: Obj, told: dict[str, str]) -> None:
        """The node's kubelet writes there, too: what is based on an older state is refused, and done again."""
        metadata = {
            "resourceVersion": node["metadata"]["resourceVersion"],
            "annotations": {local_path.REMOVALS: local_path.removals_text(told)},
        }
        await self.client.patch(NODES, name_of(node), "", {"metadata": metadata}, kind=PatchKind.MERGE)


def _problem(claim: Obj) -> str:
    """Why there cannot be a directory for the claim."""
    if claim["spec"].get("volumeMode") == "Block":
        return "block volumes are not supported"
    if claim["spec"].get("selector"):
        return "claim.Spec.Selector is not supported"
    if claim["spec"].get("dataSource") or claim["spec"].get("dataSourceRef"):
        return "a directory of a node cannot be made from a data source"
    return ""


def make_volume(claim: Obj, storage_class: Obj, node: Obj) -> Obj:
    """The volume that is the claim's: a directory of the node."""
    spec, name = claim["spec"], f"pvc-{uid_of(claim)}"
    hostname = labels_of(node).get(_HOSTNAME) or name_of(node)
    term = {"matchExpressions": [{"key": _HOSTNAME, "operator": "In", "values": [hostname]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {local_path.PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "storageClassName": name_of(storage_class),
            "local": {"path": f"/var/lib/kubelet/{local_path.FOLDER}/{name}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            "claimRef": claim_reference(claim),
        },
    }


def _is_released(volume: Obj) -> bool:
    return (volume.get("status") or {}).get("phase") in ("Released", "Failed")


def _node_of(volume: Obj) -> str:
    """The host name that the volume is bound to."""
    terms = ((volume["spec"].get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    for term in terms:
        for expression in term.get("matchExpressions") or ():
            if expression["key"] == _HOSTNAME and expression.get("values"):
                return str(expression["values"][0])
    return ""
