"""Types for every node: names looked up, overloads chosen, and whatever has none reported in cel-go's words.

In: the tree, the declared variables and functions.  Out: the same tree with `type`, `resolved` and `overloads` filled
in.  Raises CompileError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from navarch.api.cel.ast import Bind, Call, Const, Fold, Ident, ListNode, MapNode, Node, OptMap, Select, Struct, walk
from navarch.api.cel.declarations import Function
from navarch.api.cel.errors import CelError, CompileError, Issue
from navarch.api.cel.regex import wrong_pattern
from navarch.api.cel.times import parse_duration, parse_timestamp
from navarch.api.cel.types import (
    BOOL,
    DYN,
    ERROR,
    INT,
    PRIMITIVES,
    ObjectType,
    Type,
    all_assignable,
    assignable,
    is_loose,
    is_optional,
    list_of,
    map_of,
    most_general,
    optional_of,
    param,
    substitute,
    type_of,
)

_TYPE_NAMES: Final[Mapping[str, Type]] = {
    **PRIMITIVES,
    "null_type": type_of(Type("null_type", "null_type")),
    "list": list_of(DYN),
    "map": map_of(DYN, DYN),
    "type": Type("type", "type"),
    "google.protobuf.Duration": PRIMITIVES["duration"],
    "google.protobuf.Timestamp": PRIMITIVES["timestamp"],
    "optional_type": optional_of(DYN),
}
_NOT_NAMES: Final = frozenset({"duration", "timestamp", "dyn"})


class Checker:
    """Made for one expression."""

    def __init__(
        self, functions: Mapping[str, Function], variables: Mapping[str, Type], types: Callable[[str], Type | None]
    ) -> None:
        self._functions = functions
        self._variables = variables
        self._types = types
        self._scopes: list[dict[str, Type]] = []
        self._mapping: dict[str, Type] = {}
        self._free = 0
        self._issues: list[Issue] = []

    def check(self, source: str, root: Node) -> None:
        """Raises CompileError."""
        try:
            self._check(root)
        except RecursionError:
            raise CompileError(source, [Issue(0, "expression recursion limit exceeded: 250")]) from None
        if not self._issues:
            for node in walk(root):
                node.type = substitute(self._mapping, node.type, free_is_dyn=True)
            self._validate(root)
        if self._issues:
            raise CompileError(source, self._issues)

    # Names

    def _local(self, name: str) -> Type | None:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        return None

    def _declared(self, name: str) -> Type | None:
        name = name.removeprefix(".")
        found = self._variables.get(name)
        if found is not None:
            return found
        if name in _TYPE_NAMES and name not in _NOT_NAMES:
            each = _TYPE_NAMES[name]
            return each if each.kind == "type" and each.parameters else type_of(each)
        made = self._types(name)
        return type_of(made) if made is not None else None

    @contextmanager
    def _scope(self, **names: Type) -> Iterator[None]:
        self._scopes.append(names)
        yield
        self._scopes.pop()

    def _fresh(self) -> Type:
        self._free += 1
        return param(f"_var{self._free}")

    def _undeclared(self, at: int, name: str) -> Type:
        self._issues.append(Issue(at, f"undeclared reference to '{name}' (in container '')"))
        return ERROR

    # Nodes

    def _check(self, node: Node) -> Type:
        node.type = found = self._found(node)
        return found

    def _found(self, node: Node) -> Type:
        if isinstance(node, Const):
            return node.kind
        if isinstance(node, Ident):
            found = self._local(node.name)
            if found is None:
                found = self._declared(node.name)
                node.resolved = node.name.removeprefix(".")
            return found if found is not None else self._undeclared(node.at, node.name)
        if isinstance(node, Select):
            return self._select(node)
        if isinstance(node, Call):
            return self._call(node)
        if isinstance(node, ListNode):
            return self._list(node)
        if isinstance(node, MapNode):
            return self._map(node)
        if isinstance(node, Struct):
            return self._struct(node)
        if isinstance(node, Fold):
            return self._fold(node)
        if isinstance(node, Bind):
            with self._scope(**{node.var: self._check(node.value)}):
                return self._check(node.result)
        assert isinstance(node, OptMap)
        return self._opt_map(node)

    def _qualified(self, node: Node) -> str | None:
        """The dotted name that a chain of selections spells; None if it is none, or begins with a macro's variable."""
        parts: list[str] = []
        while isinstance(node, Select):
            if node.test or node.optional:
                return None
            parts.append(node.field)
            node = node.operand
        if not isinstance(node, Ident) or self._local(node.name) is not None:
            return None
        return ".".join([node.name.removeprefix("."), *reversed(parts)])

    def _select(self, node: Select) -> Type:
        name = None if node.test or node.optional else self._qualified(node)
        if name is not None:
            found = self._declared(name)
            if found is not None:
                node.resolved = name
                return found
        operand = substitute(self._mapping, self._check(node.operand), free_is_dyn=False)
        unwrapped = operand.parameters[0] if is_optional(operand) else operand
        result = self._field(node, unwrapped)
        if node.test:
            return BOOL
        if node.optional or is_optional(operand):
            return result if is_optional(result) else optional_of(result)
        return result

    def _field(self, node: Select, operand: Type) -> Type:
        if isinstance(operand, ObjectType):
            field = operand.field(node.field)
            if field is not None:
                return field.type
            self._issues.append(Issue(node.at, f"undefined field '{node.field}'"))
            return ERROR
        if operand.kind == "map":
            return operand.parameters[1]
        if operand.kind == "param":
            assignable(self._mapping, operand, DYN)
            return DYN
        if is_loose(operand):
            return DYN
        if operand.kind == "struct":
            self._issues.append(Issue(node.at, f"undefined field '{node.field}'"))
            return ERROR
        self._issues.append(Issue(node.at, f"type '{operand.shown()}' does not support field selection"))
        return ERROR

    def _call(self, node: Call) -> Type:
        given = [self._check(arg) for arg in node.args]
        if node.target is None:
            function = self._functions.get(node.function.removeprefix("."))
            if function is None:
                return self._undeclared(node.at, node.function)
            return self._resolve(node, function, given, member=False)
        qualifier = self._qualified(node.target)
        if qualifier is not None:
            function = self._functions.get(f"{qualifier}.{node.function}")
            if function is not None:
                node.function, node.target = function.name, None
                return self._resolve(node, function, given, member=False)
        target = self._check(node.target)
        function = self._functions.get(node.function)
        if function is None:
            return self._undeclared(node.at, node.function)
        return self._resolve(node, function, [target, *given], member=True)

    def _resolve(self, node: Call, function: Function, given: list[Type], *, member: bool) -> Type:
        result: Type | None = None
        chosen: list[str] = []
        for overload in function.overloads:
            if overload.member != member or len(overload.parameters) != len(given):
                continue
            wanted, made = list(overload.parameters), overload.result
            if overload.generic:
                fresh: dict[str, Type] = {}
                wanted = [self._renamed(each, fresh) for each in wanted]
                made = self._renamed(made, fresh)
            mapping = all_assignable(self._mapping, given, wanted)
            if mapping is None:
                continue
            self._mapping = mapping
            chosen.append(overload.id)
            this = substitute(mapping, made, free_is_dyn=False)
            if result is None:
                result = this
            elif result.kind != "dyn" and this != result:
                result = DYN
        if result is None:
            shown = [substitute(self._mapping, each, free_is_dyn=True).shown() for each in given]
            applied = f"{shown[0]}.({', '.join(shown[1:])})" if member else f"({', '.join(shown)})"
            self._issues.append(
                Issue(node.at, f"found no matching overload for '{function.name}' applied to '{applied}'")
            )
            return ERROR
        node.overloads = tuple(chosen)
        return result

    def _renamed(self, each: Type, fresh: dict[str, Type]) -> Type:
        """The type with parameters of its own in this use."""
        if each.kind == "param":
            if each.name not in fresh:
                fresh[each.name] = self._fresh()
            return fresh[each.name]
        if not each.parameters:
            return each
        return Type(each.kind, each.name, tuple(self._renamed(part, fresh) for part in each.parameters))

    def _joined(self, at: int, before: Type | None, each: Type) -> Type:
        if before is None:
            return each
        if assignable(self._mapping, before, each):
            return most_general(before, each)
        shown = substitute(self._mapping, before, free_is_dyn=True).shown()
        other = substitute(self._mapping, each, free_is_dyn=True).shown()
        self._issues.append(Issue(at, f"expected type '{shown}' but found '{other}'"))
        return ERROR

    def _unwrapped(self, at: int, each: Type, *, optional: bool) -> Type:
        """The type of what an optional element or entry holds."""
        if not optional:
            return each
        if is_optional(each):
            return each.parameters[0]
        if not is_loose(each):
            self._issues.append(Issue(at, f"expected type 'optional_type({each.shown()})' but found '{each.shown()}'"))
        return each

    def _list(self, node: ListNode) -> Type:
        element: Type | None = None
        for index, each in enumerate(node.elements):
            found = self._unwrapped(each.at, self._check(each), optional=index in node.optional)
            element = self._joined(each.at, element, found)
        return list_of(element if element is not None else self._fresh())

    def _map(self, node: MapNode) -> Type:
        key: Type | None = None
        value: Type | None = None
        for entry in node.entries:
            assert entry.key is not None
            key = self._joined(entry.key.at, key, self._check(entry.key))
            found = self._unwrapped(entry.value.at, self._check(entry.value), optional=entry.optional)
            value = self._joined(entry.value.at, value, found)
        return map_of(key or self._fresh(), value or self._fresh())

    def _struct(self, node: Struct) -> Type:
        name = node.name.removeprefix(".")
        made = self._types(name)
        for entry in node.entries:
            self._check(entry.value)
        if made is None:
            known = self._declared(name)
            if known is None:
                return self._undeclared(node.at, node.name)
            self._issues.append(Issue(node.at, f"'{known.shown()}' is not a type"))
            return ERROR
        if not isinstance(made, ObjectType):
            self._issues.append(Issue(node.at, f"'{made.shown()}' is not a message type"))
            return ERROR
        for entry in node.entries:
            field = made.field(entry.name)
            if field is None:
                self._issues.append(Issue(entry.at, f"undefined field '{entry.name}'"))
                continue
            found = self._unwrapped(entry.value.at, entry.value.type, optional=entry.optional)
            if not assignable(self._mapping, field.type, found):
                wanted, shown = field.type.shown(), substitute(self._mapping, found, free_is_dyn=True).shown()
                text = f"expected type of field '{entry.name}' is '{wanted}' but provided type is '{shown}'"
                self._issues.append(Issue(entry.at, text))
        return made

    # Macros

    def _fold(self, node: Fold) -> Type:
        range_ = substitute(self._mapping, self._check(node.range), free_is_dyn=False)
        first, second = self._items(node, range_)
        names = {node.var: first} if node.var2 is None else {node.var: first, node.var2: second}
        with self._scope(**names):
            if node.macro in ("all", "exists", "existsOne"):
                return self._quantified(node)
            if node.condition is not None:
                self._expect_condition(node, self._check(node.condition), list_of(DYN))
            assert node.result is not None
            result = self._check(node.result)
        if node.macro in ("map", "filter", "transformList"):
            return list_of(result)
        if node.macro == "transformMap":
            key = first if range_.kind in ("map", "list") else DYN
            return map_of(key, result)
        if result.kind != "map" and not is_loose(result):
            text = f"found no matching overload for 'cel.@mapInsert' applied to '(map(dyn, dyn), {result.shown()})'"
            self._issues.append(Issue(node.at, text))
            return ERROR
        return result

    def _items(self, node: Fold, range_: Type) -> tuple[Type, Type]:
        if range_.kind == "list":
            element = range_.parameters[0]
            return (element, element) if node.var2 is None else (INT, element)
        if range_.kind == "map":
            return range_.parameters[0], range_.parameters[1]
        if range_.kind == "param":
            assignable(self._mapping, range_, DYN)
            return DYN, DYN
        if not is_loose(range_):
            wanted = "cannot be range of a comprehension (must be list, map, or dynamic)"
            self._issues.append(Issue(node.range.at, f"expression of type '{range_.shown()}' {wanted}"))
            return ERROR, ERROR
        return DYN, DYN

    def _quantified(self, node: Fold) -> Type:
        assert node.condition is not None
        found = self._check(node.condition)
        if node.macro == "existsOne":
            self._expect_condition(node, found, INT)
        elif not assignable(self._mapping, found, BOOL):
            operator = "_&&_" if node.macro == "all" else "_||_"
            shown = substitute(self._mapping, found, free_is_dyn=True).shown()
            text = f"found no matching overload for '{operator}' applied to '(bool, {shown})'"
            self._issues.append(Issue(node.at, text))
        return BOOL

    def _expect_condition(self, node: Fold, found: Type, accumulator: Type) -> None:
        if not assignable(self._mapping, found, BOOL):
            shown = substitute(self._mapping, found, free_is_dyn=True).shown()
            other = accumulator.shown()
            text = f"found no matching overload for '_?_:_' applied to '({shown}, {other}, {other})'"
            self._issues.append(Issue(node.at, text))

    def _opt_map(self, node: OptMap) -> Type:
        target = substitute(self._mapping, self._check(node.target), free_is_dyn=False)
        held = target.parameters[0] if is_optional(target) else DYN
        if not is_optional(target) and not is_loose(target):
            text = f"found no matching overload for 'hasValue' applied to '{target.shown()}.()'"
            self._issues.append(Issue(node.at, text))
        with self._scope(**{node.var: held}):
            result = self._check(node.result)
        if not node.flat:
            return optional_of(result)
        if not is_optional(result) and not is_loose(result):
            text = f"found no matching overload for '_?_:_' applied to '(bool, {result.shown()}, optional_type(dyn))'"
            self._issues.append(Issue(node.at, text))
        return result

    # Literals that cannot be what they are used as

    def _validate(self, root: Node) -> None:
        for node in walk(root):
            if not isinstance(node, Call):
                continue
            text = _literal(node)
            if text is None:
                continue
            argument, literal = text
            if node.function == "duration" and _fails(parse_duration, literal):
                self._issues.append(Issue(argument.at, "invalid duration argument"))
            elif node.function == "timestamp" and _fails(parse_timestamp, literal):
                self._issues.append(Issue(argument.at, "invalid timestamp argument"))
            elif node.function == "matches" and wrong_pattern(literal) is not None:
                self._issues.append(Issue(argument.at, "invalid matches argument"))


def _literal(node: Call) -> tuple[Node, str] | None:
    position = 1 if node.function == "matches" and node.target is None else 0
    if len(node.args) <= position:
        return None
    argument = node.args[position]
    return (argument, argument.value) if isinstance(argument, Const) and isinstance(argument.value, str) else None


def _fails(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except CelError:
        return True
    return False
