"""Deletion: at once, after a grace period, or when the last finalizer is gone.

In: which object and DeleteOptions.  Out: the object with its deletion begun, or that it is gone. A graceful deletion
only marks the object (for a Pod, the kubelet then deletes it with no grace left); finalizers hold a marked object
until an update removes the last. What becomes of dependents is the garbage collector's work, told to it by the
`orphan` and `foregroundDeletion` finalizers that are set here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field

from navarch.api.errors import (
    FieldError,
    StatusError,
    conflict,
    forbidden,
    invalid,
    invalid_value,
    not_found,
    not_one_of,
    unexplained,
    unsupported_media_type,
)
from navarch.api.go_text import TYPE_META, go_kind
from navarch.api.meta import Obj
from navarch.apiserver import objectmeta
from navarch.apiserver.admitting import DELETE, NOT_ADMITTED, Admission, admission
from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.auth.refusal import refusal
from navarch.apiserver.changes import Cached
from navarch.apiserver.core import Core
from navarch.apiserver.decoding import JSON, media_type_of, parsed
from navarch.apiserver.list_options import whole_number
from navarch.apiserver.negotiation import OFFERED
from navarch.apiserver.routes import is_true
from navarch.apiserver.served import ServedKind
from navarch.apiserver.writes import Origin
from navarch.apiserver.writing import Writing
from navarch.client.transport import Request
from navarch.records import mutable
from navarch.store.base import Conflict, Delete

_ATTEMPTS = 50
ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_POLICIES = ("Foreground", "Background", "Orphan")
_IGNORE_READ_ERROR = "ignoreStoreReadErrorWithClusterBreakingPotential"
_UNSAFE_VERB = "unsafe-delete-ignore-read-errors"
# With their types as Go calls them, in the order in which they are declared.
_FIELDS: tuple[tuple[str, type, str], ...] = (
    ("apiVersion", str, "string"),
    ("kind", str, "string"),
    ("gracePeriodSeconds", int, "int64"),
    ("preconditions", dict, "v1.Preconditions"),
    ("orphanDependents", bool, "bool"),
    ("propagationPolicy", str, "v1.DeletionPropagation"),
    ("dryRun", list, "[]string"),
    (_IGNORE_READ_ERROR, bool, "bool"),
)
_FLAGS = ("orphanDependents", _IGNORE_READ_ERROR)


@mutable
class DeleteOptions:
    """`accepted` says that the client wants to be told (202) where the deletion has only begun."""

    grace_s: int | None = None
    propagation: str = ""
    uid: str = ""
    revision: str = ""
    dry_run: bool = False
    raw: Obj = field(default_factory=dict)
    accepted: bool = False
    unreadable: bool = False


def delete_options_of(request: Request) -> DeleteOptions:
    """From the body if it has one, else from the query.  Raises StatusError 400, 415, 422, 500."""
    if not request.body and not request.query:
        return DeleteOptions()
    options = options_from(_parse(request) if request.body else _from_query(request.query))
    if request.body and not options.dry_run:
        # Kubernetes does not look at the query where there is a body; who says that nothing shall happen is believed.
        options.dry_run = any(name == "dryRun" for name, _ in request.query)
    return options


def _from_query(query: Sequence[tuple[str, str]]) -> Obj:
    """Raises StatusError 400."""
    raw: Obj = {}
    if dry_run := [value for name, value in query if name == "dryRun"]:
        raw["dryRun"] = dry_run
    for name, text in query:
        if name in raw:
            continue
        if name == "gracePeriodSeconds":
            raw[name] = whole_number(text)
        elif name in _FLAGS:
            raw[name] = is_true(text)
        elif name == "propagationPolicy":
            raw[name] = text
        elif name == "uid" and text:
            raw["preconditions"] = {"uid": text}
    return raw


def _parse(request: Request) -> Obj:
    """Raises StatusError 415; 500, as Kubernetes gives these mistakes no code."""
    if media_type_of(request) not in ("", JSON):
        raise unsupported_media_type(OFFERED)
    try:
        raw = parsed(request)
    except ValueError as error:
        raise unexplained(f"couldn't get version/kind; json parse error: {error}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        shown = f"json: cannot unmarshal {go_kind(raw)} into Go value of type {TYPE_META}"
        raise unexplained(f"couldn't get version/kind; json parse error: {shown}")
    if raw.get("kind") not in (None, "", "DeleteOptions"):
        raise unexplained("decoded object cannot be converted to DeleteOptions")
    return raw


def _wrong_type(value: object, field: str, wanted: str) -> StatusError:
    return unexplained(f"json: cannot unmarshal {go_kind(value)} into Go struct field {field} of type {wanted}")


def options_from(raw: Obj) -> DeleteOptions:
    """Check a DeleteOptions object.  Raises StatusError 422, 500."""
    raw = {name: value for name, value in raw.items() if value is not None}
    for name, kind, wanted in _FIELDS:
        if name in raw and type(raw[name]) is not kind:
            raise _wrong_type(raw[name], f"DeleteOptions.{name}", wanted)
    grace = raw.get("gracePeriodSeconds")
    if grace is not None and not -(2**63) <= grace < 2**63:
        raise _wrong_type(grace, "DeleteOptions.gracePeriodSeconds", "int64")
    preconditions = raw.get("preconditions") or {}
    for name in ("uid", "resourceVersion"):
        if not isinstance(preconditions.get(name), (str, type(None))):
            raise _wrong_type(preconditions[name], f"Preconditions.preconditions.{name}", "string")
    errors = list(_wrong(raw))
    if errors:
        raise invalid("DeleteOptions", "meta.k8s.io", "", errors)
    orphan, propagation = raw.get("orphanDependents"), raw.get("propagationPolicy") or ""
    if orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    if grace is not None and grace < 0:
        # As Kubernetes reads it: "now, but by the book".
        grace = 1
    return DeleteOptions(
        grace,
        str(propagation),
        str(preconditions.get("uid") or ""),
        str(preconditions.get("resourceVersion") or ""),
        bool(raw.get("dryRun")),
        raw,
        orphan is False,
        bool(raw.get(_IGNORE_READ_ERROR)),
    )


def _wrong(raw: Obj) -> Iterator[FieldError]:
    propagation = raw.get("propagationPolicy")
    if propagation is not None and "orphanDependents" in raw:
        why = "orphanDependents and deletionPropagation cannot be both set"
        yield invalid_value("propagationPolicy", propagation, why)
    if propagation is not None and propagation not in _POLICIES:
        yield not_one_of("propagationPolicy", propagation, (*_POLICIES, "nil"))
    dry_run = raw.get("dryRun") or []
    if any(value != "All" for value in dry_run):
        yield not_one_of("dryRun", dry_run, ("All",))
    if raw.get(_IGNORE_READ_ERROR):
        for name in ("dryRun", "propagationPolicy", "orphanDependents", "gracePeriodSeconds", "preconditions"):
            if raw.get(name) not in (None, []):
                yield invalid_value(_IGNORE_READ_ERROR, True, f"cannot be set together with .{name}")


@mutable
class Deleted:
    """`obj` as it was last seen (its deletion begun, or its final state); `gone` says which. `size`
    is that of its bytes."""

    obj: Obj
    gone: bool
    size: int = 0


class Deleting:
    """The delete pipeline of an API server."""

    def __init__(self, core: Core, writing: Writing) -> None:
        self._core = core
        self._writing = writing

    async def delete(
        self,
        kind: ServedKind,
        namespace: str,
        name: str,
        options: DeleteOptions,
        origin: Origin,
        *,
        admit: bool = True,
    ) -> Deleted:
        """`admit` is off for what was admitted as something else: an Eviction.  Raises StatusError 404, 409."""
        core, resource = self._core, kind.resource
        cache = kind.cache
        await core.caches.sync()
        for _ in range(_ATTEMPTS):
            cached = cache.get(namespace, name)
            if cached is None:
                key = cache.codec.key(namespace, name)
                if options.unreadable and key in cache.undecodable:
                    return await self._delete_unreadable(kind, key, namespace, name, origin)
                raise kind.absent(namespace, name)
            obj = await core.encodings.obj(kind, cached)
            objectmeta.check_preconditions(obj, kind, options.uid, options.revision)
            try:
                return await self._admitted(kind, cached, obj, options, origin, admit=admit)
            except Conflict as lost:
                await self._writing.storing.catch_up(lost)
        raise conflict(resource.plural, resource.group, name)

    async def _delete_unreadable(
        self, kind: ServedKind, key: str, namespace: str, name: str, origin: Origin
    ) -> Deleted:
        """Delete a stored value that nobody can read: unseen by admission, so it takes a right of its own.  Raises
        StatusError 403, 404."""
        core, resource = self._core, kind.resource
        asked = RequestAttributes(_UNSAFE_VERB, resource.group, resource.version, resource.plural, "", namespace, name)
        decision = await core.decide(origin.user, asked)
        if not decision.allowed:
            raise refusal(origin.user, asked, decision.reason)
        page = await core.caches.store.range(key, limit=1)
        entry = next((entry for entry in page.entries if entry.key == key), None)
        if entry is None:
            raise not_found(resource.plural, resource.group, name)
        revision = await core.caches.store.commit((Delete(key, entry.mod_revision),))
        await core.caches.wait(revision)
        metadata = {"name": name, "resourceVersion": str(revision)}
        return Deleted({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}, True)

    async def _admitted(
        self, kind: ServedKind, cached: Cached, obj: Obj, options: DeleteOptions, origin: Origin, *, admit: bool
    ) -> Deleted:
        """One try against one stored state.  Raises Conflict."""
        admitted = NOT_ADMITTED
        if admit:
            admitted = admission(
                self._core.admission,
                origin,
                kind,
                DELETE,
                namespace=cached.namespace,
                name=cached.name,
                old=obj,
                size=len(cached.data),
                work=self._core.work,
            )
        async with admitted:
            await admitted.mutate(None)
            await admitted.validate(None)
            return await self._attempt(kind, cached, obj, options, origin, admitted)

    async def _attempt(
        self,
        kind: ServedKind,
        cached: Cached,
        stored: Obj,
        options: DeleteOptions,
        origin: Origin,
        admitted: Admission,
    ) -> Deleted:
        apart, size = self._core.work.apart, len(cached.data)
        obj = _marked(stored)
        metadata = obj["metadata"]
        if why := kind.strategy.refuse_deletion(obj):
            raise forbidden(kind.resource.plural, kind.resource.group, metadata["name"], why)
        grace_s = kind.strategy.delete_grace_s(obj, options.grace_s)
        self._set_finalizers(kind, metadata, options.propagation)
        running = bool(metadata.get("deletionTimestamp"))
        if running and (metadata.get("deletionGracePeriodSeconds") or 0) > 0:
            wanted = grace_s if options.grace_s is not None else metadata["deletionGracePeriodSeconds"]
            if not objectmeta.shorten_grace(obj, wanted):
                return Deleted(stored, False, size)
            held = wanted > 0 or bool(metadata.get("finalizers"))
        else:
            held = grace_s > 0 and not running
            held = held or bool(metadata.get("finalizers")) or kind.strategy.holds_deletion(obj)
            if held:
                objectmeta.mark_deleting(obj, kind, self._core.now(), 0 if running else grace_s)
        if not held:
            if kind.strategy.deletes_gracefully and not running:
                # Its end has come at once; in what is answered it has come all the same.
                objectmeta.mark_deleting(stored, kind, self._core.now(), grace_s)
            # Removing goes against exactly this revision, so that no finalizer set meanwhile is overlooked.
            revision = await self._writing.storing.remove(kind, stored, cached, admitted, dry_run=origin.dry_run)
            gone = obj if kind.strategy.deletes_gracefully and running else stored
            gone["metadata"]["resourceVersion"] = str(revision)
            return Deleted(gone, True, size)
        written = await self._writing.storing.put_deleting(kind, obj, cached, origin)
        return Deleted(await apart(size, written.obj), False, size)

    def _set_finalizers(self, kind: ServedKind, metadata: Obj, propagation: str) -> None:
        """What the garbage collector must do before the object goes; no policy keeps what an earlier delete asked."""
        finalizers = list(metadata.get("finalizers") or ())
        if propagation:
            finalizers = [finalizer for finalizer in finalizers if finalizer not in (ORPHAN, FOREGROUND)]
        elif ORPHAN in finalizers or FOREGROUND in finalizers:
            return
        else:
            propagation = kind.strategy.default_propagation()
        if propagation == "Orphan":
            finalizers.append(ORPHAN)
        elif propagation == "Foreground":
            finalizers.append(FOREGROUND)
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)


def _marked(obj: Obj) -> Obj:
    """A copy to mark as being deleted: what marks are written on, metadata, status and spec, is its own, what is below
    them is shared."""
    return {name: dict(part) if isinstance(part, dict) else part for name, part in obj.items()}


def success(kind: ServedKind, deleted: Deleted) -> Obj:
    """The Status that answers a delete of most kinds."""
    metadata = deleted.obj["metadata"]
    details: Obj = {"name": metadata["name"], "kind": kind.resource.plural, "uid": metadata.get("uid", "")}
    if kind.resource.group:
        details["group"] = kind.resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
