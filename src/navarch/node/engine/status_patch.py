"""What is sent of a status that was computed: the patch that makes the API server's what it should be. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from navarch.api.meta import Obj
from navarch.node.engine.restarting import CONDITION

# Conditions that are there only while they are true.
PASSING: Final = ("PodResizePending", "PodResizeInProgress")
_OWNED: Final = (
    *("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready", "PodScheduled"),
    CONDITION,
)


def node_status_patch(status: Obj) -> Obj:
    """A node's status as a strategic merge patch. Addresses are merged by their types, of which a node with two IP
    families has one twice; so they are replaced."""
    return {**status, "addresses": [*status["addresses"], {"$patch": "replace"}]}


def status_patch(old: Mapping[str, Any], new: Obj) -> Obj:
    """The strategic merge patch that turns `old` into `new`: what changed, null for what went.

    Conditions merge by type, so that those which others own are never touched."""
    patch: Obj = {}
    for key, value in new.items():
        if key == "conditions":
            changed = _changed_conditions(old.get(key) or [], value)
            if changed:
                patch[key] = changed
        elif key in ("podIPs", "hostIPs"):
            if old.get(key) != value:
                gone = [entry for entry in old.get(key) or [] if entry not in value]
                patch[key] = [*value, *({"$patch": "delete", "ip": entry["ip"]} for entry in gone)]
        elif old.get(key) != value:
            patch[key] = value
    for key in old:
        if key not in new:
            patch[key] = None
    return patch


def _changed_conditions(old: Sequence[Obj], new: Sequence[Obj]) -> list[Obj]:
    before = {condition["type"]: condition for condition in old}
    changed = []
    for condition in new:
        was = before.get(condition["type"])
        if was is not None and _without_nulls(was) == _without_nulls(condition):
            continue
        if was is not None and condition["type"] not in _OWNED and was == condition:
            continue
        gone = {key: None for key in was or {} if key not in condition}
        changed.append({**condition, **gone})
    kept = {condition["type"] for condition in new}
    changed += [{"type": kind, "$patch": "delete"} for kind in PASSING if kind in before and kind not in kept]
    return changed


def _without_nulls(value: Obj) -> Obj:
    return {key: item for key, item in value.items() if item is not None}
