"""The estimated cost of calls, function by function: the counterpart of `costs`, from sizes that are only bounded.

In: a function with its overload, and what is known of its target and arguments.  Out: the cost of the call itself, and
the size of what it gives, where that has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from navarch.api.cel.ast import Const
from navarch.api.cel.sizes import MOST, ONE, UNKNOWN, Known, Path, Range, fixed

_TRAVERSAL: Final = 0.1
_PATTERN: Final = 0.25
_LIST: Final = 10
SizeAt = Callable[[Path], Range | None]
Price = tuple[Range, Range | None]
_Priced = Callable[[str, Known | None, Sequence[Known], SizeAt], Price | None]

_NOMINAL: Final = frozenset((
    "serviceAccount", "path", "group", "resource", "subresource", "namespace", "name", "allowed", "reason",
    "error", "errored", "fieldSelector", "labelSelector", "masked", "prefixLength", "family",
    "isUnspecified", "isLoopback", "isLinkLocalMulticast", "isLinkLocalUnicast", "isGlobalUnicast",
    "sign", "asInteger", "isInteger", "asApproximateFloat", "isGreaterThan", "isLessThan", "compareTo",
    "add", "sub", "major", "minor", "patch",
))  # fmt: skip
_COMPARED: Final = frozenset(
    f"{word}_{each}" for word in ("less", "less_equals", "greater", "greater_equals") for each in ("string", "bytes")
) | {"equals", "not_equals"}

# What Kubernetes' own objects cost where one is compared with another of its type; `!=` is not priced so.
_EQUAL_AT_ONCE: Final = frozenset((
    "net.IP", "net.CIDR", "kubernetes.Quantity", "kubernetes.Semver", "kubernetes.authorization.Authorizer",
    "kubernetes.authorization.PathCheck", "kubernetes.authorization.GroupCheck",
    "kubernetes.authorization.ResourceCheck", "kubernetes.authorization.Decision",
))  # fmt: skip
# By the greatest size of a format; a URL's is that of its text.
_EQUAL_BY_SIZE: Final = {"kubernetes.NamedFormat": 64, "kubernetes.URL": 0}
_NAME_PATTERN: Final = 128


def price(function: str, overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price:
    if function in _NOMINAL:
        return ONE, None
    priced = _FUNCTIONS.get(function)
    if priced is not None:
        found = priced(overload, target, args, size_at)
        if found is not None:
            return found
    if overload == "equals" and args[0].type == args[1].type and args[0].type.name in _EQUAL_AT_ONCE:
        return ONE, None
    if overload == "equals" and args[0].type == args[1].type and args[0].type.name in _EQUAL_BY_SIZE:
        most = _EQUAL_BY_SIZE[args[0].type.name] or _size_or_one(args[1])
        return Range(1, most).scaled(_TRAVERSAL), None
    if overload in _COMPARED:
        most = min(args[0].size.high, args[1].size.high)
        return Range(1 if most > 0 else 0, most).scaled(_TRAVERSAL), None
    if overload == "in_list":
        return args[1].size, None
    if overload == "string_to_bytes":
        size = args[0].size
        return size.scaled(_TRAVERSAL), Range(size.low, min(size.high * 4, MOST))
    if overload == "bytes_to_string":
        size = args[0].size
        return size.scaled(_TRAVERSAL), Range(size.low // 4, size.high)
    return ONE, None


def _size_or_one(known: Known) -> int:
    return known.size.high if known.size != UNKNOWN else 1


def _check(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    return fixed(350_000), None


def _over_list(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    if target is None:
        return None
    if not target.type.parameters:
        return target.size.scaled(_TRAVERSAL), None
    element = target.type.parameters[0]
    each = ONE
    if element.kind in ("string", "bytes"):
        each = each.plus(_items(target, size_at).scaled(_TRAVERSAL))
    return target.size.times(each), None


def _items(target: Known, size_at: SizeAt) -> Range:
    return (size_at((*target.path, "@items")) if target.path else None) or UNKNOWN


def _of_argument(factor: float = _TRAVERSAL) -> _Priced:
    def priced(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
        return (args[0].size.scaled(factor), None) if args else None

    return priced


def _of_target(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    return (target.size.scaled(_TRAVERSAL), target.size) if target is not None else None


def _called_on(function: _Priced) -> _Priced:
    """Kubernetes prices some functions only where they are methods; others cost 1."""

    def priced(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
        return function(overload, target, args, size_at) if target is not None else None

    return priced


def _ip(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    return (ONE, None) if target is not None else None


def _replace(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    if target is None or len(args) < 2:
        return None
    size, old, new = target.size, args[0].size, args[1].size
    most, kept_most = _replaced(size.high, old.low, new.high, longest=True, grows=new.high > old.low)
    least, kept_least = _replaced(size.low, old.high, new.low, longest=False, grows=old.high > new.low)
    made = Range(least, most).times(new).plus(Range(kept_least, kept_most))
    return size.scaled(2 * _TRAVERSAL), made


def _replaced(size: int, old: int, new: int, *, longest: bool, grows: bool) -> tuple[int, int]:
    """How often something is replaced, and how much is kept."""
    if old == 0:
        return min(size + 1, MOST), size
    if not grows:
        return 0, size
    return min(math.ceil(size / old), MOST), 0


def _split(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    if target is None:
        return None
    most = target.size.high
    if len(args) > 1 and isinstance(args[1].node, Const) and isinstance(args[1].node.value, int):
        most = max(args[1].node.value, 0)
    return target.size.scaled(2 * _TRAVERSAL), Range(0, most)


def _join(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    if target is None:
        return None
    count = target.size
    size = count.times(_items(target, size_at))
    if args:
        size = size.plus(args[0].size.times(Range(max(count.low - 1, 0), max(count.high - 1, 0))))
    return size.scaled(_TRAVERSAL), size


def _pattern(text: Range, pattern: Range) -> Range:
    return text.plus(ONE).scaled(_TRAVERSAL).times(pattern.scaled(_PATTERN))


def _find(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    if target is None or not args:
        return None
    return _pattern(target.size, args[0].size), Range(0, target.size.high)


def _matches(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    return (_pattern(target.size, args[0].size), None) if target is not None and len(args) == 1 else None


def _contains(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    if target is None or len(args) != 1:
        return None
    return target.size.scaled(_TRAVERSAL).times(args[0].size.scaled(_TRAVERSAL)), None


def _within(*, more: bool) -> _Priced:
    def priced(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
        size = Range(4, 16)
        cost = size.plus(size).scaled(_TRAVERSAL)
        if more:
            cost = cost.plus(size.scaled(_TRAVERSAL)).plus(ONE)
        if overload.endswith("_string"):
            cost = cost.plus(args[0].size.scaled(_TRAVERSAL))
        return cost, None

    return priced


def _format(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    if target is None:
        return None
    return target.size.scaled(_TRAVERSAL), target.size.plus(args[0].size)


def _validate(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    return args[0].size.scaled(_TRAVERSAL).scaled(_NAME_PATTERN * _PATTERN), None


def _parsed(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    """What is as long as the text that it is made of."""
    return args[0].size.scaled(_TRAVERSAL), args[0].size


def _sets(factor: int) -> _Priced:
    def priced(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
        return args[0].size.times(args[1].size).times(fixed(factor)).plus(ONE), None

    return priced


def _listed(factor: float, size: Range) -> Price:
    return size.scaled(factor).plus(ONE).plus(fixed(_LIST)), size


def _number(known: Known, otherwise: int) -> int:
    node = known.node
    is_literal = isinstance(node, Const) and type(node.value) is int
    return max(node.value, 0) if isinstance(node, Const) and is_literal else otherwise


def _range(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    return _listed(1, fixed(_number(args[0], MOST)))


def _slice(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    if target is None or len(args) != 2:
        return None
    # Without a sign, as in Kubernetes: what ends before it begins is long.
    return _listed(1, fixed((_number(args[1], target.size.high) - _number(args[0], 0)) % (MOST + 1)))


def _flatten(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    return _listed(_number(args[0], MOST) if args else 1, target.size) if target is not None else None


def _reverse(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    return _listed(1, target.size) if target is not None else None


def _distinct(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    return _listed(2, target.size.times(target.size)) if target is not None else None


def _sort(overload: str, target: Known | None, args: Sequence[Known], size_at: SizeAt) -> Price | None:
    """By its own items, or by a list of keys."""
    by = args[0] if args else target
    factor = 2 + _TRAVERSAL if overload.startswith(("list_string_", "list_bytes_")) else 2
    return _listed(factor, by.size.times(by.size)) if by is not None else None


_FUNCTIONS: Final[dict[str, _Priced]] = {
    "check": _check,
    **dict.fromkeys(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"), _over_list),
    "url": _parsed,
    "jsonpatch.escapeKey": _parsed,
    **dict.fromkeys(("lowerAscii", "upperAscii", "substring", "trim"), _of_target),
    "replace": _replace,
    "split": _split,
    "join": _join,
    "find": _find,
    "findAll": _find,
    "matches": _matches,
    "contains": _contains,
    **{name: _called_on(_of_argument()) for name in ("cidr", "isIP", "isCIDR", "quantity", "isQuantity")},
    "semver": _called_on(_of_argument()),
    "isSemver": _called_on(_of_argument()),
    "ip": _ip,
    "ip.isCanonical": _called_on(_of_argument(2 * _TRAVERSAL)),
    "containsIP": _within(more=False),
    "containsCIDR": _within(more=True),
    "validate": _validate,
    "format": _format,
    "startsWith": _of_argument(),
    "endsWith": _of_argument(),
    "sets.contains": _sets(1),
    "sets.intersects": _sets(1),
    "sets.equivalent": _sets(2),
    "lists.range": _range,
    "slice": _slice,
    "flatten": _flatten,
    "reverse": _reverse,
    "distinct": _distinct,
    "sort": _sort,
    "@sortByAssociatedKeys": _sort,
}
