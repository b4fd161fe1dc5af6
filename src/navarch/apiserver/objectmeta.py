"""The metadata that the server itself keeps: identity on create, what no update changes, deletion marks, generation."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from navarch.api.errors import StatusError, conflict, unexplained
from navarch.api.meta import Obj, Resource, new_uid
from navarch.api.time import format_time, parse_time
from navarch.apiserver.list_options import why_no_revision
from navarch.kinds.base import Kind
from navarch.records import frozen

_KEPT = ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
# What nobody but the server says of a new object.
_SYSTEM = (
    "creationTimestamp",
    "uid",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "resourceVersion",
    "generation",
)
_LONGEST_GRACE_S = 100 * 365 * 86_400
_NOT_SPEC = frozenset({"apiVersion", "kind", "metadata", "status"})


@frozen
class Stated:
    """What a client says of a new object that nobody else may say."""

    revision: str = ""
    generation: int = 0

    def refuse_revision(self) -> None:
        """What is new has no revision yet; one that is no number counts as none.  Raises StatusError 500."""
        if self.revision and not why_no_revision(self.revision) and int(self.revision):
            raise unexplained("resourceVersion should not be set on objects to be created")


_NOTHING_STATED = Stated()


def wipe_on_create(obj: Obj) -> Stated:
    """Forget what a client says of a new object that it cannot know: it does not own it either."""
    metadata = obj["metadata"]
    stated = _NOTHING_STATED
    if "resourceVersion" in metadata or "generation" in metadata:
        stated = Stated(str(metadata.get("resourceVersion") or ""), metadata.get("generation") or 0)
    for name in _SYSTEM:
        if name in metadata:
            del metadata[name]
    return stated


def fill_on_create(obj: Obj, kind: Kind, now: str, source: random.Random, stated: Stated) -> None:
    """Give a new object its identity, whatever it says of it. Kinds that count no generations keep the client's."""
    metadata = obj["metadata"]
    for name in _SYSTEM:
        if name in metadata:
            del metadata[name]
    metadata["uid"] = new_uid(source)
    metadata["creationTimestamp"] = now
    if generation := (kind.strategy.first_generation if kind.strategy.has_generation else 0) or stated.generation:
        metadata["generation"] = generation


def check_uid(obj: Obj, old: Obj, kind: Kind) -> None:
    """Who replaces an object may say which one he means by its uid.  Raises StatusError 409."""
    if (stated := obj["metadata"].get("uid")) and stated != old["metadata"].get("uid", ""):
        check_identity({"uid": stated}, old, kind.resource)


def check_identity(stated: Obj, old: Obj, resource: Resource) -> None:
    """The uid and the version that the object must still have, where they are stated.  Raises StatusError 409."""
    was = old["metadata"]
    for name, shown in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        wanted, found = stated.get(name), was.get(name, "")
        if not wanted or wanted == found:
            continue
        key = "/".join(part for part in ("/registry", resource.plural, was.get("namespace"), was["name"]) if part)
        # In the words in which Kubernetes passes on what its store says.
        why = (
            f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: "
            f"Precondition failed: {shown} in precondition: {wanted}, {shown} in object meta: {found}"
        )
        raise conflict(resource.plural, resource.group, was["name"], why)


def keep_on_update(obj: Obj, old: Obj) -> None:
    """What nobody changes by an update comes from the stored object. Another uid is left, for validation to refuse."""
    metadata, was = obj["metadata"], old["metadata"]
    metadata.pop("selfLink", None)
    kept = _KEPT if metadata.get("uid") else ("uid", *_KEPT)
    for name in kept:
        if name in was:
            metadata[name] = was[name]
        else:
            metadata.pop(name, None)


def bump_generation(obj: Obj, old: Obj, kind: Kind) -> None:
    """Count a change of anything outside metadata and status."""
    strategy = kind.strategy
    if strategy.has_generation and (
        _specification_differs(obj, old)
        or (strategy.generation_counts_annotations and _annotations(obj) != _annotations(old))
    ):
        obj["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1


def _annotations(obj: Obj) -> Obj:
    return obj["metadata"].get("annotations") or {}


def _specification_differs(obj: Obj, old: Obj) -> bool:
    for name, value in obj.items():
        before = old.get(name)
        if before is not value and name not in _NOT_SPEC and before != value:
            return True
    return any(name not in _NOT_SPEC for name in old.keys() - obj.keys())


def requested_revision(obj: Obj) -> int:
    """The revision that an update wants to replace; 0 means whichever.  Raises StatusError 500."""
    text = obj["metadata"].get("resourceVersion")
    if not text:
        return 0
    if why := why_no_revision(str(text)):
        raise unexplained(why)
    return int(text)


def mark_deleting(obj: Obj, kind: Kind, now: datetime, grace_s: int) -> None:
    """Begin the deletion of an object that has to wait for `grace_s` or for its finalizers."""
    metadata = obj["metadata"]
    counts = kind.strategy.counts_deletion
    if not metadata.get("deletionTimestamp"):
        if counts and metadata.get("generation"):
            metadata["generation"] += 1
        # A grace period may be longer than any calendar.
        metadata["deletionTimestamp"] = format_time(now + timedelta(seconds=min(grace_s, _LONGEST_GRACE_S)))
        kind.strategy.prepare_delete(obj)
    if counts:
        metadata["deletionGracePeriodSeconds"] = grace_s


def shorten_grace(obj: Obj, grace_s: int) -> bool:
    """Bring a running deletion's end forward; False where it would not come earlier."""
    metadata = obj["metadata"]
    current = metadata.get("deletionGracePeriodSeconds") or 0
    if grace_s >= current:
        return False
    earlier_s = min(current, _LONGEST_GRACE_S) - min(grace_s, _LONGEST_GRACE_S)
    end = parse_time(metadata["deletionTimestamp"]) - timedelta(seconds=earlier_s)
    metadata["deletionTimestamp"] = format_time(end)
    metadata["deletionGracePeriodSeconds"] = grace_s
    return True


def check_preconditions(obj: Obj, kind: Kind, uid: str, revision: str) -> None:
    """Raises StatusError 409."""
    metadata, resource = obj["metadata"], kind.resource

    def refused(why: str) -> StatusError:
        # Of a deletion, Kubernetes names the kind here.
        return conflict(resource.kind, resource.group, metadata["name"], why)

    if uid and uid != metadata.get("uid"):
        raise refused(
            f"the UID in the precondition ({uid}) does not match the UID in record ({metadata.get('uid', '')}). "
            "The object might have been deleted and then recreated"
        )
    if revision and revision != metadata.get("resourceVersion"):
        raise refused(
            f"the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record "
            f"({metadata.get('resourceVersion', '')}). The object might have been modified"
        )


def may_go(obj: Obj, kind: Kind) -> bool:
    """Whether nothing keeps an object whose deletion has begun."""
    metadata = obj["metadata"]
    return (
        bool(metadata.get("deletionTimestamp"))
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not kind.strategy.holds_deletion(obj)
    )
