"""Strategic merge patch: a merge patch that knows from the schema which lists merge by key.

In: an object, a decoded patch, and the object's schema node.  Out: the patched object, sharing nothing with the inputs
(or, on request, with the object what the patch leaves as it is). Neither input is changed.
Lists whose schema says `patchStrategy: merge` merge item by item on `patchMergeKey` (or as sets where the items are
scalars); all other lists are replaced.  Directives in the patch: `$patch: delete | replace`,
`$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD`, `$retainKeys`.

What a patch brings that the object did not have goes before what only the object has, and `$setElementOrder` sets the
order of all that it names; that is Kubernetes' order, which clients see in lists of containers. Directives mean
something where a patch is merged: in what is taken over as it is (a list that is replaced, an item that is new) they
stay, and are unknown fields then.

Kubernetes takes most of what is wrong with such a patch for its own mistake: 500, without a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any, Final, Protocol

import orjson

from navarch.api.errors import Obj, StatusError, bad_request, rejected, unexplained
from navarch.api.go_text import go_kind, go_text, go_type

_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE_PRIMITIVES: Final = "$deleteFromPrimitiveList"
_SET_ORDER: Final = "$setElementOrder"


class SchemaNodeLike(Protocol):
    """What patches, apply and field ownership read of a schema (`navarch.api.schema.SchemaNode`)."""

    # Kept for `navarch.api.fields`, which makes them once for a node.
    walker: Any
    key_function: Any

    @property
    def kind(self) -> str: ...
    @property
    def definition(self) -> str: ...
    @property
    def present(self) -> frozenset[str]: ...
    @property
    def scalar(self) -> str: ...
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


Identity = Callable[[Any], Any]


def strategic_merge_patch(obj: Obj, patch: Any, node: SchemaNodeLike | None) -> Obj:
    """Apply a strategic merge patch to an object described by `node`.  Raises StatusError 400, 422, 500."""
    merged: Obj = orjson.loads(orjson.dumps(sharing_merge_patch(obj, patch, node)))
    return merged


def sharing_merge_patch(obj: Obj, patch: Any, node: SchemaNodeLike | None) -> Obj:
    """The same; what the patch leaves as it is is the object's own, up to the object itself."""
    if not isinstance(patch, dict):
        raise bad_request(f"json: cannot unmarshal {go_kind(patch)} into Go value of type map[string]interface {{}}")
    return _merge_map(obj, orjson.loads(orjson.dumps(patch)), node)


def consume(obj: Obj, patch: Obj, node: SchemaNodeLike | None) -> None:
    """Apply a patch for what it leaves of itself: directives that are carried out leave it."""
    _merge_map(obj, patch, node)


def child_node(node: SchemaNodeLike | None, name: str) -> SchemaNodeLike | None:
    """The schema of a field or of a map's value; None where the schema says nothing."""
    if node is None:
        return None
    child: SchemaNodeLike | None = node.fields.get(name) if node.fields else None
    if child is None and node.kind == "map":
        child = node.items
    return child


def _merge_map(original: Obj, patch: Obj, node: SchemaNodeLike | None) -> Obj:
    """`original` is not changed, and is the outcome where nothing changes; the patch's own parts are taken over."""
    directed = [name for name in patch if name[:1] == "$"]
    out = original
    if directed:
        if _PATCH in patch:
            return _replaced_map(patch)
        out = dict(original)
        _retain_keys(out, patch)
        for name in directed:
            if name.startswith(_SET_ORDER):
                _merge_ordered(out, patch, name, node)
    for name, value in patch.items():
        if directed and name.startswith(_DELETE_PRIMITIVES):
            _delete_primitives(out, name, value, node)
            continue
        held = out.get(name, _NOTHING)
        if value is None:
            new: Any = _NOTHING
        elif held.__class__ is not value.__class__:
            new = _taken_over(value) if value.__class__ in _CONTAINERS else value
        elif value.__class__ is dict:
            new = _merge_or_replace(held, value, child_node(node, name))
        elif value.__class__ is list:
            new = _merge_lists(held, value, child_node(node, name))
        else:
            new = held if value.__class__ is str and value == held else value
        if new is held:
            continue
        if out is original:
            out = dict(original)
        if new is _NOTHING:
            del out[name]
        else:
            out[name] = new
    return out


def _replaced_map(patch: Obj) -> Obj:
    directive = patch[_PATCH]
    if directive == "replace":
        del patch[_PATCH]
        return patch
    if directive == "delete":
        return {}
    raise _bad_directive(directive, patch)


def _merge_or_replace(original: Obj, patch: Obj, node: SchemaNodeLike | None) -> Obj:
    return patch if _strategy(node) == "replace" else _merge_map(original, patch, node)


def _strategy(node: SchemaNodeLike | None) -> str:
    """How a field is merged, `retainKeys` aside."""
    stated = node.patch_strategy if node is not None else ""
    if "retainKeys" in stated:
        return stated.replace(",retainKeys", "").replace("retainKeys", "")
    return stated


_NOTHING: Final = object()
_CONTAINERS: Final = frozenset({dict, list})


def _taken_over(value: Any) -> Any:
    """A value of the patch where the object has none: without nulls, and without what only carries a directive."""
    if isinstance(value, dict):
        if _PATCH in value:
            return _NOTHING
        kept: Obj = {}
        for name, item in value.items():
            if item is None:
                continue
            if item.__class__ in _CONTAINERS:
                item = _taken_over(item)
                if item is _NOTHING:
                    continue
            kept[name] = item
        return kept
    if isinstance(value, list):
        return [item for item in map(_taken_over, value) if item is not _NOTHING]
    return value


def _retain_keys(original: Obj, patch: Obj) -> None:
    """`$retainKeys`: fields of the original that the list does not name go away."""
    if _RETAIN not in patch:
        return
    retained = patch.pop(_RETAIN)
    if not isinstance(retained, list):
        raise bad_request("invalid patch format of retainKeys")
    names = {name for name in retained if isinstance(name, str)}
    for name, value in patch.items():
        if value is not None and not name.startswith((_DELETE_PRIMITIVES, _SET_ORDER)) and name not in names:
            raise bad_request("invalid patch format of retainKeys")
    for name in [name for name in original if name not in names]:
        del original[name]


def _delete_primitives(original: Obj, directive: str, gone: Any, node: SchemaNodeLike | None) -> None:
    prefix, slash, name = directive.partition("/")
    if not slash or prefix != _DELETE_PRIMITIVES:
        raise bad_request("invalid patch format of primitive list")
    if gone is None:
        original.pop(name, None)
    held = original.get(name)
    if name not in original or type(held) is not type(gone):
        return
    if isinstance(gone, dict):
        original[name] = _merge_or_replace(original[name], gone, child_node(node, name))
    elif not isinstance(gone, list) or not isinstance(held, list) or _strategy(child_node(node, name)) != "merge":
        original[name] = gone
    elif held or gone:
        _same_type(held, gone)
        without = set(_identities(gone, ""))
        original[name] = [item for name, item in zip(_identities(held, ""), held, strict=True) if name not in without]


def _merge_ordered(original: Obj, patch: Obj, directive: str, node: SchemaNodeLike | None) -> None:
    """Merge a list (which the patch may leave out) and put it into the order of its `$setElementOrder`."""
    order = _list_of(patch.pop(directive))
    prefix, slash, name = directive.partition("/")
    if not slash or prefix != _SET_ORDER:
        raise bad_request("invalid patch format of setElementOrder list")
    before = _list_of(original[name]) if name in original else None
    change = _list_of(patch[name]) if name in patch else None
    child = _list_node(node, name)
    key = child.patch_merge_key if child is not None else ""
    if before and change and key and child is not None and _strategy(child) == "merge":
        found = _merged_by_name(before, change, order, key, child.items)
        if found is not None:
            original[name] = found
            del patch[name]
            return
    _check_order(change or [], order, key)
    if before is not None:
        merged = list(before) if change is None else _merge_lists(list(before), change, child)
    elif change is not None:
        merged = [item for item in map(_taken_over, change) if item is not _NOTHING]
    else:
        return
    _partitionable(merged, order, key)
    is_map = _same_type(before or [], change or []) is dict
    original[name] = _ordered(merged, order, before or [], key if is_map else "")
    patch.pop(name, None)


def _merged_by_name(
    before: list[Any], change: list[Any], order: list[Any], key: str, node: SchemaNodeLike | None
) -> list[Any] | None:
    """As most often: every item has a name of its own, which the order tells. None where it is not so, or where
    something is wrong."""
    try:
        names, ranked = [item[key] for item in change], [item[key] for item in order]
        items = {item[key]: item for item in before}
    except (KeyError, TypeError):
        return None
    ranks = set(ranked)
    if set(map(type, (*names, *ranked, *items))) != {str} or any(_PATCH in item for item in change):
        return None
    if len(items) != len(before) or len(ranks) != len(ranked) or not ranks.issuperset(items):
        return None
    left = iter(ranked)
    if not all(name in left for name in names):
        return None
    for name, item in zip(names, change, strict=True):
        held = items.get(name)
        items[name] = item if held is None else _merge_map(held, item, node)
    return [items[name] for name in ranked if name in items]


def _list_of(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise unexplained(f"expected a []interface {{}}, but received a {go_type(value)}")
    return value


def _list_node(node: SchemaNodeLike | None, name: str) -> SchemaNodeLike | None:
    """The schema of a list that `$setElementOrder` names."""
    child = child_node(node, name)
    if node is not None and node.kind == "object" and node.fields and child is None:
        struct = node.definition
        raise unexplained(f'unable to find api field in struct {struct} for the json field "{name}"')
    if child is not None and child.kind != "array":
        raise unexplained("expected slice or array type, but got: struct")
    return child


def _check_order(patch: list[Any], order: list[Any], key: str) -> None:
    """Every item that the patch sets must be named by the order, in the same sequence."""
    if not patch or not order:
        return
    wanted = patch
    if key:
        wanted = [item for item in patch if _map_of(item).get(_PATCH) != "delete"]
    at = place = 0
    while at < len(wanted) and place < len(order):
        item = wanted[at]
        if isinstance(item, dict) and _PATCH in item:
            at += 1
            continue
        at += _same(_key_of(item, key), _key_of(order[place], key)) if key else _same(item, order[place])
        place += 1
    if at < len(wanted) and place >= len(order):
        raise unexplained(
            f"The order in patch list:\n{go_text(patch)}\n doesn't match {_SET_ORDER} list:\n{go_text(order)}\n"
        )


def _map_of(item: Any) -> Obj:
    if not isinstance(item, dict):
        raise unexplained(f"expected a map[string]interface {{}}, but received a {go_type(item)}")
    return item


def _key_of(item: Any, key: str) -> Any:
    """An item's merge key.  Raises StatusError 500 for what has none."""
    if key not in _map_of(item):
        raise unexplained(f"map: {go_text(item)} does not contain declared merge key: {key}")
    return item[key]


def _partitionable(merged: list[Any], order: list[Any], key: str) -> None:
    """Raises StatusError 500 where items cannot be told apart by the list's key."""
    if not key:
        return
    for item in merged[:1]:
        _key_of(item, key)
        _maps_only(order)
    for item in merged[1:]:
        _key_of(item, key)


def _maps_only(items: Sequence[Any]) -> None:
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise unexplained(f"value for key {index} is not a map.")


def _same_type(*lists: Sequence[Any]) -> type:
    """The one type that all items have.  Raises StatusError 422, 500."""
    kinds: set[type] = {item.__class__ for items in lists for item in items}
    if len(kinds) == 1 and list not in kinds:
        return next(iter(kinds))
    found: type | None = None
    for items in lists:
        for item in items:
            if found is None:
                found = type(item)
                if found is list:
                    raise rejected()
            elif type(item) is not found:
                shown = go_text([list(each) for each in lists])
                raise unexplained(f"list element types are not identical: {shown}")
    if found is None:
        raise unexplained("no elements in any of the given slices")
    return found


def _merge_lists(original: list[Any], patch: list[Any], node: SchemaNodeLike | None) -> list[Any]:
    if _strategy(node) != "merge" or node is None:
        return patch
    if not original and not patch:
        return original
    key = node.patch_merge_key
    if _same_type(original, patch) is not dict:
        merged = _unique([*original, *patch])
        if key:
            _map_of(merged[0])
        return _ordered(merged, patch, original, "")
    if not key:
        element = "struct" if node.items is not None and node.items.kind == "object" else "map"
        raise unexplained(f"cannot merge lists without merge key for type {element}")
    server, changes = _apply_item_directives(original, patch, key)
    merged = list(server)
    places: dict[Any, int] = {}
    for place, name in enumerate(_identities(server, key)):
        places.setdefault(name, place)
    order = []
    for name, change in zip(_identities(changes, key), changes, strict=True):
        place = places.get(name, -1)
        if place >= len(server):
            # Given twice: the first of them is the patch's own, and changes there, too, as in Kubernetes.
            held = merged[place]
            both = _merge_map(held, change, node.items)
            if both is not held:
                held.clear()
                held.update(both)
        elif place >= 0:
            merged[place] = _merge_map(merged[place], change, node.items)
        else:
            place = places[name] = len(merged)
            merged.append(change)
        order.append(place)
    if len(merged) == len(server) and order == sorted(order):
        # As most often: what is patched was there, and in this order.
        return server if all(map(is_, merged, server)) else merged
    return _ordered(merged, changes, server, key)


def _identities(items: list[Any], key: str) -> list[Any]:
    """What items are found by.  Raises StatusError 500 for one without its merge key."""
    try:
        names = [item[key] for item in items] if key else items
    except (KeyError, TypeError):
        names = [_key_of(item, key) for item in items]
    return names if all(name.__class__ is str for name in names) else [_identity(name) for name in names]


def _identity(value: Any) -> Any:
    """What a merge key, or an item that is one, is found by: of one type, and of one value, as Go's interfaces are."""
    if value.__class__ is str:
        return value
    if isinstance(value, (dict, list)):
        return (list, orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
    return (value.__class__, value)


def _apply_item_directives(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any]]:
    """Carry out `$patch` directives of list items; what is left of the list, and the plain items still to be merged."""
    plain: list[Any] = []
    gone: set[Any] = set()
    replace = False
    for item in patch:
        if _PATCH not in item:
            plain.append(item)
            continue
        directive = item[_PATCH]
        if directive == "delete":
            gone.add(_identity(_key_of(item, key)))
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise unexplained("merging lists cannot yet be specified in the patch")
        else:
            raise _bad_directive(directive, item)
    if replace:
        return plain, []
    if gone:
        original = [item for item in original if key not in item or _identity(item[key]) not in gone]
    return original, plain


def _bad_directive(directive: Any, where: Obj) -> StatusError:
    shown = directive if isinstance(directive, str) else f"%!s({go_type(directive)}={go_text(directive)})"
    return unexplained(f"unknown patch type: {shown} in map: {go_text(where)}")


def _same(left: Any, right: Any) -> bool:
    """Equal as Go's interfaces are: of one type, and of one value."""
    return type(left) is type(right) and bool(left == right)


def _unique(items: list[Any]) -> list[Any]:
    return list({(type(item), item): item for item in items}.values())


def _ordered(merged: list[Any], patch_order: list[Any], server_order: list[Any], key: str) -> list[Any]:
    """Order a merged list: items of the patch in the patch's order, the others in the server's, the two sequences
    merged so that where both have a place on the server the server's order holds."""
    ranks = {name: rank for rank, name in reversed(list(enumerate(_identities(patch_order, key))))}
    places = {name: place for place, name in reversed(list(enumerate(_identities(server_order, key))))}
    items = list(zip(_identities(merged, key), merged, strict=True))
    named = sorted((pair for pair in items if pair[0] in ranks), key=lambda pair: ranks[pair[0]])
    others = [pair for pair in items if pair[0] not in ranks]
    others.sort(key=lambda pair: places.get(pair[0], len(places)))
    out: list[Any] = []
    left = 0
    for name, item in named:
        place = places.get(name)
        while place is not None and left < len(others):
            other = places.get(others[left][0])
            if other is None or other > place:
                break
            out.append(others[left][1])
            left += 1
        out.append(item)
    return out + [item for _, item in others[left:]]
