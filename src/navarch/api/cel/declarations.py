"""Functions as they are declared: name, overloads, types, and what they do.

In: lines such as `contains contains_string string.(string) bool`, beside Python functions by overload.  Out:
`Function`s that the checker resolves and the planner calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from navarch.api.cel.types import (
    DYN,
    NULL,
    PRIMITIVES,
    TYPE,
    Type,
    list_of,
    map_of,
    object_type,
    optional_of,
    param,
    type_of,
)
from navarch.api.cel.values import Duration, Optional, Timestamp, TypeValue, Uint
from navarch.records import frozen

Implementation = Callable[..., Any]


@frozen
class Overload:
    """`parameters` begin with the target where it is a method."""

    id: str
    parameters: tuple[Type, ...]
    result: Type
    member: bool
    implementation: Implementation
    # Whether a value of Python can be an argument, per parameter.
    accepts: tuple[Callable[[Any], bool], ...]

    @property
    def generic(self) -> bool:
        return any(_mentions_param(each) for each in (*self.parameters, self.result))


@frozen
class Function:
    name: str
    overloads: tuple[Overload, ...]


def _mentions_param(each: Type) -> bool:
    return each.kind == "param" or any(_mentions_param(part) for part in each.parameters)


_CLASSES: Final[Mapping[str, tuple[type, ...]]] = {
    "bool": (bool,),
    "double": (float,),
    "string": (str,),
    "bytes": (bytes,),
    "list": (list,),
    "map": (dict,),
    "duration": (Duration,),
    "timestamp": (Timestamp,),
    "null_type": (type(None),),
    "type": (TypeValue,),
    "uint": (Uint,),
}


def _acceptance(each: Type) -> Callable[[Any], bool]:
    if each.kind in ("dyn", "param", "error"):
        return lambda value: True
    if each.kind == "int":
        return lambda value: type(value) is int
    if each.kind == "opaque" and each.name == "optional_type":
        return lambda value: isinstance(value, Optional)
    if each.kind in ("opaque", "struct"):
        name = each.name
        return lambda value: getattr(value, "type_name", None) == name
    classes = _CLASSES[each.kind]
    return lambda value: isinstance(value, classes)


_TOKEN: Final = re.compile(r"[A-Za-z_.][A-Za-z0-9_.]*|[<>,]")


def parse_type(text: str) -> Type:
    """`list<A>`, `map<string, dyn>`, `optional<A>`, `type<A>`; one capital letter is a parameter, what has a dot an
    object of a library."""
    words = _TOKEN.findall(text)
    found, rest = _read(words)
    if rest:
        raise ValueError(f"not a type: {text}")
    return found


def _read(words: list[str]) -> tuple[Type, list[str]]:
    name, rest = words[0], words[1:]
    inner: list[Type] = []
    if rest and rest[0] == "<":
        while rest[0] in ("<", ","):
            part, rest = _read(rest[1:])
            inner.append(part)
        rest = rest[1:]
    if name == "list":
        return list_of(inner[0]), rest
    if name == "map":
        return map_of(inner[0], inner[1]), rest
    if name == "optional":
        return optional_of(inner[0]), rest
    if name == "type":
        return (type_of(inner[0]) if inner else TYPE), rest
    if name == "null":
        return NULL, rest
    if name in PRIMITIVES:
        return PRIMITIVES[name], rest
    if len(name) == 1:
        return param(name), rest
    return object_type(name, {}), rest


_LINE: Final = re.compile(r"(\S+)\s+(\S+)\s+(?:([^\s(]*)\.)?\(([^)]*)\)\s+(.+)", re.ASCII)


def declared(lines: str, implementations: Mapping[str, Implementation]) -> list[Function]:
    """The functions of a library; every overload needs its implementation."""
    by_name: dict[str, list[Overload]] = {}
    for line in lines.strip().splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"not a declaration: {line}")
        name, overload, target, arguments, result = match.groups()
        texts = [target] if target else []
        texts += [each for each in re.split(r",(?![^<]*>)", arguments) if each.strip()]
        parameters = tuple(parse_type(each) for each in texts)
        by_name.setdefault(name, []).append(
            Overload(
                overload,
                parameters,
                parse_type(result),
                bool(target),
                implementations[overload],
                tuple(_acceptance(each) for each in parameters),
            )
        )
    return [Function(name, tuple(overloads)) for name, overloads in by_name.items()]


def merged(libraries: Iterable[Iterable[Function]]) -> Mapping[str, Function]:
    """All functions by name; libraries may add overloads to one another's."""
    found: dict[str, Function] = {}
    for library in libraries:
        for function in library:
            before = found.get(function.name)
            overloads = function.overloads if before is None else (*before.overloads, *function.overloads)
            found[function.name] = Function(function.name, overloads)
    return found


__all__ = ["DYN", "Function", "Implementation", "Overload", "declared", "merged", "parse_type"]
