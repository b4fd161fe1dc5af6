"""The merge behind server-side apply: what a configuration does to an object, by the schema's list and map types.

In: the object (changed in place, the caller's own copy), the configuration, the schema node.  Out: objects and granular
maps merged field by field, lists with keys item by item, sets as unions, everything else replaced.  `prune` then takes
away what the applier stated earlier and nobody states any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from navarch.api.errors import Obj
from navarch.api.fields import FieldSet, is_member, item_key_function, key_default, path_element
from navarch.api.patch import copy_json
from navarch.api.strategic import SchemaNodeLike, child_node


def merge_configuration(live: Obj, config: Obj, node: SchemaNodeLike | None) -> Obj:
    """`live` with `config` merged into it."""
    for name, wanted in config.items():
        live[name] = _merge(live[name], wanted, child_node(node, name)) if name in live else copy_json(wanted)
    return live


def _merge(live: Any, wanted: Any, node: SchemaNodeLike | None) -> Any:
    if isinstance(wanted, dict) and isinstance(live, dict) and not (node is not None and node.atomic):
        return merge_configuration(live, wanted, node)
    if isinstance(wanted, list) and isinstance(live, list) and node is not None and node.list_type in ("map", "set"):
        return _merge_list(live, wanted, node)
    return copy_json(wanted)


def _merge_list(live: list[Any], wanted: list[Any], node: SchemaNodeLike) -> list[Any]:
    """The configuration's items keep their order among themselves, and the others their place before what followed
    them."""
    key = item_key_function(node)
    live_keys = [key(item, index) for index, item in enumerate(live)]
    by_key = dict(zip(live_keys, live, strict=True))
    wanted_keys = [key(item, index) for index, item in enumerate(wanted)]
    stated = set(wanted_keys)
    shared = [name for name in wanted_keys if name in by_key]

    def merged(position: int) -> Any:
        name = wanted_keys[position]
        if name in by_key:
            return _merge(by_key[name], wanted[position], node.items)
        return copy_json(wanted[position])

    out: list[Any] = []
    left, right, next_shared = 0, 0, 0
    while left < len(live_keys) or right < len(wanted_keys):
        if left < len(live_keys) and live_keys[left] not in stated:
            out.append(live[left])
            left += 1
            continue
        if left < len(live_keys) and live_keys[left] != (shared[next_shared] if next_shared < len(shared) else None):
            # Stated too, but its turn comes with the configuration's order.
            left += 1
            continue
        if right == len(wanted_keys):
            break
        out.append(merged(right))
        if wanted_keys[right] in by_key:
            next_shared += 1
        if left < len(live_keys) and live_keys[left] == wanted_keys[right]:
            left += 1
        right += 1
    return out


def prune(value: Any, last: FieldSet, owned: FieldSet, config: Any, node: SchemaNodeLike | None) -> None:
    """Remove from `value`, in place, the members of `last` that are not in `owned`, with all that is in them.

    What the configuration states stays, also where it is only an empty list, which no set can tell.
    """
    if isinstance(value, dict):
        stated = config if isinstance(config, dict) else {}
        for key, child in last.items():
            name = key[2:]
            if not key.startswith("f:") or name not in value:
                continue
            if key not in owned and name not in stated:
                del value[name]
            elif child:
                prune(value[name], child, owned.get(key, {}), stated.get(name), child_node(node, name))
    elif isinstance(value, list) and node is not None and node.list_type in ("map", "set"):
        key_of = item_key_function(node)
        stated_items = config if isinstance(config, list) else []
        stated = {key_of(item, index): item for index, item in enumerate(stated_items)}
        kept = []
        for index, item in enumerate(value):
            key = key_of(item, index)
            if key in last and key not in owned and is_member(last[key]):
                continue
            if last.get(key):
                prune(item, last[key], owned.get(key, {}), stated.get(key), node.items)
            kept.append(item)
        value[:] = kept


def check_configuration(config: Any, node: SchemaNodeLike | None, path: str = "") -> Iterator[str]:
    """What keeps a configuration from being applied: fields without schema, items without or with doubled keys."""
    if node is None or node.preserve_unknown:
        return
    if isinstance(config, dict) and node.kind in ("object", "map"):
        for name, item in config.items():
            child = child_node(node, name)
            if child is None and node.fields:
                yield f"{path}.{name}: field not declared in schema"
            elif not node.atomic:
                yield from check_configuration(item, child, f"{path}.{name}")
    elif isinstance(config, list) and node.kind == "array":
        yield from _check_list(config, node, path)


def _check_list(config: list[Any], node: SchemaNodeLike, path: str) -> Iterator[str]:
    if node.list_type not in ("map", "set"):
        return
    key_of = item_key_function(node)
    seen: set[str] = set()
    for index, item in enumerate(config):
        if node.list_type == "map":
            for name in node.list_map_keys:
                if isinstance(item, dict) and name not in item and key_default(node, name) is None:
                    yield (
                        f"{path}: element {index}: associative list with keys has an element that omits key field "
                        f'"{name}" (and doesn\'t have default value)'
                    )
        key = key_of(item, index)
        if key in seen:
            yield f"{path}: duplicate entries for key {path_element(key)}"
        seen.add(key)
        yield from check_configuration(item, node.items, path + path_element(key))
