"""Kubernetes' functions over lists, regular expressions, and cel-go's sets."""

from __future__ import annotations

from functools import cmp_to_key
from itertools import pairwise
from typing import Any, Final

from navarch.api.cel.declarations import declared
from navarch.api.cel.errors import CelError
from navarch.api.cel.functions.arithmetic import add
from navarch.api.cel.regex import matches_of
from navarch.api.cel.values import Duration, Made, Timestamp, Uint, compare, equal

_COMPARABLE: Final = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")
_SUMMABLE: Final = {"int": 0, "uint": Uint(0), "double": 0.0, "duration": Duration(0)}


def _is_sorted(items: list[Any]) -> bool:
    return all(compare(a, b) <= 0 for a, b in pairwise(items))


def _extreme(items: list[Any], word: str, sign: int) -> Any:
    if not items:
        raise CelError(f"{word} called on empty list")
    found = items[0]
    for each in items[1:]:
        if compare(each, found) * sign > 0:
            found = each
    return found


def _min(items: list[Any]) -> Any:
    return _extreme(items, "min", -1)


def _max(items: list[Any]) -> Any:
    return _extreme(items, "max", 1)


def _sum(zero: Any) -> Any:
    def total(items: list[Any]) -> Any:
        result = zero
        for each in items:
            result = add(result, each)
        return result

    return total


def _index_of(items: list[Any], item: Any) -> int:
    return next((index for index, each in enumerate(items) if equal(each, item)), -1)


def _last_index_of(items: list[Any], item: Any) -> int:
    return next((index for index in range(len(items) - 1, -1, -1) if equal(items[index], item)), -1)


def _find(text: str, pattern: str) -> str:
    found = matches_of(pattern, text, 1)
    return found[0] if found else ""


def _has_all(items: list[Any], wanted: list[Any]) -> bool:
    return all(any(equal(each, item) for item in items) for each in wanted)


# cel-go's library of lists


def _slice(items: list[Any], start: int, end: int) -> list[Any]:
    problem = ""
    if start < 0 or end < 0:
        problem = "negative indexes not supported"
    elif start > end:
        problem = "start index must be less than or equal to end index"
    elif end > len(items):
        problem = f"list is length {len(items)}"
    if problem:
        raise CelError(f"cannot slice({start}, {end}), {problem}")
    return Made(items[start:end])


def _flatten(items: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise CelError("level must be non-negative")
    found: list[Any] = []
    for each in items:
        if isinstance(each, list) and depth:
            found += _flatten(each, depth - 1)
        else:
            found.append(each)
    return Made(found)


def _distinct(items: list[Any]) -> list[Any]:
    found: list[Any] = []
    for each in items:
        if not any(equal(each, other) for other in found):
            found.append(each)
    return Made(found)


def _sorted_by(items: list[Any], keys: list[Any]) -> list[Any]:
    if len(items) != len(keys):
        sizes = f"{len(items)} and {len(keys)} elements respectively"
        wanted = "expected a list of the same size as the associated keys list"
        raise CelError(f"@sortByAssociatedKeys() {wanted}, but got {sizes}")
    if keys and not isinstance(keys[0], (int, float, str, bytes, Duration, Timestamp)):
        raise CelError("list elements must be comparable")
    if any(type(each) is not type(keys[0]) for each in keys):
        raise CelError("list elements must have the same type")
    by_key = cmp_to_key(compare)
    return Made(items[index] for index in sorted(range(len(keys)), key=lambda index: by_key(keys[index])))


def _sorted(items: list[Any]) -> list[Any]:
    return _sorted_by(items, items)


_LINES = """
slice list_slice list<T>.(int, int) list<T>
flatten list_flatten list<list<T>>.() list<T>
flatten list_flatten_int list<dyn>.(int) list<dyn>
lists.range lists_range (int) list<int>
reverse list_reverse list<T>.() list<T>
distinct list_distinct list<T>.() list<T>
indexOf list_a_index_of_int list<A>.(A) int
lastIndexOf list_a_last_index_of_int list<A>.(A) int
find string_find_string string.(string) string
findAll string_find_all_string string.(string) list<string>
findAll string_find_all_string_int string.(string, int) list<string>
sets.contains list_sets_contains_list (list<T>, list<T>) bool
sets.equivalent list_sets_equivalent_list (list<T>, list<T>) bool
sets.intersects list_sets_intersects_list (list<T>, list<T>) bool
"""
_FUNCTIONS: Final[dict[str, Any]] = {
    "list_slice": _slice,
    "list_flatten": _flatten,
    "list_flatten_int": _flatten,
    "lists_range": lambda count: Made(range(count)),
    "list_reverse": lambda items: Made(reversed(items)),
    "list_distinct": _distinct,
    "list_a_index_of_int": _index_of,
    "list_a_last_index_of_int": _last_index_of,
    "string_find_string": _find,
    "string_find_all_string": lambda text, pattern: matches_of(pattern, text),
    "string_find_all_string_int": lambda text, pattern, most: matches_of(pattern, text, most),
    "list_sets_contains_list": _has_all,
    "list_sets_equivalent_list": lambda a, b: _has_all(a, b) and _has_all(b, a),
    "list_sets_intersects_list": lambda a, b: any(equal(x, y) for x in a for y in b),
}
for _type in _COMPARABLE:
    for _name, _function in (("isSorted", _is_sorted), ("min", _min), ("max", _max)):
        _id = f"list_{_type}_{'is_sorted_bool' if _name == 'isSorted' else f'{_name}_{_type}'}"
        _LINES += f"{_name} {_id} list<{_type}>.() {'bool' if _name == 'isSorted' else _type}\n"
        _FUNCTIONS[_id] = _function
    _LINES += f"sort list_{_type}_sort list<{_type}>.() list<{_type}>\n"
    _FUNCTIONS[f"list_{_type}_sort"] = _sorted
    # What the macro `sortBy` calls.
    _LINES += f"@sortByAssociatedKeys list_{_type}_sortByAssociatedKeys list<T>.(list<{_type}>) list<T>\n"
    _FUNCTIONS[f"list_{_type}_sortByAssociatedKeys"] = _sorted_by
for _type, _zero in _SUMMABLE.items():
    _LINES += f"sum list_{_type}_sum_{_type} list<{_type}>.() {_type}\n"
    _FUNCTIONS[f"list_{_type}_sum_{_type}"] = _sum(_zero)

FUNCTIONS: Final = declared(_LINES, _FUNCTIONS)
