"""Whether a configuration has the types of its kind, and what is said of it where it has not.

In: a configuration to apply, as it was sent, and the kind's schema node.  Out: the problems, in the words of
structured-merge-diff, whose rules are looser than those of the kind's decoder: a number is a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from navarch.api.field_paths import path_element
from navarch.api.fields import item_key_function, key_default
from navarch.api.go_text import go_syntax, go_text, go_type
from navarch.api.strategic import SchemaNodeLike, child_node


def problems(config: Any, node: SchemaNodeLike | None) -> str:
    """What is wrong, in one text; empty where nothing is."""
    if node is not None and isinstance(config, dict) and _fits_map(config, node):
        return ""
    found = list(_check(config, node, ""))
    if len(found) > 1:
        return "\n".join(["errors:", *(f"  {problem}" for problem in found)])
    return found[0] if found else ""


# The quick answer, which most configurations get. It may say no where the slow one finds nothing.

_EXACT = {"string": (str,), "numeric": (int, float), "boolean": (bool,), "": (str, int, float, bool)}


def _fits_map(value: dict[str, Any], node: SchemaNodeLike) -> bool:
    named = node.fields
    others = node.items if node.kind == "map" else None
    for name, item in value.items():
        child = named.get(name, others)
        if child is None:
            return False
        if (scalar := child.scalar) == "any":
            continue
        if child.kind == "scalar":
            if item.__class__ not in _EXACT[scalar]:
                return False
        elif child.kind == "array":
            if not (item.__class__ is list and _fits_list(item, child)):
                return False
        elif item.__class__ is not dict or not _fits_map(item, child):
            return False
    return True


def _fits_list(value: list[Any], node: SchemaNodeLike) -> bool:
    items = node.items
    if node.list_type in ("map", "set"):
        if any(_no_key(item, node) for item in value):
            return False
        key_of = item_key_function(node)
        if len({key_of(item, 0) for item in value}) != len(value):
            return False
    if items.scalar == "any":
        return True
    if items.kind == "scalar":
        exact = _EXACT[items.scalar]
        return all(item.__class__ in exact for item in value)
    return items.kind != "array" and all(item.__class__ is dict and _fits_map(item, items) for item in value)


def _check(value: Any, node: SchemaNodeLike | None, path: str) -> Iterator[str]:
    if node is None or value is None or node.scalar == "any":
        return
    if node.kind == "array":
        yield from _check_list(value, node, path)
    elif node.kind == "scalar":
        if said := _check_scalar(value, node.scalar):
            yield _at(path, said)
    elif not isinstance(value, dict):
        yield _at(path, f"expected map, got {_shown(value)}")
    else:
        yield from _check_map(value, node, path)


def _check_map(value: dict[str, Any], node: SchemaNodeLike, path: str) -> Iterator[str]:
    closed = node.kind == "object" and bool(node.fields) and not node.preserve_unknown
    for name, item in value.items():
        child = child_node(node, name)
        if child is None and closed:
            # One is enough: what comes after it is not looked at.
            yield _at(f"{path}.{name}", "field not declared in schema")
            return
        yield from _check(item, child, f"{path}.{name}")


def _check_scalar(value: Any, scalar: str) -> str:
    if scalar == "numeric":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"expected numeric (int or float), got {go_type(_decoded(value))}"
    elif scalar == "string":
        if not isinstance(value, str):
            return f"expected string, got &value.valueUnstructured{{Value:{go_syntax(_decoded(value))}}}"
    elif scalar == "boolean":
        if not isinstance(value, bool):
            return f"expected boolean, got {_shown(value)}"
    elif isinstance(value, (dict, list)):
        return f"expected any scalar, got {_shown(value)}"
    return ""


def _check_list(value: Any, node: SchemaNodeLike, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield _at(path, f"expected list, got {_shown(value)}")
        return
    key_of = item_key_function(node) if node.list_type in ("map", "set") else None
    seen: set[str] = set()
    for index, item in enumerate(value):
        key = f"i:{index}"
        if key_of is not None:
            if said := _no_key(item, node):
                # What comes after it is not looked at.
                yield _at(path, f"element {index}: {said}")
                return
            key = key_of(item, index)
            if key in seen:
                yield _at(path, f"duplicate entries for key {path_element(key)}")
            seen.add(key)
        yield from _check(item, node.items, path + path_element(key))


def _no_key(item: Any, node: SchemaNodeLike) -> str:
    """Why an item of a list with identities has none."""
    if node.list_type == "set":
        if isinstance(item, dict):
            return "associative list without keys has an element that's a map type"
        if isinstance(item, list):
            return "not supported: associative list with lists as elements"
        return "associative list without keys has an element that's an explicit null" if item is None else ""
    if item is None:
        return "associative list with keys may not have a null element"
    if not isinstance(item, dict):
        return "associative list with keys may not have non-map elements"
    for name in node.list_map_keys:
        if name not in item and key_default(node, name) is None:
            return (
                f'associative list with keys has an element that omits key field "{name}" '
                "(and doesn't have default value)"
            )
    return ""


def _at(path: str, said: str) -> str:
    return f"{path}: {said}" if path else said


def _shown(value: Any) -> str:
    return f"&{{{go_text(_decoded(value))}}}"


def _decoded(value: Any) -> Any:
    """As the decoder of configurations makes it: all numbers are float64."""
    if isinstance(value, dict):
        return {name: _decoded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
