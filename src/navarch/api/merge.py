"""The merge behind server-side apply: what a configuration does to an object, by the schema's list and map types.

In: the object, the configuration, the schema node; neither is changed.  Out of `merged`: objects and granular maps
merged field by field, lists with keys item by item, sets as unions, everything else replaced. `pruned` then takes away
what the applier stated earlier and nobody states any more. What a configuration sets to null is null in the outcome;
so is what `pruned` leaves without members. The order of lists is that of structured-merge-diff.
"""

from __future__ import annotations

from typing import Any, Final

from navarch.api import field_sets, fields
from navarch.api.errors import Obj
from navarch.api.field_sets import FieldSet, is_member
from navarch.api.fields import child_of, item_key_function
from navarch.api.strategic import SchemaNodeLike, child_node

_ABSENT: Final = object()


def merged(live: Obj, config: Obj, node: SchemaNodeLike | None) -> Obj:
    """`live` with `config` merged into it; shares parts with both."""
    out = _merge_maps(live, config, node)
    return {} if out is _ABSENT else out


def _merge(live: Any, wanted: Any, node: SchemaNodeLike | None) -> Any:
    """The merged value; `_ABSENT` where nothing is left to say."""
    if _is_map(node, wanted, live):
        if node is not None and node.atomic:
            return wanted
        if not live and not wanted:
            return wanted
        return _merge_maps(live if isinstance(live, dict) else {}, wanted if isinstance(wanted, dict) else {}, node)
    if node is not None and node.kind == "array" and node.list_type in ("map", "set"):
        if not live and not wanted:
            return wanted
        return _merge_lists(live if isinstance(live, list) else [], wanted if isinstance(wanted, list) else [], node)
    return wanted


def _is_map(node: SchemaNodeLike | None, wanted: Any, live: Any) -> bool:
    """Whether a value is one with members; where the schema does not say, the value tells."""
    if node is None or node.scalar == "any":
        return isinstance(wanted, dict) or (wanted is None and isinstance(live, dict))
    return node.kind in ("object", "map")


def _merge_maps(live: Obj, wanted: Obj, node: SchemaNodeLike | None) -> Any:
    out = dict(live)
    for name, item in wanted.items():
        if name in live:
            value = _merge(live[name], item, child_node(node, name))
            if value is _ABSENT:
                del out[name]
            else:
                out[name] = value
        else:
            out[name] = item
    return out or _ABSENT


def _merge_lists(live: list[Any], wanted: list[Any], node: SchemaNodeLike) -> Any:
    """The configuration's items keep their order among themselves, and the others their place before what followed
    them."""
    key = item_key_function(node)
    live_keys = [key(item, index) for index, item in enumerate(live)]
    wanted_keys = [key(item, index) for index, item in enumerate(wanted)]
    by_key: dict[str, Any] = {}
    for name, item in zip(live_keys, live, strict=True):
        # Of duplicates nothing is kept where the configuration states one.
        by_key[name] = _ABSENT if name in by_key else item
    stated, done = set(wanted_keys), set[str]()
    shared = iter([name for name in wanted_keys if name in by_key])
    turn = next(shared, None)
    out: list[Any] = []
    left = right = 0
    while left < len(live) or right < len(wanted):
        if left < len(live):
            name = live_keys[left]
            if name not in stated:
                out.append(live[left])
                left += 1
                continue
            if right < len(wanted) and name != wanted_keys[right] and turn is not None and name != turn:
                # Stated too, but its turn comes with the configuration's order.
                left += 1
                continue
            if name in done or (right < len(wanted) and name == wanted_keys[right]):
                left += 1
        if right < len(wanted):
            name = wanted_keys[right]
            done.add(name)
            before = by_key.get(name, _ABSENT)
            value = wanted[right] if before is _ABSENT else _merge(before, wanted[right], node.items)
            if value is not _ABSENT:
                out.append(value)
            right += 1
            if name == turn:
                turn = next(shared, None)
    return out or _ABSENT


def pruned(merged: Obj, last: FieldSet, owned: FieldSet, node: SchemaNodeLike | None) -> Obj:
    """`merged` without the members of `last` that are not in `owned`, and without what is in them; what is below them
    and was never the applier's stays, and they with it."""
    last = _with_named(last, node)
    everything = _with_named(fields.owned_set(merged, node), node)
    without = removed(merged, last, node) or {}
    kept = field_sets.union(_with_named(fields.owned_set(without, node), node), _with_named(owned, node))
    with_owned = removed(merged, field_sets.difference(everything, kept), node) or {}
    left = _with_named(fields.owned_set(with_owned, node), node)
    gone = field_sets.intersection(field_sets.difference(everything, left), last)
    return removed(merged, gone, node) or {}


def _with_named(owned: FieldSet, node: SchemaNodeLike | None) -> FieldSet:
    """The set, and the named fields that are on the way to its members: they count as members when things go."""
    out: FieldSet = {}
    for key, child in owned.items():
        if not child:
            out[key] = child
            continue
        named = key.startswith("f:") and node is not None and key[2:] in node.fields
        below = _with_named(child, child_of(node, key))
        out[key] = {".": field_sets.LEAF, **below} if named and "." not in below else below
    return out


def removed(value: Any, gone: FieldSet, node: SchemaNodeLike | None) -> Any:
    """A value with members without those of a set; None where it has no members, or none that are left."""
    if not gone:
        return value
    if isinstance(value, dict):
        return _removed_from_map(value, gone, node)
    if not isinstance(value, list):
        return value
    if node is None or node.kind != "array" or node.list_type not in ("map", "set"):
        return None
    key_of = item_key_function(node)
    items = []
    for index, item in enumerate(value):
        child = gone.get(key_of(item, index))
        if child is None:
            items.append(item)
        elif not is_member(child):
            items.append(removed(item, child, node.items))
    return items or None


def _removed_from_map(value: Obj, gone: FieldSet, node: SchemaNodeLike | None) -> Any:
    if node is not None and node.atomic:
        return None
    out = {}
    for name, item in value.items():
        child = gone.get("f:" + name)
        if child is None:
            out[name] = item
        elif not is_member(child):
            out[name] = removed(item, child, child_node(node, name))
    return out or None
