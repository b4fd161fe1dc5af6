"""Strategic merge patch: a merge patch that knows from the schema which lists merge by key.

In: an object, a decoded patch, and the object's schema node.  Out: the patched object, sharing nothing with the inputs.
Lists whose schema says `patchStrategy: merge` merge item by item on `patchMergeKey` (or as sets where the items are
scalars); all other lists are replaced.  Directives in the patch: `$patch: delete | replace`,
`$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD`, `$retainKeys`.

What a patch brings that the object did not have goes before what only the object has, and `$setElementOrder` sets the
order of all that it names; that is Kubernetes' order, which clients see in lists of containers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import orjson

from navarch.api.errors import Obj, StatusError, bad_request

_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE_PRIMITIVES: Final = "$deleteFromPrimitiveList/"
_SET_ORDER: Final = "$setElementOrder/"


class SchemaNodeLike(Protocol):
    """What patches, apply and field ownership read of a schema (`navarch.api.schema.SchemaNode`)."""

    @property
    def kind(self) -> str: ...
    @property
    def fields(self) -> Mapping[str, Any]: ...
    @property
    def items(self) -> Any: ...
    @property
    def list_type(self) -> str: ...
    @property
    def list_map_keys(self) -> Sequence[str]: ...
    @property
    def patch_merge_key(self) -> str: ...
    @property
    def patch_strategy(self) -> str: ...
    @property
    def atomic(self) -> bool: ...
    @property
    def preserve_unknown(self) -> bool: ...


def strategic_merge_patch(obj: Obj, patch: Any, node: SchemaNodeLike | None) -> Obj:
    """Apply a strategic merge patch to an object described by `node`."""
    if not isinstance(patch, dict):
        raise bad_request("invalid JSON document")
    fresh_obj, fresh_patch = orjson.loads(orjson.dumps([obj, patch]))
    return _merge_map(fresh_obj, fresh_patch, node)


def child_node(node: SchemaNodeLike | None, name: str) -> SchemaNodeLike | None:
    """The schema of a field or of a map's value; None where the schema says nothing."""
    if node is None:
        return None
    child: SchemaNodeLike | None = node.fields.get(name) if node.fields else None
    if child is None and node.kind == "map":
        child = node.items
    return child


def _merge_map(original: Obj, patch: Obj, node: SchemaNodeLike | None) -> Obj:
    directive = patch.pop(_PATCH, None)
    if directive == "delete":
        return {}
    if directive == "replace":
        return _clean_map(patch)
    if directive not in (None, "merge"):
        raise _failed(f"unknown patch type '{directive}' found in '{_go(patch)}'")
    _retain_keys(original, patch)
    orders = {name[len(_SET_ORDER) :]: patch.pop(name) for name in list(patch) if name.startswith(_SET_ORDER)}
    for name, order in orders.items():
        _merge_ordered(original, patch, name, order, child_node(node, name))
    for name, value in patch.items():
        if name.startswith(_DELETE_PRIMITIVES):
            _delete_primitives(original, name[len(_DELETE_PRIMITIVES) :], value)
        elif value is None:
            original.pop(name, None)
        else:
            original[name] = _merge_value(original.get(name), value, child_node(node, name))
    return original


def _merge_value(original: Any, patch: Any, node: SchemaNodeLike | None) -> Any:
    strategies = _strategies(node)
    if isinstance(patch, dict):
        if isinstance(original, dict) and "replace" not in strategies:
            return _merge_map(original, patch, node)
        return _clean_map(patch)
    if isinstance(patch, list):
        if isinstance(original, list) and "merge" in strategies and node is not None:
            return _merge_list(original, patch, node)
        return _clean_list(patch)
    return patch


def _strategies(node: SchemaNodeLike | None) -> list[str]:
    return node.patch_strategy.split(",") if node is not None and node.patch_strategy else []


def _clean_map(patch: Obj) -> Obj:
    """A patch's map taken as a value: without nulls and directives."""
    if patch.get(_PATCH) == "delete":
        return {}
    return {
        name: _clean_map(value) if isinstance(value, dict) else _clean_list(value) if isinstance(value, list) else value
        for name, value in patch.items()
        if value is not None and not name.startswith(("$patch", _RETAIN, _DELETE_PRIMITIVES, _SET_ORDER))
    }


def _clean_list(patch: list[Any]) -> list[Any]:
    """A patch's list taken as a value: without items that only carry a directive."""
    out: list[Any] = []
    for item in patch:
        if not isinstance(item, dict):
            out.append(item)
        elif item.get(_PATCH) != "delete" and not (item.get(_PATCH) == "replace" and len(item) == 1):
            out.append(_clean_map(item))
    return out


def _retain_keys(original: Obj, patch: Obj) -> None:
    """`$retainKeys`: fields of the original that the list does not name go away."""
    if _RETAIN not in patch:
        return
    retained = patch.pop(_RETAIN)
    if not isinstance(retained, list):
        raise bad_request("invalid patch format of retainKeys")
    for name, value in patch.items():
        if value is not None and not name.startswith("$") and name not in retained:
            raise bad_request("invalid patch format of retainKeys")
    for name in [name for name in original if name not in retained]:
        del original[name]


def _delete_primitives(original: Obj, name: str, gone: Any) -> None:
    if not isinstance(gone, list):
        raise bad_request("invalid patch format of primitive list")
    held = original.get(name)
    if isinstance(held, list):
        original[name] = [item for item in held if item not in gone]


def _merge_ordered(original: Obj, patch: Obj, name: str, order: Any, node: SchemaNodeLike | None) -> None:
    """Merge list `name` (which the patch may leave out) and put it into the order of its `$setElementOrder`."""
    if not isinstance(order, list):
        raise bad_request("invalid patch format of setElementOrder list")
    if name in patch and not isinstance(patch[name], list):
        return
    for deleted in (_DELETE_PRIMITIVES + name,):
        if deleted in patch:
            _delete_primitives(original, name, patch.pop(deleted))
    before = original.get(name)
    if before is not None and not isinstance(before, list):
        return
    identity = _identity(node, order or patch.get(name) or before or [])
    _check_order(patch.get(name) or [], order, identity)
    server_order = list(before or [])
    if name in patch:
        merged = _merge_value(list(before or []), patch.pop(name), node)
    else:
        merged = list(before or [])
    if before is None and not merged:
        return
    original[name] = _interleave(merged, order, server_order, identity)


def _check_order(patch: list[Any], order: list[Any], identity: Callable[[Any], Any]) -> None:
    """Every item that the patch sets must be named by the order, in the same sequence."""
    wanted = [identity(item) for item in patch if not (isinstance(item, dict) and _PATCH in item)]
    remaining = iter([identity(item) for item in order])
    if not all(any(item == other for other in remaining) for item in wanted):
        raise bad_request(f"The order in patch list:\n{_go(patch)}\n doesn't match {_SET_ORDER} list:\n{_go(order)}\n")


def _identity(node: SchemaNodeLike | None, sample: Sequence[Any]) -> Callable[[Any], Any]:
    """The function that tells which item is which: by merge key for maps, by value for scalars."""
    key = node.patch_merge_key if node is not None else ""
    if not any(isinstance(item, dict) for item in sample):
        return lambda item: item
    if not key:
        raise _failed(f"map: {_go(sample[0])} does not contain declared merge key: ")

    def by_key(item: Any) -> Any:
        if not isinstance(item, dict) or key not in item:
            raise _failed(f"map: {_go(item)} does not contain declared merge key: {key}")
        return item[key]

    return by_key


def _merge_list(original: list[Any], patch: list[Any], node: SchemaNodeLike) -> list[Any]:
    if any(isinstance(item, list) for item in (*original, *patch)):
        raise StatusError(422, "Invalid", "the server rejected our request due to an error in our request", details={})
    if not any(isinstance(item, dict) for item in (*original, *patch)):
        merged = list(dict.fromkeys([*original, *patch]))
        return _interleave(merged, patch, original, lambda item: item)
    identity = _identity(node, [*patch, *original])
    kept, changes = _apply_item_directives(list(original), patch, identity)
    if kept is None:
        return _clean_list(changes)
    server_order = list(kept)
    for change in changes:
        key = identity(change)
        for position, item in enumerate(kept):
            if identity(item) == key:
                kept[position] = _merge_map(item, change, node.items)
                break
        else:
            kept.append(_clean_map(change))
    return _interleave(kept, changes, server_order, identity)


def _apply_item_directives(
    original: list[Any], patch: list[Any], identity: Callable[[Any], Any]
) -> tuple[list[Any] | None, list[Any]]:
    """Carry out `$patch` directives of list items; the list that is left (None: replaced whole) and the plain items."""
    plain: list[Any] = []
    replace = False
    for item in patch:
        directive = item.get(_PATCH) if isinstance(item, dict) else None
        if directive is None:
            plain.append(item)
        elif directive == "delete":
            key = identity(item)
            original = [other for other in original if identity(other) != key]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise _failed("merging lists cannot yet be specified in the patch")
        else:
            raise _failed(f"unknown patch type '{directive}' found in '{_go(item)}'")
    return (None if replace else original), plain


def _interleave(
    merged: list[Any], patch_order: list[Any], server_order: list[Any], identity: Callable[[Any], Any]
) -> list[Any]:
    """Order a merged list: items of the patch in the patch's order, the others in the server's, the two sequences
    merged so that where both have a place on the server the server's order holds."""
    ranks = {_hashable(identity(item)): rank for rank, item in reversed(list(enumerate(patch_order)))}
    places = {_hashable(identity(item)): place for place, item in reversed(list(enumerate(server_order)))}
    named = [item for item in merged if _hashable(identity(item)) in ranks]
    named.sort(key=lambda item: ranks[_hashable(identity(item))])
    others = [item for item in merged if _hashable(identity(item)) not in ranks]
    others.sort(key=lambda item: places.get(_hashable(identity(item)), len(places)))
    out: list[Any] = []
    left = 0
    for item in named:
        place = places.get(_hashable(identity(item)))
        while place is not None and left < len(others):
            other = places.get(_hashable(identity(others[left])))
            if other is None or other > place:
                break
            out.append(others[left])
            left += 1
        out.append(item)
    return out + others[left:]


def _hashable(key: Any) -> Any:
    return key if not isinstance(key, (dict, list)) else orjson.dumps(key, option=orjson.OPT_SORT_KEYS)


def _failed(message: str) -> StatusError:
    """A patch that cannot be carried out. (Kubernetes answers 500, although it is the client's mistake.)"""
    return bad_request(message)


def _go(value: Any) -> str:
    """A value as Go's `%v` prints it, for messages."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{name}:{_go(value[name])}" for name in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(_go, value)) + "]"
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)
