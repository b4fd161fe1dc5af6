"""Parts of devices that allow several allocations: how much of each capacity a request takes, and whether it is there.

In: what a request asks for by name, the device's capacities with their policies.  Out: amounts, rounded up to what the
device can give. A device that allows one allocation has to be large enough all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil

from navarch.api import quantity
from navarch.api.meta import Obj
from navarch.scheduler.devices.pools import Device

Amounts = Mapping[str, Fraction]


def amounts(requested: Mapping[str, str], device: Device) -> Amounts | None:
    """What the device would give of each capacity, by full name; None where it cannot meet the request whatever is
    taken of it already."""
    asked: dict[str, Fraction] = {}
    for name, stated in requested.items():
        full = name if "/" in name else f"{device.id.driver}/{name}"
        if full not in device.capacity:
            return None
        asked[full] = quantity.parse(stated)
    result = {}
    for name, capacity in device.capacity.items():
        amount = _rounded(asked.get(name), capacity)
        if amount is None:
            return None
        result[name] = amount
    return result


def fits(wanted: Amounts, device: Device, *taken: Amounts) -> bool:
    """Whether the device has that much beside what is taken of it."""
    for name, amount in wanted.items():
        total = sum((each.get(name, Fraction(0)) for each in taken), amount)
        if total > quantity.parse(device.capacity[name]["value"]):
            return False
    return True


def _rounded(asked: Fraction | None, capacity: Obj) -> Fraction | None:
    """The least amount that the device gives for what is asked for, None where that is more than it ever gives."""
    policy = capacity.get("requestPolicy") or {}
    if asked is None:
        return quantity.parse(policy.get("default") or capacity["value"])
    limits, values = policy.get("validRange"), policy.get("validValues")
    if limits is not None and limits.get("min") is not None:
        return _in_range(asked, limits)
    if values:
        return next((each for each in sorted(map(quantity.parse, values)) if each >= asked), None)
    return asked


def _in_range(asked: Fraction, limits: Obj) -> Fraction | None:
    least = quantity.parse(limits["min"])
    amount = max(asked, least)
    if limits.get("step") is not None:
        step = quantity.parse(limits["step"])
        amount = least + ceil((amount - least) / step) * step
    if limits.get("max") is not None and amount > quantity.parse(limits["max"]):
        return None
    return amount
