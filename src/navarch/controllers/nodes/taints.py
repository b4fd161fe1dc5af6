"""Taints that follow from a node's conditions, and which tolerations meet them. Pure."""

from __future__ import annotations

from navarch.api.meta import Obj

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_BY_CONDITION = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
}
_MANAGED = {*_BY_CONDITION.values(), UNSCHEDULABLE}


def of(node: Obj) -> list[Obj]:
    return list((node.get("spec") or {}).get("taints") or ())


def ready_status(node: Obj) -> str:
    """`True`, `False` or `Unknown` of the Ready condition; empty where there is none."""
    for condition in (node.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Ready":
            return str(condition.get("status") or "")
    return ""


def no_schedule(node: Obj) -> set[str]:
    """Keys of the NoSchedule taints that the node should carry for its conditions and its `unschedulable` field."""
    keys = {
        key
        for condition in (node.get("status") or {}).get("conditions") or ()
        if (key := _BY_CONDITION.get((condition.get("type", ""), condition.get("status", ""))))
    }
    if (node.get("spec") or {}).get("unschedulable"):
        keys.add(UNSCHEDULABLE)
    return keys


def wanted(node: Obj, no_execute: str | None, now: str) -> list[Obj]:
    """The node's taints as they should be; `no_execute` is the key of the one that drives pods away, if any."""
    schedule = no_schedule(node)
    kept: list[Obj] = []
    seen: set[tuple[str, str]] = set()
    for taint in of(node):
        key, effect = taint.get("key", ""), taint.get("effect", "")
        if effect == "NoSchedule" and key in _MANAGED and key not in schedule:
            continue
        if effect == "NoExecute" and key in (NOT_READY, UNREACHABLE) and key != no_execute:
            continue
        seen.add((key, effect))
        kept.append(taint)
    missing = [key for key in sorted(schedule) if (key, "NoSchedule") not in seen]
    kept += [{"key": key, "effect": "NoSchedule", "timeAdded": now} for key in missing]
    if no_execute and (no_execute, "NoExecute") not in seen:
        kept.append({"key": no_execute, "effect": "NoExecute", "timeAdded": now})
    return kept
