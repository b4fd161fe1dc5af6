"""Conditions of the API's common form, which their kind lets be checked: type, status, reason, time.

In: a list of conditions with its path.  Out: `FieldError`s in Kubernetes' words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from navarch.api.errors import FieldError, duplicate, invalid_value, not_supported, required, too_long
from navarch.api.meta import Obj
from navarch.api.validation import regex_problem, validate_qualified_name

_STATUSES: Final = ("False", "True", "Unknown")
_REASON: Final = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
_match_reason: Final = re.compile(_REASON).fullmatch
_MAX_REASON: Final = 1024
_MAX_MESSAGE: Final = 32 * 1024
_REASON_PROBLEM: Final = regex_problem(
    "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric "
    "characters or '_,:', and must end with an alphanumeric character or '_'",
    _REASON,
    "my_name",
    "MY_NAME",
    "MyName",
    "ReasonA,ReasonB",
    "ReasonA:ReasonB",
)


def validate_conditions(conditions: Sequence[Obj], path: str) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        at, kind = f"{path}[{index}]", condition.get("type", "")
        if kind in seen:
            yield duplicate(f"{at}.type", kind)
        seen.add(kind)
        yield from _validate_condition(condition, at)


def _validate_condition(condition: Obj, path: str) -> Iterator[FieldError]:
    yield from validate_qualified_name(condition.get("type", ""), f"{path}.type")
    if (status := condition.get("status", "")) not in _STATUSES:
        yield not_supported(f"{path}.status", status, _STATUSES)
    if (generation := condition.get("observedGeneration") or 0) < 0:
        yield invalid_value(f"{path}.observedGeneration", generation, "must be greater than or equal to zero")
    if not condition.get("lastTransitionTime"):
        yield required(f"{path}.lastTransitionTime")
    reason = condition.get("reason") or ""
    if not reason:
        yield required(f"{path}.reason")
    else:
        if not _match_reason(reason):
            yield invalid_value(f"{path}.reason", reason, _REASON_PROBLEM)
        if len(reason) > _MAX_REASON:
            yield too_long(f"{path}.reason", _MAX_REASON)
    if len(condition.get("message") or "") > _MAX_MESSAGE:
        yield too_long(f"{path}.message", _MAX_MESSAGE)
