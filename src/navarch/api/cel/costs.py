"""What an evaluation costs, in cel-go's units: counted while it runs, and refused above a limit.

In: a function's overload and its arguments.  Out: units, which are charged before it is called. Most calls cost 1,
which the planner adds up beforehand; `by_size` has those whose cost is in the size of what they get. A unit is about 50
ns of Go on Kubernetes' reference machine. The counterpart, from sizes that a schema promises, is `estimate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from navarch.api.cel.functions.formats import Format
from navarch.api.cel.functions.network import Cidr
from navarch.api.cel.values import Made, MadeMap, length, weight

PER_CALL_LIMIT: Final = 1_000_000
BUDGET: Final = 10_000_000

CONST: Final = 0
NAME: Final = 1
LIST: Final = 10
MAP: Final = 30
STRUCT: Final = 40

_TRAVERSAL: Final = 0.1
_FREE: Final = 10_000
_PATTERN: Final = 0.25
# Items that are copied in the time of a unit.
_COPIED: Final = 64

ActualCost = Callable[[Sequence[Any]], int]


def _units(size: float, factor: float = _TRAVERSAL) -> int:
    return math.ceil(size * factor)


def _of_first(factor: float = _TRAVERSAL) -> ActualCost:
    return lambda args: _units(length(args[0]), factor)


def _of_smaller(args: Sequence[Any]) -> int:
    return _units(min(length(args[0]), length(args[1])))


def _of_both(args: Sequence[Any]) -> int:
    return _units(length(args[0]) + length(args[1]))


def _of_pattern(args: Sequence[Any]) -> int:
    return _units(1 + length(args[0])) * _units(length(args[1]), _PATTERN)


def _of_search(args: Sequence[Any]) -> int:
    return _units(length(args[0])) * _units(length(args[1]))


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Cidr) else length(value)


def _contains_ip(args: Sequence[Any]) -> int:
    cost = _units(2 * _size(args[0]))
    return cost + _units(len(args[1])) if isinstance(args[1], str) else cost


def _contains_cidr(args: Sequence[Any]) -> int:
    cost = _units(2 * _size(args[0])) + _units(_size(args[0])) + 1
    return cost + _units(len(args[1])) if isinstance(args[1], str) else cost


def _format(args: Sequence[Any]) -> int:
    each = args[0]
    size = each.regex_size if isinstance(each, Format) else 1
    return _units(1 + length(args[1])) * _units(size, _PATTERN)


def _joined(args: Sequence[Any]) -> int:
    separator = len(args[1]) if len(args) > 1 else 0
    size = sum(len(each) for each in args[0] if isinstance(each, str)) + separator * max(0, len(args[0]) - 1)
    return _units(size, 2 * _TRAVERSAL)


def _replaced(args: Sequence[Any]) -> int:
    text, old, new = args[:3]
    cost = _units(len(text), 2 * _TRAVERSAL)
    # What it makes may be far longer than what it reads, which Kubernetes does not count.
    grown = text.count(old) * (len(new) - len(old)) if isinstance(old, str) and isinstance(new, str) else 0
    return cost if grown < _FREE else cost + _units(grown)


def _added(args: Sequence[Any]) -> int:
    # Kubernetes joins lists without copying them and counts 1 whatever their length. Here they are copied: a few
    # doublings must not take seconds.
    return 1 + (weight(args[0]) + weight(args[1])) // _COPIED


def traversal(value: Any) -> int:
    """The cost of looking at all of a value."""
    if isinstance(value, str):
        return int(len(value.encode()) * _TRAVERSAL)
    if isinstance(value, bytes):
        return int(len(value) * _TRAVERSAL)
    if isinstance(value, (Made, MadeMap)):
        return value.weight
    if isinstance(value, list):
        return sum(traversal(each) for each in value)
    if isinstance(value, dict):
        return sum(traversal(key) + traversal(each) for key, each in value.items())
    return 1


def _sets(args: Sequence[Any]) -> int:
    return length(args[0]) * length(args[1])


def _listed(factor: float, size: int) -> int:
    """The cost of a call that makes a list."""
    return int(size * factor) + 1 + LIST


def _range(args: Sequence[Any]) -> int:
    return _listed(1, max(args[0], 0))


def _sliced(args: Sequence[Any]) -> int:
    return _listed(1, max(min(args[2], len(args[0])) - args[1], 0))


def _flattened(args: Sequence[Any]) -> int:
    depth = max(args[1], 0) if len(args) > 1 else 1
    # What it makes may be far longer, where the same list is in it many times; which Kubernetes does not count.
    return max(_listed(depth, len(args[0])), weight(args[0]) // _COPIED)


def _compared(items: Sequence[Any]) -> int:
    """The cost of comparing all items with one another."""
    factor = 2 + _TRAVERSAL if items and isinstance(items[0], (str, bytes)) else 2.0
    return _listed(factor, len(items) ** 2)


def _distinct(args: Sequence[Any]) -> int:
    return max(_compared(args[0]), len(args[0]) * weight(args[0]) // _COPIED)


def _check(args: Sequence[Any]) -> int:
    # Two questions to the authorizer are what one expression may ask.
    return 350_000


_BY_FUNCTION: Final[dict[str, ActualCost]] = {
    "check": _check,
    **{name: lambda args: traversal(args[0]) for name in ("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf")},
    **{
        name: _of_first()
        for name in ("url", "lowerAscii", "upperAscii", "substring", "trim", "cidr", "isIP", "isCIDR", "quantity")
    },
    "isQuantity": _of_first(),
    "semver": _of_first(),
    "isSemver": _of_first(),
    "ip": _of_first(),
    "replace": _replaced,
    "split": _of_first(2 * _TRAVERSAL),
    "ip.isCanonical": _of_first(2 * _TRAVERSAL),
    "join": _joined,
    "find": _of_pattern,
    "findAll": _of_pattern,
    "matches": _of_pattern,
    "contains": _of_search,
    "containsIP": _contains_ip,
    "containsCIDR": _contains_cidr,
    "validate": _format,
    "format": lambda args: _units(length(args[0])) + _units(length(args[1]) - len(args[1])),
    "strings.quote": _of_first(),
    "jsonpatch.escapeKey": _of_first(),
    "startsWith": lambda args: _units(length(args[0])),
    "endsWith": lambda args: _units(length(args[0])),
    "sets.contains": _sets,
    "sets.intersects": _sets,
    "sets.equivalent": lambda args: 2 * _sets(args),
    "lists.range": _range,
    "slice": _sliced,
    "flatten": _flattened,
    "reverse": lambda args: _listed(1, len(args[0])),
    "distinct": _distinct,
    "sort": lambda args: _compared(args[0]),
    "@sortByAssociatedKeys": lambda args: _compared(args[1]),
    "_==_": _of_smaller,
    "_!=_": _of_smaller,
}
_BY_OVERLOAD: Final[dict[str, ActualCost]] = {
    "string_to_bytes": _of_first(),
    "bytes_to_string": _of_first(),
    "in_list": lambda args: length(args[1]),
    "add_string": _of_both,
    "add_bytes": _of_both,
    "add_list": _added,
    **{
        f"{word}_{each}": _of_smaller
        for word in ("less", "less_equals", "greater", "greater_equals")
        for each in ("string", "bytes")
    },
}
_FIXED: Final = frozenset({"cidr_ip"})


def by_size(function: str, overloads: Sequence[str]) -> ActualCost | None:
    """What a call costs, where that is in its values; None where it costs 1."""
    if any(each in _FIXED for each in overloads) and len(overloads) == 1:
        return None
    found = _BY_FUNCTION.get(function)
    if found is not None:
        return found
    sized = [_BY_OVERLOAD[each] for each in overloads if each in _BY_OVERLOAD]
    if not sized:
        return None
    if len(sized) == len(overloads):
        return sized[0]
    # Which overload it is only shows when it runs.
    dear = sized[0]
    return lambda args: dear(args) if isinstance(args[-1], (str, bytes, list)) else 1


__all__ = ["BUDGET", "LIST", "MAP", "NAME", "PER_CALL_LIMIT", "STRUCT", "ActualCost", "by_size", "traversal"]
