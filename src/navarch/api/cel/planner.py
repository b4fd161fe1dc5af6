"""From a checked tree to closures over a frame.

In: the tree, functions, and the names of the variables.  Out: `Program`: called with a frame, it gives the value or
raises CelError. The frame is a list: `[cost so far, limit, variables …, macros' variables …]`.

Cost: what a part costs whenever it is evaluated is added up here, once; it is charged where evaluation may take another
way (branches, the right sides of `&&` and `||`, the bodies of macros). Costs that depend on sizes are charged before
the call, so that nothing dear is begun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from navarch.api.cel.ast import Bind, Call, Const, Fold, Ident, ListNode, MapNode, Node, OptMap, Select, Struct
from navarch.api.cel.closures import (
    COST,
    Closure,
    Frame,
    called,
    charged,
    checked_key,
    converted_field_of,
    dispatched,
    either,
    field_of,
    is_some,
    optional_field_of,
    path_of,
    presence_of,
    trusted,
)
from navarch.api.cel.costs import LIST, MAP, NAME, STRUCT, by_size
from navarch.api.cel.declarations import Function
from navarch.api.cel.errors import CelError
from navarch.api.cel.folds import fold_closure
from navarch.api.cel.functions.arithmetic import OPERATORS
from navarch.api.cel.types import ObjectType, is_loose, is_optional
from navarch.api.cel.values import (
    NO_OVERLOAD,
    NONE,
    Made,
    MadeMap,
    Message,
    Optional,
    TypeValue,
    some,
)

FIRST: Final = 2

# What a closure gives, and what that costs in any case.
Plan = tuple[Closure, int]


class Planner:
    """Made for one expression; `slots` says where the variables are in the frame."""

    def __init__(self, functions: Mapping[str, Function], variables: Sequence[str]) -> None:
        self._functions = functions
        self._slots = {name: FIRST + index for index, name in enumerate(variables)}
        self.width = FIRST + len(variables)

    def plan(self, node: Node) -> Plan:
        if isinstance(node, Const):
            value = node.value
            return lambda frame: value, 0
        if isinstance(node, Ident):
            return self._ident(node)
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
            return self._bind(node)
        assert isinstance(node, OptMap)
        return self._opt_map(node)

    # Names and fields

    def _slot(self, name: str) -> Plan:
        slot = self._slots.get(name)
        if slot is None:
            of_type = TypeValue(name)
            return lambda frame: of_type, NAME
        return lambda frame: frame[slot], NAME

    def _ident(self, node: Ident) -> Plan:
        return self._slot(node.resolved)

    def _select(self, node: Select) -> Plan:
        if node.resolved is not None:
            return self._slot(node.resolved)
        key, convert = node.field, None
        if isinstance(node.operand.type, ObjectType):
            field = node.operand.type.field(node.field)
            if field is not None:
                key, convert = field.property, field.convert
        operand, cost = self.plan(node.operand)
        if node.test:
            return presence_of(operand, key), cost
        if node.optional or is_optional(node.operand.type):
            return optional_field_of(operand, key, convert), cost + NAME
        if convert is not None:
            return converted_field_of(operand, key, convert), cost + NAME
        chain = self._chain(node)
        if chain is not None:
            return chain, cost + NAME
        return field_of(operand, key), cost + NAME

    def _chain(self, node: Select) -> Closure | None:
        """`variable.a.b` without a closure per dot."""
        keys: list[str] = []
        at: Node = node
        while isinstance(at, Select) and at.resolved is None and not at.test and not at.optional:
            key = at.field
            if isinstance(at.operand.type, ObjectType):
                field = at.operand.type.field(at.field)
                if field is None or (field.convert is not None and at is not node):
                    return None
                key = field.property
            elif is_optional(at.operand.type):
                return None
            keys.append(key)
            at = at.operand
        if not isinstance(at, Ident) or at.resolved not in self._slots:
            return None
        return path_of(self._slots[at.resolved], tuple(reversed(keys)))

    # Calls

    def _call(self, node: Call) -> Plan:
        if node.function == "_&&_":
            return self._logical(node, decisive=False)
        if node.function == "_||_":
            return self._logical(node, decisive=True)
        if node.function == "_?_:_":
            return self._conditional(node)
        nodes = node.args if node.target is None else [node.target, *node.args]
        plans = [self._deep(each, self.plan(each), node.function) for each in nodes]
        args = [closure for closure, _ in plans]
        cost = sum(cost for _, cost in plans)
        function = self._functions[node.function.removeprefix(".")]
        call = self._implementation(node, function, nodes)
        sized = by_size(node.function, node.overloads)
        if sized is None:
            return called(call, args), cost + 1
        return charged(call, args, sized), cost

    def _deep(self, node: Node, plan: Plan, function: str) -> Plan:
        """Objects whose equality is not that of their JSON are made comparable before they are compared."""
        if function not in ("_==_", "_!=_", "@in", "dyn") or not isinstance(node.type, ObjectType):
            return plan
        deep = node.type.deep
        if deep is None:
            return plan
        closure, cost = plan
        return lambda frame: deep(closure(frame)), cost

    def _implementation(self, node: Call, function: Function, nodes: Sequence[Node]) -> Callable[..., Any]:
        if function.name in OPERATORS:
            return function.overloads[0].implementation
        chosen = [each for each in function.overloads if each.id in node.overloads]
        if len(chosen) == 1 and not any(is_loose(each.type) or each.type.kind == "param" for each in nodes):
            return trusted(chosen[0].implementation)
        member = node.target is not None
        candidates = [
            each for each in function.overloads if each.member == member and len(each.parameters) == len(nodes)
        ]
        return dispatched(function.name, candidates)

    def _logical(self, node: Call, *, decisive: bool) -> Plan:
        left, cost = self.plan(node.args[0])
        right, right_cost = self.plan(node.args[1])
        return either(left, right, right_cost, decisive=decisive), cost

    def _conditional(self, node: Call) -> Plan:
        condition, cost = self.plan(node.args[0])
        then, then_cost = self.plan(node.args[1])
        other, other_cost = self.plan(node.args[2])

        def choose(frame: Frame) -> Any:
            chosen = condition(frame)
            if chosen is True:
                frame[COST] += then_cost
                return then(frame)
            if chosen is False:
                frame[COST] += other_cost
                return other(frame)
            raise CelError(NO_OVERLOAD)

        return choose, cost

    # What is made

    def _list(self, node: ListNode) -> Plan:
        plans = [self.plan(each) for each in node.elements]
        items = [closure for closure, _ in plans]
        cost = LIST + sum(cost for _, cost in plans)
        if all(isinstance(each, Const) for each in node.elements):
            whole = Made(item([]) for item in items)
            return lambda frame: whole, cost
        optional = node.optional

        def make(frame: Frame) -> Any:
            if not optional:
                return Made([item(frame) for item in items])
            made = []
            for index, item in enumerate(items):
                value = item(frame)
                if index not in optional:
                    made.append(value)
                elif is_some(value):
                    made.append(value.value)
            return Made(made)

        return make, cost

    def _map(self, node: MapNode) -> Plan:
        cost = MAP
        entries: list[tuple[Closure, Closure, bool]] = []
        for entry in node.entries:
            assert entry.key is not None
            key, key_cost = self.plan(entry.key)
            value, value_cost = self.plan(entry.value)
            cost += key_cost + value_cost
            entries.append((key, value, entry.optional))

        def make(frame: Frame) -> Any:
            made: list[tuple[Any, Any]] = []
            for key, value, optional in entries:
                name, held = checked_key(key(frame)), value(frame)
                if not optional:
                    made.append((name, held))
                elif is_some(held):
                    made.append((name, held.value))
            return MadeMap(made)

        return make, cost

    def _struct(self, node: Struct) -> Plan:
        cost = STRUCT
        kind, name = node.type, node.name.removeprefix(".")
        entries: list[tuple[str, Closure, bool]] = []
        for entry in node.entries:
            value, value_cost = self.plan(entry.value)
            cost += value_cost
            field = kind.field(entry.name) if isinstance(kind, ObjectType) else None
            entries.append((field.property if field is not None else entry.name, value, entry.optional))

        def make(frame: Frame) -> Any:
            made: list[tuple[str, Any]] = []
            for key, value, optional in entries:
                held = value(frame)
                if not optional:
                    made.append((key, held))
                elif is_some(held):
                    made.append((key, held.value))
            return Message(name, made)

        return make, cost

    # Macros

    def _inner(self, names: Sequence[str], *nodes: Node | None) -> tuple[list[int], list[Plan | None]]:
        """Slots for a macro's variables, and the plans of what can see them."""
        hidden = {name: self._slots.get(name) for name in names}
        slots = []
        for name in names:
            self._slots[name] = self.width
            slots.append(self.width)
            self.width += 1
        plans = [self.plan(node) if node is not None else None for node in nodes]
        for name, slot in hidden.items():
            if slot is None:
                del self._slots[name]
            else:
                self._slots[name] = slot
        return slots, plans

    def _fold(self, node: Fold) -> Plan:
        range_, cost = self.plan(node.range)
        names = [node.var] if node.var2 is None else [node.var, node.var2]
        slots, (condition, result) = self._inner(names, node.condition, node.result)
        closure, base = fold_closure(node.macro, range_, slots, condition, result)
        return closure, cost + base

    def _bind(self, node: Bind) -> Plan:
        value, cost = self.plan(node.value)
        (slot,), (plan,) = self._inner([node.var], node.result)
        assert plan is not None
        result, result_cost = plan

        def bound(frame: Frame) -> Any:
            frame[slot] = value(frame)
            return result(frame)

        # To cel-go it is a macro over an empty list.
        return bound, LIST + cost + result_cost

    def _opt_map(self, node: OptMap) -> Plan:
        target, cost = self.plan(node.target)
        (slot,), (plan,) = self._inner([node.var], node.result)
        assert plan is not None
        result, result_cost = plan
        flat = node.flat

        def mapped(frame: Frame) -> Any:
            held = target(frame)
            if not isinstance(held, Optional):
                raise CelError(NO_OVERLOAD)
            if not held.present:
                return NONE
            frame[slot] = held.value
            frame[COST] += result_cost
            value = result(frame)
            return value if flat else some(value)

        return mapped, cost + 3
