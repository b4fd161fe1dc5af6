"""The metadata that the server itself keeps: identity on create, what no update changes, deletion marks, generation."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from navarch.api.errors import StatusError, bad_request, conflict
from navarch.api.meta import Obj, new_uid
from navarch.api.time import format_time, parse_time
from navarch.kinds.base import Kind
from navarch.numbers import is_digits

_KEPT = ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName", "generation")
_LONGEST_GRACE_S = 100 * 365 * 86_400
_NOT_SPEC = frozenset({"apiVersion", "kind", "metadata", "status"})


def refuse_revision(obj: Obj) -> None:
    """What is new has no revision yet.  Raises StatusError 400."""
    if obj["metadata"].get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")


def fill_on_create(obj: Obj, kind: Kind, now: str, source: random.Random) -> None:
    """Give a new object its identity, whatever it says of it."""
    metadata = obj["metadata"]
    for name in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
        metadata.pop(name, None)
    metadata["uid"] = new_uid(source)
    metadata["creationTimestamp"] = now
    if kind.strategy.has_generation:
        metadata["generation"] = 1


def check_uid(obj: Obj, old: Obj, kind: Kind) -> None:
    """Who replaces an object may say which one he means by its uid.  Raises StatusError 409."""
    stated, uid = obj["metadata"].get("uid"), old["metadata"].get("uid", "")
    if stated and stated != uid:
        resource = kind.resource
        was = old["metadata"]
        key = "/".join(part for part in ("/registry", resource.plural, was.get("namespace"), was["name"]) if part)
        # In the words in which Kubernetes passes on what its store says.
        why = (
            f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: "
            f"Precondition failed: UID in precondition: {stated}, UID in object meta: {uid}"
        )
        raise conflict(resource.plural, resource.group, old["metadata"]["name"], why)


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
    if kind.strategy.has_generation and _specification_differs(obj, old):
        obj["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1


def _specification_differs(obj: Obj, old: Obj) -> bool:
    if any(name not in _NOT_SPEC and old.get(name) != value for name, value in obj.items()):
        return True
    return any(name not in _NOT_SPEC and name not in obj for name in old)


def requested_revision(obj: Obj) -> int:
    """The revision that an update wants to replace; 0 means whichever.  Raises StatusError 400."""
    text = obj["metadata"].get("resourceVersion")
    if not text:
        return 0
    if not isinstance(text, str) or not is_digits(text) or len(text) > 19:
        raise bad_request(f"resource version is not a number: {str(text)[:64]!r}")
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
