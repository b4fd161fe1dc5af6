"""Who owns which field: ownership by plain writes, and server-side apply.

In: the object as it is, what a client wants, and the kind's schema node.  Out: the new object with
`metadata.managedFields` brought up to date.  `update_managed_fields` follows a create, update or patch: the writer
takes over what it changed.  `apply` merges a configuration: it owns what it states, shares what it states alike with
others, conflicts where it would change what others own (unless forced), and takes away what it stated before and no
longer does.

Invariant: a field that an applier states is in its set; a field that a write changed is in nobody else's.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final

import orjson

from navarch.api import field_sets, fields, typed
from navarch.api.alike import Alike
from navarch.api.created_sets import own_levels
from navarch.api.errors import Obj, StatusError, bad_request, unexplained
from navarch.api.field_paths import paths
from navarch.api.field_sets import FieldSet
from navarch.api.managers import (
    Manager,
    Managers,
    Owned,
    capped,
    decode,
    encode,
    identified,
    identifier,
    readable,
    write,
)
from navarch.api.merge import merged, pruned
from navarch.api.patch import copy_json
from navarch.api.status_outcomes import Outcome, Ownership
from navarch.api.strategic import SchemaNodeLike

_MAX_ANNOTATIONS_BYTES: Final = 256 * 1024
_BEFORE_APPLY: Final = "before-first-apply"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

# What the server itself keeps in metadata belongs to nobody.
_UNOWNED_METADATA: Final = (
    ".",
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:uid",
    "f:selfLink",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
)


def update_managed_fields(
    old: Obj | None,
    new: Obj,
    node: SchemaNodeLike | None,
    *,
    manager: str,
    api_version: str,
    operation: str = "Update",
    subresource: str = "",
    now: str,
    custom: bool = False,
    outcome: Outcome | None = None,
    alike: Alike | None = None,
) -> None:
    """Record in `new.metadata.managedFields` that `manager` wrote `new` where `old` was (None: it is created); `custom`
    says that the kind is one whose schema changes, `outcome` of a built-in kind that nothing but the status differs,
    and how that came about; `alike` is what a new object has in common with others."""
    metadata = new["metadata"]
    if old is None:
        owned = _owned_by_creator(new, node, alike)
        metadata.pop("managedFields", None)
        if owned:
            entry = identified(manager, operation, api_version, subresource)
            metadata["managedFields"] = [encode(entry, Owned(owned, api_version, now))]
        return
    managers, tracked = _managers_of_update(old, new, subresource)
    if not tracked:
        metadata.pop("managedFields", None)
        return
    metadata.pop("managedFields", None)
    if (held := old["metadata"].get("managedFields")) is not None:
        # Nobody's, and so no difference: most often none is left in the metadata, which then is not walked through.
        metadata["managedFields"] = held
    if custom:
        managers = _reconciled(managers, node)
    me = identified(manager, operation, api_version, subresource)
    if outcome is not None:
        after = _take_over_status(outcome, old, new, node, managers, me, now)
    else:
        after = _take_over(managers, _compare(old, new, node), me, now)
    write(metadata, capped(after))


def _owned_by_creator(new: Obj, node: SchemaNodeLike | None, alike: Alike | None) -> FieldSet:
    if alike is None:
        return _strip(fields.created_set(new, node))
    if alike.owned is None:
        alike.owned = _strip(fields.created_set(new, node))
    return own_levels(alike.owned)


def keep_times(obj: Obj, old: Obj) -> None:
    """Where an update changes nothing but the times of managedFields, in place take these back: what was said otherwise
    (`0.5` for `500m`) and means the same is no change."""
    metadata, was = obj["metadata"], old["metadata"]
    entries, held = metadata.get("managedFields"), was.get("managedFields")
    if not entries or not held or len(metadata) != len(was) or len(entries) != len(held) or len(obj) != len(old):
        return
    if entries == held or any(value != was.get(name) for name, value in metadata.items() if name != "managedFields"):
        return
    for name, value in obj.items():
        before = old.get(name)
        if value is not before and name != "metadata" and value != before:
            return
    if all({**entry, "time": ""} == {**other, "time": ""} for entry, other in zip(entries, held, strict=True)):
        metadata["managedFields"] = held


def _managers_of_update(old: Obj, new: Obj, subresource: str) -> tuple[Managers, bool]:
    """The managers before an update, and whether the object's fields are tracked at all.

    A client may write managedFields itself, and `[{}]` forgets them; one that sends none (it does not know them) or
    unreadable ones keeps the object's. Through a subresource they cannot be written.
    """
    before = old["metadata"].get("managedFields")
    given = new["metadata"].get("managedFields")
    if not subresource and given and given != before:
        if len(given) == 1 and not given[0]:
            return {}, False
        if readable(given):
            return decode(given), True
    managers = decode(before or [])
    return managers, bool(managers)


def _take_over_status(
    outcome: Outcome, old: Obj, new: Obj, node: SchemaNodeLike | None, managers: Managers, me: Manager, now: str
) -> Managers:
    """As `_take_over` of all that differs, where perhaps somebody remembers that."""

    def take_over(was: Obj, becomes: Obj, entries: list[Obj]) -> Ownership:
        before, changes = decode(entries), _compare(was, becomes, node)
        gains = bool(changes.added or changes.modified)
        return [
            (who, None if owned is before.get(who) else owned.fields, gains and who == me)
            for who, owned in _take_over(before, changes, me, now).items()
        ]

    after: Managers = {}
    for who, owned, gains in outcome.owners(old, new, me, take_over):
        if owned is None:
            after[who] = managers[who]
        else:
            after[who] = Owned(owned, me.api_version, now) if gains else managers[who]._replace(fields=owned)
    return after


def _take_over(managers: Managers, changes: fields.Changes, me: Manager, now: str) -> Managers:
    """The managers after `me` made `changes`: what was changed is its own, what is gone is nobody's."""
    gained = field_sets.union(changes.modified, changes.added)
    if not gained and not changes.removed:
        return managers
    lost = field_sets.union(gained, changes.removed)
    after: Managers = {}
    for manager, owned in managers.items():
        kept = owned.fields
        if field_sets.overlaps(kept, lost):
            kept = field_sets.difference(kept, lost)
        if kept:
            after[manager] = owned if kept is owned.fields else owned._replace(fields=kept)
    if gained:
        mine = after[me].fields if me in after else field_sets.LEAF
        after[me] = Owned(field_sets.union(mine, gained), me.api_version, now)
    return after


def apply(
    live: Obj | None,
    config: Obj,
    node: SchemaNodeLike | None,
    *,
    manager: str,
    force: bool,
    api_version: str,
    kind: str = "",
    subresource: str = "",
    now: str,
    ignored: Collection[str] = (),
    custom: bool = False,
) -> Obj:
    """The object after applying `config`; `live` (None: it does not exist yet) and `config` stay as they are. What is
    null in it is not there.

    `ignored` are the dotted paths of what cannot be written here (`status`, or through a subresource `spec`): what the
    configuration says about them is nobody's. `custom` as for updates.  Raises StatusError: 400 for a configuration of
    something else, 409 with one cause per conflict, 500 for one that has not the types of its kind.
    """
    stated = type_of(config)
    if stated != type_text(api_version, kind or stated.rpartition("Kind=")[2]):
        raise bad_request(f"invalid object type: {stated}")
    metadata = config.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("managedFields"), list):
        raise bad_request("metadata.managedFields must be nil")
    if said := typed.problems(config, node):
        raise unexplained(f"failed to create typed patch object ({describe(config)}): {said}")
    me = identified(manager, "Apply", api_version, subresource)
    excluded = _excluded(ignored)
    if custom and live is not None:
        live = _with_reconciled(live, node)
    try:
        return _apply(live, config, node, me, api_version, excluded, force=force, now=now)
    except _Conflicts as conflicts:
        found = conflicts.found
        if manager == "kubectl" and live is not None:
            # Objects that `kubectl apply` made client-side carry what it applied; kubectl may take that over.
            allowed = _fields_last_applied(live, node, api_version)
            found = {who: rest for who, owned in found.items() if (rest := field_sets.difference(owned, allowed))}
            if not found:
                return _apply(live, config, node, me, api_version, excluded, force=True, now=now)
        raise _conflict_error(found) from None


def type_of(config: Obj) -> str:
    """Which type a configuration says that it is of, as Kubernetes prints it: `apps/v1, Kind=Deployment`."""
    version, kind = config.get("apiVersion"), config.get("kind")
    if not isinstance(version, str) or version.count("/") > 1:
        version = ""
    return type_text(version, kind if isinstance(kind, str) else "")


def type_text(api_version: str, kind: str) -> str:
    return f"{api_version if '/' in api_version else '/' + api_version}, Kind={kind}"


def describe(config: Obj) -> str:
    """Which object a configuration is of, for messages."""
    metadata = config.get("metadata")
    namespace, name = (
        (value if isinstance(value := metadata.get(key), str) else "") if isinstance(metadata, dict) else ""
        for key in ("namespace", "name")
    )
    return f"{namespace}/{name}; {type_of(config)}"


def _excluded(ignored: Collection[str]) -> FieldSet:
    out: FieldSet = {}
    for path in ignored:
        at = out
        for step in path.split("."):
            at = at.setdefault(f"f:{step}", {})
    return out


def _reconciled(managers: Managers, node: SchemaNodeLike | None) -> Managers:
    """The managers after changes of the schema."""
    return {
        manager: owned if (now := fields.reconciled(owned.fields, node)) is owned.fields else owned._replace(fields=now)
        for manager, owned in managers.items()
    }


def _with_reconciled(live: Obj, node: SchemaNodeLike | None) -> Obj:
    entries = live["metadata"].get("managedFields") or []
    managers = decode(entries)
    after = _reconciled(managers, node)
    if all(after[manager] is owned for manager, owned in managers.items()):
        return live
    metadata = dict(live["metadata"])
    write(metadata, after)
    return {**live, "metadata": metadata}


class _Conflicts(Exception):
    def __init__(self, found: dict[Manager, FieldSet]) -> None:
        super().__init__("conflicts")
        self.found = found


def _apply(
    live: Obj | None,
    config: Obj,
    node: SchemaNodeLike | None,
    me: Manager,
    api_version: str,
    excluded: FieldSet,
    *,
    force: bool,
    now: str,
) -> Obj:
    managers = decode((live or {}).get("metadata", {}).get("managedFields") or [])
    if live is not None and not managers:
        # Nobody's ownership was recorded so far: whoever wrote the object before owns it as one.
        everything = _strip(field_sets.recursive_difference(fields.created_set(live, node), excluded))
        before = identified(_BEFORE_APPLY, "Update", api_version, "")
        managers = {before: Owned(everything, api_version, now)} if everything else {}
    base: Obj = _unmanaged(live) if live is not None else _empty(config)
    said = _filtered(fields.owned_set(config, node), excluded)
    stated = _strip({**said, "f:metadata": dict(said["f:metadata"])} if "f:metadata" in said else dict(said))
    last = managers.get(me)
    wanted = merged(base, config, node)
    if last is not None and field_sets.difference(last.fields, said):
        owned: FieldSet = said
        for manager, others in managers.items():
            if manager != me:
                owned = field_sets.union(owned, others.fields)
        wanted = pruned(wanted, last.fields, owned, node)
    changes = _compare(base, wanted, node)
    changed = _filtered(field_sets.union(changes.modified, changes.added), excluded)
    found = _conflicting(managers, changed, me)
    if found and not force:
        raise _Conflicts(found)
    unchanged = live is not None and not (changes.added or changes.modified or changes.removed) and base == wanted
    lost = field_sets.union(changed, _filtered(changes.removed, excluded))
    after = {
        manager: owned._replace(fields=kept)
        for manager, owned in managers.items()
        if manager != me and (kept := field_sets.difference(owned.fields, lost))
    }
    if stated:
        # Who states what is there already changes nothing but who owns it: no time is kept of that.
        time = (last.time if last is not None else "") if unchanged else now
        after[me] = Owned(stated, api_version, time)
    out: Obj = copy_json(base if unchanged else wanted)
    if not out.get("metadata"):
        out["metadata"] = {}
    write(out["metadata"], after)
    _refresh_last_applied(out, config, me)
    return out


def _unmanaged(live: Obj) -> Obj:
    """The object without its managed fields; shares the rest."""
    metadata = {name: value for name, value in live["metadata"].items() if name != "managedFields"}
    return {**live, "metadata": metadata}


def _empty(config: Obj) -> Obj:
    return {"apiVersion": config.get("apiVersion"), "kind": config.get("kind"), "metadata": {}}


def _filtered(changed: FieldSet, excluded: FieldSet) -> FieldSet:
    return field_sets.recursive_difference(changed, excluded) if excluded else changed


def _conflicting(managers: Managers, changed: FieldSet, me: Manager) -> dict[Manager, FieldSet]:
    """What each other manager owns of the fields that are about to change."""
    if not changed:
        return {}
    return {
        manager: shared
        for manager, owned in managers.items()
        if manager != me and (shared := field_sets.intersection(owned.fields, changed))
    }


def _conflict_error(found: dict[Manager, FieldSet]) -> StatusError:
    listed = [(str(who), list(paths(found[who]))) for who in sorted(found, key=identifier)]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": path}
        for who, where in listed
        for path in where
    ]
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        lines = [line for who, where in listed for line in (f"conflicts with {who}:", *(f"- {path}" for path in where))]
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    return StatusError(409, "Conflict", message, details={"causes": causes})


def _fields_last_applied(live: Obj, node: SchemaNodeLike | None, api_version: str) -> FieldSet:
    """The fields that client-side apply last set, in this version, and that are as it set them."""
    try:
        applied = json.loads((live["metadata"].get("annotations") or {})[LAST_APPLIED])
    except (KeyError, ValueError):
        return field_sets.LEAF
    # What was applied in another version is not converted: it tells nothing of this version's fields.
    if not isinstance(applied, dict) or applied.get("apiVersion") != api_version or not applied.get("kind"):
        return field_sets.LEAF
    if typed.problems(applied, node):
        return field_sets.LEAF
    changes = fields.compare(applied, live, node)
    changed = field_sets.union(field_sets.union(changes.added, changes.modified), changes.removed)
    return field_sets.difference(fields.owned_set(applied, node), changed)


def _refresh_last_applied(obj: Obj, config: Obj, me: Manager) -> None:
    """Keep client-side apply's record in step, where there is one, so that going back to it stays possible."""
    annotations = obj["metadata"].get("annotations")
    if me.name != "kubectl" or not annotations or LAST_APPLIED not in annotations:
        return
    record = copy_json(config)
    metadata = record.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("annotations"), dict):
        metadata["annotations"].pop(LAST_APPLIED, None)
    annotations[LAST_APPLIED] = orjson.dumps(record, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    size = sum(len(name.encode()) + len(str(value).encode()) for name, value in annotations.items())
    if size > _MAX_ANNOTATIONS_BYTES:
        del annotations[LAST_APPLIED]


def _compare(old: Obj, new: Obj, node: SchemaNodeLike | None) -> fields.Changes:
    changes = fields.compare(old, new, node)
    for part in (changes.added, changes.modified, changes.removed):
        _strip(part)
    return changes


def _strip(owned: FieldSet) -> FieldSet:
    """Take out what belongs to nobody; `owned` and its metadata are this request's own."""
    owned.pop("f:apiVersion", None)
    owned.pop("f:kind", None)
    metadata = owned.get("f:metadata")
    if metadata is not None:
        for name in _UNOWNED_METADATA:
            if name in metadata:
                del metadata[name]
        if not metadata:
            del owned["f:metadata"]
    return owned
