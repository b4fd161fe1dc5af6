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
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from navarch.api import fields
from navarch.api.errors import Obj, StatusError, bad_request
from navarch.api.fields import FieldSet
from navarch.api.merge import check_configuration, merge_configuration, prune
from navarch.api.patch import copy_json
from navarch.api.strategic import SchemaNodeLike

_MAX_UPDATE_MANAGERS: Final = 10
_ANCIENT: Final = "ancient-changes"
_BEFORE_APPLY: Final = "before-first-apply"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

# What the server itself keeps in metadata belongs to nobody.
_UNOWNED_METADATA: Final = (
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:uid",
    "f:selfLink",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
)


class _Manager(NamedTuple):
    """Identifies an entry of managedFields; appliers are the same whichever version they speak."""

    name: str
    operation: str
    api_version: str
    subresource: str

    def __str__(self) -> str:
        text = json.dumps(self.name, ensure_ascii=False)
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


@dataclass(frozen=True, slots=True)
class _Owned:
    """What a manager owns, in which version it said so, and when."""

    fields: FieldSet
    api_version: str
    time: str


_Managers = dict[_Manager, _Owned]


def _manager(name: str, operation: str, api_version: str, subresource: str) -> _Manager:
    return _Manager(name, operation, "" if operation == "Apply" else api_version, subresource)


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
) -> None:
    """Record in `new.metadata.managedFields` that `manager` wrote `new` where `old` was (None: it is created)."""
    metadata = new["metadata"]
    if old is None:
        owned = _strip(fields.created_set(new, node))
        metadata.pop("managedFields", None)
        if owned:
            entry = _manager(manager, operation, api_version, subresource)
            metadata["managedFields"] = [_encode(entry, _Owned(owned, api_version, now))]
        return
    managers, tracked = _managers_of_update(old, new, subresource)
    if not tracked:
        metadata.pop("managedFields", None)
        return
    metadata.pop("managedFields", None)
    changes = _compare(old, new, node)
    me = _manager(manager, operation, api_version, subresource)
    _write(metadata, _cap(_take_over(managers, changes, me, now)))


def readable(entries: Any) -> bool:
    """Whether managedFields are what they should be; none are."""
    if not entries:
        return True
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return False
    words = ("manager", "operation", "apiVersion", "subresource", "time")
    if not all(isinstance(entry.get(word, ""), str) for entry in entries for word in words):
        return False
    return len(_decode(entries)) == len(entries) and all(_is_tree(entry["fieldsV1"]) for entry in entries)


def _is_tree(owned: Any) -> bool:
    """Whether a set of fields is one: objects all the way down."""
    return isinstance(owned, dict) and all(
        (key == "." or key[1:2] == ":") and _is_tree(below) for key, below in owned.items()
    )


def _managers_of_update(old: Obj, new: Obj, subresource: str) -> tuple[_Managers, bool]:
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
            return _decode(given), True
    managers = _decode(before or [])
    return managers, bool(managers)


def _take_over(managers: _Managers, changes: fields.Changes, me: _Manager, now: str) -> _Managers:
    """The managers after `me` made `changes`: what was changed is its own, what is gone is nobody's."""
    gained = fields.union(changes.modified, changes.added)
    if not gained and not changes.removed:
        return managers
    lost = fields.union(gained, changes.removed)
    after: _Managers = {}
    for manager, owned in managers.items():
        kept = owned.fields
        if fields.overlaps(kept, lost):
            kept = fields.difference(kept, lost)
        if kept:
            after[manager] = owned if kept is owned.fields else replace(owned, fields=kept)
    if gained:
        mine = after[me].fields if me in after else fields.LEAF
        after[me] = _Owned(fields.union(mine, gained), me.api_version, now)
    return after


def apply(
    live: Obj | None,
    config: Obj,
    node: SchemaNodeLike | None,
    *,
    manager: str,
    force: bool,
    api_version: str,
    subresource: str = "",
    now: str,
    ignored: Collection[str] | None = None,
) -> Obj:
    """The object after applying `config`; `live` (None: it does not exist yet) and `config` stay as they are.

    `ignored` are the top-level fields that cannot be written here (by default `status`, or through a subresource
    `spec`): what the configuration says about them is dropped.  Raises StatusError: 409 with one cause per conflict.
    """
    given = config.get("apiVersion")
    if given != api_version:
        versions = f"Specified patch version: {given or ''}, expected: {api_version}"
        raise bad_request(f"Incorrect version specified in apply patch. {versions}")
    if (config.get("metadata") or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    config = _without_nulls(copy_json(config))
    for name in _ignored(node, subresource) if ignored is None else ignored:
        config.pop(name, None)
    problems = list(check_configuration(config, node))
    if problems:
        raise bad_request(f"failed to create typed patch object ({_describe(live, config)}): {problems[0]}")
    me = _manager(manager, "Apply", api_version, subresource)
    try:
        return _apply(live, config, node, me, api_version, force=force, now=now)
    except _Conflicts as conflicts:
        found = conflicts.found
        if manager == "kubectl" and live is not None:
            # Objects that `kubectl apply` made client-side carry what it applied; kubectl may take that over.
            allowed = _fields_last_applied(live, node)
            found = {who: rest for who, owned in found.items() if (rest := fields.difference(owned, allowed))}
            if not found:
                return _apply(live, config, node, me, api_version, force=True, now=now)
        raise _conflict_error(found) from None


class _Conflicts(Exception):
    def __init__(self, found: dict[_Manager, FieldSet]) -> None:
        super().__init__("conflicts")
        self.found = found


def _apply(
    live: Obj | None, config: Obj, node: SchemaNodeLike | None, me: _Manager, api_version: str, *, force: bool, now: str
) -> Obj:
    managers = _decode((live or {}).get("metadata", {}).get("managedFields") or [])
    if live is not None and not managers:
        # Nobody's ownership was recorded so far: whoever wrote the object before owns it as one.
        everything = _strip(fields.created_set(live, node))
        before = _manager(_BEFORE_APPLY, "Update", api_version, "")
        managers = {before: _Owned(everything, api_version, now)} if everything else {}
    base: Obj = copy_json(live) if live is not None else {}
    base.setdefault("metadata", {}).pop("managedFields", None)
    stated = _strip(fields.owned_set(config, node))
    last = managers.get(me)
    merged = merge_configuration(base, config, node)
    others: FieldSet = stated
    for manager, owned in managers.items():
        if manager != me:
            others = fields.union(others, owned.fields)
    if last is not None:
        prune(merged, last.fields, others, config, node)
    changes = _compare(live, merged, node) if live is not None else fields.Changes()
    found = _conflicting(managers, changes, me)
    if found and not force:
        raise _Conflicts(found)
    _refresh_last_applied(live, merged, config, me)
    noop = last is not None and last.fields == stated and last.api_version == api_version
    if noop and not (changes.added or changes.modified or changes.removed) and live is not None:
        copied: Obj = copy_json(live)
        return copied
    lost = fields.union(fields.union(changes.modified, changes.added), changes.removed)
    after = {
        manager: replace(owned, fields=kept)
        for manager, owned in managers.items()
        if manager != me and (kept := fields.difference(owned.fields, lost))
    }
    if stated:
        after[me] = _Owned(stated, api_version, now)
    _write(merged.setdefault("metadata", {}), after)
    return merged


def _conflicting(managers: _Managers, changes: fields.Changes, me: _Manager) -> dict[_Manager, FieldSet]:
    """What each other manager owns of the fields that are about to change."""
    changed = fields.union(changes.modified, changes.added)
    if not changed:
        return {}
    return {
        manager: shared
        for manager, owned in managers.items()
        if manager != me and (shared := fields.intersection(owned.fields, changed))
    }


def _conflict_error(found: dict[_Manager, FieldSet]) -> StatusError:
    listed = [(str(who), list(fields.paths(found[who]))) for who in sorted(found, key=str)]
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


def _fields_last_applied(live: Obj, node: SchemaNodeLike | None) -> FieldSet:
    """The fields that client-side apply last set and that are as it set them."""
    try:
        applied = json.loads((live["metadata"].get("annotations") or {})[LAST_APPLIED])
    except (KeyError, ValueError):
        return fields.LEAF
    if not isinstance(applied, dict):
        return fields.LEAF
    applied = _without_nulls(applied)
    changes = fields.compare(applied, live, node)
    changed = fields.union(fields.union(changes.added, changes.modified), changes.removed)
    return fields.difference(fields.owned_set(applied, node), changed)


def _refresh_last_applied(live: Obj | None, merged: Obj, config: Obj, me: _Manager) -> None:
    """Keep client-side apply's record in step, where there is one, so that going back to it stays possible."""
    if live is None or me.name != "kubectl" or LAST_APPLIED not in (live["metadata"].get("annotations") or {}):
        return
    record = copy_json(config)
    annotations = record.get("metadata", {}).get("annotations")
    if annotations:
        annotations.pop(LAST_APPLIED, None)
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n"
    merged["metadata"].setdefault("annotations", {})[LAST_APPLIED] = text


def _ignored(node: SchemaNodeLike | None, subresource: str) -> Collection[str]:
    if node is None or "status" not in node.fields or "spec" not in node.fields:
        return ()
    return {"": ("status",), "status": ("spec",)}.get(subresource, ())


def _describe(live: Obj | None, config: Obj) -> str:
    metadata = config.get("metadata") or (live or {}).get("metadata") or {}
    kind = f"{config.get('apiVersion', '')}, Kind={config.get('kind', '')}"
    kind = kind if "/" in kind.split(",")[0] else "/" + kind
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}; {kind}"


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


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
        if not metadata or (len(metadata) == 1 and "." in metadata):
            del owned["f:metadata"]
    return owned


def _decode(entries: list[Obj]) -> _Managers:
    """The managers that the entries tell of; ones that cannot be read are left out."""
    managers: _Managers = {}
    for entry in entries:
        owned, operation = entry.get("fieldsV1"), entry.get("operation")
        if operation not in ("Apply", "Update") or not isinstance(owned, dict):
            continue
        api_version = entry.get("apiVersion", "")
        manager = _manager(entry.get("manager", ""), operation, api_version, entry.get("subresource", ""))
        managers[manager] = _Owned(owned, api_version, entry.get("time", ""))
    return managers


def _encode(manager: _Manager, owned: _Owned) -> Obj:
    entry: Obj = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": owned.api_version,
        "time": owned.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": owned.fields,
    }
    if not owned.time:
        del entry["time"]
    if manager.subresource:
        entry["subresource"] = manager.subresource
    return entry


def _write(metadata: Obj, managers: _Managers) -> None:
    """Appliers first, then updaters, each in order of time."""
    entries = [_encode(manager, owned) for manager, owned in managers.items()]
    entries.sort(key=_entry_order)
    if entries:
        metadata["managedFields"] = entries
    else:
        metadata.pop("managedFields", None)


def _entry_order(entry: Obj) -> tuple[str, ...]:
    names = ("operation", "time", "manager", "apiVersion", "subresource")
    return tuple(str(entry.get(name, "")) for name in names)


def _cap(managers: _Managers) -> _Managers:
    """At most ten updaters are kept apart; the oldest above that become one per version, `ancient-changes`."""
    updaters = [manager for manager in managers if manager.operation == "Update"]
    if len(updaters) <= _MAX_UPDATE_MANAGERS:
        return managers
    updaters.sort(key=lambda manager: (managers[manager].time, manager))
    capped = dict(managers)
    for manager in _oldest(updaters):
        owned = capped.pop(manager)
        bucket = _manager(_ANCIENT, "Update", manager.api_version, "")
        held = capped.get(bucket)
        both = fields.union(held.fields, owned.fields) if held is not None else owned.fields
        time = max(held.time, owned.time) if held is not None else owned.time
        capped[bucket] = _Owned(both, manager.api_version, time)
        if sum(1 for other in capped if other.operation == "Update") <= _MAX_UPDATE_MANAGERS:
            break
    return capped


def _oldest(updaters: list[_Manager]) -> Iterator[_Manager]:
    return (manager for manager in updaters if manager.name != _ANCIENT)
