"""Priority: a pod's priority class becomes a number; a cluster has at most one default class, and its own stay."""

from __future__ import annotations

from typing import Final

from navarch.api.meta import Obj, name_of
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.kinds.base import Kind
from navarch.kinds.resources import PRIORITY_CLASSES

# Known without being stored, so that the cluster's own pods start before anything else does.
_SYSTEM: Final = {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}
_PREEMPT: Final = "PreemptLowerPriority"


class Priority(Plugin):
    name = "Priority"
    leaves_whole = True
    resources = frozenset({("", "pods"), ("scheduling.k8s.io", "priorityclasses")})
    operations = frozenset({"CREATE", "UPDATE", "DELETE"})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def concerns(self, kind: Kind, operation: str, subresource: str) -> bool:
        if operation == "DELETE" and kind.resource.plural == "pods":
            return False
        return super().concerns(kind, operation, subresource)

    async def mutate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.kind.resource.plural != "pods" or pod is None:
            return
        spec = pod["spec"]
        if attributes.operation == "UPDATE":
            was = (attributes.old or {}).get("spec") or {}
            for field in ("priority", "preemptionPolicy"):
                if spec.get(field) is None and was.get(field) is not None:
                    spec[field] = was[field]
            return
        name, value, policy = self._resolve(attributes, spec)
        if name:
            spec["priorityClassName"] = name
        given = spec.get("priority")
        if given is not None and given != value:
            raise attributes.refused(
                f"the integer value of priority ({given}) must not be provided in pod spec; "
                f"priority admission controller computed {value} from the given PriorityClass name"
            )
        spec["priority"] = value
        own = spec.get("preemptionPolicy")
        if own is not None and own != policy:
            raise attributes.refused(
                f"the string value of PreemptionPolicy ({own}) must not be provided in pod spec; "
                f"priority admission controller computed {policy} from the given PriorityClass name"
            )
        spec["preemptionPolicy"] = policy

    def _resolve(self, attributes: Attributes, spec: Obj) -> tuple[str, int, str]:
        """The class' name, its value and its preemption policy."""
        name = spec.get("priorityClassName") or ""
        if not name:
            defaults = [each for each in self._reader.list(PRIORITY_CLASSES) if each.get("globalDefault")]
            if not defaults:
                return "", 0, _PREEMPT
            found = min(defaults, key=lambda each: each.get("value") or 0)
        else:
            stored = self._reader.get(PRIORITY_CLASSES, "", name)
            if stored is None:
                if name in _SYSTEM:
                    return name, _SYSTEM[name], _PREEMPT
                raise attributes.refused(f"no PriorityClass with name {name} was found")
            found = stored
        return name_of(found), int(found.get("value") or 0), found.get("preemptionPolicy") or _PREEMPT

    async def validate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if attributes.operation == "DELETE" and attributes.name in _SYSTEM:
            raise attributes.refused("this is a system priority class and cannot be deleted")
        if attributes.kind.resource.plural != "priorityclasses" or obj is None or not obj.get("globalDefault"):
            return
        for other in self._reader.list(PRIORITY_CLASSES):
            if other.get("globalDefault") and name_of(other) != attributes.name:
                raise attributes.refused(
                    f"PriorityClass {name_of(other)} is already marked as default. Only one default can exist"
                )
