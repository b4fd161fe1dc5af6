"""ResourceSlice: the devices that a driver offers, of a pool, on a node or anywhere. Defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from navarch.api.errors import FieldError, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.validation import validate_immutable
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.pod_validation_scheduling import validate_node_selector
from navarch.kinds.resource.devices import device_problems, keep_stated_attributes
from navarch.kinds.resource.names import (
    driver_problems,
    each_once,
    each_value,
    label_problems,
    node_name_problems,
    pool_problems,
)
from navarch.kinds.strategies import strategy

_MOST_DEVICES: Final = 128
_MOST_DEVICES_WITH_MORE: Final = 64
_MOST_COUNTER_SETS: Final = 8
_MOST_COUNTERS: Final = 32
_WHERE: Final = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_ONE_PLACE: Final = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"


@strategy("resource.k8s.io", "ResourceSlice")
class ResourceSliceStrategy(Strategy):
    has_generation = True
    returns_deleted = True
    stamps = True
    selectable = ("spec.nodeName", "spec.driver")
    columns = (
        NAME,
        Column("Node", ".spec.nodeName"),
        Column("Driver", ".spec.driver"),
        Column("Pool", ".spec.pool.name"),
        AGE,
    )

    def stamp(self, obj: Obj, now: str, old: Obj | None) -> None:
        for device in (obj.get("spec") or {}).get("devices") or ():
            for taint in device.get("taints") or ():
                if not taint.get("timeAdded"):
                    taint["timeAdded"] = now

    def complete(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("driver", "")
        pool = spec.setdefault("pool", {})
        for name, zero in (("name", ""), ("generation", 0), ("resourceSliceCount", 0)):
            pool.setdefault(name, zero)
        keep_stated_attributes(spec.get("devices") or ())

    def prepare_create(self, obj: Obj) -> None:
        self.complete(obj)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        self.complete(obj)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec, before = obj["spec"], None if old is None else old["spec"]
        yield from driver_problems(spec["driver"], "spec.driver")
        yield from _pool_problems(spec["pool"])
        if before is not None:
            yield from validate_immutable(spec["pool"]["name"], before["pool"]["name"], "spec.pool.name")
            yield from validate_immutable(spec["driver"], before["driver"], "spec.driver")
            yield from validate_immutable(spec.get("nodeName"), before.get("nodeName"), "spec.nodeName")
        yield from _place_problems(spec)
        if spec.get("sharedCounters") is not None and spec.get("devices") is not None:
            yield invalid_value("spec", "", "only one of `sharedCounters` or `devices` is allowed")
        yield from _devices_problems(spec, before or {})
        counters = spec.get("sharedCounters")
        yield from each_once(counters, _MOST_COUNTER_SETS, _counter_set_problems, _name, "spec.sharedCounters")


def _name(item: Obj) -> str:
    return str(item.get("name") or "")


def _pool_problems(pool: Obj) -> Iterator[FieldError]:
    yield from pool_problems(pool["name"], "spec.pool.name")
    count, generation = pool["resourceSliceCount"], pool["generation"]
    if count <= 0:
        yield invalid_value("spec.pool.resourceSliceCount", count, "must be greater than zero")
    if generation < 0:
        yield invalid_value("spec.pool.generation", generation, "must be greater than or equal to zero")


def _place_problems(spec: Obj) -> Iterator[FieldError]:
    """Where the devices are is said in one way."""
    node, selector = spec.get("nodeName"), spec.get("nodeSelector")
    if node == "":
        yield invalid_value("spec.nodeName", node, "must be either unset or set to a non-empty string")
    elif node is not None:
        yield from node_name_problems(node, "spec.nodeName")
    if selector is not None:
        yield from validate_node_selector(selector, "spec.nodeSelector")
        terms = selector.get("nodeSelectorTerms")
        if len(terms or ()) != 1:
            yield invalid_value(
                "spec.nodeSelector.nodeSelectorTerms", terms, "must have exactly one node selector term"
            )
    for name in ("allNodes", "perDeviceNodeSelection"):
        if spec.get(name) is False:
            yield invalid_value(f"spec.{name}", False, "must be either unset or set to true")
    said = [f"`{name}`" for name in _WHERE if spec.get(name) not in (None, "", False)]
    if not said:
        yield required("spec", _ONE_PLACE)
    elif len(said) > 1:
        yield invalid_value("spec", f"{{{', '.join(said)}}}", f"{_ONE_PLACE}, but multiple fields are set")


def _devices_problems(spec: Obj, before: Obj) -> Iterator[FieldError]:
    devices = spec.get("devices") or ()
    more = any(device.get("taints") or device.get("consumesCounters") for device in devices)
    known = {_name(device): device for device in before.get("devices") or ()}

    def check(device: Any, path: str) -> Iterator[FieldError]:
        per_device = bool(spec.get("perDeviceNodeSelection"))
        yield from device_problems(device, known.get(_name(device)), path, per_device=per_device)

    most = _MOST_DEVICES_WITH_MORE if more else _MOST_DEVICES
    yield from each_once(devices, most, check, _name, "spec.devices")


def _counter_set_problems(counters: Obj, path: str) -> Iterator[FieldError]:
    if _name(counters):
        yield from label_problems(_name(counters), f"{path}.name")
    else:
        yield required(f"{path}.name")
    if counters.get("counters"):
        values, at = counters["counters"], f"{path}.counters"
        yield from each_value(values, _MOST_COUNTERS, label_problems, lambda counter, where: (), at, 63)
    else:
        yield required(f"{path}.counters")
