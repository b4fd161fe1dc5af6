"""CEL expressions that select devices, compiled once and asked once per device.

In: an expression and a device.  Out: whether it selects the device.  Evaluation is bounded by Kubernetes' cost limit,
so that one device costs at most some milliseconds; what was found is kept with the device.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from navarch.api.cel.environment import Program
from navarch.api.cel.errors import CelError, CompileError
from navarch.api.cel.functions.quantities import parse_quantity, parse_semver
from navarch.api.cel.values import Defaulting
from navarch.api.meta import Obj
from navarch.kinds.resource.expressions import MOST_COST, environment
from navarch.scheduler.devices.pools import Device

_KNOWN: Final = 1024
_NOTHING: Final[dict[str, Any]] = {}


class SelectorError(Exception):
    """An expression that cannot be compiled, or has no value for a device; the message is without whose it is."""


def selects(expression: str, device: Device) -> bool:
    """Raises SelectorError."""
    known = device.matches.get(expression)
    if known is None:
        known = device.matches[expression] = _evaluate(expression, device)
    return known


@lru_cache(_KNOWN)
def _compiled(expression: str) -> Program | str:
    try:
        return environment().compile(expression)
    except CompileError as error:
        return f"compilation failed: {error}"


def _evaluate(expression: str, device: Device) -> bool:
    program = _compiled(expression)
    if isinstance(program, str):
        raise SelectorError(f": CEL compile error: {program}")
    try:
        value, _ = program.evaluate([_view(device)], MOST_COST)
    except CelError as error:
        raise SelectorError(f" on device {device.id}: CEL runtime error: {error}") from None
    if not isinstance(value, bool):
        raise SelectorError(f" on device {device.id}: CEL runtime error: CEL result of type {type(value).__name__}")
    return value


def _view(device: Device) -> Obj:
    """The device as expressions see it: attributes and capacities by domain, the driver's where none is stated."""
    spec, driver = device.spec, device.id.driver
    attributes: dict[str, dict[str, Any]] = {}
    for name, stated in (spec.get("attributes") or {}).items():
        _put(attributes, driver, name, _attribute(stated))
    capacity: dict[str, dict[str, Any]] = {}
    for name, stated in (spec.get("capacity") or {}).items():
        _put(capacity, driver, name, parse_quantity(stated["value"]))
    return {
        "driver": driver,
        "attributes": Defaulting(attributes, _NOTHING),
        "capacity": Defaulting(capacity, _NOTHING),
        "allowMultipleAllocations": device.is_shared,
    }


def _put(domains: dict[str, dict[str, Any]], driver: str, name: str, value: Any) -> None:
    domain, slash, identifier = name.rpartition("/")
    domains.setdefault(domain if slash else driver, {})[identifier] = value


def _attribute(stated: Obj) -> Any:
    version = stated.get("version")
    if version is not None:
        return parse_semver(version)
    return next((stated[kind] for kind in ("string", "int", "bool") if stated.get(kind) is not None), None)
