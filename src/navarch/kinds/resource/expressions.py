"""The expressions that select devices: what they can speak of, and what one may cost.

In: an expression.  Out: what is wrong with it, in Kubernetes' words. Not looked at: what uses `cel.bind`, a macro that
is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from navarch.api.cel.environment import Environment
from navarch.api.cel.errors import CompileError
from navarch.api.cel.types import BOOL, DYN, STRING, Field, Type, map_of, object_type
from navarch.api.errors import FieldError, forbidden_field, invalid_value

MOST_COST: Final = 1_000_000
_QUANTITY: Final = object_type("kubernetes.Quantity", {})
_BIND: Final = "cel.bind"
# How long a text, or how many entries a map, may be at most: by the way that leads to it.
_SIZES: Final = {
    ("driver",): 63,
    ("attributes",): 32,
    ("attributes", "@keys"): 63,
    ("attributes", "@values"): 32,
    ("attributes", "@values", "@keys"): 32,
    ("attributes", "@values", "@values"): 64,
    ("capacity",): 32,
    ("capacity", "@keys"): 63,
    ("capacity", "@values"): 32,
    ("capacity", "@values", "@keys"): 32,
}


@lru_cache
def environment() -> Environment:
    by_domain = {
        "attributes": map_of(STRING, map_of(STRING, DYN)),
        "capacity": map_of(STRING, map_of(STRING, _QUANTITY)),
    }
    types: dict[str, Type] = {"driver": STRING, **by_domain, "allowMultipleAllocations": BOOL}
    device = object_type("kubernetes.DRADevice", {name: Field(kind, name) for name, kind in types.items()})
    return Environment({"device": device})


def problems(expression: str, path: str) -> Iterator[FieldError]:
    if _BIND in expression:
        return
    try:
        program = environment().compile(expression)
    except CompileError as error:
        yield invalid_value(path, expression, f"compilation failed: {error}")
        return
    if program.type not in (BOOL, DYN):
        yield invalid_value(path, expression, "must evaluate to bool")
    elif program.estimate(_size_of).high > MOST_COST:
        yield forbidden_field(path, "too complex, exceeds cost limit")


def _size_of(path: tuple[str, ...]) -> int | None:
    return _SIZES.get(path[1:]) if path[:1] == ("device",) else None
