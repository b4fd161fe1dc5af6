"""Validation rules of custom resources: `x-kubernetes-validations`.

In: a schema and one of its rules.  Out: `Rule`, with what it may cost at most, or why it is none, in Kubernetes' words.
How often it may run in one object (`times`) and what that makes of its cost, how its failure is reported, and whether
an old value can be found for it, is the business of who walks the schema.

    rules = Rules()
    compiled = rules.compile(node, rule, root=False)       # a Rule or a Problem
    if not compiled.holds(value, old): …                   # raises CelError, CostExceeded
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from navarch.api.cel.costs import PER_CALL_LIMIT
from navarch.api.cel.environment import Environment, Program
from navarch.api.cel.errors import CompileError
from navarch.api.cel.schemas import REQUEST_LIMIT, Declarations, Declared, most_items, most_properties
from navarch.api.cel.types import optional_of
from navarch.api.cel.values import NONE, some
from navarch.api.meta import Obj

RULE_COST_LIMIT: Final = 10_000_000
SCHEMA_COST_LIMIT: Final = 100_000_000
RUN_BUDGET: Final = 10_000_000
_MOST: Final = 2**64 - 1


class Problem(NamedTuple):
    """What is wrong with a rule. `field` is `rule` or `messageExpression`; `missing` if there is none at all."""

    field: str
    text: str
    missing: bool = False


class Outcome(NamedTuple):
    value: Any
    cost: int


@dataclass(frozen=True, slots=True)
class Rule:
    program: Program
    message: Program | None
    # Whether it speaks of the old value: then it only holds between two values.
    transition: bool
    optional_old: bool
    # The greatest cost of one evaluation, and of its message's.
    cost: int
    message_cost: int
    declared: Declared

    def holds(self, value: Any, old: Any, limit: int = PER_CALL_LIMIT) -> Outcome:
        """Whether the rule holds, and what finding out cost. `old` is None where there is no old value.  Raises
        CelError."""
        return Outcome(*self.program.evaluate(self._values(value, old), limit))

    def worded(self, value: Any, old: Any, limit: int = PER_CALL_LIMIT) -> Outcome:
        """What the message expression gives.  Raises CelError."""
        assert self.message is not None
        return Outcome(*self.message.evaluate(self._values(value, old), limit))

    def _values(self, value: Any, old: Any) -> tuple[Any, Any]:
        convert = self.declared.convert
        if convert is not None:
            value, old = convert(value), convert(old) if old is not None else None
        if self.optional_old:
            old = some(old) if old is not None else NONE
        return value, old


class Rules:
    """The rules of one schema; types of its parts are made once."""

    def __init__(self) -> None:
        self._declarations = Declarations()
        self._environments: dict[tuple[int, bool], tuple[Declared, Environment]] = {}

    def declared(self, schema: Obj, *, root: bool = False) -> Declared | None:
        return self._declarations.of(schema, root=root)

    def _environment(self, declared: Declared, *, optional_old: bool) -> Environment:
        key = id(declared), optional_old
        found = self._environments.get(key)
        if found is None:
            old = optional_of(declared.type) if optional_old else declared.type
            found = self._environments[key] = declared, Environment({"self": declared.type, "oldSelf": old})
        return found[1]

    def compile(self, schema: Obj, rule: Obj, *, root: bool = False) -> Rule | Problem:
        """`schema` is the part of the schema that has the rule; `root`: it describes a whole object."""
        text = rule.get("rule") or ""
        if not text.strip():
            return Problem("rule", "rule is not specified", missing=True)
        declared = self.declared(schema, root=root)
        if declared is None:
            return Problem("rule", "compilation failed: the schema has no type that rules can speak of")
        optional_old = bool(rule.get("optionalOldSelf"))
        environment = self._environment(declared, optional_old=optional_old)
        try:
            program = environment.compile(text)
        except CompileError as error:
            return Problem("rule", f"compilation failed: {error}")
        if program.type.kind != "bool":
            return Problem("rule", "cel expression must evaluate to a bool")
        message, message_cost = None, 0
        if rule.get("messageExpression"):
            compiled = self._message(environment, rule["messageExpression"])
            if isinstance(compiled, Problem):
                return compiled
            message, message_cost = compiled, compiled.estimate(declared.size_at).high
        cost = program.estimate(declared.size_at).high
        # As Kubernetes holds it: a message's use of the old value makes no transition rule.
        return Rule(program, message, program.mentions("oldSelf"), optional_old, cost, message_cost, declared)

    def _message(self, environment: Environment, text: str) -> Program | Problem:
        if not text.strip():
            return Problem("messageExpression", "messageExpression must be non-empty if specified", missing=True)
        try:
            program = environment.compile(text)
        except CompileError as error:
            return Problem("messageExpression", f"messageExpression compilation failed: {error}")
        if program.type.kind != "string":
            return Problem("messageExpression", "messageExpression must evaluate to a string")
        return program


class Cardinality(NamedTuple):
    """How often a part of a schema can be in one object; None: as often as a request's size allows."""

    times: int | None = 1

    def of_items(self, schema: Obj) -> Cardinality:
        """Of what a list or map holds: bounded only where all that it is in is bounded."""
        stated = schema.get("maxItems" if schema.get("type") == "array" else "maxProperties")
        if self.times is None or stated is None:
            return Cardinality(None)
        return Cardinality(min(self.times * max(int(stated), 0), _MOST))

    def cost(self, once: int, declared: Declared) -> int:
        """The cost of that many evaluations."""
        times = self.times if self.times is not None else most_times(declared)
        return min(once * times, _MOST)


def most_times(declared: Declared) -> int:
    """How many values fit into a request, each with a comma."""
    return (REQUEST_LIMIT - 2) // (declared.least_bytes + 1)


def cost_problem(name: str, cost: int, limit: int) -> str:
    """The words for a cost above its limit."""
    factor = cost / limit
    if factor > 100:
        shown = "more than 100x"
    elif factor < 1.5:
        shown = f"{factor:f}x"
    else:
        shown = f"{factor:.1f}x"
    return (
        f"{name} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and "
        "maxLength where arrays, maps, and strings are declared)"
    )


__all__ = ["Cardinality", "Declared", "Problem", "Rule", "Rules", "cost_problem", "most_items", "most_properties"]
