"""The tree of an expression. `at` is the offset of the token that stands for a node: errors are shown there.

The checker fills in `type`, and `overloads` of calls. Macros (`all`, `map` …) are nodes of their own (`Fold`), which
checker, estimate and planner treat as what cel-go expands them to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from navarch.api.cel.types import DYN, Type


class Node:
    __slots__ = ("at", "type")

    def __init__(self, at: int) -> None:
        self.at = at
        self.type: Type = DYN

    def below(self) -> Sequence[Node]:
        return ()


class Const(Node):
    """A literal; `value` is the CEL value, `kind` its type."""

    __slots__ = ("kind", "value")

    def __init__(self, at: int, value: Any, kind: Type) -> None:
        super().__init__(at)
        self.value = value
        self.kind = kind


class Ident(Node):
    """A name; `.name` with a leading dot is looked up from the root. `resolved` is the declared name it stands for."""

    __slots__ = ("name", "resolved")

    def __init__(self, at: int, name: str) -> None:
        super().__init__(at)
        self.name = name
        self.resolved = name


class Select(Node):
    """`operand.field`, `operand.?field` (`optional`), or `has(operand.field)` (`test`). `resolved` is set where the
    whole is one declared name."""

    __slots__ = ("field", "operand", "optional", "resolved", "test")

    def __init__(self, at: int, operand: Node, field: str, *, test: bool = False, optional: bool = False) -> None:
        super().__init__(at)
        self.operand = operand
        self.field = field
        self.test = test
        self.optional = optional
        self.resolved: str | None = None

    def below(self) -> Sequence[Node]:
        return (self.operand,)


class Call(Node):
    """A function, operator (`_+_`) or method (`target` is not None)."""

    __slots__ = ("args", "function", "overloads", "target")

    def __init__(self, at: int, function: str, args: list[Node], target: Node | None = None) -> None:
        super().__init__(at)
        self.function = function
        self.args = args
        self.target = target
        self.overloads: tuple[str, ...] = ()

    def below(self) -> Sequence[Node]:
        return self.args if self.target is None else (self.target, *self.args)


class ListNode(Node):
    """`[a, ?b]`; `optional` has the indices of elements that are left out where they are none."""

    __slots__ = ("elements", "optional")

    def __init__(self, at: int, elements: list[Node], optional: frozenset[int]) -> None:
        super().__init__(at)
        self.elements = elements
        self.optional = optional

    def below(self) -> Sequence[Node]:
        return self.elements


class Entry:
    """One of a map's or an object's. `at` is its colon."""

    __slots__ = ("at", "key", "name", "optional", "value")

    def __init__(self, at: int, key: Node | None, name: str, value: Node, *, optional: bool) -> None:
        self.at = at
        self.key = key
        self.name = name
        self.value = value
        self.optional = optional


class MapNode(Node):
    __slots__ = ("entries",)

    def __init__(self, at: int, entries: list[Entry]) -> None:
        super().__init__(at)
        self.entries = entries

    def below(self) -> Sequence[Node]:
        return [node for entry in self.entries for node in (entry.key, entry.value) if node is not None]


class Struct(Node):
    """`Name{field: value}`."""

    __slots__ = ("entries", "name")

    def __init__(self, at: int, name: str, entries: list[Entry]) -> None:
        super().__init__(at)
        self.name = name
        self.entries = entries

    def below(self) -> Sequence[Node]:
        return [entry.value for entry in self.entries]


class Fold(Node):
    """A macro over a list or a map. `macro` is its name; those with a filter carry it in `condition`, what they make of
    each item is `result` (for `filter` the variable itself, for quantifiers None)."""

    __slots__ = ("condition", "macro", "range", "result", "var", "var2")

    def __init__(
        self, at: int, macro: str, range_: Node, var: str, var2: str | None, condition: Node | None, result: Node | None
    ) -> None:
        super().__init__(at)
        self.macro = macro
        self.range = range_
        self.var = var
        self.var2 = var2
        self.condition = condition
        self.result = result

    def below(self) -> Sequence[Node]:
        return [node for node in (self.range, self.condition, self.result) if node is not None]


class OptMap(Node):
    """`target.optMap(var, result)` and `optFlatMap`."""

    __slots__ = ("flat", "result", "target", "var")

    def __init__(self, at: int, target: Node, var: str, result: Node, *, flat: bool) -> None:
        super().__init__(at)
        self.target = target
        self.var = var
        self.result = result
        self.flat = flat

    def below(self) -> Sequence[Node]:
        return (self.target, self.result)


class Bind(Node):
    """What a macro looks at more than once has a name, which no expression can write."""

    __slots__ = ("result", "value", "var")

    def __init__(self, at: int, var: str, value: Node, result: Node) -> None:
        super().__init__(at)
        self.var = var
        self.value = value
        self.result = result

    def below(self) -> Sequence[Node]:
        return (self.value, self.result)


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    pending = [node]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(current.below())


def mentions(node: Node, name: str) -> bool:
    """Whether the expression reads the variable of that name (a macro's own variable of that name hides it)."""
    if isinstance(node, Ident):
        return node.resolved == name
    if isinstance(node, Select) and node.resolved is not None:
        return node.resolved == name or node.resolved.startswith(name + ".")
    if isinstance(node, Fold):
        if mentions(node.range, name):
            return True
        if name in (node.var, node.var2):
            return False
        return any(mentions(each, name) for each in (node.condition, node.result) if each is not None)
    if isinstance(node, OptMap):
        return mentions(node.target, name) or (name != node.var and mentions(node.result, name))
    # The name of a `Bind` is nobody's.
    return any(mentions(each, name) for each in node.below())
