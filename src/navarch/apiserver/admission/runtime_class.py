"""RuntimeClass: a pod that names a runtime class gets its overhead and the places where it can run."""

from __future__ import annotations

from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.kinds.resources import RUNTIME_CLASSES


class RuntimeClass(Plugin):
    name = "RuntimeClass"
    leaves_whole = True
    resources = frozenset({("", "pods")})
    operations = frozenset({"CREATE"})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.obj is None:
            return
        spec = attributes.obj["spec"]
        name = spec.get("runtimeClassName")
        if not name:
            if spec.get("overhead"):
                raise attributes.refused(
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                )
            return
        runtime = self._reader.get(RUNTIME_CLASSES, "", name)
        if runtime is None:
            raise attributes.refused(f'pod rejected: RuntimeClass "{name}" not found')
        self._set_overhead(attributes, spec, runtime)
        self._set_scheduling(attributes, spec, runtime.get("scheduling") or {})

    def _set_overhead(self, attributes: Attributes, spec: Obj, runtime: Obj) -> None:
        fixed = (runtime.get("overhead") or {}).get("podFixed")
        own = spec.get("overhead")
        if fixed:
            if own and own != fixed:
                raise attributes.refused("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
            spec["overhead"] = dict(fixed)
        elif own:
            raise attributes.refused(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            )

    def _set_scheduling(self, attributes: Attributes, spec: Obj, scheduling: Obj) -> None:
        wanted, own = scheduling.get("nodeSelector") or {}, spec.get("nodeSelector") or {}
        for key, value in wanted.items():
            if own.get(key, value) != value:
                raise attributes.refused(
                    f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                    f"pod.spec.nodeSelector[{key}] = {own[key]}"
                )
        if wanted:
            spec["nodeSelector"] = {**own, **wanted}
        tolerations = list(spec.get("tolerations") or ())
        added = [each for each in scheduling.get("tolerations") or () if each not in tolerations]
        if added:
            spec["tolerations"] = tolerations + added
