"""Sets of fields as paths, in Kubernetes' words and order: `.spec.containers[name="web"].image`.

In: a field set in the form of `FieldsV1`.  Out: the paths of its members; the set with its keys in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from navarch.api.field_sets import LEAF, FieldSet, is_member

_DOT = "."


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """The members as Kubernetes prints them: `.spec.containers[name="web"].image`, in its order: what is a member here
    comes before what is below."""
    ordered = sorted((key for key in fields if key != _DOT), key=_element_order)
    for key in ordered:
        if is_member(fields[key]):
            yield prefix + path_element(key)
    for key in ordered:
        if fields[key]:
            yield from paths(fields[key], prefix + path_element(key))


def sorted_set(owned: FieldSet) -> FieldSet:
    """The same set, its keys in the order in which Kubernetes writes them."""
    ordered = sorted((key for key in owned if key != _DOT), key=_element_order)
    first: FieldSet = {_DOT: LEAF} if _DOT in owned else {}
    return first | {key: sorted_set(owned[key]) for key in ordered}


def _element_order(key: str) -> tuple[Any, ...]:
    """Names first, then items by their keys, by value, by place; last what clients made up."""
    try:
        return _known_order(key)
    except (ValueError, AttributeError):
        return (4, key)


def _known_order(key: str) -> tuple[Any, ...]:
    sort, _, rest = key.partition(":")
    if sort == "f":
        return (0, rest)
    if sort == "k":
        return (1, [(name, _value_order(value)) for name, value in sorted(orjson.loads(rest).items())])
    return (2, _value_order(orjson.loads(rest))) if sort == "v" else (3, int(rest))


def _value_order(value: Any) -> tuple[Any, ...]:
    """Numbers, texts, booleans, lists, maps, null."""
    if isinstance(value, bool):
        return (2, value)
    if isinstance(value, (int, float)):
        return (0, value)
    if isinstance(value, str):
        return (1, value)
    return (5, "") if value is None else (3 + isinstance(value, dict), _text(value))


def path_element(key: str) -> str:
    """A key of a set as a path shows it: `.name`, `[name="web"]`, `[="value"]`, `[0]`."""
    sort, _, rest = key.partition(":")
    if sort == "f":
        return "." + rest
    if sort == "k":
        pairs = sorted(orjson.loads(rest).items())
        return "[" + ",".join(f"{name}={_text(value)}" for name, value in pairs) + "]"
    return f"[={rest}]" if sort == "v" else f"[{rest}]"
