"""RuntimeClass: validation, columns."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api import quantity
from navarch.api.errors import FieldError, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.validation import qualified_name_problems, validate_dns_label, validate_immutable, validate_labels
from navarch.kinds.base import AGE, NAME, Column, Strategy
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
        for name, amount in ((obj.get("overhead") or {}).get("podFixed") or {}).items():
            path = f"overhead.podFixed[{name}]"
            for problem in qualified_name_problems(name):
                yield invalid_value("overhead.podFixed", name, problem)
            if quantity.compare(amount, 0) < 0:
                yield invalid_value(path, amount, "must be greater than or equal to 0")
        scheduling = obj.get("scheduling")
        if scheduling is not None:
            yield from validate_labels(scheduling.get("nodeSelector") or {}, "scheduling.nodeSelector")
        if old is not None:
            yield from validate_immutable(handler, old.get("handler"), "handler")
