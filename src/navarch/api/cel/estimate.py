"""What an expression may cost at most, before it has ever run: from the sizes that a schema promises.

In: a checked tree and a function that knows the greatest size of what a path leads to.  Out: least and greatest cost.
Invariant: the same numbers as cel-go's estimate with Kubernetes' functions, because a rule is accepted or refused by
them; numbers do not grow beyond 2⁶⁴-1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from navarch.api.cel.ast import Bind, Call, Const, Fold, Ident, ListNode, MapNode, Node, OptMap, Select, Struct
from navarch.api.cel.costs import LIST, MAP, STRUCT
from navarch.api.cel.prices import price
from navarch.api.cel.sizes import MOST, ONE, UNKNOWN, ZERO, Known, Path, Range, fixed
from navarch.api.cel.types import Type, is_optional
from navarch.records import mutable

_TRAVERSAL: Final = 0.1


# The greatest size of what is at a path; None where nothing is known.
SizeOf = Callable[[Path], int | None]


@mutable
class _Local:
    path: Path
    size: Range | None
    entries: Range | None = None
    keys: Range | None = None


class Estimator:
    """Made for one expression."""

    def __init__(self, size_of: SizeOf) -> None:
        self._size_of = size_of
        self._paths: dict[int, Path] = {}
        self._sizes: dict[int, Range] = {}
        # The sizes of a list's items or a map's values, and of a map's keys.
        self._entries: dict[int, tuple[Range, Range]] = {}
        self._locals: dict[str, list[_Local]] = {}

    # Sizes

    def _path(self, node: Node) -> Path:
        if isinstance(node, Ident) and self._locals.get(node.name):
            return self._locals[node.name][-1].path
        return self._paths.get(id(node), ())

    def _size(self, node: Node) -> Range | None:
        found = self._sizes.get(id(node))
        if found is not None:
            return found
        if isinstance(node, Const):
            return fixed(len(node.value) if isinstance(node.value, (str, bytes)) else 1)
        if isinstance(node, ListNode):
            return fixed(len(node.elements))
        if isinstance(node, MapNode):
            return fixed(len(node.entries))
        known = self.size_at(self._path(node))
        if known is not None:
            self._sizes[id(node)] = known
            return known
        if _is_scalar(node.type):
            return ONE
        if isinstance(node, Ident) and self._locals.get(node.name):
            return self._locals[node.name][-1].size
        return None

    def size_at(self, path: Path) -> Range | None:
        most = self._size_of(path) if path else None
        return Range(0, most) if most is not None else None

    def _size_or_unknown(self, node: Node) -> Range:
        return self._size(node) or UNKNOWN

    def _entry(self, node: Node) -> tuple[Range, Range] | None:
        found = self._entries.get(id(node))
        if found is None and isinstance(node, Ident) and self._locals.get(node.name):
            local = self._locals[node.name][-1]
            if local.entries is not None and local.keys is not None:
                return local.keys, local.entries
        return found

    # Costs

    def cost(self, node: Node) -> Range:
        if isinstance(node, Const):
            return ZERO
        if isinstance(node, Ident):
            local = self._locals.get(node.name)
            self._paths[id(node)] = local[-1].path if local else (node.resolved,)
            return ONE
        if isinstance(node, Select):
            return self._select(node)
        if isinstance(node, Call):
            return self._call(node)
        if isinstance(node, ListNode):
            return self._list(node)
        if isinstance(node, MapNode):
            return self._map(node)
        if isinstance(node, Struct):
            total = fixed(STRUCT)
            for entry in node.entries:
                total = total.plus(self.cost(entry.value))
            return total
        if isinstance(node, Fold):
            return self._fold(node)
        if isinstance(node, Bind):
            return self._bind(node)
        assert isinstance(node, OptMap)
        return self._opt_map(node)

    def _select(self, node: Select) -> Range:
        if node.resolved is not None:
            self._paths[id(node)] = (node.resolved,)
            return ONE
        operand = self.cost(node.operand)
        if node.test:
            return operand
        self._paths[id(node)] = (*self._path(node.operand), node.field)
        if node.optional or node.operand.type.kind in ("map", "struct", "param"):
            return operand.plus(ONE)
        return operand

    def _call(self, node: Call) -> Range:
        if node.function == "dyn":
            cost = self.cost(node.args[0]).plus(ONE)
            self._copy(node, node.args[0])
            return cost
        costs = [self.cost(arg) for arg in node.args]
        total = self.cost(node.target) if node.target is not None else ZERO
        spent = Range(MOST, 0)
        result: Range | None = None
        for overload in node.overloads:
            each, size = self._overload(node, overload, costs)
            spent = spent.union(each)
            if size is not None:
                result = size if result is None else result.union(size)
            if overload in ("index_list", "index_map"):
                entry = self._entry(node.args[0])
                result = entry[1] if entry is not None else None
                step = "@items" if overload == "index_list" else "@values"
                self._paths[id(node)] = (*self._path(node.args[0]), step)
            if result is None:
                result = self._size(node)
        if result is not None:
            self._sizes[id(node)] = result
        return total.plus(spent)

    def _copy(self, to: Node, of: Node) -> None:
        size, entry = self._size(of), self._entry(of)
        if size is not None:
            self._sizes[id(to)] = size
        if entry is not None:
            self._entries[id(to)] = entry

    def _list(self, node: ListNode) -> Range:
        total, items = fixed(LIST), Range(MOST if node.elements else 0, 0)
        for each in node.elements:
            total = total.plus(self.cost(each))
            items = items.union(self._size_or_unknown(each))
        self._entries[id(node)] = ONE, items
        return total

    def _map(self, node: MapNode) -> Range:
        least = MOST if node.entries else 0
        total, keys, values = fixed(MAP), Range(least, 0), Range(least, 0)
        for entry in node.entries:
            assert entry.key is not None
            total = total.plus(self.cost(entry.key)).plus(self.cost(entry.value))
            keys = keys.union(self._size_or_unknown(entry.key))
            values = values.union(self._size_or_unknown(entry.value))
        self._entries[id(node)] = keys, values
        return total

    def _known(self, node: Node) -> Known:
        return Known(node, self._path(node), node.type, self._size_or_unknown(node))

    def _overload(self, node: Call, overload: str, costs: Sequence[Range]) -> tuple[Range, Range | None]:
        spent = ZERO
        for each in costs:
            spent = spent.plus(each)
        if overload in ("logical_or", "logical_and"):
            return Range(costs[0].low, costs[0].plus(costs[1]).high), None
        if overload == "conditional":
            return self._conditional(node, costs)
        if overload in ("add_string", "add_bytes", "add_list"):
            return self._addition(node, overload, spent)
        target = self._known(node.target) if node.target is not None else None
        own, size = price(node.function, overload, target, [self._known(arg) for arg in node.args], self.size_at)
        return own.plus(spent), size

    def _conditional(self, node: Call, costs: Sequence[Range]) -> tuple[Range, Range | None]:
        then, other = self._entry(node.args[1]), self._entry(node.args[2])
        if then is not None and other is not None:
            self._entries[id(node)] = then[0].union(other[0]), then[1].union(other[1])
        size = self._size_or_unknown(node.args[1]).union(self._size_or_unknown(node.args[2]))
        return costs[0].plus(costs[1].union(costs[2])), size

    def _addition(self, node: Call, overload: str, spent: Range) -> tuple[Range, Range | None]:
        size = self._size_or_unknown(node.args[0]).plus(self._size_or_unknown(node.args[1]))
        left, right = self._entry(node.args[0]), self._entry(node.args[1])
        if left is not None and right is not None:
            self._entries[id(node)] = left[0].union(right[0]), left[1].union(right[1])
        own = ONE if overload == "add_list" else size.scaled(_TRAVERSAL)
        return own.plus(spent), size

    # Macros, as cel-go expands them

    def _push(self, node: Fold) -> list[str]:
        path, entry = self._path(node.range), self._entry(node.range)
        keys, values = entry if entry is not None else (None, None)
        is_list = node.range.type.kind == "list" or isinstance(node.range, ListNode)
        if node.var2 is None:
            local = _Local((*path, "@items" if is_list else "@keys"), values if is_list else keys)
            pushed = [(node.var, local)]
        else:
            first = _Local((*path, "@indices" if is_list else "@keys"), keys)
            second = _Local((*path, "@items" if is_list else "@values"), values)
            pushed = [(node.var, first), (node.var2, second)]
        for name, each in pushed:
            self._locals.setdefault(name, []).append(each)
        return [name for name, _ in pushed]

    def _fold(self, node: Fold) -> Range:
        total = self.cost(node.range)
        names = self._push(node)
        condition = self.cost(node.condition) if node.condition is not None else None
        result = self.cost(node.result) if node.result is not None else ZERO
        item = self._size_or_unknown(node.result) if node.result is not None else None
        for name in names:
            self._locals[name].pop()
        count = self._size_or_unknown(node.range)
        if node.macro in ("all", "exists") and condition is not None:
            rounds = Range(1, condition.plus(ONE).high).plus(fixed(2 if node.macro == "all" else 3))
            end = ONE
        elif node.macro == "existsOne" and condition is not None:
            rounds, end = condition.plus(Range(1, 2)), fixed(2)
        else:
            of_map = node.macro in ("transformMap", "transformMapEntry")
            step = result.plus(fixed(3 if of_map else 12))
            rounds = step if condition is None else condition.plus(step.union(ONE))
            end = fixed((MAP if of_map else LIST) + 1)
            self._sizes[id(node)] = count
            if item is not None and not of_map:
                self._entries[id(node)] = ONE, item.union(ZERO)
            return total.plus(end).plus(count.times(rounds))
        self._sizes[id(node)] = ONE
        return total.plus(end).plus(count.times(rounds))

    def _bind(self, node: Bind) -> Range:
        total = fixed(LIST).plus(self.cost(node.value))
        keys, entries = self._entry(node.value) or (None, None)
        local = _Local(self._path(node.value), self._size(node.value), entries, keys)
        self._locals.setdefault(node.var, []).append(local)
        total = total.plus(self.cost(node.result))
        self._copy(node, node.result)
        self._locals[node.var].pop()
        return total

    def _opt_map(self, node: OptMap) -> Range:
        total = self.cost(node.target)
        # `hasValue`, and a list that binds the value: what the macro expands to.
        total = total.plus(ONE).plus(fixed(LIST)).plus(self.cost(node.target)).plus(ONE)
        self._locals.setdefault(node.var, []).append(_Local(self._path(node.target), self._size(node.target)))
        result = self.cost(node.result)
        self._locals[node.var].pop()
        return total.plus(result if node.flat else result.plus(ONE)).plus(ONE)


def _is_scalar(each: Type) -> bool:
    if is_optional(each):
        return _is_scalar(each.parameters[0])
    return each.kind in ("bool", "double", "duration", "int", "timestamp", "uint")
