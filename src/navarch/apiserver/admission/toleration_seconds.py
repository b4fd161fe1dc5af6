"""DefaultTolerationSeconds: a pod stays five minutes on a node that went away, unless it says otherwise."""

from __future__ import annotations

from typing import Final

from navarch.apiserver.admission.base import Attributes, Plugin

_KEYS: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_SECONDS: Final = 300


class DefaultTolerationSeconds(Plugin):
    name = "DefaultTolerationSeconds"
    leaves_whole = True
    resources = frozenset({("", "pods")})

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.obj is None:
            return
        spec = attributes.obj["spec"]
        tolerations = spec.get("tolerations") or []
        for key in _KEYS:
            tolerated = any(
                (toleration.get("key") or key) == key and (toleration.get("effect") or "NoExecute") == "NoExecute"
                for toleration in tolerations
            )
            if not tolerated:
                added = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _SECONDS}
                # A new list each time: the old one may be shared with what the pod was made from.
                spec["tolerations"] = [*(spec.get("tolerations") or ()), added]
