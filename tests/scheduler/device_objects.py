"""Slices, classes and claims in few words, for tests of devices."""

from __future__ import annotations

from typing import Any

from navarch.api.meta import Obj

DRIVER = "gpu.example.com"


def device(name: str, **stated: Any) -> Obj:
    """`attributes` as plain values of the driver's own domain."""
    attributes = stated.pop("attributes", {})
    kinds = {str: "string", int: "int", bool: "bool"}
    result: Obj = {"name": name, **stated}
    if attributes:
        result["attributes"] = {key: {kinds[type(value)]: value} for key, value in attributes.items()}
    return result


def device_slice(
    name: str, devices: list[Obj] | None = None, *, pool: str = "", generation: int = 1, count: int = 1, **where: Any
) -> Obj:
    where = where or {"nodeName": name}
    spec = {
        "driver": DRIVER,
        "pool": {"name": pool or name, "generation": generation, "resourceSliceCount": count},
        **where,
    }
    if devices is not None:
        spec["devices"] = devices
    return {"metadata": {"name": f"slice-{name}"}, "spec": spec}


def device_class(name: str = "gpu", *expressions: str, **spec: Any) -> Obj:
    selectors = [{"cel": {"expression": each}} for each in expressions or (f'device.driver == "{DRIVER}"',)]
    return {"metadata": {"name": name}, "spec": {"selectors": selectors, **spec}}


def exactly(name: str = "r", *expressions: str, **stated: Any) -> Obj:
    return {"name": name, "exactly": asked(*expressions, **stated)}


def asked(*expressions: str, **stated: Any) -> Obj:
    stated = {"deviceClassName": "gpu", **stated}
    if expressions:
        stated["selectors"] = [{"cel": {"expression": each}} for each in expressions]
    return stated


def device_claim(name: str, *requests: Obj, namespace: str = "default", **more: Any) -> Obj:
    devices = {"requests": list(requests or (exactly(),)), **more}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"devices": devices}}


def chosen_devices(claim: Obj) -> list[str]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    return [result["device"] for result in (allocation.get("devices") or {}).get("results") or ()]
