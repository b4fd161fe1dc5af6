"""Which EndpointSlices to write so that they hold the wanted endpoints, with as few and as small writes as possible.

Pure. Invariants: a slice holds endpoints of one address family with one set of ports, at most `limit` of them; slices
that are right are left alone; endpoints that are new go into slices that change anyway, then into one with room.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import field

from navarch.api.meta import Obj, name_of
from navarch.controllers.pods import same_semantics
from navarch.records import mutable

LIMIT = 100


@mutable
class Wanted:
    """Endpoints that share a port set and family; `endpoints` by identity."""

    family: str
    ports: list[Obj]
    endpoints: dict[str, Obj] = field(default_factory=dict)


@mutable
class Changes:
    create: list[Obj] = field(default_factory=list)
    update: list[Obj] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)


def port_identity(family: str, ports: Iterable[Obj]) -> str:
    """Equal for slices that may hold the same endpoints."""
    normal = sorted(
        ({k: v for k, v in port.items() if v not in (None, "")} for port in ports),
        key=lambda port: json.dumps(port, sort_keys=True),
    )
    return family + json.dumps(normal, sort_keys=True)


def endpoint_identity(endpoint: Obj) -> str:
    target = endpoint.get("targetRef") or {}
    if target.get("uid"):
        return str(target["uid"])
    return json.dumps([endpoint.get("addresses"), endpoint.get("hostname"), target.get("name")])


def plan(existing: Sequence[Obj], wanted: Sequence[Wanted], new_slice: Obj, limit: int = LIMIT) -> Changes:
    """`new_slice` has the metadata that slices should carry (labels, annotations, owner). Its annotations come beside
    those that a slice has, but a copy of other annotations (the owner is no Service) has these alone."""
    changes = Changes()
    groups = {port_identity(group.family, group.ports): group for group in wanted}
    by_identity: dict[str, list[Obj]] = {}
    for held in existing:
        identity = port_identity(held.get("addressType", ""), held.get("ports") or ())
        if identity in groups:
            by_identity.setdefault(identity, []).append(held)
        else:
            changes.delete.append(held)
    for identity, group in groups.items():
        _plan_group(by_identity.get(identity, []), group, new_slice, limit, changes)
    return changes


def _plan_group(existing: Sequence[Obj], group: Wanted, new_slice: Obj, limit: int, changes: Changes) -> None:
    missing = dict(group.endpoints)
    unchanged: list[Obj] = []
    changed: list[tuple[Obj, list[Obj]]] = []
    for held in sorted(existing, key=lambda s: (s["metadata"].get("creationTimestamp") or "", name_of(s))):
        kept: list[Obj] = []
        differs = not _same_metadata(held, new_slice)
        for endpoint in held.get("endpoints") or ():
            want = missing.pop(endpoint_identity(endpoint), None)
            if want is None:
                differs = True
                continue
            differs = differs or not same_semantics(endpoint, want)
            kept.append(want)
        if differs:
            changed.append((held, kept))
        else:
            unchanged.append(held)
    rest = list(missing.values())
    final: list[tuple[Obj, list[Obj]]] = []
    for held, kept in changed:
        room = limit - len(kept)
        if room > 0:
            kept, rest = kept + rest[:room], rest[room:]
        final.append((held, kept))
    if rest:
        # The fullest slice with room for all of the rest is changed rather than another one made.
        fitting = [s for s in unchanged if len(s.get("endpoints") or ()) + len(rest) <= limit]
        if fitting:
            best = max(fitting, key=lambda s: len(s.get("endpoints") or ()))
            final.append((best, list(best.get("endpoints") or ()) + rest))
            unchanged.remove(best)
            rest = []
    emptied = [held for held, kept in final if not kept]
    for held, kept in final:
        if kept:
            changes.update.append(_filled(held, new_slice, group, kept))
    for start in range(0, len(rest), limit):
        made = {**new_slice, "metadata": dict(new_slice["metadata"])}
        made.update({"addressType": group.family, "endpoints": rest[start : start + limit], "ports": group.ports})
        changes.create.append(made)
    occupied = bool(unchanged or changes.create or len(emptied) < len(final))
    _plan_emptied(emptied, existing, group, new_slice, occupied, changes)


def _plan_emptied(
    emptied: Sequence[Obj], existing: Sequence[Obj], group: Wanted, new_slice: Obj, occupied: bool, changes: Changes
) -> None:
    """A Service without endpoints keeps one empty slice per family, so that watchers see that it has none."""
    if group.endpoints or occupied:
        changes.delete += emptied
        return
    if emptied:
        changes.delete += emptied[1:]
        changes.update.append(_filled(emptied[0], new_slice, group, []))
    elif not existing:
        made = {**new_slice, "metadata": dict(new_slice["metadata"])}
        made.update({"addressType": group.family, "endpoints": [], "ports": group.ports})
        changes.create.append(made)


def _same_metadata(held: Obj, new_slice: Obj) -> bool:
    have, want = held["metadata"], new_slice["metadata"]
    if not same_semantics(have.get("labels"), want.get("labels")):
        return False
    if _is_copy(new_slice) and not same_semantics(have.get("annotations"), want.get("annotations")):
        return False
    return bool(have.get("ownerReferences") == want.get("ownerReferences"))


def _is_copy(new_slice: Obj) -> bool:
    return any(owner.get("kind") == "Endpoints" for owner in new_slice["metadata"].get("ownerReferences") or ())


def _filled(held: Obj, new_slice: Obj, group: Wanted, endpoints: list[Obj]) -> Obj:
    want = new_slice["metadata"]
    metadata = {**held["metadata"], "labels": want.get("labels") or {}}
    if want.get("ownerReferences"):
        metadata["ownerReferences"] = want["ownerReferences"]
    if _is_copy(new_slice):
        metadata["annotations"] = want.get("annotations") or {}
    elif want.get("annotations"):
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **want["annotations"]}
    return {**held, "metadata": metadata, "endpoints": endpoints, "ports": group.ports}
