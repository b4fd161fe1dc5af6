"""Macros: calls that are more than calls, because they name variables or look at the form of their arguments.

In: a call as it was read.  Out: the node it stands for, None where it is no macro. As in cel-go, a macro is told by its
name, by whether it is called on something, and by the number of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from navarch.api.cel.ast import Bind, Call, Const, Fold, Ident, MapNode, Node, OptMap, Select, Struct
from navarch.api.cel.errors import Issue

_Expand = Callable[[int, Node, list[Node], list[Issue]], Node]
ACCUMULATOR: Final = "@result"
_SORTED: Final = "@__sortBy_input__"
# What `sortBy` comes to: the list, and by what its items are sorted.
SORT_BY_KEYS: Final = "@sortByAssociatedKeys"


def global_expanded(at: int, name: str, args: list[Node], issues: list[Issue]) -> Node | None:
    """`has(a.b)`."""
    if name != "has" or len(args) != 1:
        return None
    field = args[0]
    if not isinstance(field, Select) or field.test or field.optional:
        issues.append(Issue(field.at, "invalid argument to has() macro"))
        return field
    return Select(at, field.operand, field.field, test=True)


def expanded(at: int, target: Node, name: str, args: list[Node], issues: list[Issue]) -> Node | None:
    expand = _MACROS.get((name, len(args)))
    return expand(at, target, args, issues) if expand is not None else None


def _name(node: Node, issues: list[Issue]) -> str:
    if not isinstance(node, Ident) or node.name.startswith("."):
        issues.append(Issue(node.at, "argument must be a simple name"))
        return "@unnamed"
    return node.name


def _names(args: list[Node], issues: list[Issue]) -> tuple[str, str]:
    first, second = _name(args[0], issues), _name(args[1], issues)
    if first == second and first != "@unnamed":
        issues.append(Issue(args[1].at, f"duplicate variable name: {first}"))
    return first, second


def _quantifier(macro: str) -> _Expand:
    def expand(at: int, target: Node, args: list[Node], issues: list[Issue]) -> Node:
        return Fold(at, macro, target, _name(args[0], issues), None, args[1], None)

    return expand


def _quantifier_of_two(macro: str) -> _Expand:
    def expand(at: int, target: Node, args: list[Node], issues: list[Issue]) -> Node:
        var, var2 = _names(args, issues)
        return Fold(at, macro, target, var, var2, args[2], None)

    return expand


def _map(at: int, target: Node, args: list[Node], issues: list[Issue]) -> Node:
    condition = args[1] if len(args) == 3 else None
    return Fold(at, "map", target, _name(args[0], issues), None, condition, args[-1])


def _filter(at: int, target: Node, args: list[Node], issues: list[Issue]) -> Node:
    var = _name(args[0], issues)
    return Fold(at, "filter", target, var, None, args[1], Ident(at, var))


def _transform(macro: str) -> _Expand:
    def expand(at: int, target: Node, args: list[Node], issues: list[Issue]) -> Node:
        var, var2 = _names(args, issues)
        return Fold(at, macro, target, var, var2, args[2] if len(args) == 4 else None, args[-1])

    return expand


def _sort_by(at: int, target: Node, args: list[Node], issues: list[Issue]) -> Node:
    if isinstance(target, (Const, MapNode, Struct)):
        kinds = "a list, identifier, comprehension, call or select expression"
        issues.append(Issue(target.at, f"sortBy can only be applied to {kinds}"))
        return target
    keys = Fold(at, "map", Ident(at, _SORTED), _name(args[0], issues), None, None, args[1])
    return Bind(at, _SORTED, target, Call(at, SORT_BY_KEYS, [keys], Ident(at, _SORTED)))


def _optional(*, flat: bool) -> _Expand:
    def expand(at: int, target: Node, args: list[Node], issues: list[Issue]) -> Node:
        return OptMap(at, target, _name(args[0], issues), args[1], flat=flat)

    return expand


_MACROS: Final[dict[tuple[str, int], _Expand]] = {
    ("all", 2): _quantifier("all"),
    ("exists", 2): _quantifier("exists"),
    ("exists_one", 2): _quantifier("existsOne"),
    ("existsOne", 2): _quantifier("existsOne"),
    ("map", 2): _map,
    ("map", 3): _map,
    ("filter", 2): _filter,
    ("all", 3): _quantifier_of_two("all"),
    ("exists", 3): _quantifier_of_two("exists"),
    ("existsOne", 3): _quantifier_of_two("existsOne"),
    ("exists_one", 3): _quantifier_of_two("existsOne"),
    ("transformList", 3): _transform("transformList"),
    ("transformList", 4): _transform("transformList"),
    ("transformMap", 3): _transform("transformMap"),
    ("transformMap", 4): _transform("transformMap"),
    ("transformMapEntry", 3): _transform("transformMapEntry"),
    ("transformMapEntry", 4): _transform("transformMapEntry"),
    ("sortBy", 2): _sort_by,
    ("optMap", 2): _optional(flat=False),
    ("optFlatMap", 2): _optional(flat=True),
}

__all__ = ["ACCUMULATOR", "Call", "expanded", "global_expanded"]
