"""ResourceClaim: what pods ask for in devices, what was allocated for it, and who has it reserved."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_interface
from typing import Any, Final

from navarch.api.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    immutable,
    invalid_value,
    not_supported,
    required,
    too_long,
    too_many,
)
from navarch.api.go_structs import go_value
from navarch.api.meta import Obj, is_deleting
from navarch.api.validation import validate_immutable, validate_qualified_name
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.conditions import validate_conditions
from navarch.kinds.core.pod_validation_scheduling import validate_node_selector
from navarch.kinds.resource.names import (
    Check,
    driver_problems,
    each,
    each_once,
    label_problems,
    parameters_problems,
    pool_problems,
    toleration_problems,
    uid_problems,
)
from navarch.kinds.resource.requests import (
    MOST_CONFIGURATIONS,
    MOST_REQUESTS,
    default_devices,
    devices_problems,
    names_of,
    references,
)
from navarch.kinds.resource.selectors import configuration_problems
from navarch.kinds.strategies import strategy

_MOST_CONSUMERS: Final = 256
_MOST_RESULTS: Final = 32
_MOST_CONDITIONS: Final = 8
_MOST_BINDING_CONDITIONS: Final = 4
_LONGEST_DATA: Final = 10 * 1024
_MOST_ADDRESSES: Final = 16
_LONGEST_INTERFACE: Final = 256
_LONGEST_HARDWARE_ADDRESS: Final = 128


def _state_cell(obj: Obj, now: datetime) -> str:
    status = obj.get("status") or {}
    states = ["deleted"] if is_deleting(obj) else []
    if status.get("allocation") is not None:
        states.append("allocated")
        if status.get("reservedFor"):
            states.append("reserved")
    elif not states:
        states.append("pending")
    return ",".join(states)


@strategy("resource.k8s.io", "ResourceClaim")
class ResourceClaimStrategy(Strategy):
    returns_deleted = True
    status_keeps = SETTABLE_METADATA
    nulls = ("spec.devices.requests",)
    columns = (NAME, Column("State", _state_cell), AGE)

    def defaults(self, obj: Obj) -> None:
        default_devices((obj.get("spec") or {}).get("devices") or {})

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        if old is not None:
            if spec != (old.get("spec") or {}):
                yield immutable("spec", go_value(spec, "resource/v1.ResourceClaimSpec"))
            return
        yield from devices_problems(spec.get("devices") or {}, "spec.devices")

    def prepare_status(self, obj: Obj, old: Obj) -> None:
        """What drivers reported of devices goes with their allocation."""
        super().prepare_status(obj, old)
        status = obj.get("status") or {}
        reported, gone = status.get("devices"), _allocated(old.get("status") or {}) - _allocated(status)
        if reported and gone:
            kept = [device for device in reported if _device(device) not in gone]
            obj["status"] = {**status, "devices": kept}
            if not kept:
                del obj["status"]["devices"]

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        status, before = obj.get("status") or {}, old.get("status") or {}
        allocation = status.get("allocation")
        consumers = status.get("reservedFor") or []
        yield from each_once(consumers, _MOST_CONSUMERS, _consumer_problems, _uid, "status.reservedFor")
        devices = status.get("devices")
        yield from each_once(devices, -1, _device_check(allocation), _shared_device, "status.devices")
        if consumers and allocation is None:
            yield forbidden_field("status.reservedFor", "may not be specified when `allocated` is not set")
        elif is_deleting(obj) and any(each not in (before.get("reservedFor") or ()) for each in consumers):
            detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
            yield forbidden_field("status.reservedFor", detail)
        if allocation is not None and before.get("allocation") is not None:
            yield from validate_immutable(allocation, before["allocation"], "status.allocation")
        elif allocation is not None:
            refers = references(names_of((obj.get("spec") or {}).get("devices") or {}))
            yield from _allocation_problems(allocation, "status.allocation", refers)


def _allocated(status: Obj) -> set[tuple[str, ...]]:
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    return {_device(result) for result in results}


def _device(part: Obj) -> tuple[str, ...]:
    return tuple(str(part.get(name) or "") for name in ("driver", "pool", "device"))


def _uid(consumer: Obj) -> str:
    return str(consumer.get("uid") or "")


def _consumer_problems(consumer: Obj, path: str) -> Iterator[FieldError]:
    for name in ("resource", "name", "uid"):
        if not consumer.get(name):
            yield required(f"{path}.{name}")


# What was allocated


def _allocation_problems(allocation: Obj, path: str, refers: Check) -> Iterator[FieldError]:
    devices, at = allocation.get("devices") or {}, f"{path}.devices"
    yield from each(devices.get("results"), _MOST_RESULTS, _result_check(refers), f"{at}.results")
    yield from each(devices.get("config"), 2 * MOST_CONFIGURATIONS, _configuration_check(refers), f"{at}.config")
    if allocation.get("nodeSelector") is not None:
        yield from validate_node_selector(allocation["nodeSelector"], f"{path}.nodeSelector")


def _result_check(refers: Check) -> Check:
    def check(result: Obj, path: str) -> Iterator[FieldError]:
        yield from refers(result.get("request") or "", f"{path}.request")
        yield from _device_identity(result, path)
        yield from binding_problems(result, path)
        yield from each(result.get("tolerations"), -1, toleration_problems, f"{path}.tolerations")
        if result.get("shareID") is not None:
            yield from uid_problems(result["shareID"], f"{path}.shareID")

    return check


def _configuration_check(refers: Check) -> Check:
    def check(config: Obj, path: str) -> Iterator[FieldError]:
        source = config.get("source") or ""
        if not source:
            yield required(f"{path}.source")
        elif source not in ("FromClaim", "FromClass"):
            yield not_supported(f"{path}.source", source, ("FromClaim", "FromClass"))
        yield from each_once(config.get("requests"), MOST_REQUESTS, refers, str, f"{path}.requests")
        yield from configuration_problems(config, path)

    return check


def _device_identity(device: Obj, path: str) -> Iterator[FieldError]:
    yield from driver_problems(device.get("driver") or "", f"{path}.driver")
    yield from pool_problems(device.get("pool") or "", f"{path}.pool")
    yield from label_problems(device.get("device") or "", f"{path}.device")


def binding_problems(device: Obj, path: str) -> Iterator[FieldError]:
    """Of the conditions that a device must, or must not, have before pods are bound; on devices and on results."""
    wanted, failures = device.get("bindingConditions") or [], device.get("bindingFailureConditions") or []
    for name, conditions in (("bindingConditions", wanted), ("bindingFailureConditions", failures)):
        yield from each(conditions, _MOST_BINDING_CONDITIONS, validate_qualified_name, f"{path}.{name}")
    for index, condition in enumerate(wanted):
        if condition in wanted[:index]:
            yield duplicate(f"{path}.bindingConditions[{index}]", condition)
    for index, condition in enumerate(failures):
        at = f"{path}.bindingFailureConditions[{index}]"
        if condition in failures[:index]:
            yield duplicate(at, condition)
        if condition in wanted:
            yield invalid_value(at, condition, "bindingFailureConditions must not overlap with bindingConditions")
    if failures and not wanted:
        detail = "bindingConditions are required to use bindingFailureConditions"
        yield invalid_value(f"{path}.bindingConditions", None, detail)
    if wanted and not failures:
        detail = "bindingFailureConditions are required to use bindingConditions"
        yield invalid_value(f"{path}.bindingFailureConditions", None, detail)


# What drivers report


def _shared_device(device: Obj) -> str:
    parts = [device.get("driver") or "", device.get("pool") or "", device.get("device") or ""]
    if device.get("shareID"):
        parts.append(device["shareID"])
    return "/".join(parts)


def _device_check(allocation: Any) -> Check:
    results = ((allocation or {}).get("devices") or {}).get("results") or ()
    allocated = {_shared_device(result) for result in results}

    def check(device: Obj, path: str) -> Iterator[FieldError]:
        yield from _device_identity(device, path)
        if device.get("shareID") is not None:
            yield from uid_problems(device["shareID"], f"{path}.shareID")
        identity = _shared_device(device)
        if identity not in allocated:
            yield invalid_value(path, identity, "must be an allocated device in the claim")
        conditions = device.get("conditions") or ()
        if len(conditions) > _MOST_CONDITIONS:
            yield too_many(f"{path}.conditions", len(conditions), _MOST_CONDITIONS)
        yield from validate_conditions(conditions, f"{path}.conditions")
        if device.get("data") is not None:
            yield from parameters_problems(device["data"], f"{path}.data", _LONGEST_DATA)
        if device.get("networkData") is not None:
            yield from _network_problems(device["networkData"], f"{path}.networkData")

    return check


def _network_problems(data: Obj, path: str) -> Iterator[FieldError]:
    for name, longest in (("interfaceName", _LONGEST_INTERFACE), ("hardwareAddress", _LONGEST_HARDWARE_ADDRESS)):
        if len(data.get(name) or "") > longest:
            yield too_long(f"{path}.{name}", longest)
    yield from each_once(data.get("ips"), _MOST_ADDRESSES, _interface_address_problems, str, f"{path}.ips")


def _interface_address_problems(address: Any, path: str) -> Iterator[FieldError]:
    try:
        interface = ip_interface(address) if "/" in address else None
    except ValueError:
        interface = None
    if interface is None:
        detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"
        yield invalid_value(path, address, detail)
    elif str(interface) != address:
        yield invalid_value(path, address, f'must be in canonical form ("{interface}")')
