"""CEL expressions that select devices, and the parameters that go with them to a driver.

In: selectors and configurations of classes and claims, with their path.  Out: what is wrong with them. What was stored
once is not compiled again: it was right by the rules of its time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from navarch.api.errors import FieldError, required, too_long
from navarch.api.meta import Obj
from navarch.kinds.resource import expressions
from navarch.kinds.resource.names import driver_problems, each, parameters_problems

_SELECTORS: Final = 32
_LONGEST_EXPRESSION: Final = 10 * 1024
_LONGEST_PARAMETERS: Final = 10 * 1024


def selectors_problems(selectors: Sequence[Obj] | None, path: str, *, stored: bool = False) -> Iterator[FieldError]:
    def check(selector: Obj, at: str) -> Iterator[FieldError]:
        cel = selector.get("cel")
        if cel is None:
            yield required(f"{at}.cel")
        elif not stored:
            yield from _expression_problems(cel.get("expression") or "", f"{at}.cel.expression")

    yield from each(selectors, _SELECTORS, check, path)


def _expression_problems(expression: str, path: str) -> Iterator[FieldError]:
    if len(expression) > _LONGEST_EXPRESSION:
        yield too_long(path, _LONGEST_EXPRESSION)
        return
    yield from expressions.problems(expression, path)


def configuration_problems(config: Obj, path: str, *, stored: bool = False) -> Iterator[FieldError]:
    opaque = config.get("opaque")
    if opaque is None:
        yield required(f"{path}.opaque")
        return
    yield from driver_problems(opaque.get("driver") or "", f"{path}.opaque.driver")
    at = f"{path}.opaque.parameters"
    yield from parameters_problems(opaque.get("parameters"), at, _LONGEST_PARAMETERS, stored=stored)
