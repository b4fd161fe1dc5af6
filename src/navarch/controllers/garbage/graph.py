"""The graph of owner references over all objects of a cluster.

In: the metadata of every object as informers report it. Out: for each change, the uids whose fate may have changed.
Pure bookkeeping, no I/O. Invariant: every uid that an object names as its owner has a node; a node that no informer has
shown yet is `virtual` and must be looked up before anything is concluded from it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import field

from navarch.api.meta import Obj, Resource, owner_references_of
from navarch.records import mutable

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_REMEMBERED_ABSENT = 5000


@mutable(eq=False)
class Node:
    """An object, or for a virtual node what an owner reference says of it (`resource` is None where unknown)."""

    uid: str
    namespace: str = ""
    name: str = ""
    resource: Resource | None = None
    api_version: str = ""
    kind: str = ""
    revision: str = ""
    owners: tuple[Obj, ...] = ()
    finalizers: tuple[str, ...] = ()
    deleting: bool = False
    virtual: bool = True
    dependents: dict[str, Node] = field(default_factory=dict)

    @property
    def waits_for_dependents(self) -> bool:
        """Whether it is being deleted in the foreground."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphans_dependents(self) -> bool:
        return self.deleting and ORPHAN in self.finalizers

    def is_named_by(self, reference: Obj) -> bool:
        """Whether an owner reference says of this object what it is."""
        return _coordinates(reference) == _coordinates(self.reference)

    @property
    def reference(self) -> Obj:
        """An owner reference to it."""
        return {"apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid}

    def blocks(self, owner: Node) -> bool:
        """Whether the owner's foreground deletion has to wait for this one."""
        return any(ref["uid"] == owner.uid and ref.get("blockOwnerDeletion") for ref in self.owners)


def _coordinates(reference: Obj) -> tuple[str, str, str, str]:
    """What an owner reference says of its owner; in which version does not matter."""
    return reference["apiVersion"].rpartition("/")[0], reference["kind"], reference["name"], reference["uid"]


@mutable
class Changes:
    """Nodes to look at again, to delete or unblock, or to orphan the dependents of; and dependents with an owner that
    lives in another namespace."""

    examine: list[str] = field(default_factory=list)
    orphan: list[str] = field(default_factory=list)
    foreign: list[tuple[Node, Node]] = field(default_factory=list)


class Graph:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._absent: OrderedDict[tuple[str, ...], None] = OrderedDict()

    def is_gone(self, uid: str) -> bool:
        """Whether the object was seen to go."""
        return uid in self._gone

    def is_absent(self, namespace: str, reference: Obj) -> bool:
        """Whether what an owner reference of an object in `namespace` names is known not to exist."""
        return reference["uid"] in self._gone or (namespace, *_coordinates(reference)) in self._absent

    def note_absent(self, namespace: str, reference: Obj) -> None:
        """What the reference names was looked for in vain. That another one, which says something else of the same
        uid, names nothing either does not follow."""
        self._absent[namespace, *_coordinates(reference)] = None
        if len(self._absent) > _REMEMBERED_ABSENT:
            self._absent.popitem(last=False)

    def _note_gone(self, uid: str) -> None:
        # A uid never comes back.
        self._gone[uid] = None
        if len(self._gone) > _REMEMBERED_ABSENT:
            self._gone.popitem(last=False)

    def observe(self, resource: Resource, obj: Obj) -> Changes:
        """An object was added or changed."""
        metadata = obj["metadata"]
        changes = Changes()
        uid = metadata["uid"]
        node = self.nodes.get(uid)
        if node is None:
            node = self.nodes[uid] = Node(uid)
        was_virtual = node.virtual
        was_waiting, was_orphaning, before = node.waits_for_dependents, node.orphans_dependents, node.owners
        node.virtual = False
        node.resource, node.api_version, node.kind = resource, resource.api_version, resource.kind
        node.namespace, node.name = metadata.get("namespace", ""), metadata["name"]
        node.revision = metadata.get("resourceVersion", "")
        node.owners = tuple(owner_references_of(obj))
        node.finalizers = tuple(metadata.get("finalizers") or ())
        node.deleting = bool(metadata.get("deletionTimestamp"))
        if node.owners != before:
            self._relink(node, before, changes)
        if was_virtual:
            for dependent in node.dependents.values():
                self._check(dependent, node, changes)
        if node.orphans_dependents and not was_orphaning:
            changes.orphan.append(uid)
        if node.waits_for_dependents and not was_waiting:
            changes.examine += [*node.dependents, uid]
        for reference in node.owners:
            # A dependent that itself goes away may be what a waiting owner, further up, has to be told of.
            owner = self.nodes.get(reference["uid"])
            if owner is not None and owner.waits_for_dependents and (node.owners != before or not was_waiting):
                changes.examine.append(uid)
        return changes

    def _relink(self, node: Node, before: Iterable[Obj], changes: Changes) -> None:
        names = {reference["uid"] for reference in node.owners}
        old = {reference["uid"]: reference for reference in before}
        for uid in [uid for uid in old if uid not in names]:
            self._unlink(node, uid, changes)
        for reference in node.owners:
            uid = reference["uid"]
            known = old.get(uid)
            owner = self.nodes.get(uid)
            if owner is None:
                owner = self.nodes[uid] = Node(uid, node.namespace, reference["name"])
                owner.api_version, owner.kind = reference["apiVersion"], reference["kind"]
                changes.examine.append(uid)
            owner.dependents[node.uid] = node
            if known is not None and known.get("blockOwnerDeletion") and not reference.get("blockOwnerDeletion"):
                if owner.waits_for_dependents:
                    changes.examine.append(uid)
            if known is None:
                if self.is_absent(node.namespace, reference):
                    changes.examine.append(node.uid)
                self._check(node, owner, changes)

    def _check(self, dependent: Node, owner: Node, changes: Changes) -> None:
        """A reference that says something else of the owner than an informer has shown, or than another dependent says,
        may name nothing that exists."""
        if owner.namespace not in ("", dependent.namespace):
            changes.examine.append(dependent.uid)
            if not owner.virtual:
                changes.foreign.append((dependent, owner))
        elif not all(owner.is_named_by(ref) for ref in dependent.owners if ref["uid"] == owner.uid):
            changes.examine.append(dependent.uid)

    def _unlink(self, node: Node, owner_uid: str, changes: Changes) -> None:
        owner = self.nodes.get(owner_uid)
        if owner is None:
            return
        owner.dependents.pop(node.uid, None)
        if owner.waits_for_dependents:
            changes.examine.append(owner_uid)
        if owner.virtual and not owner.dependents:
            del self.nodes[owner_uid]

    def remove(self, uid: str) -> Changes:
        """An object is gone."""
        changes = Changes()
        node = self.nodes.pop(uid, None)
        self._note_gone(uid)
        if node is None:
            return changes
        for reference in node.owners:
            self._unlink(node, reference["uid"], changes)
        changes.examine += list(node.dependents)
        if node.dependents:
            # Kept as the owner that its dependents still name, until they have let go of it.
            ghost = self.nodes[uid] = Node(uid, node.namespace, node.name, node.resource, node.api_version, node.kind)
            ghost.dependents = node.dependents
        return changes

    def doubt(self, resource: Resource) -> None:
        """Objects of the resource can no longer be followed: those that are named as owners must be looked up again
        before anything is concluded from them, the others are nobody's business."""
        ignored = Changes()
        for node in [node for node in self.nodes.values() if node.resource == resource and not node.virtual]:
            for reference in node.owners:
                self._unlink(node, reference["uid"], ignored)
            node.owners, node.finalizers, node.deleting, node.virtual = (), (), False, True
            if not node.dependents:
                self.nodes.pop(node.uid, None)
