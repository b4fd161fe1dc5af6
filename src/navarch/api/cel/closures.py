"""The closures that expressions are made of: fields, what they may hold, `&&` and `||`, calls.

In: closures for the parts. Out: a closure for the whole: called with a frame, it gives the value or raises CelError.
They run for every object that an expression is asked about; `planner.py` chooses, once, the cheapest that does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from navarch.api.cel.errors import CelError, CostExceeded
from navarch.api.cel.values import (
    NO_OVERLOAD,
    NONE,
    Optional,
    shown,
    some,
    type_name,
)

Frame = list[Any]
Closure = Callable[[Frame], Any]
COST: Final = 0
LIMIT: Final = 1


def _no_key(key: Any) -> CelError:
    return CelError(f"no such key: {shown(key)}")


def _slow_field(value: Any, key: str) -> Any:
    """A field of what is no JSON object: an optional one, or lazily computed variables."""
    if isinstance(value, Optional):
        return optional_field(value, key)
    lookup = getattr(value, "field_value", None)
    if lookup is None:
        raise CelError(NO_OVERLOAD)
    return lookup(key)


def field_of(operand: Closure, key: str) -> Closure:
    def read(frame: Frame) -> Any:
        value = operand(frame)
        try:
            return value[key]
        except KeyError:
            raise _no_key(key) from None
        except TypeError:
            return _slow_field(value, key)

    return read


def path_of(slot: int, keys: tuple[str, ...]) -> Closure:
    first = keys[0]
    rest = keys[1:]
    if not rest:

        def read(frame: Frame) -> Any:
            try:
                return frame[slot][first]
            except KeyError:
                raise _no_key(first) from None
            except TypeError:
                return _slow_field(frame[slot], first)

        return read

    def read_on(frame: Frame) -> Any:
        value = frame[slot]
        try:
            value = value[first]
            for key in rest:
                value = value[key]
        except (KeyError, TypeError):
            return _walk(frame[slot], keys)
        return value

    return read_on


def _walk(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        try:
            value = value[key]
        except KeyError:
            raise _no_key(key) from None
        except TypeError:
            value = _slow_field(value, key)
    return value


def converted_field_of(operand: Closure, key: str, convert: Callable[[Any], Any]) -> Closure:
    read = field_of(operand, key)
    return lambda frame: convert(read(frame))


def presence_of(operand: Closure, key: str) -> Closure:
    def test(frame: Frame) -> bool:
        value = operand(frame)
        if isinstance(value, dict):
            return key in value
        if isinstance(value, Optional):
            return value.present and optional_field(value, key).present
        lookup = getattr(value, "has_field", None)
        if lookup is None:
            raise CelError(NO_OVERLOAD)
        return bool(lookup(key))

    return test


def optional_field(value: Any, key: str) -> Optional:
    if isinstance(value, Optional):
        if not value.present:
            return NONE
        value = value.value
    if isinstance(value, dict):
        held = value.get(key, NONE)
        return held if isinstance(held, Optional) else some(held)
    raise CelError(NO_OVERLOAD)


def optional_field_of(operand: Closure, key: str, convert: Callable[[Any], Any] | None) -> Closure:
    def read(frame: Frame) -> Any:
        held = optional_field(operand(frame), key)
        return some(convert(held.value)) if convert is not None and held.present else held

    return read


def is_some(value: Any) -> bool:
    if not isinstance(value, Optional):
        raise CelError(f"cannot initialize optional entry from non-optional value {shown(value)}")
    return value.present


def checked_key(value: Any) -> Any:
    if isinstance(value, (str, int)):
        return value
    raise CelError(f"unsupported key type: {type_name(value)}")


def either(left: Closure, right: Closure, right_cost: int, *, decisive: bool) -> Closure:
    """`&&` (False decides) and `||` (True does): an error of one side matters only if the other does not decide."""
    other = not decisive

    def decide(frame: Frame) -> Any:
        failed: CelError | None = None
        try:
            first = left(frame)
            if first is decisive:
                return decisive
        except CostExceeded:
            raise
        except CelError as error:
            failed, first = error, other
        frame[COST] += right_cost
        try:
            second = right(frame)
        except CostExceeded:
            raise
        except CelError:
            if failed is not None:
                raise failed from None
            raise
        if second is decisive:
            return decisive
        if failed is not None:
            raise failed
        if first is other and second is other:
            return other
        raise CelError(NO_OVERLOAD)

    return decide


def called(call: Callable[..., Any], args: list[Closure]) -> Closure:
    if len(args) == 2:
        first, second = args
        return lambda frame: call(first(frame), second(frame))
    if len(args) == 1:
        (only,) = args
        return lambda frame: call(only(frame))
    return lambda frame: call(*[each(frame) for each in args])


def charged(call: Callable[..., Any], args: list[Closure], sized: Callable[[Sequence[Any]], int]) -> Closure:
    def charge(frame: Frame) -> Any:
        values = [each(frame) for each in args]
        try:
            cost = frame[COST] = frame[COST] + sized(values)
        except (TypeError, AttributeError):
            raise CelError(NO_OVERLOAD) from None
        if cost > frame[LIMIT]:
            raise CostExceeded
        return call(*values)

    return charge


def trusted(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """The types were checked; JSON that does not keep to its schema is an error all the same."""

    def call(*args: Any) -> Any:
        try:
            return implementation(*args)
        except (TypeError, AttributeError):
            raise CelError(NO_OVERLOAD) from None

    return call


_STANDARD: Final = frozenset({"size", "contains", "startsWith", "endsWith", "matches"})


def dispatched(name: str, candidates: Sequence[Any]) -> Callable[..., Any]:
    """The overload is chosen when it is called, by the values."""

    def call(*args: Any) -> Any:
        for each in candidates:
            if all(accepts(value) for accepts, value in zip(each.accepts, args, strict=True)):
                return each.implementation(*args)
        if name in _STANDARD:
            raise CelError(NO_OVERLOAD)
        raise CelError(f"no such overload: {name}({', '.join(type_name(value) for value in args)})")

    return call
