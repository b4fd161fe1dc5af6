"""The rules of a structural schema (`x-kubernetes-validations`) over one object: which hold, and what is said if not.

In: a schema with rules, an object, and for a change the one before.  Out: errors, and warnings about parts that break a
rule but are as they were. All rules together may cost so much and no more. A rule that speaks of the old value is asked
only where there is one: fields are the same by their names, items of lists by their keys if they have any. Rules are
compiled when a value first has the part of the schema that they are about.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from navarch.api.cel.costs import PER_CALL_LIMIT
from navarch.api.cel.errors import CelError, CostExceeded
from navarch.api.cel.rules import RUN_BUDGET, Problem, Rule, Rules
from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.patience import TooLongError, waited_for
from navarch.api.structural_paths import field_path
from navarch.api.structural_pruning import EMBEDDED, RULES, has_rules

log = logging.getLogger(__name__)

_NO_PATH: Final = "<nil>"
# What is evaluated while others wait: some milliseconds.
_QUICK: Final = 20_000
_STOPPED: Final = "no further validation rules will be run"
_OUT_OF_BUDGET: Final = f"validation failed due to running out of cost budget, {_STOPPED}"
_MESSAGE_MAX: Final = 5 * 1024
# What makes a value so wrong that rules cannot be asked about it.
_BLOCKING: Final = frozenset(
    {
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)
_NOT_CHECKED: Final = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)


@dataclass(slots=True)
class Verdict:
    """What the rules say of an object."""

    errors: list[FieldError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    budget: int = RUN_BUDGET
    # What of the budget has to be left while others wait.
    spared: int = 0

    def spend(self, cost: int) -> None:
        """Raises TooLongError."""
        self.budget -= cost
        if self.spared and self.budget < self.spared:
            raise TooLongError

    @property
    def limit(self) -> int:
        """What one evaluation may cost."""
        return min(PER_CALL_LIMIT, self.budget - self.spared) if self.spared else PER_CALL_LIMIT


@dataclass(frozen=True, slots=True)
class _Before:
    """What a part of an object was: `new` and `old` where both are known, else what it is in."""

    new: Any = None
    old: Any = None
    known: bool = False
    around: _Before | None = None

    def same(self) -> bool:
        """Whether the part, or the nearest around it that can be compared, is as it was."""
        if self.known:
            return bool(self.new == self.old)
        return self.around is not None and self.around.same()

    def below(self, new: Any, old: Any, *, known: bool) -> _Before:
        if not self.known:
            return self
        return _Before(new, old, known, None if known else self)


_NOTHING: Final = _Before()


class SchemaRules:
    """The rules of a schema."""

    def __init__(self, schema: Obj, *, resource: bool = True) -> None:
        """`resource` is whether it is that of an object with metadata."""
        self._root = _Place(schema, Rules(), root=resource)

    def judge(self, obj: Obj, old: Obj | None, found: Sequence[FieldError]) -> Verdict:
        """`found` is what is wrong with the object without its rules."""
        verdict = Verdict(spared=RUN_BUDGET - _QUICK if waited_for() else 0)
        if any(error.type in _BLOCKING for error in found):
            verdict.errors.append(FieldError("FieldValueInvalid", _NO_PATH, _NOT_CHECKED, None))
            return verdict
        before = _Before(obj, old, known=True) if old is not None else _NOTHING
        self._root.judge(obj, old, "", before, verdict)
        return verdict

    def judge_default(self, default: Any, path: str, budget: int) -> Verdict:
        """A default at `path` must do for who keeps it as well as for who has not had it before."""
        kept = Verdict(budget=budget)
        self._root.judge(default, default, path, _NOTHING, kept)
        if kept.errors:
            return kept
        new = Verdict(budget=budget)
        self._root.judge(default, None, path, _NOTHING, new)
        new.budget = min(new.budget, kept.budget)
        return new


class _Place:
    """One place of the schema."""

    __slots__ = ("_below", "_keys", "_made", "_root", "_rules", "_schema")

    def __init__(self, schema: Obj, rules: Rules, *, root: bool) -> None:
        self._schema = schema
        self._rules = rules
        self._root = root
        self._made: list[tuple[Obj, Rule | Problem]] | None = None
        self._below: dict[str, _Place | None] = {}
        by_keys = schema.get("x-kubernetes-list-type") == "map"
        self._keys: Sequence[str] = tuple(schema.get("x-kubernetes-list-map-keys") or ()) if by_keys else ()

    def _at(self, name: str, schema: Any) -> _Place | None:
        """What is below; None where there are no rules."""
        try:
            return self._below[name]
        except KeyError:
            place = None
            if isinstance(schema, dict) and has_rules(schema):
                place = _Place(schema, self._rules, root=bool(schema.get(EMBEDDED)))
            self._below[name] = place
            return place

    def judge(self, value: Any, old: Any, path: str, before: _Before, verdict: Verdict) -> None:
        if value is None:
            return
        if self._schema.get(RULES):
            self._ask(value, old, path, before, verdict)
        if verdict.budget < 0:
            return
        if type(value) is dict:
            self._fields(value, old if type(old) is dict else None, path, before, verdict)
        elif type(value) is list and (place := self._at("items", self._schema.get("items"))) is not None:
            known = _by_keys(old, self._keys) if self._keys and type(old) is list else {}
            for index, item in enumerate(value):
                key = _key_of(item, self._keys) if known else None
                was, found = (known[key], True) if key in known else (None, False)
                place.judge(item, was, f"{path}[{index}]", before.below(item, was, known=found), verdict)
                if verdict.budget < 0:
                    return

    def _fields(self, value: Obj, old: Obj | None, path: str, before: _Before, verdict: Verdict) -> None:
        fields, values = self._schema.get("properties") or {}, self._schema.get("additionalProperties")
        comparable = self._schema.get("x-kubernetes-map-type") != "atomic"
        for name, inner in value.items():
            if name in fields:
                place, at = self._at(f".{name}", fields[name]), f"{path}.{name}" if path else name
            elif isinstance(values, dict):
                place, at = self._at("values", values), f"{path}[{name}]"
            else:
                continue
            if place is None:
                continue
            has = old is not None and name in old
            was = old[name] if old is not None and has else None
            below = before.below(inner, was, known=has)
            if self._root and not path and name in ("apiVersion", "kind"):
                # They are made the same before they are compared.
                below = _NOTHING
            place.judge(inner, was if comparable else None, at, below, verdict)
            if verdict.budget < 0:
                return

    # The rules of this place

    def _compiled(self) -> list[tuple[Obj, Rule | Problem]]:
        if self._made is None:
            schema, rules = self._schema, self._rules
            self._made = [(stated, rules.compile(schema, stated, root=self._root)) for stated in schema[RULES]]
        return self._made

    def _ask(self, value: Any, old: Any, path: str, before: _Before, verdict: Verdict) -> None:
        at, type_ = path or _NO_PATH, self._schema.get("type", "")
        if verdict.budget <= 0:
            verdict.errors.append(invalid_value(at, type_, _OUT_OF_BUDGET))
            verdict.budget = -1
            return
        for stated, rule in self._compiled():
            if isinstance(rule, Problem):
                verdict.errors.append(invalid_value(at, type_, f"rule compile error: {rule.text}"))
                continue
            if rule.transition and old is None and not rule.optional_old:
                continue
            try:
                holds, cost = rule.holds(value, old, verdict.limit)
            except CelError as error:
                self._failed(error, stated, at, type_, verdict)
                if verdict.budget < 0:
                    return
                continue
            verdict.spend(cost)
            if verdict.budget < 0:
                verdict.errors.append(invalid_value(at, type_, _OUT_OF_BUDGET))
                return
            if holds is not True:
                self._broken(rule, stated, value, old, path, before, verdict)
                if verdict.budget < 0:
                    return

    def _failed(self, error: CelError, stated: Obj, at: str, type_: str, verdict: Verdict) -> None:
        """A rule that gives no answer."""
        if isinstance(error, CostExceeded) and verdict.spared:
            raise TooLongError
        shown = _shown(stated)
        verdict.spend(error.cost)
        if isinstance(error, CostExceeded):
            text = f"'{error.text}': {_STOPPED} due to call cost exceeds limit for rule: {shown}"
            verdict.budget = -1
        elif verdict.budget < 0:
            text = _OUT_OF_BUDGET
        elif error.text.startswith("no such overload"):
            text = (
                f"'{error.text}': call arguments did not match a supported operator, function or macro signature for "
                f"rule: {shown}"
            )
        else:
            text = f"{error.text} evaluating rule: {shown}"
        verdict.errors.append(invalid_value(at, type_, text))

    def _broken(
        self, rule: Rule, stated: Obj, value: Any, old: Any, path: str, before: _Before, verdict: Verdict
    ) -> None:
        """A rule that does not hold."""
        at = path
        if where := (stated.get("fieldPath") or "").strip():
            shown = field_path(where, self._schema)[0]
            at = f"{path}{shown}" if shown.startswith("[") or not path else f"{path}.{shown}"
        message = stated.get("message") or ""
        detail = message.strip() if message else f"failed rule: {_shown(stated)}"
        if rule.message is not None:
            detail = self._worded(rule, stated, value, old, detail, verdict)
        error = _error(at or _NO_PATH, value, detail, stated.get("reason"))
        if not rule.transition and before.same():
            verdict.warnings.append(str(error))
        else:
            verdict.errors.append(error)

    def _worded(self, rule: Rule, stated: Obj, value: Any, old: Any, otherwise: str, verdict: Verdict) -> str:
        """What the rule's message expression gives; what there is else where it gives nothing of use."""
        try:
            text, cost = rule.worded(value, old, verdict.limit)
        except CelError as error:
            if isinstance(error, CostExceeded):
                if verdict.spared:
                    raise TooLongError from None
                verdict.budget = -1
                shown = stated["messageExpression"]
                return f'{_STOPPED} due to call cost exceeds limit for messageExpression: "{shown}"'
            verdict.spend(error.cost)
            log.debug("messageExpression evaluation failed due to: %s", error)
            return otherwise
        verdict.spend(cost)
        if verdict.budget < 0:
            return f"messageExpression evaluation failed due to running out of cost budget, {_STOPPED}"
        text = str(text).strip()
        return text if text and len(text.encode()) <= _MESSAGE_MAX and "\n" not in text else otherwise


def _shown(stated: Obj) -> str:
    message = stated.get("message") or ""
    return message.strip() if message else (stated.get("rule") or "").strip()


def _error(path: str, value: Any, detail: str, reason: str | None) -> FieldError:
    scalar = type(value) is not dict and type(value) is not list
    if reason == "FieldValueForbidden":
        return forbidden_field(path, detail)
    if reason == "FieldValueRequired":
        return required(path, detail)
    if reason == "FieldValueDuplicate":
        return duplicate(path, value) if scalar else FieldError("FieldValueDuplicate", path)
    return invalid_value(path, value, detail) if scalar else FieldError("FieldValueInvalid", path, detail)


def _key_of(item: Any, keys: Sequence[str]) -> tuple[Any, ...] | None:
    return tuple(repr(item.get(key)) for key in keys) if type(item) is dict else None


def _by_keys(items: list[Any], keys: Sequence[str]) -> Mapping[tuple[Any, ...] | None, Any]:
    found: dict[tuple[Any, ...] | None, Any] = {}
    for item in items:
        if type(item) is dict:
            found.setdefault(_key_of(item, keys), item)
    return found
