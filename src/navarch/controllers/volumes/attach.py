"""Attaching and detaching: a volume of a CSI driver is attached to the nodes whose pods use it, and to no other.

In: pods that have a node, their claims and volumes, what drivers ask for (CSIDriver), and nodes: which volumes they say
they use, and whether they are out of service. Out: a VolumeAttachment per volume and node, which the driver's attacher
acts on; the node's `volumesAttached`; events for the pods.
Invariant: a volume for one node is never asked for on a second one before it has left the first; none is taken from a
node that says it uses it, unless that node is out of service or has been unwell for six minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from datetime import datetime
from typing import ClassVar, Final

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, annotations_of, is_deleting, name_of, namespace_of
from navarch.client.base import PatchKind
from navarch.client.resources import (
    CSI_DRIVERS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTACHMENTS,
)
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.volumes.protection import claims_of, index_by_claim
from navarch.kinds.core.kubelets import ATTACHES
from navarch.kinds.core.pod_state import is_finished
from navarch.kinds.storage.csi_names import attachment_name, unique_name
from navarch.records import mutable

_OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
# How long a node that is not well keeps what it says it uses.
_PATIENCE_S: Final = 360.0
_LOOK_AGAIN_S: Final = 30.0


@mutable
class _Wanted:
    """A volume that pods of a node use."""

    volume: Obj
    pods: list[Obj] = field(default_factory=list)

    @property
    def unique(self) -> str:
        source = self.volume["spec"]["csi"]
        return unique_name(source["driver"], source["volumeHandle"])


class AttachDetachController(Controller):
    """Keys are nodes."""

    name: ClassVar[str] = "attachdetach"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._pods = self.informer(PODS)
        index_by_claim(self._pods)
        self._pods.add_indexer("node of claims", _node_of_claims)
        self._pods.add_handler(self._pod_changed, lambda old, new: self._pod_updated(old, new), self._pod_changed)
        self._claims = self.informer(PERSISTENT_VOLUME_CLAIMS)
        self._claims.add_handler(added=self._claim_changed, updated=self._claim_updated)
        self._volumes = self.informer(PERSISTENT_VOLUMES)
        self._volumes.add_handler(added=self._volume_changed)
        self._drivers = self.informer(CSI_DRIVERS)
        self._drivers.add_handler(
            self._driver_changed, lambda _old, new: self._driver_changed(new), self._driver_changed
        )
        self._attachments = self.informer(VOLUME_ATTACHMENTS)
        self._attachments.add_indexer("node", lambda one: (one["spec"]["nodeName"],))
        self._attachments.add_indexer("volume", _volume_of)
        self._attachments.add_handler(
            self._attachment_changed, lambda _old, new: self._attachment_changed(new), self._attachment_gone
        )
        self._nodes = self.informer(NODES)
        self._nodes.add_handler(self._node_changed, self._node_updated, self._node_changed)
        self._recorder = context.recorder("attachdetach-controller")
        # What nodes said last that they use, those that are gone as well.
        self._in_use: dict[str, frozenset[str]] = {}
        # Since when an attachment is wanted no longer.
        self._unwanted: dict[str, datetime] = {}
        # What was told of each attachment and of each volume that is elsewhere, so that it is told once.
        self._told: dict[str, str] = {}

    # What wakes it.

    def _pod_changed(self, pod: Obj) -> None:
        for node in _node_of_claims(pod):
            self.enqueue(Key("", node))

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        if old["spec"].get("nodeName") != pod["spec"].get("nodeName") or is_finished(old) != is_finished(pod):
            self._pod_changed(pod)

    def _claim_changed(self, claim: Obj) -> None:
        for pod in self._pods.by_index("claim", f"{namespace_of(claim)}/{name_of(claim)}"):
            self._pod_changed(pod)

    def _claim_updated(self, old: Obj, claim: Obj) -> None:
        if _is_bound(old) != _is_bound(claim):
            self._claim_changed(claim)

    def _volume_changed(self, volume: Obj) -> None:
        reference = volume["spec"].get("claimRef") or {}
        if volume["spec"].get("csi") and reference:
            claim = self._claims.get(reference.get("namespace", ""), reference.get("name", ""))
            if claim is not None:
                self._claim_changed(claim)

    def _driver_changed(self, driver: Obj) -> None:
        for volume in self._volumes.list():
            if (volume["spec"].get("csi") or {}).get("driver") == name_of(driver):
                self._volume_changed(volume)

    def _attachment_changed(self, attachment: Obj) -> None:
        self.enqueue(Key("", attachment["spec"]["nodeName"]))

    def _attachment_gone(self, attachment: Obj) -> None:
        self._attachment_changed(attachment)
        self._unwanted.pop(name_of(attachment), None)
        self._told.pop(name_of(attachment), None)
        # Whoever waits for the volume to come free.
        volume = self._volumes.get("", next(iter(_volume_of(attachment)), ""))
        if volume is not None:
            self._volume_changed(volume)

    def _node_changed(self, node: Obj) -> None:
        name = name_of(node)
        self._in_use[name] = frozenset((node.get("status") or {}).get("volumesInUse") or ())
        if self._attachments.by_index("node", name) or self._pods.by_index("node of claims", name):
            self.enqueue(Key("", name))

    def _node_updated(self, old: Obj, node: Obj) -> None:
        if _what_matters(old) != _what_matters(node):
            self._node_changed(node)

    # What it does.

    async def reconcile(self, key: Key) -> Requeue | None:
        name = key.name
        node = self._nodes.get("", name)
        wanted = self._wanted(node)
        present = {name_of(one): one for one in self._attachments.by_index("node", name)}
        ours = {
            attachment: one
            for one in present.values()
            if (attachment := self._attachment_of(one, name)) == name_of(one)
        }
        again = False
        for attachment, one in wanted.items():
            known = ours.get(attachment)
            if known is None:
                again |= not await self._attach(attachment, one, name)
            else:
                self._tell(known, one)
        for attachment in wanted:
            self._unwanted.pop(attachment, None)
        leaving = [known for attachment, known in ours.items() if attachment not in wanted]
        going = [known for known in leaving if self._may_go(known, node, name)]
        await self._say_attached(node, [known for known in ours.values() if known not in going])
        for known in going:
            await self._detach(known)
        if again or len(going) < len(leaving):
            return Requeue(_LOOK_AGAIN_S)
        return None

    def _wanted(self, node: Obj | None) -> dict[str, _Wanted]:
        """By the attachment's name, what the pods of a node use and a driver wants attached."""
        found: dict[str, _Wanted] = {}
        if node is None or annotations_of(node).get(ATTACHES) != "true":
            return found
        for pod in self._pods.by_index("node of claims", name_of(node)):
            if is_finished(pod):
                continue
            for volume in self._volumes_of(pod):
                source = volume["spec"]["csi"]
                attachment = attachment_name(source["volumeHandle"], source["driver"], name_of(node))
                found.setdefault(attachment, _Wanted(volume)).pods.append(pod)
        return found

    def _volumes_of(self, pod: Obj) -> Iterator[Obj]:
        for name in claims_of(pod):
            claim = self._claims.get(namespace_of(pod), name)
            volume = (
                self._volumes.get("", claim["spec"].get("volumeName") or "") if claim and _is_bound(claim) else None
            )
            if volume is not None and volume["spec"].get("csi") and self._is_attached(volume["spec"]["csi"]["driver"]):
                yield volume

    def _is_attached(self, driver: str) -> bool:
        """Whether a driver's volumes are; where it does not say, they are."""
        about = self._drivers.get("", driver)
        return about is None or bool(about["spec"].get("attachRequired", True))

    def _attachment_of(self, attachment: Obj, node: str) -> str:
        """The name that an attachment would have if it were of this controller's making."""
        volume = self._volumes.get("", next(iter(_volume_of(attachment)), ""))
        source = (volume or {"spec": {}})["spec"].get("csi")
        if not source:
            # Its volume is gone; nobody else gives such names.
            return name_of(attachment) if name_of(attachment).startswith("csi-") else ""
        return attachment_name(source["volumeHandle"], source["driver"], node)

    async def _attach(self, attachment: str, wanted: _Wanted, node: str) -> bool:
        """Ask for the volume; False while it is somewhere else."""
        volume = wanted.volume
        elsewhere = [
            one["spec"]["nodeName"]
            for one in self._attachments.by_index("volume", name_of(volume))
            if one["spec"]["nodeName"] != node
        ]
        if elsewhere and not _is_for_many(volume):
            self._tell_taken(attachment, wanted, elsewhere)
            return False
        self._told.pop(attachment, None)
        made = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "VolumeAttachment",
            "metadata": {"name": attachment},
            "spec": {
                "attacher": volume["spec"]["csi"]["driver"],
                "nodeName": node,
                "source": {"persistentVolumeName": name_of(volume)},
            },
        }
        try:
            await self.client.create(VOLUME_ATTACHMENTS, made)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
        return True

    def _tell(self, attachment: Obj, wanted: _Wanted) -> None:
        """Events for how attaching goes, once for each turn that it takes."""
        status = attachment.get("status") or {}
        problem = (status.get("attachError") or {}).get("message") or ""
        told = "attached" if status.get("attached") else f"{(status.get('attachError') or {}).get('time')} {problem}"
        if self._told.get(name_of(attachment)) == told or not (status.get("attached") or problem):
            return
        self._told[name_of(attachment)] = told
        name = name_of(wanted.volume)
        for pod in wanted.pods:
            if status.get("attached"):
                message = f'AttachVolume.Attach succeeded for volume "{name}" '
                self._recorder.event(pod, "Normal", "SuccessfulAttachVolume", message)
            else:
                message = f'AttachVolume.Attach failed for volume "{name}" : {problem}'
                self._recorder.event(pod, "Warning", "FailedAttachVolume", message)

    def _tell_taken(self, attachment: str, wanted: _Wanted, elsewhere: list[str]) -> None:
        volume = name_of(wanted.volume)
        users = sorted(
            f"{name_of(pod)}"
            for node in elsewhere
            for pod in self._pods.by_index("node of claims", node)
            if any(name_of(one) == volume for one in self._volumes_of(pod))
        )
        why = "Volume is already exclusively attached to one node and can't be attached to another"
        if users:
            why = f"Volume is already used by pod(s) {', '.join(users)}"
        if self._told.get(attachment) == why:
            return
        self._told[attachment] = why
        for pod in wanted.pods:
            message = f'Multi-Attach error for volume "{volume}" {why}'
            self._recorder.event(pod, "Warning", "FailedAttachVolume", message)

    def _may_go(self, attachment: Obj, node: Obj | None, name: str) -> bool:
        if is_deleting(attachment):
            return True
        since = self._unwanted.setdefault(name_of(attachment), self.clock.now())
        if self._unique_of(attachment) not in self._in_use.get(name, ()):
            return True
        if node is not None and any(one["key"] == _OUT_OF_SERVICE for one in node["spec"].get("taints") or ()):
            return True
        waited_s = (self.clock.now() - since).total_seconds()
        return waited_s >= _PATIENCE_S and (node is None or not _is_ready(node))

    def _unique_of(self, attachment: Obj) -> str:
        volume = self._volumes.get("", next(iter(_volume_of(attachment)), ""))
        source = (volume or {"spec": {}})["spec"].get("csi")
        return unique_name(source["driver"], source["volumeHandle"]) if source else ""

    async def _say_attached(self, node: Obj | None, attachments: Iterable[Obj]) -> None:
        """The node's `volumesAttached`: before something is taken away, the kubelet is told not to begin with it."""
        if node is None:
            return
        names = {self._unique_of(one) for one in attachments if (one.get("status") or {}).get("attached")}
        listed = [{"name": name, "devicePath": ""} for name in sorted(names - {""})]
        stated = (node.get("status") or {}).get("volumesAttached") or []
        if sorted(one["name"] for one in stated) == [one["name"] for one in listed]:
            return
        patch = {"status": {"volumesAttached": listed or None}}
        try:
            await self.client.patch(NODES, name_of(node), "", patch, kind=PatchKind.MERGE, subresource="status")
        except StatusError as error:
            if error.code != 404:
                raise

    async def _detach(self, attachment: Obj) -> None:
        if is_deleting(attachment):
            return
        try:
            await self.client.delete(VOLUME_ATTACHMENTS, name_of(attachment))
        except StatusError as error:
            if error.code != 404:
                raise


def _node_of_claims(pod: Obj) -> tuple[str, ...]:
    """The pod's node, if it mounts claims."""
    node = pod["spec"].get("nodeName")
    return (node,) if node and next(iter(claims_of(pod)), None) is not None else ()


def _volume_of(attachment: Obj) -> tuple[str, ...]:
    name = (attachment["spec"].get("source") or {}).get("persistentVolumeName")
    return (name,) if name else ()


def _is_bound(claim: Obj) -> bool:
    return bool(claim["spec"].get("volumeName")) and (claim.get("status") or {}).get("phase") == "Bound"


def _is_for_many(volume: Obj) -> bool:
    """Whether several nodes may have the volume at a time; one that does not say may, as the driver will judge."""
    modes = volume["spec"].get("accessModes") or ()
    return not modes or bool({"ReadWriteMany", "ReadOnlyMany"}.intersection(modes))


def _is_ready(node: Obj) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _what_matters(node: Obj) -> tuple[object, ...]:
    status = node.get("status") or {}
    return (
        status.get("volumesInUse") or (),
        status.get("volumesAttached") or (),
        [one["key"] for one in node["spec"].get("taints") or ()],
        _is_ready(node),
        annotations_of(node).get(ATTACHES),
    )
