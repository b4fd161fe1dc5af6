"""Taints of devices: those that drivers publish and those that rules add, and who tolerates them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from navarch.api.meta import Obj
from navarch.kinds.core.node_match import tolerates

__all__ = ["rule_selects", "taints_of", "tolerates"]


def taints_of(id: Sequence[str], device: Obj, rules: Iterable[Obj]) -> list[Obj]:
    """All taints of a device, its own first. `id` is driver, pool and name; `rules` are the specs of
    DeviceTaintRules."""
    return [*(device.get("taints") or ()), *(rule["taint"] for rule in rules if rule_selects(rule, id))]


def rule_selects(rule: Obj, id: Sequence[str]) -> bool:
    """Whether a DeviceTaintRule is about the device; one without a selector is about none."""
    selector = rule.get("deviceSelector")
    if selector is None:
        return False
    wanted = (selector.get("driver"), selector.get("pool"), selector.get("device"))
    return all(stated in (None, own) for stated, own in zip(wanted, id, strict=True))
