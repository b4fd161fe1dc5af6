"""Match conditions, compiled: of webhooks, and of policies.

In: the conditions of an object.  Out: each condition's expression, in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from navarch.api.cel.types import BOOL, Type
from navarch.api.meta import Obj
from navarch.apiserver.policies.evaluation import Expression
from navarch.kinds.admissionregistration.expressions import (
    AdmissionEnvironment,
    ExpressionError,
    compiled,
    environment,
)

Conditions = tuple[Expression, ...]


def conditions_of(conditions: Sequence[Obj], *, params: bool = False) -> Conditions:
    variables = environment(params=params)
    return tuple(expression_of(variables, str(each.get("expression") or "").strip(), BOOL) for each in conditions)


def expression_of(environment: AdmissionEnvironment, text: str, *wanted: Type) -> Expression:
    try:
        return Expression(text, compiled(environment, text, *wanted))
    except ExpressionError as error:
        return Expression(text, None, str(error))
