"""Optional values: `optional.of`, `orValue` and the like. What `.?` and `[?]` do is planned."""

from __future__ import annotations

from typing import Any, Final

from navarch.api.cel.declarations import declared
from navarch.api.cel.errors import CelError
from navarch.api.cel.values import NONE, Duration, Optional, Timestamp, some

_LINES: Final = """
optional.of optional_of (V) optional<V>
optional.ofNonZeroValue optional_ofNonZeroValue (V) optional<V>
optional.none optional_none () optional<V>
value optional_value optional<V>.() V
hasValue optional_hasValue optional<V>.() bool
or optional_or_optional optional<V>.(optional<V>) optional<V>
orValue optional_orValue_value optional<V>.(V) V
optional.unwrap optional_unwrap (list<optional<V>>) list<V>
unwrapOpt optional_unwrapOpt list<optional<V>>.() list<V>
"""


def _zero(value: Any) -> bool:
    if isinstance(value, (Duration, Timestamp)):
        return value.nanos == 0
    return value is None or value is False or (isinstance(value, (int, float, str, bytes, list, dict)) and not value)


def _value(optional: Optional) -> Any:
    if not optional.present:
        raise CelError("optional.none() dereference")
    return optional.value


def _unwrapped(options: list[Any]) -> list[Any]:
    return [each.value if isinstance(each, Optional) else each for each in options if not _absent(each)]


def _absent(each: Any) -> bool:
    return isinstance(each, Optional) and not each.present


FUNCTIONS: Final = declared(
    _LINES,
    {
        "optional_of": some,
        "optional_ofNonZeroValue": lambda value: NONE if _zero(value) else some(value),
        "optional_none": lambda: NONE,
        "optional_value": _value,
        "optional_hasValue": lambda optional: optional.present,
        "optional_or_optional": lambda optional, other: optional if optional.present else other,
        "optional_orValue_value": lambda optional, other: optional.value if optional.present else other,
        "optional_unwrap": _unwrapped,
        "optional_unwrapOpt": _unwrapped,
    },
)
