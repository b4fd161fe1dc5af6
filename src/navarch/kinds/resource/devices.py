"""One device of a ResourceSlice: attributes, capacities, taints, the counters that it consumes, where it is.

In: the device, the same device as it was, its path.  Out: what is wrong with it. What has not changed since it was
stored is not looked at again where rules have become stricter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Final

from navarch.api import quantity
from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, required, too_long
from navarch.api.meta import Obj
from navarch.kinds.core.pod_validation_scheduling import validate_node_selector
from navarch.kinds.resource.names import (
    attribute_name_problems,
    each,
    each_once,
    each_value,
    label_problems,
    node_name_problems,
    taint_problems,
)
from navarch.kinds.resource.resourceclaim import binding_problems

_MOST_ATTRIBUTES: Final = 32
_MOST_TAINTS: Final = 16
_MOST_CONSUMPTIONS: Final = 2
_MOST_COUNTERS: Final = 32
_MOST_CHOICES: Final = 10
_LONGEST_VALUE: Final = 64
_LARGEST: Final = (1 << 63) - 1
_SCALARS: Final = ("bool", "int", "string", "version")
# Behind gates that are off: dropped from what is written, as Kubernetes drops them.
_GATED_ATTRIBUTES: Final = ("bools", "ints", "strings", "versions")
_GATED: Final = ("nodeAllocatableResourceMappings", "nodeAllocatableResources", "skipNodeOperations")
_WHERE: Final = ("nodeName", "nodeSelector", "allNodes")
_ONE_PLACE: Final = (
    "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true "
    "in the ResourceSlice spec"
)
_NUMBER: Final = r"(0|[1-9]\d*)"
_PRE_RELEASE: Final = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_BUILD: Final = r"[0-9a-zA-Z-]+"
_SEMANTIC_VERSION: Final = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE_RELEASE}(\.{_PRE_RELEASE})*)?(\+{_BUILD}(\.{_BUILD})*)?", re.ASCII
)


def keep_stated_attributes(devices: Sequence[Obj]) -> None:
    """Drop what only versions of Kubernetes with other gates know, in place."""
    for device in devices:
        for name in _GATED:
            device.pop(name, None)
        for attribute in (device.get("attributes") or {}).values():
            for name in _GATED_ATTRIBUTES:
                attribute.pop(name, None)


def device_problems(device: Obj, old: Obj | None, path: str, *, per_device: bool) -> Iterator[FieldError]:
    yield from label_problems(device.get("name") or "", f"{path}.name")
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    count = len(attributes) + len(capacity)
    if count > _MOST_ATTRIBUTES:
        detail = f"the total number of attributes and capacities must not exceed {_MOST_ATTRIBUTES}"
        yield invalid_value(path, count, detail)
    yield from each_value(attributes, -1, attribute_name_problems, _attribute_problems, f"{path}.attributes")
    if old is None or (old.get("capacity") or {}) != capacity:
        check = _shared_capacity_problems if device.get("allowMultipleAllocations") else _capacity_problems
        yield from each_value(capacity, -1, attribute_name_problems, check, f"{path}.capacity")
    if old is None or old.get("taints") != device.get("taints"):
        yield from each(device.get("taints"), _MOST_TAINTS, taint_problems, f"{path}.taints")
    consumed = device.get("consumesCounters")
    at = f"{path}.consumesCounters"
    yield from each_once(consumed, _MOST_CONSUMPTIONS, _consumption_problems, _counter_set, at)
    yield from _place_problems(device, path, per_device=per_device)
    yield from binding_problems(device, path)


def _attribute_problems(attribute: Obj, path: str) -> Iterator[FieldError]:
    said = [name for name in _SCALARS if attribute.get(name) is not None]
    if (version := attribute.get("version")) is not None and not _SEMANTIC_VERSION.fullmatch(version):
        detail = "must be a string compatible with semver.org spec 2.0.0"
        yield invalid_value(f"{path}.version", version, detail)
    for name in ("string", "version"):
        if len((attribute.get(name) or "").encode()) > _LONGEST_VALUE:
            yield too_long(f"{path}.{name}", _LONGEST_VALUE)
    if len(said) != 1:
        yield invalid_value(path, attribute if said else "", "exactly one value must be specified")


def _counter_set(consumption: Obj) -> str:
    return str(consumption.get("counterSet") or "")


def _consumption_problems(consumption: Obj, path: str) -> Iterator[FieldError]:
    name, counters = _counter_set(consumption), consumption.get("counters")
    if name:
        yield from label_problems(name, f"{path}.counterSet")
    else:
        yield required(f"{path}.counterSet")
    if counters:
        yield from each_value(counters, _MOST_COUNTERS, label_problems, lambda c, at: (), f"{path}.counters", 63)
    else:
        yield required(f"{path}.counters")


def _place_problems(device: Obj, path: str, *, per_device: bool) -> Iterator[FieldError]:
    if not per_device:
        if any(device.get(name) is not None for name in _WHERE):
            detail = (
                "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true "
                "in the ResourceSlice spec"
            )
            yield invalid_value(path, None, detail)
        return
    node, selector = device.get("nodeName"), device.get("nodeSelector")
    if node == "":
        yield invalid_value(f"{path}.nodeName", node, "must not be empty")
    elif node is not None:
        yield from node_name_problems(node, f"{path}.nodeName")
    if selector is not None:
        yield from validate_node_selector(selector, f"{path}.nodeSelector")
    if device.get("allNodes") is False:
        yield invalid_value(f"{path}.allNodes", False, "must be either unset or set to true")
    said = [f"`{name}`" for name in _WHERE if device.get(name) not in (None, "", False)]
    if not said:
        yield required(path, _ONE_PLACE)
    elif len(said) > 1:
        yield invalid_value(path, f"{{{', '.join(said)}}}", _ONE_PLACE)


# How much of a capacity one claim may take


def _capacity_problems(capacity: Obj, path: str) -> Iterator[FieldError]:
    if capacity.get("requestPolicy") is not None:
        yield forbidden_field(f"{path}.requestPolicy", "allowMultipleAllocations must be true")


def _shared_capacity_problems(capacity: Obj, path: str) -> Iterator[FieldError]:
    policy, at = capacity.get("requestPolicy"), f"{path}.requestPolicy"
    if policy is None:
        return
    values, limits, default = policy.get("validValues"), policy.get("validRange"), policy.get("default")
    if values and limits is not None:
        detail = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        yield forbidden_field(at, detail)
        return
    for name, stated in (("validValues", values or None), ("validRange", limits)):
        if stated is not None and default is None:
            yield required(f"{at}.default", f"required when {name} is defined")
            return
    if values:
        yield from _choices_problems(default, capacity.get("value", "0"), values, f"{at}.validValues")
    elif limits is not None:
        yield from _range_problems(default, capacity.get("value", "0"), limits, f"{at}.validRange")


def _choices_problems(default: str, whole: str, values: Sequence[str], path: str) -> Iterator[FieldError]:
    numbers = [quantity.parse(value) for value in values]
    for index in range(1, len(numbers)):
        if numbers[index - 1] > numbers[index]:
            detail = "values must be sorted in ascending order"
            yield invalid_value(f"{path}[{index}]", values[index], detail)
    if len(values) > _MOST_CHOICES:
        yield from each(values, _MOST_CHOICES, lambda value, at: (), path)
    else:
        for index, value in enumerate(values):
            if numbers[index] > quantity.parse(whole):
                yield invalid_value(f"{path}[{index}]", value, f"option is larger than capacity value: {whole}")
        for index, number in enumerate(numbers):
            if number in numbers[:index]:
                yield duplicate(f"{path}[{index}]", str(quantity.value(values[index])))
    if quantity.parse(default) not in numbers:
        yield invalid_value(path, default, "default value is not valid according to the requestPolicy")


def _range_problems(default: str, whole: str, limits: Obj, path: str) -> Iterator[FieldError]:
    least, most, step = (limits.get(name) for name in ("min", "max", "step"))
    if least is None:
        yield required(f"{path}.min", "required when validRange is defined")
        return
    low, total, wanted = quantity.parse(least), quantity.parse(whole), quantity.parse(default)
    if low > total:
        yield invalid_value(f"{path}.min", least, f"min is larger than capacity value: {whole}")
    if wanted < low:
        yield invalid_value(f"{path}.default", default, f"default is less than min: {least}")
    if most is not None:
        high = quantity.parse(most)
        if low > high:
            yield invalid_value(f"{path}.max", least, f"min is larger than max: {most}")
        if high > total:
            yield invalid_value(f"{path}.max", most, f"max is larger than capacity value: {whole}")
        if wanted > high:
            yield invalid_value(f"{path}.default", default, f"default is more than max: {most}")
    if step is not None:
        stated = {"default": default, "min": least, "max": most, "step": step}
        yield from _step_problems(stated, whole, path)


def _step_problems(stated: dict[str, str | None], whole: str, path: str) -> Iterator[FieldError]:
    numbers = {name: quantity.parse(text) for name, text in stated.items() if text is not None}
    step, low = numbers["step"], numbers["min"]
    if step <= 0:
        yield invalid_value(f"{path}.step", stated["step"], "must be greater than zero")
        return
    if low + step > quantity.parse(whole):
        first = quantity.add(stated["min"] or "0", stated["step"] or "0")
        yield invalid_value(f"{path}.step", stated["step"], f"one step {first} is larger than capacity value: {whole}")
    if any(number < 0 or number > _LARGEST for number in numbers.values()):
        for name, number in numbers.items():
            if number < 0:
                yield invalid_value(f"{path}.{name}", stated[name], "must be greater than or equal to 0")
            elif number > _LARGEST:
                yield invalid_value(f"{path}.{name}", stated[name], f"must not be larger than {_LARGEST}")
        return
    for name in ("default", "max"):
        if name in numbers and not _is_multiple(numbers[name] - low, step):
            detail = f"value is not a multiple of a given step ({stated['step']}) from ({stated['min']})"
            yield invalid_value(f"{path}.step", stated[name], detail)


def _is_multiple(distance: Fraction, step: Fraction) -> bool:
    return (distance / step).denominator == 1
