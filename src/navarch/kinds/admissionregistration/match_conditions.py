"""Match conditions: expressions of webhooks and policies that say which requests they are for, after their rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from navarch.api.errors import FieldError, duplicate, required, too_many
from navarch.api.meta import Obj
from navarch.api.validation import validate_qualified_name
from navarch.kinds.admissionregistration.expressions import condition_problems

_MOST: Final = 64


def validate_match_conditions(conditions: Sequence[Obj], path: str, *, params: bool = False) -> Iterator[FieldError]:
    """Names, expressions, and that there are not too many. `params`: they can speak of parameters."""
    if len(conditions) > _MOST:
        yield too_many(path, len(conditions), _MOST)
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        at, name = f"{path}[{index}]", condition.get("name") or ""
        expression = condition.get("expression") or ""
        if not expression.strip():
            yield required(f"{at}.expression")
        else:
            yield from condition_problems(expression, f"{at}.expression", params=params)
        if not name:
            yield required(f"{at}.name")
            continue
        yield from validate_qualified_name(name, f"{at}.name")
        if name in seen:
            yield duplicate(f"{at}.name", name)
        seen.add(name)
