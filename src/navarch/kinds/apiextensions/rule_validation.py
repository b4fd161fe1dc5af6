"""The rules of a schema when it is written: whether they compile, what they may cost, and whether an old value that
they speak of can be found.

In: a schema and the path to it.  Out: the errors, in Kubernetes' words and order: those of what is below first.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Final

from navarch.api.cel.rules import (
    RULE_COST_LIMIT,
    SCHEMA_COST_LIMIT,
    Cardinality,
    Problem,
    Rule,
    Rules,
    cost_problem,
)
from navarch.api.errors import FieldError, forbidden_field, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.structural_pruning import RULES
from navarch.kinds.apiextensions.go_form import shown_rule

_MOST: Final = 2**64 - 1
_SHOWN: Final = 4


@dataclass(slots=True)
class _Total:
    """What all rules together may cost, and those that cost the most."""

    cost: int = 0
    dearest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, cost: int, path: str) -> None:
        self.cost = min(self.cost + cost, _MOST)
        if cost >= SCHEMA_COST_LIMIT // 100:
            self.dearest.append((cost, path))
            self.dearest.sort(key=lambda entry: -entry[0])
            del self.dearest[_SHOWN:]


def rule_errors(schema: Obj, path: str, wrong: Set[str]) -> Iterator[FieldError]:
    """What is wrong with the rules of a schema whose form is right; `path` is that of the schema, and rules at `wrong`
    paths are not looked at."""
    total = _Total()
    yield from _Walk(total, wrong).errors(schema, path, Cardinality(1), "", root=True)
    if total.cost > SCHEMA_COST_LIMIT:
        for _, at in total.dearest:
            yield forbidden_field(
                at, "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            )
        name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        yield forbidden_field(path, cost_problem(name, total.cost, SCHEMA_COST_LIMIT))


class _Walk:
    def __init__(self, total: _Total, wrong: Set[str]) -> None:
        self._rules = Rules()
        self._wrong = wrong
        self._total = total

    def errors(
        self, schema: Obj, path: str, cardinality: Cardinality, uncorrelatable: str, *, root: bool
    ) -> Iterator[FieldError]:
        """`uncorrelatable` is where old values cannot be found any more; empty while they can."""
        values, items = schema.get("additionalProperties"), schema.get("items")
        if isinstance(values, dict):
            below = cardinality.of_items(schema)
            yield from self._inner(values, f"{path}.additionalProperties", below, uncorrelatable)
        here = uncorrelatable
        if schema.get("x-kubernetes-map-type") == "atomic":
            here = here or path
        for name, inner in sorted((schema.get("properties") or {}).items()):
            yield from self._inner(inner, f"{path}.properties[{name}]", cardinality, here)
        if isinstance(items, dict):
            lost = uncorrelatable if schema.get("x-kubernetes-list-type") == "map" else uncorrelatable or path
            yield from self._inner(items, f"{path}.items", cardinality.of_items(schema), lost)
        for index, stated in enumerate(schema.get(RULES) or () if path not in self._wrong else ()):
            compiled = self._rules.compile(schema, stated, root=root)
            yield from self._rule(compiled, stated, f"{path}.{RULES}[{index}]", cardinality, uncorrelatable)

    def _inner(self, schema: Obj, path: str, cardinality: Cardinality, uncorrelatable: str) -> Iterator[FieldError]:
        embedded = bool(schema.get("x-kubernetes-embedded-resource"))
        return self.errors(schema, path, cardinality, uncorrelatable, root=embedded)

    def _rule(
        self, compiled: Rule | Problem, stated: Obj, path: str, cardinality: Cardinality, uncorrelatable: str
    ) -> Iterator[FieldError]:
        if isinstance(compiled, Problem):
            at = f"{path}.{compiled.field}"
            if compiled.missing:
                yield required(at, compiled.text)
            else:
                yield invalid_value(at, shown_rule(stated), compiled.text)
            return
        cost = cardinality.cost(compiled.cost, compiled.declared)
        if cost > RULE_COST_LIMIT:
            yield forbidden_field(f"{path}.rule", cost_problem("estimated rule cost", cost, RULE_COST_LIMIT))
        self._total.add(cost, f"{path}.rule")
        if compiled.message is not None:
            at = f"{path}.messageExpression"
            if compiled.message_cost > RULE_COST_LIMIT:
                name = "estimated messageExpression cost"
                yield forbidden_field(at, cost_problem(name, compiled.message_cost, RULE_COST_LIMIT))
            self._total.add(compiled.message_cost, at)
        if compiled.transition:
            if uncorrelatable:
                why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelatable}"
                yield invalid_value(f"{path}.rule", stated.get("rule", ""), why)
        elif stated.get("optionalOldSelf") is not None:
            why = "may not be set if oldSelf is not used in rule"
            yield invalid_value(f"{path}.optionalOldSelf", stated["optionalOldSelf"], why)
