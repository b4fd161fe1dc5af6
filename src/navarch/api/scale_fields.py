"""Managed fields of an object as those of its Scale, and back.

In: the entries of the object, the path of its replicas per version, the Scale's entries after a write of it.  Out: the
entries that the Scale has of them, and those that the object has then. Both only say who owns the replicas.

As in Kubernetes, down to what looks like oversight there: who comes to own the replicas through a Scale has no time; an
updater of the object itself that keeps them gets a second entry for them, and loses that with the next write, because
the two entries name the same manager.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from navarch.api import field_sets
from navarch.api.errors import Obj
from navarch.api.field_sets import FieldSet
from navarch.api.managers import entry_order

_SCALE_VERSION: Final = "autoscaling/v1"
_REPLICAS: Final = "spec.replicas"


def of_scale(entries: list[Obj], paths: Mapping[str, str]) -> list[Obj]:
    """The entries of a Scale: of those who own the replicas. `paths` are where these are, by version."""
    return [
        _entry(entry, _SCALE_VERSION, _set_of(_REPLICAS))
        for entry in _distinct(entries)
        if (path := paths.get(entry["apiVersion"])) and _has(entry["fieldsV1"], path)
    ]


def of_object(entries: list[Obj], scale: list[Obj], api_version: str, paths: Mapping[str, str]) -> list[Obj]:
    """The entries of an object whose Scale has the entries `scale` after a write in the object's `api_version`. Who
    speaks a version that there is no longer is dropped."""
    left = {_identity(entry): entry for entry in scale}
    out: list[Obj] = []
    for entry in _distinct(entries):
        path = paths.get(entry["apiVersion"])
        if path is None:
            continue
        if not path or not _has(entry["fieldsV1"], path) or left.pop(_identity(entry), None) is not None:
            out.append(entry)
        elif rest := field_sets.difference(entry["fieldsV1"], _set_of(path)):
            out.append({**entry, "fieldsV1": rest})
    owned = _set_of(paths.get(api_version) or _REPLICAS)
    for entry in left.values():
        if _has(entry["fieldsV1"], _REPLICAS):
            added = _entry(entry, api_version, owned)
            added.pop("time", None)
            out.append(added)
    return sorted(out, key=entry_order)


def _distinct(entries: list[Obj]) -> list[Obj]:
    """One entry for each manager: the last."""
    return list({_identity(entry): entry for entry in entries}.values())


def _identity(entry: Obj) -> tuple[Any, ...]:
    applied = entry.get("operation") == "Apply"
    version = "" if applied else entry.get("apiVersion")
    return (entry.get("manager"), applied, version, entry.get("subresource"))


def _entry(entry: Obj, api_version: str, owned: FieldSet) -> Obj:
    return {**entry, "apiVersion": api_version, "fieldsV1": owned}


def _set_of(path: str) -> FieldSet:
    owned: FieldSet = field_sets.LEAF
    for step in reversed(path.split(".")):
        owned = {f"f:{step}": owned}
    return owned


def _has(owned: FieldSet, path: str) -> bool:
    at: Any = owned
    for step in path.split("."):
        at = at.get(f"f:{step}")
        if at is None:
            return False
    return field_sets.is_member(at)
