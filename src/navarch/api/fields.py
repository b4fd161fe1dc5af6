"""The fields of objects: which ones a configuration states, a creator owns, a change concerns.

In: objects with their schema node.  Out: field sets (`field_sets.py`), ready to be stored in
`metadata.managedFields[].fieldsV1`.

The schema is compiled, per node and lazily, into small walkers, because a set is computed on every write. What is a
member, and what counts as added, modified and removed, is as in structured-merge-diff, by whose rules clients read
managed fields.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Final

import orjson

from navarch.api.created_sets import CreatedSets
from navarch.api.errors import Obj
from navarch.api.field_sets import DOT, LEAF, FieldSet, normal
from navarch.api.memo import memo
from navarch.api.strategic import SchemaNodeLike, child_node

_MOST_NAMES: Final = 4096
_LONGEST_NAME: Final = 256
_MOST_KEYS: Final = 256
_LONGEST_KEY: Final = 64


class _Walker:
    """Computes sets for values of one schema node that can have members below it."""

    def owned(self, value: Any, out: FieldSet) -> None:
        """Add the members that a configuration with this value states."""
        raise NotImplementedError

    def whole(self, value: Any, out: FieldSet) -> None:
        """Add everything in a value that is new (or gone) as a whole, inner structs and lists included."""
        raise NotImplementedError

    def compare(self, old: Any, new: Any, changes: Changes, *, top: bool) -> None:
        """Add the differences of two unequal values to `changes`."""
        raise NotImplementedError


class Changes:
    """What differs between two objects: three sets."""

    __slots__ = ("added", "modified", "removed")

    def __init__(self) -> None:
        self.added: FieldSet = {}
        self.removed: FieldSet = {}
        self.modified: FieldSet = {}

    def enter(self, key: str, inner: Changes) -> None:
        if inner.added:
            self.added[key] = normal(inner.added)
        if inner.removed:
            self.removed[key] = normal(inner.removed)
        if inner.modified:
            self.modified[key] = normal(inner.modified)


class _Entries(dict[str, tuple[str, _Walker | None]]):
    """Field name → its key in a set and its walker (None: a leaf); filled as names are met. The names of maps are
    their writers': they are remembered while they are not too many."""

    def __init__(self, node: SchemaNodeLike | None) -> None:
        super().__init__()
        self._node = node

    def __missing__(self, name: str) -> tuple[str, _Walker | None]:
        node = self._node
        child = node.fields.get(name) if node is not None and node.fields else None
        if child is None and node is not None and node.kind == "map" and node.items is not None:
            child = node.items
        entry = ("f:" + name, walker(child) if child is not None else _UNTYPED)
        if len(name) <= _LONGEST_NAME:
            if len(self) >= _MOST_NAMES:
                self.clear()
            self[name] = entry
        return entry


class _FieldsWalker(_Walker):
    """Objects with named fields, and maps, whose values are members themselves."""

    def __init__(self, node: SchemaNodeLike | None) -> None:
        # Of those that are roots.
        self.created = CreatedSets()
        self._entries = _Entries(node)
        self._named = node.fields if node is not None else {}
        # Structs that Kubernetes' types hold by value, and lists that they write also without items: an object
        # "without" one has an empty one, so creating the object does not make anybody the owner of the struct itself.
        # Elsewhere (pointers, maps, lists) the creator owns it (`.`).
        self._present = node.present if node is not None else frozenset()

    def owned(self, value: Any, out: FieldSet) -> None:
        entries, named = self._entries, self._named
        for name, item in value.items():
            key, inner = entries[name]
            if inner is None or (item.__class__ is not dict and item.__class__ is not list):
                out[key] = LEAF
            elif item:
                below: FieldSet = {} if name in named else {DOT: LEAF}
                inner.owned(item, below)
                if below:
                    out[key] = normal(below)
            elif item.__class__ is dict or name not in named:
                out[key] = LEAF

    def whole(self, value: Any, out: FieldSet) -> None:
        entries = self._entries
        for name, item in value.items():
            key, inner = entries[name]
            if inner is None or not item or (item.__class__ is not dict and item.__class__ is not list):
                out[key] = LEAF
            else:
                below = {DOT: LEAF}
                inner.whole(item, below)
                out[key] = normal(below)

    def whole_top(self, value: Obj, out: FieldSet) -> None:
        """As `whole`, on the path where Kubernetes' types hold structs by value."""
        entries, present = self._entries, self._present
        for name, item in value.items():
            key, inner = entries[name]
            if name not in present:
                if inner is None or not item or (item.__class__ is not dict and item.__class__ is not list):
                    out[key] = LEAF
                else:
                    below = {DOT: LEAF}
                    inner.whole(item, below)
                    out[key] = normal(below)
            elif not item:
                if item.__class__ is list:
                    # A list that is empty where there was none.
                    out[key] = LEAF
            elif inner is None:
                out[key] = LEAF
            else:
                below = {}
                if item.__class__ is dict and isinstance(inner, _FieldsWalker):
                    inner.whole_top(item, below)
                else:
                    inner.whole(item, below)
                if below:
                    out[key] = below

    def compare(self, old: Any, new: Any, changes: Changes, *, top: bool) -> None:
        for name, item in new.items():
            if name not in old:
                self._one(name, item, changes.added, top=top)
                continue
            before = old[name]
            if before is item or before == item:
                continue
            key, inner = self._entries[name]
            if inner is None or not _comparable(before, item) or (inner is _UNTYPED and before.__class__ is list):
                changes.modified[key] = LEAF
                if inner is _UNTYPED and before.__class__ is not item.__class__:
                    _turned(key, before, item, changes)
            else:
                # Null is as empty as an empty list or map.
                nothing: Any = [] if before.__class__ is list or item.__class__ is list else {}
                below = Changes()
                inner.compare(
                    nothing if before is None else before,
                    nothing if item is None else item,
                    below,
                    top=top and name in self._present,
                )
                changes.enter(key, below)
        for name, item in old.items():
            if name not in new:
                self._one(name, item, changes.removed, top=top)

    def _one(self, name: str, item: Any, out: FieldSet, *, top: bool) -> None:
        """All of one new field."""
        (self.whole_top if top else self.whole)({name: item}, out)


def _comparable(before: Any, item: Any) -> bool:
    """Whether two unequal values can be compared by their members: two maps or two lists, not both empty. Null is an
    empty one of either."""
    if before is None or item is None:
        other = item if before is None else before
        return bool(other) and other.__class__ in (dict, list)
    return bool(before or item) and before.__class__ is item.__class__ and before.__class__ in (dict, list)


def _turned(key: str, before: Any, item: Any, changes: Changes) -> None:
    """A value without a type of its own was a map and is none, or the other way round: the members go or come."""
    for value, part in ((before, changes.removed), (item, changes.added)):
        if value.__class__ is dict and value:
            below: FieldSet = {}
            _UNTYPED.whole(value, below)
            part[key] = below


class _UntypedWalker(_FieldsWalker):
    """Values that the schema says nothing about: objects have fields, everything else is one value."""

    def owned(self, value: Any, out: FieldSet) -> None:
        if value.__class__ is dict:
            super().owned(value, out)
        else:
            out[DOT] = LEAF

    def whole(self, value: Any, out: FieldSet) -> None:
        if value.__class__ is dict:
            super().whole(value, out)


class _ListWalker(_Walker):
    """Lists whose items have an identity: lists with keys (`k:`), and sets (`v:`).

    Clients that write whole objects may leave duplicates there, which apply may not: all items of one identity are
    one value then, without members.
    """

    def __init__(self, node: SchemaNodeLike) -> None:
        self._key = item_key_function(node)
        self._inner = walker(node.items) if node.list_type == "map" and node.items is not None else None
        self._name = node.list_map_keys[0] if node.list_type == "map" and len(node.list_map_keys) == 1 else ""

    def owned(self, value: Any, out: FieldSet) -> None:
        key_of, inner = self._key, self._inner
        for index, item in enumerate(value):
            key = key_of(item, index)
            if key in out or inner is None or item.__class__ is not dict:
                out[key] = LEAF
            else:
                below: FieldSet = {DOT: LEAF}
                inner.owned(item, below)
                out[key] = normal(below)

    def whole(self, value: Any, out: FieldSet) -> None:
        key_of, inner = self._key, self._inner
        for index, item in enumerate(value):
            key = key_of(item, index)
            if key in out or inner is None or item.__class__ is not dict:
                out[key] = LEAF
            else:
                below: FieldSet = {DOT: LEAF}
                inner.whole(item, below)
                out[key] = normal(below)

    def _item(self, item: Any) -> FieldSet:
        """All of one new item."""
        if self._inner is None or item.__class__ is not dict:
            return LEAF
        below: FieldSet = {DOT: LEAF}
        self._inner.whole(item, below)
        return normal(below)

    def compare(self, old: Any, new: Any, changes: Changes, *, top: bool) -> None:
        if self._inner is not None and len(old) == len(new) and self._is_aligned(old, new):
            # As most often: the same items in the same order, each once.
            for index, (was, item) in enumerate(zip(old, new, strict=True)):
                if was is not item and was != item:
                    below = Changes()
                    self._inner.compare(was, item, below, top=False)
                    changes.enter(self._key(item, index), below)
            return
        before, after = self._grouped(old), self._grouped(new)
        for key, items in after.items():
            was = before.get(key)
            if was is None:
                changes.added[key] = self._item(items[0]) if len(items) == 1 else LEAF
            elif was == items:
                continue
            elif len(was) > 1 or len(items) > 1:
                self._compare_duplicates(key, was, items, changes)
            elif self._inner is None:
                changes.modified[key] = LEAF
            else:
                below = Changes()
                self._inner.compare(was[0], items[0], below, top=False)
                changes.enter(key, below)
        for key, items in before.items():
            if key not in after:
                changes.removed[key] = self._item(items[0]) if len(items) == 1 else LEAF

    def _is_aligned(self, old: list[Any], new: list[Any]) -> bool:
        name = self._name
        if not name:
            return False
        try:
            values = [item[name] for item in new]
            return values == [item[name] for item in old] and len(set(values)) == len(values)
        except (KeyError, TypeError):
            return False

    def _compare_duplicates(self, key: str, was: list[Any], items: list[Any], changes: Changes) -> None:
        if len(was) > 1 and len(items) > 1:
            changes.modified[key] = LEAF
        elif len(was) > 1:
            changes.added[key] = self._item(items[0])
            changes.removed[key] = LEAF
        else:
            changes.removed[key] = self._item(was[0])
            changes.added[key] = LEAF

    def _grouped(self, items: list[Any]) -> dict[str, list[Any]]:
        keys = list(map(self._key, items, count()))
        groups = {key: [item] for key, item in zip(keys, items, strict=True)}
        if len(groups) < len(items):
            groups = {key: [] for key in groups}
            for key, item in zip(keys, items, strict=True):
                groups[key].append(item)
        return groups


_UNTYPED: Final = _UntypedWalker(None)


def walker(node: SchemaNodeLike) -> _Walker | None:
    """The compiled walker of a node; None where the node's value has no members of its own."""
    # The node keeps it, and both go when the schema does: definitions of custom resources come and go by the thousand.
    cached: tuple[_Walker | None] | None = node.walker
    if cached is not None:
        return cached[0]
    made: _Walker | None = None
    if node.kind == "array":
        if node.list_type in ("map", "set"):
            made = _ListWalker(node)
    elif node.kind in ("object", "map") and not node.atomic:
        made = _FieldsWalker(node) if node.fields or node.items is not None else _UNTYPED
    node.walker = (made,)
    return made


def item_key_function(node: SchemaNodeLike) -> Callable[[Any, int], str]:
    """The function `(item, index) -> key in a set` for a list with identity."""
    function: Callable[[Any, int], str] | None = node.key_function
    if function is None:
        function = node.key_function = _make_key_function(node)
    return function


def _make_key_function(node: SchemaNodeLike) -> Callable[[Any, int], str]:
    if node.list_type != "map":
        return lambda item, index: "v:" + _encode(item)
    names = sorted(node.list_map_keys)
    defaults = {name: key_default(node, name) for name in names}
    if len(names) == 1 and defaults[names[0]] is None:
        (name,) = names
        prefix = f'k:{{"{name}":'
        # Of names: every pod has the same conditions.
        key_of_text = memo(maxsize=_MOST_KEYS, longest=_LONGEST_KEY)(lambda text: f"{prefix}{_encode(text)}}}")

        def single(item: Any, index: int) -> str:
            value = item.get(name) if item.__class__ is dict else None
            if value.__class__ is str:
                return key_of_text(value)
            return f"{prefix}{_encode(value)}}}" if value is not None else f"i:{index}"

        return single

    def several(item: Any, index: int) -> str:
        key = {name: item.get(name, defaults[name]) for name in names} if isinstance(item, dict) else {}
        present = {name: value for name, value in key.items() if value is not None}
        return "k:" + _encode(present) if present else f"i:{index}"

    return several


def key_default(node: SchemaNodeLike, name: str) -> Any:
    """What a list's key field is where an item leaves it out; None: nothing."""
    item = node.items
    field = item.fields.get(name) if item is not None and item.fields else None
    default = getattr(field, "default", None)
    if default is None:
        default = getattr(node, "defaults", {}).get(name)
    if default is None and getattr(item, "definition", "") == "LocalObjectReference":
        # Nothing, where the schema of OpenAPI's second version can state no default.
        return ""
    # The schema states most defaults of key fields; protocol's is stated for some types only.
    return "TCP" if default is None and name == "protocol" else default


def _encode(value: Any) -> str:
    return orjson.dumps(value).decode()


def _root(node: SchemaNodeLike | None) -> _FieldsWalker:
    found = walker(node) if node is not None else None
    return found if isinstance(found, _FieldsWalker) else _UNTYPED


def owned_set(obj: Obj, node: SchemaNodeLike | None) -> FieldSet:
    """The fields that an applied configuration states (and its applier so owns)."""
    out: FieldSet = {}
    _root(node).owned(obj, out)
    return out


def created_set(obj: Obj, node: SchemaNodeLike | None) -> FieldSet:
    """The fields that whoever creates the object other than by apply owns."""
    root = _root(node)
    return root.created.of(obj, root.whole_top)


def compare(old: Obj, new: Obj, node: SchemaNodeLike | None) -> Changes:
    """The fields that differ between two objects of one kind."""
    changes = Changes()
    if old != new:
        _root(node).compare(old, new, changes, top=True)
    return changes


def reconciled(owned: FieldSet, node: SchemaNodeLike | None) -> FieldSet:
    """The set after a change of the schema (a custom kind's may change at any time): of what is owned as one now, no
    members are owned any more, but the whole. The very same set where nothing is to change."""
    out: FieldSet | None = None
    for key, child in owned.items():
        if not child or key == DOT:
            continue
        below = child_of(node, key)
        if below is None or below.scalar == "any":
            continue
        one = below.atomic if below.kind != "array" else below.list_type not in ("map", "set")
        changed = LEAF if one else reconciled(child, below)
        if changed is not child:
            out = dict(owned) if out is None else out
            out[key] = changed
    return owned if out is None else out


def child_of(node: SchemaNodeLike | None, key: str) -> SchemaNodeLike | None:
    """The schema of what a key of a set stands for; None where the schema says nothing."""
    if key.startswith("f:"):
        return child_node(node, key[2:])
    found: SchemaNodeLike | None = node.items if node is not None and node.kind == "array" else None
    return found
