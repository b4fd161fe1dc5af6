"""Operators: arithmetic, comparison, membership, indices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from navarch.api.cel.declarations import declared
from navarch.api.cel.errors import CelError
from navarch.api.cel.values import (
    NO_OVERLOAD,
    NONE,
    Defaulting,
    Duration,
    Made,
    MapList,
    Optional,
    SetList,
    Timestamp,
    Uint,
    checked_int,
    checked_uint,
    compare,
    contains,
    equal,
    has_key,
    shown,
    some,
    type_name,
    weight,
)


def add(a: Any, b: Any) -> Any:
    kind, other = type(a), type(b)
    if kind is other:
        if kind is str or kind is bytes or kind is float:
            return a + b
        if kind is int:
            return checked_int(a + b)
        if kind is Uint:
            return checked_uint(int(a) + int(b))
        if kind is Duration:
            return Duration(a.nanos + b.nanos)
    if isinstance(a, (SetList, MapList)) and isinstance(b, list):
        return a.plus(b)
    if isinstance(a, list) and isinstance(b, list):
        return Made([*a, *b], weight(a) + weight(b))
    if kind in (Timestamp, Duration) and other in (Timestamp, Duration) and kind is not other:
        return Timestamp(a.nanos + b.nanos)
    raise CelError(NO_OVERLOAD)


def subtract(a: Any, b: Any) -> Any:
    kind, other = type(a), type(b)
    if kind is other:
        if kind is int:
            return checked_int(a - b)
        if kind is float:
            return a - b
        if kind is Uint:
            return checked_uint(int(a) - int(b))
        if kind in (Duration, Timestamp):
            return Duration(a.nanos - b.nanos)
    if kind is Timestamp and other is Duration:
        return Timestamp(a.nanos - b.nanos)
    raise CelError(NO_OVERLOAD)


def multiply(a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b):
        if kind is int:
            return checked_int(a * b)
        if kind is float:
            return a * b
        if kind is Uint:
            return checked_uint(int(a) * int(b))
    raise CelError(NO_OVERLOAD)


def divide(a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b):
        if kind is float:
            if b == 0:
                return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
            return a / b
        if kind is int or kind is Uint:
            if b == 0:
                raise CelError("division by zero")
            # Towards zero, as Go divides.
            quotient = abs(a) // abs(b)
            value = quotient if (a < 0) == (b < 0) else -quotient
            return checked_int(value) if kind is int else Uint(value)
    raise CelError(NO_OVERLOAD)


def modulo(a: Any, b: Any) -> Any:
    kind = type(a)
    if kind is type(b) and (kind is int or kind is Uint):
        if b == 0:
            raise CelError("modulus by zero")
        value = abs(a) % abs(b)
        return (-value if a < 0 else value) if kind is int else Uint(value)
    raise CelError(NO_OVERLOAD)


def negate(a: Any) -> Any:
    if type(a) is int:
        return checked_int(-a)
    if type(a) is float:
        return -a
    if type(a) is Duration:
        return Duration(-a.nanos)
    raise CelError(NO_OVERLOAD)


def invert(a: Any) -> bool:
    if a is True:
        return False
    if a is False:
        return True
    raise CelError(NO_OVERLOAD)


def less(a: Any, b: Any) -> bool:
    return compare(a, b) < 0


def less_equal(a: Any, b: Any) -> bool:
    return compare(a, b) <= 0


def greater(a: Any, b: Any) -> bool:
    return compare(a, b) > 0


def greater_equal(a: Any, b: Any) -> bool:
    return compare(a, b) >= 0


def unequal(a: Any, b: Any) -> bool:
    return not equal(a, b)


def within(item: Any, container: Any) -> bool:
    return contains(container, item)


def index(container: Any, key: Any) -> Any:
    if isinstance(container, dict):
        if has_key(container, key):
            return container[key]
        if isinstance(container, Defaulting):
            return container.default
        raise CelError(f"no such key: {shown(key)}")
    if isinstance(container, list):
        if type(key) is float and key.is_integer():
            key = int(key)
        if type(key) not in (int, Uint):
            raise CelError(f"unsupported index type '{type_name(key)}' in list")
        if 0 <= key < len(container):
            return container[key]
        raise CelError(f"index out of bounds: {key}")
    if isinstance(container, Optional):
        return optional_index(container, key)
    raise CelError(NO_OVERLOAD)


def optional_index(container: Any, key: Any) -> Optional:
    if isinstance(container, Optional):
        if not container.present:
            return NONE
        container = container.value
    if isinstance(container, dict):
        return some(container[key]) if has_key(container, key) else NONE
    if isinstance(container, list):
        if type(key) is float and key.is_integer():
            key = int(key)
        if type(key) not in (int, Uint):
            raise CelError(f"unsupported index type '{type_name(key)}' in list")
        return some(container[key]) if 0 <= key < len(container) else NONE
    raise CelError(NO_OVERLOAD)


_ORDERED: Final = ("bool", "int64", "uint64", "double", "string", "bytes", "timestamp", "duration")
_CROSSED: Final = (
    ("int64", "double"),
    ("int64", "uint64"),
    ("uint64", "double"),
    ("uint64", "int64"),
    ("double", "int64"),
    ("double", "uint64"),
)
_TYPE: Final = {"int64": "int", "uint64": "uint"}


def _comparisons() -> str:
    lines = []
    for operator, word in (("_<_", "less"), ("_<=_", "less_equals"), ("_>_", "greater"), ("_>=_", "greater_equals")):
        pairs = [(each, each, each) for each in _ORDERED] + [(f"{a}_{b}", a, b) for a, b in _CROSSED]
        lines += [f"{operator} {word}_{id_} ({_TYPE.get(a, a)}, {_TYPE.get(b, b)}) bool" for id_, a, b in pairs]
    return "\n".join(lines)


_LINES: Final = f"""
_+_ add_bytes (bytes, bytes) bytes
_+_ add_double (double, double) double
_+_ add_duration_duration (duration, duration) duration
_+_ add_duration_timestamp (duration, timestamp) timestamp
_+_ add_timestamp_duration (timestamp, duration) timestamp
_+_ add_int64 (int, int) int
_+_ add_list (list<A>, list<A>) list<A>
_+_ add_string (string, string) string
_+_ add_uint64 (uint, uint) uint
_-_ subtract_double (double, double) double
_-_ subtract_duration_duration (duration, duration) duration
_-_ subtract_int64 (int, int) int
_-_ subtract_timestamp_duration (timestamp, duration) timestamp
_-_ subtract_timestamp_timestamp (timestamp, timestamp) duration
_-_ subtract_uint64 (uint, uint) uint
_*_ multiply_double (double, double) double
_*_ multiply_int64 (int, int) int
_*_ multiply_uint64 (uint, uint) uint
_/_ divide_double (double, double) double
_/_ divide_int64 (int, int) int
_/_ divide_uint64 (uint, uint) uint
_%_ modulo_int64 (int, int) int
_%_ modulo_uint64 (uint, uint) uint
-_ negate_double (double) double
-_ negate_int64 (int) int
!_ logical_not (bool) bool
_==_ equals (A, A) bool
_!=_ not_equals (A, A) bool
_&&_ logical_and (bool, bool) bool
_||_ logical_or (bool, bool) bool
_?_:_ conditional (bool, A, A) A
@in in_list (A, list<A>) bool
@in in_map (A, map<A, B>) bool
_[_] index_list (list<A>, int) A
_[_] index_map (map<A, B>, A) B
_[_] optional_list_index_value (optional<list<V>>, int) optional<V>
_[_] optional_map_index_value (optional<map<K, V>>, K) optional<V>
_[?_] list_optindex_optional_int (list<V>, int) optional<V>
_[?_] optional_list_optindex_optional_int (optional<list<V>>, int) optional<V>
_[?_] map_optindex_optional_value (map<K, V>, K) optional<V>
_[?_] optional_map_optindex_optional_value (optional<map<K, V>>, K) optional<V>
{_comparisons()}
"""


def _unplanned(*_: Any) -> Any:
    """Operators that do not evaluate all of their operands are planned, not called."""
    raise CelError(NO_OVERLOAD)


_OPERATORS: Final[dict[str, Callable[..., Any]]] = {
    "_+_": add,
    "_-_": subtract,
    "_*_": multiply,
    "_/_": divide,
    "_%_": modulo,
    "-_": negate,
    "!_": invert,
    "_==_": equal,
    "_!=_": unequal,
    "_<_": less,
    "_<=_": less_equal,
    "_>_": greater,
    "_>=_": greater_equal,
    "@in": within,
    "_[_]": index,
    "_[?_]": optional_index,
    "_&&_": _unplanned,
    "_||_": _unplanned,
    "_?_:_": _unplanned,
}
OPERATORS: Final = frozenset(_OPERATORS)
FUNCTIONS: Final = declared(
    _LINES, {line.split()[1]: _OPERATORS[line.split()[0]] for line in _LINES.strip().splitlines()}
)
