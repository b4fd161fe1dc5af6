"""The entries of `metadata.managedFields`: read, written, sorted, bounded.

In: an object's entries.  Out: `Managers`, what each of them owns; and back. At most ten updaters are told apart, as in
Kubernetes; those who have applied stay, however many they are. What they own is worked out by `apply`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

from navarch.api import field_sets
from navarch.api.errors import Obj
from navarch.api.field_sets import FieldSet

_MAX_UPDATE_MANAGERS: Final = 10
_ANCIENT: Final = "ancient-changes"


class Manager(NamedTuple):
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


class Owned(NamedTuple):
    """What a manager owns, in which version it said so, and when."""

    fields: FieldSet
    api_version: str
    time: str


Managers = dict[Manager, Owned]


def identified(name: str, operation: str, api_version: str, subresource: str) -> Manager:
    return Manager(name, operation, "" if operation == "Apply" else api_version, subresource)


def readable(entries: Any) -> bool:
    """Whether managedFields are what they should be; none are."""
    if not entries:
        return True
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return False
    words = ("manager", "operation", "apiVersion", "subresource", "time")
    if not all(isinstance(entry.get(word, ""), str) for entry in entries for word in words):
        return False
    return len(decode(entries)) == len(entries) and all(_is_tree(entry["fieldsV1"]) for entry in entries)


def _is_tree(owned: Any) -> bool:
    """Whether a set of fields is one: objects all the way down."""
    return isinstance(owned, dict) and all(
        (key == "." or key[1:2] == ":") and _is_tree(below) for key, below in owned.items()
    )


def identifier(manager: Manager) -> bytes:
    """The text by which Kubernetes tells managers apart, and sorts them."""
    named = (
        ("manager", manager.name),
        ("operation", manager.operation),
        ("apiVersion", manager.api_version),
        ("subresource", manager.subresource),
    )
    return orjson.dumps({key: value for key, value in named if value})


def decode(entries: list[Obj]) -> Managers:
    """The managers that the entries tell of; ones that cannot be read are left out."""
    managers: Managers = {}
    for entry in entries:
        owned, operation = entry.get("fieldsV1"), entry.get("operation")
        if operation not in ("Apply", "Update") or not isinstance(owned, dict):
            continue
        api_version = entry.get("apiVersion", "")
        manager = identified(entry.get("manager", ""), operation, api_version, entry.get("subresource", ""))
        managers[manager] = Owned(owned, api_version, entry.get("time", ""))
    return managers


def encode(manager: Manager, owned: Owned) -> Obj:
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


def entry_order(entry: Obj) -> tuple[str, str, str, str, str]:
    """How the entries of managedFields are sorted: appliers first, then updaters, each by time."""
    get = entry.get
    operation, time, manager = get("operation") or "", get("time") or "", get("manager") or ""
    return operation, time, manager, get("apiVersion") or "", get("subresource") or ""


def write(metadata: Obj, managers: Managers) -> None:
    """Appliers first, then updaters, each in order of time."""
    entries = [encode(manager, owned) for manager, owned in managers.items()]
    entries.sort(key=entry_order)
    if entries:
        metadata["managedFields"] = entries
    else:
        metadata.pop("managedFields", None)


def capped(managers: Managers) -> Managers:
    """At most ten updaters are kept apart; the oldest above that become one per version, `ancient-changes`."""
    updaters = [manager for manager in managers if manager.operation == "Update"]
    if len(updaters) <= _MAX_UPDATE_MANAGERS:
        return managers
    updaters.sort(key=lambda manager: (managers[manager].time, manager))
    out = dict(managers)
    ancient: dict[Manager, list[Owned]] = {}
    left = len(updaters)
    for manager in _oldest(updaters):
        bucket = identified(_ANCIENT, "Update", manager.api_version, "")
        if bucket not in ancient:
            left += bucket not in out
            ancient[bucket] = [out.pop(bucket)] if bucket in out else []
        ancient[bucket].append(out.pop(manager))
        left -= 1
        if left <= _MAX_UPDATE_MANAGERS:
            break
    for bucket, owned in ancient.items():
        together = field_sets.union_of([each.fields for each in owned])
        out[bucket] = Owned(together, owned[-1].api_version, max(each.time for each in owned))
    return out


def _oldest(updaters: list[Manager]) -> Iterator[Manager]:
    return (manager for manager in updaters if manager.name != _ANCIENT)
