"""The loops of macros. In: what gives the range, the slots of the variables, the plans of condition and result.  Out:
the closure, and what it costs beside its range and its rounds.

What a round costs beyond its parts is what cel-go's expansions cost: the accumulator is read, tested and appended to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from navarch.api.cel.errors import CelError, CostExceeded
from navarch.api.cel.values import NO_OVERLOAD, Made, MadeMap, type_name

Frame = list[Any]
Closure = Callable[[Frame], Any]
Plan = tuple[Closure, int]


def fold_closure(
    macro: str, range_: Closure, slots: list[int], condition: Plan | None, result: Plan | None
) -> tuple[Closure, int]:
    if condition is not None and macro in ("all", "exists"):
        return _quantifier(range_, slots, condition, decisive=macro == "exists"), 1
    if condition is not None and macro == "existsOne":
        return _exists_one(range_, slots, condition), 2
    assert result is not None
    if macro in ("map", "filter", "transformList"):
        return _list(range_, slots, condition, result), 11
    return _map(range_, slots, condition, result, whole=macro == "transformMapEntry"), 31


def _rounds(range_: Closure, slots: list[int], cost: int) -> Callable[[Frame], Iterator[None]]:
    """Sets the variables and charges a round, for each item."""

    def over_one(frame: Frame) -> Iterator[None]:
        slot, limit = slots[0], frame[1]
        for item in _items(range_(frame)):
            frame[slot] = item
            frame[0] += cost
            if frame[0] > limit:
                raise CostExceeded
            yield

    def over_two(frame: Frame) -> Iterator[None]:
        (first, second), limit = slots, frame[1]
        value = range_(frame)
        pairs = value.items() if isinstance(value, dict) else enumerate(_items(value))
        for key, item in pairs:
            frame[first], frame[second] = key, item
            frame[0] += cost
            if frame[0] > limit:
                raise CostExceeded
            yield

    return over_one if len(slots) == 1 else over_two


def _items(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return value
    raise CelError(f"got '{type_name(value)}', expected iterable type")


def _quantifier(range_: Closure, slots: list[int], condition: Plan, *, decisive: bool) -> Closure:
    test, cost = condition
    other = not decisive
    rounds = _rounds(range_, slots, cost + (4 if decisive else 3))

    def quantify(frame: Frame) -> Any:
        failed: CelError | None = None
        for _ in rounds(frame):
            try:
                found = test(frame)
            except CostExceeded:
                raise
            except CelError as error:
                failed = failed or error
                continue
            if found is decisive:
                return decisive
            if found is not other:
                failed = failed or CelError(NO_OVERLOAD)
        if failed is not None:
            raise failed
        return other

    return quantify


def _exists_one(range_: Closure, slots: list[int], condition: Plan) -> Closure:
    test, cost = condition
    rounds = _rounds(range_, slots, cost + 1)

    def count(frame: Frame) -> bool:
        found = 0
        for _ in rounds(frame):
            if _true(test(frame)):
                found += 1
                frame[0] += 1
        return found == 1

    return count


def _true(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise CelError(NO_OVERLOAD)


def _list(range_: Closure, slots: list[int], condition: Plan | None, result: Plan) -> Closure:
    make, cost = result
    test, test_cost = condition if condition is not None else (None, 0)
    # The accumulator is read, a list of one item made and added to it.
    made_cost = cost + 11
    rounds = _rounds(range_, slots, test_cost + 1 if test is not None else made_cost + 1)

    def collect(frame: Frame) -> Any:
        made: list[Any] = []
        for _ in rounds(frame):
            if test is not None:
                if not _true(test(frame)):
                    continue
                frame[0] += made_cost
            made.append(make(frame))
        return Made(made)

    return collect


def _map(range_: Closure, slots: list[int], condition: Plan | None, result: Plan, *, whole: bool) -> Closure:
    make, cost = result
    test, test_cost = condition if condition is not None else (None, 0)
    made_cost = cost + 3
    rounds = _rounds(range_, slots, test_cost if test is not None else made_cost)
    key_slot = slots[0]

    def collect(frame: Frame) -> Any:
        made: dict[Any, Any] = {}
        for _ in rounds(frame):
            if test is not None:
                if not _true(test(frame)):
                    frame[0] += 1
                    continue
                frame[0] += made_cost
            key = frame[key_slot]
            value = make(frame)
            for name, each in _entries(value) if whole else ((key, value),):
                if name in made:
                    raise CelError(f"insert failed: key {name} already exists")
                made[name] = each
        return MadeMap(made.items())

    return collect


def _entries(value: Any) -> Any:
    if isinstance(value, dict):
        return value.items()
    raise CelError(NO_OVERLOAD)
