"""ExtendedResourceToleration: pods that ask for a device tolerate the taint that keeps others off its nodes; not on by
default."""

from __future__ import annotations

from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Plugin


class ExtendedResourceToleration(Plugin):
    name = "ExtendedResourceToleration"
    resources = frozenset({("", "pods")})

    async def mutate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None:
            return
        spec = obj["spec"]
        tolerations = list(spec.get("tolerations") or ())
        for resource in sorted(_extended_resources(spec)):
            wanted = {"key": resource, "operator": "Exists", "effect": "NoSchedule"}
            if wanted not in tolerations:
                tolerations.append(wanted)
        if len(tolerations) > len(spec.get("tolerations") or ()):
            spec["tolerations"] = tolerations


def _extended_resources(spec: Obj) -> set[str]:
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    asked = (name for container in containers for name in (container.get("resources") or {}).get("requests") or {})
    return {name for name in asked if "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")}
