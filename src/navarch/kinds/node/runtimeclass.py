"""RuntimeClass: validation, columns."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.errors import FieldError, duplicate, required
from navarch.api.meta import Obj
from navarch.api.validation import validate_dns_label, validate_immutable, validate_labels
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.pod_validation_resources import validate_resource_requirements
from navarch.kinds.core.pod_validation_scheduling import validate_tolerations
from navarch.kinds.internal import internal
from navarch.kinds.strategies import strategy


@strategy("node.k8s.io", "RuntimeClass")
class RuntimeClassStrategy(Strategy):
    finalizers_have_domains = False
    allow_create_on_update = True
    allow_unconditional_update = False
    columns = (NAME, Column("Handler", ".handler"), AGE)

    def defaults(self, obj: Obj) -> None:
        for toleration in (obj.get("scheduling") or {}).get("tolerations") or ():
            if not toleration.get("operator"):
                toleration["operator"] = "Equal"

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        handler = obj.get("handler") or ""
        yield from validate_dns_label(handler, "handler") if handler else (required("handler"),)
        if (overhead := obj.get("overhead")) is not None:
            yield from validate_resource_requirements({"limits": overhead.get("podFixed")}, "overhead.podFixed")
        if (scheduling := obj.get("scheduling")) is not None:
            yield from validate_labels(scheduling.get("nodeSelector") or {}, "scheduling.nodeSelector")
            tolerations = scheduling.get("tolerations") or []
            yield from validate_tolerations(tolerations, "scheduling.tolerations")
            for index, toleration in enumerate(tolerations):
                if toleration in tolerations[:index]:
                    yield duplicate(f"scheduling.tolerations[{index}]", internal(toleration, "Toleration"))
        if old is not None:
            yield from validate_immutable(handler, old.get("handler"), "handler")
