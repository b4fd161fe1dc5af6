"""Evaluating the expressions of one policy for one write, within a budget.

In: programs, the values of the variables.  Out: values, or `EvaluationError` with the words that Kubernetes has for it.
A policy's own variables are evaluated when they are first asked for, and once.

Invariant: nothing here runs for longer than its budget. An evaluation may be begun with a small part of it (`quick`):
what needs more raises `TooDearError`, and is begun anew where it holds nobody up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from navarch.api.cel.costs import BUDGET, PER_CALL_LIMIT
from navarch.api.cel.environment import Program
from navarch.api.cel.errors import CelError, CostExceeded

# What is evaluated at once, in the event loop: some milliseconds.
QUICK: Final = 20_000
CONDITIONS_BUDGET: Final = BUDGET // 4
_OUT_OF_BUDGET: Final = "validation failed due to running out of cost budget, no further validation rules will be run"


class EvaluationError(Exception):
    """An expression without a value; the text says which and why."""


class OutOfBudgetError(EvaluationError):
    """All of the budget is spent: nothing else is evaluated."""

    def __init__(self) -> None:
        super().__init__(_OUT_OF_BUDGET)


class TooDearError(Exception):
    """More than what is evaluated at once."""


class Expression:
    """One of a policy's expressions. `wrong` is why it cannot be evaluated at all: it was stored by another version."""

    __slots__ = ("program", "text", "wrong")

    def __init__(self, text: str, program: Program | None, wrong: str = "") -> None:
        self.text = text
        self.program = program
        self.wrong = wrong


class Evaluation:
    """`values` are those of a request, in the order of the admission environment's names; `clock` gives seconds."""

    def __init__(
        self,
        values: Sequence[Any],
        variables: Mapping[str, Expression],
        clock: Callable[[], float],
        *,
        quick: int | None,
        budget: int = BUDGET,
    ) -> None:
        self.clock = clock
        self._values = (*values, _Variables(self, variables))
        self._left = budget
        self._quick = quick

    def value(self, expression: Expression) -> Any:
        """Raises EvaluationError, TooDearError."""
        if expression.program is None:
            raise EvaluationError(f"compilation error: {expression.wrong}")
        try:
            return self.run(expression.program)
        except CelError as error:
            raise EvaluationError(f"expression '{expression.text}' resulted in error: {error.text}") from None

    def run(self, program: Program) -> Any:
        """Raises CelError, OutOfBudgetError, TooDearError."""
        quick = self._quick
        most = min(PER_CALL_LIMIT, self._left)
        limit = most if quick is None else min(most, quick)
        try:
            value, cost = program.evaluate(self._values, limit)
        except CostExceeded:
            if limit < most:
                raise TooDearError from None
            if limit < PER_CALL_LIMIT:
                raise OutOfBudgetError from None
            self._left -= limit
            raise
        except CelError as error:
            self._spend(error.cost)
            raise
        self._spend(cost)
        return value

    def _spend(self, cost: int) -> None:
        self._left -= cost
        if self._quick is not None:
            self._quick = max(self._quick - cost, 0)


class _Variables:
    """The value of `variables`."""

    __slots__ = ("_evaluation", "_expressions", "_known")

    def __init__(self, evaluation: Evaluation, expressions: Mapping[str, Expression]) -> None:
        self._evaluation = evaluation
        self._expressions = expressions
        self._known: dict[str, tuple[Any, CelError | None]] = {}

    def has_field(self, name: str) -> bool:
        return name in self._expressions

    def field_value(self, name: str) -> Any:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._find(name)
        value, error = known
        if error is not None:
            raise error
        return value

    def _find(self, name: str) -> tuple[Any, CelError | None]:
        expression = self._expressions.get(name)
        if expression is None:
            return None, CelError(f"no such key: {name}")
        if expression.program is None:
            return None, CelError(f'composited variable "{name}" fails to compile: {expression.wrong}')
        try:
            return self._evaluation.run(expression.program), None
        except CelError as error:
            return None, CelError(f'composited variable "{name}" fails to evaluate: {error.text}')


def hold(conditions: Sequence[Expression], evaluation: Evaluation) -> bool:
    """Whether all conditions hold: one that does not decides, whatever others fail.  Raises EvaluationError."""
    failed: list[str] = []
    for condition in conditions:
        try:
            if evaluation.value(condition) is False:
                return False
        except OutOfBudgetError:
            raise
        except EvaluationError as error:
            failed.append(str(error))
    if failed:
        shown = list(dict.fromkeys(failed))
        raise EvaluationError(shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]")
    return True
