"""What a claim asks for: requests for devices, constraints between them, configuration. Defaults and validation.

In: `spec.devices` of a claim or of a template's claim.  Out: filled in, or what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.kinds.resource.names import (
    Check,
    class_problems,
    each,
    each_once,
    full_name_problems,
    label_problems,
    toleration_problems,
)
from navarch.kinds.resource.selectors import configuration_problems, selectors_problems

MOST_REQUESTS: Final = 32
MOST_CONFIGURATIONS: Final = 32
_MOST_CONSTRAINTS: Final = 32
_MOST_ALTERNATIVES: Final = 8
_MODES: Final = ("All", "ExactCount")
_BAD_REFERENCE: Final = (
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
)

# The names of the requests, each with those of its alternatives.
Names = dict[str, set[str]]


def default_devices(devices: Obj) -> None:
    for request in devices.get("requests") or ():
        for part in (request.get("exactly"), *(request.get("firstAvailable") or ())):
            if part is None:
                continue
            if not part.get("allocationMode"):
                part["allocationMode"] = "ExactCount"
            if part["allocationMode"] == "ExactCount" and not part.get("count"):
                part["count"] = 1


def names_of(devices: Obj) -> Names:
    return {
        request.get("name") or "": {each.get("name") or "" for each in request.get("firstAvailable") or ()}
        for request in devices.get("requests") or ()
    }


def devices_problems(devices: Obj, path: str) -> Iterator[FieldError]:
    refers = references(names_of(devices))
    yield from each_once(devices.get("requests"), MOST_REQUESTS, _request_problems, _name, f"{path}.requests")
    yield from each(devices.get("constraints"), _MOST_CONSTRAINTS, _constraint_check(refers), f"{path}.constraints")

    def check(config: Obj, at: str) -> Iterator[FieldError]:
        yield from each_once(config.get("requests"), MOST_REQUESTS, refers, str, f"{at}.requests")
        yield from configuration_problems(config, at)

    yield from each(devices.get("config"), MOST_CONFIGURATIONS, check, f"{path}.config")


def references(names: Names) -> Check:
    """A check of a text that refers to one of the requests, `request` or `request/alternative`."""

    def check(name: Any, path: str) -> Iterator[FieldError]:
        parts = name.split("/")
        if len(parts) > 2:
            yield invalid_value(path, name, _BAD_REFERENCE)
            return
        for part in parts:
            yield from label_problems(part, path)
        if parts[0] not in names or (len(parts) == 2 and parts[1] not in names[parts[0]]):
            yield invalid_value(path, name, _BAD_REFERENCE)

    return check


def _name(item: Obj) -> str:
    return str(item.get("name") or "")


def _request_problems(request: Obj, path: str) -> Iterator[FieldError]:
    yield from label_problems(_name(request), f"{path}.name")
    exactly, alternatives = request.get("exactly"), request.get("firstAvailable")
    if exactly is not None and alternatives:
        detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"
        yield invalid_value(path, None, detail)
    elif alternatives:
        at = f"{path}.firstAvailable"
        yield from each_once(alternatives, _MOST_ALTERNATIVES, _alternative_problems, _name, at)
    elif exactly is not None:
        yield from _device_problems(exactly, f"{path}.exactly")
    else:
        yield required(path, "exactly one of `exactly` or `firstAvailable` is required")


def _alternative_problems(alternative: Obj, path: str) -> Iterator[FieldError]:
    yield from label_problems(_name(alternative), f"{path}.name")
    yield from _device_problems(alternative, path)


def _device_problems(request: Obj, path: str) -> Iterator[FieldError]:
    yield from class_problems(request.get("deviceClassName") or "", f"{path}.deviceClassName")
    yield from selectors_problems(request.get("selectors"), f"{path}.selectors")
    mode, count = request.get("allocationMode") or "", request.get("count") or 0
    if mode == "All":
        if count:
            yield invalid_value(f"{path}.count", count, "must not be specified when allocationMode is 'All'")
    elif mode == "ExactCount":
        if count <= 0:
            yield invalid_value(f"{path}.count", count, "must be greater than zero")
    else:
        yield not_supported(f"{path}.allocationMode", mode, _MODES)
    yield from each(request.get("tolerations"), -1, toleration_problems, f"{path}.tolerations")


def _constraint_check(refers: Check) -> Check:
    def check(constraint: Obj, path: str) -> Iterator[FieldError]:
        yield from each_once(constraint.get("requests"), MOST_REQUESTS, refers, str, f"{path}.requests")
        for name in ("matchAttribute", "distinctAttribute"):
            if constraint.get(name) is not None:
                yield from full_name_problems(constraint[name], f"{path}.{name}")
                return
        detail = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        yield required(path, detail)

    return check
