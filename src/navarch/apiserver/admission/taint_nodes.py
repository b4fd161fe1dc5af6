"""TaintNodesByCondition: a new node takes no pods until the node controller has seen it ready."""

from __future__ import annotations

from typing import Final

from navarch.apiserver.admission.base import Attributes, Plugin

_NOT_READY: Final = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


class TaintNodesByCondition(Plugin):
    name = "TaintNodesByCondition"
    leaves_whole = True
    resources = frozenset({("", "nodes")})
    operations = frozenset({"CREATE"})

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.obj is None:
            return
        spec = attributes.obj.setdefault("spec", {})
        taints = spec.setdefault("taints", [])
        if not any(t.get("key") == _NOT_READY["key"] and t.get("effect") == "NoSchedule" for t in taints):
            taints.append(dict(_NOT_READY))
