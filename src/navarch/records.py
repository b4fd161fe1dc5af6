"""Classes of named values: what `dataclasses.dataclass` makes with slots, for a seventh of what that costs.

`dataclass` compiles up to six methods per class while its module is loaded: 0.6 ms, for two hundred classes a quarter
of a start. Here each class gets an `__init__`, an `__eq__` and a `__hash__` that compile themselves when they are first
called, which most never are, and shares the rest with all others.

Otherwise they are dataclasses: `fields`, `replace` and `asdict` take them, `field` describes a field, and type checkers
know what they are. What `dataclass` can do besides (`order`, `kw_only`, `InitVar`) is left to it; a family of classes
is made by one of the two, since either refuses to inherit from what the other has frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from reprlib import recursive_repr
from typing import Any, Final, TypeVar, dataclass_transform, overload

_T = TypeVar("_T")
_Method = Callable[..., Any]


@overload
def frozen(cls: type[_T], /) -> type[_T]: ...
@overload
def frozen(*, eq: bool = True) -> Callable[[type[_T]], type[_T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field, Field))
def frozen(cls: type[_T] | None = None, /, *, eq: bool = True) -> Any:
    """As `dataclass(frozen=True, slots=True)`; without `eq` an object equals itself alone."""

    def decorate(cls: type[_T]) -> type[_T]:
        own = dict(cls.__dict__)
        made = _record(cls, _frozen_init, eq)
        if eq and own.get("__hash__") is None:
            _put(made, "__hash__", _later(made, "__hash__", _hash))
        for name, method in _FROZEN.items():
            if name not in own:
                _put(made, name, method)
        return made

    return decorate if cls is None else decorate(cls)


@overload
def mutable(cls: type[_T], /) -> type[_T]: ...
@overload
def mutable(*, eq: bool = True) -> Callable[[type[_T]], type[_T]]: ...
@dataclass_transform(field_specifiers=(field, Field))
def mutable(cls: type[_T] | None = None, /, *, eq: bool = True) -> Any:
    """As `dataclass(slots=True)`: objects that compare are not hashed; without `eq` an object equals itself alone."""

    def decorate(cls: type[_T]) -> type[_T]:
        own = dict(cls.__dict__)
        made = _record(cls, _mutable_init, eq)
        if eq and "__hash__" not in own:
            _put(made, "__hash__", None)
        return made

    return decorate if cls is None else decorate(cls)


def _record(cls: type[_T], init: Callable[[type], _Method], eq: bool) -> type[_T]:
    own = dict(cls.__dict__)
    if cls.__doc__ is None:
        # Else `dataclass` looks for a signature to write there.
        cls.__doc__ = cls.__name__
    made: type[_T] = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    if "__init__" not in own:
        _put(made, "__init__", _later(made, "__init__", init))
    if "__repr__" not in own:
        _put(made, "__repr__", _repr)
    if eq and "__eq__" not in own:
        _put(made, "__eq__", _later(made, "__eq__", _eq))
    return made


def _put(cls: type, name: str, method: _Method | None) -> None:
    setattr(cls, name, method)


def _later(cls: type, name: str, compiled: Callable[[type], _Method]) -> _Method:
    """A method that puts what it compiles in its own place when it is called; twice, if two threads are the first."""

    def first(self: object, /, *args: Any, **named: Any) -> Any:
        method = compiled(cls)
        _put(cls, name, method)
        return method(self, *args, **named)

    return first


def _frozen_init(cls: type) -> _Method:
    # A slot takes its value in a third of the time of `object.__setattr__`, which looks for it by name.
    slots = {f"_slot_{each.name}": getattr(cls, each.name).__set__ for each in fields(cls)}
    return _init(cls, "_slot_{name}(self, {value})", slots)


def _mutable_init(cls: type) -> _Method:
    return _init(cls, "self.{name} = {value}", {})


def _init(cls: Any, assignment: str, used: dict[str, Any]) -> _Method:
    taken, body = ["self"], []
    for each in fields(cls):
        name, given = each.name, f"_given_{each.name}"
        value = name
        if each.default_factory is not MISSING:
            used |= {given: each.default_factory, "_missing": MISSING}
            value = f"{given}() if {name} is _missing else {name}" if each.init else f"{given}()"
            taken += [f"{name}=_missing"] if each.init else []
        elif each.default is not MISSING:
            used[given] = each.default
            value = name if each.init else given
            taken += [f"{name}={given}"] if each.init else []
        elif each.init:
            taken.append(name)
        else:
            # Somebody assigns it later.
            continue
        body.append(assignment.format(name=name, value=value))
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    return _compiled(cls, "__init__", taken, body or ["pass"], used)


def _eq(cls: Any) -> _Method:
    names = [each.name for each in fields(cls) if each.compare]
    body = [
        "if other.__class__ is not self.__class__: return NotImplemented",
        f"return {_tuple('self', names)} == {_tuple('other', names)}",
    ]
    return _compiled(cls, "__eq__", ["self", "other"], body, {})


def _hash(cls: Any) -> _Method:
    names = [each.name for each in fields(cls) if (each.compare if each.hash is None else each.hash)]
    return _compiled(cls, "__hash__", ["self"], [f"return hash({_tuple('self', names)})"], {})


def _tuple(whose: str, names: list[str]) -> str:
    return f"({''.join(f'{whose}.{name}, ' for name in names)})"


def _compiled(cls: type, name: str, taken: list[str], body: list[str], used: dict[str, Any]) -> _Method:
    # Fields named after built-in functions are no matter: they are parameters and attributes.
    exec(f"def {name}({', '.join(taken)}):\n " + "\n ".join(body), used)
    method: _Method = used[name]
    method.__qualname__ = f"{cls.__qualname__}.{name}"
    method.__module__ = cls.__module__
    return method


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{self.__class__.__qualname__}({shown})"


def _refuse_change(self: object, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_removal(self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in fields(self)]


def _take_state(self: Any, state: list[Any]) -> None:
    for each, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)


# `copy` and `pickle` would set attributes, if there were not the last two.
_FROZEN: Final[dict[str, _Method]] = {
    "__setattr__": _refuse_change,
    "__delattr__": _refuse_removal,
    "__getstate__": _state,
    "__setstate__": _take_state,
}
