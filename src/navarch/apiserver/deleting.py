"""Deletion: at once, after a grace period, or when the last finalizer is gone.

In: which object and DeleteOptions.  Out: the object with its deletion begun, or that it is gone. A graceful deletion
only marks the object (for a Pod, the kubelet then deletes it with no grace left); finalizers hold a marked object
until an update removes the last. What becomes of dependents is the garbage collector's work, told to it by the
`orphan` and `foregroundDeletion` finalizers that are set here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from navarch.api.errors import StatusError, bad_request, conflict, invalid, invalid_value, not_found, not_supported
from navarch.api.meta import Obj
from navarch.apiserver import objectmeta
from navarch.apiserver.admitting import DELETE, NOT_ADMITTED, Admission, admission
from navarch.apiserver.changes import Cached
from navarch.apiserver.codec import decode
from navarch.apiserver.core import Core
from navarch.apiserver.decoding import parsed
from navarch.apiserver.reading import whole_number
from navarch.apiserver.routes import is_true
from navarch.apiserver.served import ServedKind
from navarch.apiserver.writing import Origin, Writing
from navarch.client.transport import Request
from navarch.store.base import Conflict

_ATTEMPTS = 50
ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_POLICIES = ("Background", "Foreground", "Orphan")
_FIELDS: tuple[tuple[str, type, str], ...] = (
    ("apiVersion", str, "string"),
    ("kind", str, "string"),
    ("gracePeriodSeconds", int, "int64"),
    ("propagationPolicy", str, "v1.DeletionPropagation"),
    ("orphanDependents", bool, "bool"),
    ("preconditions", dict, "v1.Preconditions"),
    ("dryRun", list, "[]string"),
)


@dataclass(slots=True)
class DeleteOptions:
    grace_s: int | None = None
    propagation: str = ""
    uid: str = ""
    revision: str = ""
    dry_run: bool = False
    raw: Obj = field(default_factory=dict)


def delete_options_of(request: Request) -> DeleteOptions:
    """From the body if it has one, else from the query.  Raises StatusError 400, 422."""
    raw: Obj = {}
    if request.body:
        raw = _parse(request)
    elif request.query:
        for name in ("gracePeriodSeconds", "propagationPolicy", "orphanDependents"):
            text = request.arg(name)
            if text:
                raw[name] = whole_number(text) if name == "gracePeriodSeconds" else text
        if "orphanDependents" in raw:
            raw["orphanDependents"] = is_true(raw["orphanDependents"])
    options = options_from(raw)
    if "All" in [value for name, value in request.query if name == "dryRun"]:
        options.dry_run = True
    return options


def _parse(request: Request) -> Obj:
    try:
        raw = parsed(request)
    except ValueError as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise bad_request("couldn't get version/kind; json parse error: the body must be a DeleteOptions object")
    kind = raw.get("kind")
    if kind and kind != "DeleteOptions":
        raise bad_request(f"decoded object cannot be converted to DeleteOptions: it is a {kind}")
    return raw


def _wrong_type(field: str, go_type: str) -> StatusError:
    return bad_request(f"json: cannot unmarshal value into Go struct field {field} of type {go_type}")


def options_from(raw: Obj) -> DeleteOptions:
    """Check a DeleteOptions object.  Raises StatusError 400, 422."""
    for name, kind, go_type in _FIELDS:
        if raw.get(name) is not None and type(raw[name]) is not kind:
            raise _wrong_type(f"DeleteOptions.{name}", go_type)
    grace = raw.get("gracePeriodSeconds")
    if grace is not None and not -(2**63) <= grace < 2**63:
        raise _wrong_type("DeleteOptions.gracePeriodSeconds", "int64")
    propagation = raw.get("propagationPolicy") or ""
    orphan = raw.get("orphanDependents")
    errors = []
    if propagation and orphan is not None:
        why = "orphanDependents and deletionPropagation cannot be both set"
        errors.append(invalid_value("propagationPolicy", propagation, why))
    if propagation and propagation not in _POLICIES:
        errors.append(not_supported("propagationPolicy", propagation, _POLICIES))
    dry_run = raw.get("dryRun") or []
    if any(value != "All" for value in dry_run):
        errors.append(not_supported("dryRun", dry_run, ("All",)))
    if errors:
        raise invalid("DeleteOptions", "meta.k8s.io", "", errors)
    if orphan is not None and not propagation:
        propagation = "Orphan" if orphan else "Background"
    preconditions = raw.get("preconditions") or {}
    for name, value in preconditions.items():
        if name in ("uid", "resourceVersion") and not isinstance(value, (str, type(None))):
            raise _wrong_type(f"Preconditions.preconditions.{name}", "string")
    if grace is not None and grace < 0:
        # As Kubernetes reads it: "now, but by the book".
        grace = 1
    uid, revision = preconditions.get("uid") or "", preconditions.get("resourceVersion") or ""
    return DeleteOptions(grace, str(propagation), str(uid), str(revision), bool(dry_run), raw)


@dataclass(slots=True)
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
                raise not_found(resource.plural, resource.group, name)
            obj = await core.encodings.obj(kind, cached)
            objectmeta.check_preconditions(obj, kind, options.uid, options.revision)
            try:
                return await self._admitted(kind, cached, obj, options, origin, admit=admit)
            except Conflict as lost:
                await self._writing.catch_up(lost)
        raise conflict(resource.plural, resource.group, name)

    async def _admitted(
        self, kind: ServedKind, cached: Cached, obj: Obj, options: DeleteOptions, origin: Origin, *, admit: bool
    ) -> Deleted:
        """One try against one stored state.  Raises Conflict."""
        admitted = NOT_ADMITTED
        if admit:
            admitted = admission(
                self._core.admission, origin, kind, DELETE, namespace=cached.namespace, name=cached.name, old=obj
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
        obj = await apart(size, decode, cached.data) if cached.data.startswith(kind.head) else _copied(stored)
        metadata = obj["metadata"]
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
            # Removing goes against exactly this revision, so that no finalizer set meanwhile is overlooked.
            revision = await self._writing.remove(kind, stored, cached, admitted, dry_run=origin.dry_run)
            stored["metadata"]["resourceVersion"] = str(revision)
            return Deleted(stored, True, size)
        written = await self._writing.put_deleting(kind, obj, cached, origin)
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


def _copied(obj: Obj) -> Obj:
    return decode(orjson.dumps(obj))


def success(kind: ServedKind, deleted: Deleted) -> Obj:
    """The Status that answers a delete of most kinds."""
    metadata = deleted.obj["metadata"]
    details: Obj = {"name": metadata["name"], "kind": kind.resource.plural, "uid": metadata.get("uid", "")}
    if kind.resource.group:
        details["group"] = kind.resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
