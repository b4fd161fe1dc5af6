"""CSIDriver, CSINode, CSIStorageCapacity: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError, duplicate, invalid_value, not_supported, required
from navarch.api.meta import Obj, get_path
from navarch.api.validation import dns_subdomain_problems, validate_immutable, validate_label_selector
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy

_MODES: Final = ("Ephemeral", "Persistent")
_FS_GROUP_POLICIES: Final = ("File", "None", "ReadWriteOnceWithFSType")


def _audiences_cell(obj: Obj, now: datetime) -> str:
    requests = get_path(obj, "spec.tokenRequests")
    return ",".join(str(request.get("audience", "")) for request in requests) if requests else "<unset>"


@strategy("storage.k8s.io", "CSIDriver")
class CSIDriverStrategy(Strategy):
    allow_unconditional_update = False
    has_generation = True
    columns = (
        NAME,
        Column("AttachRequired", lambda obj, now: get_path(obj, "spec.attachRequired", True), type="boolean"),
        Column("PodInfoOnMount", lambda obj, now: get_path(obj, "spec.podInfoOnMount", False), type="boolean"),
        Column("StorageCapacity", lambda obj, now: get_path(obj, "spec.storageCapacity", False), type="boolean"),
        Column("TokenRequests", _audiences_cell),
        Column("RequiresRepublish", lambda obj, now: get_path(obj, "spec.requiresRepublish", False), type="boolean"),
        Column("Modes", lambda obj, now: ",".join(get_path(obj, "spec.volumeLifecycleModes") or ()) or "<none>"),
        AGE,
    )

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("attachRequired", True)
        spec.setdefault("podInfoOnMount", False)
        spec.setdefault("storageCapacity", False)
        spec.setdefault("fsGroupPolicy", "ReadWriteOnceWithFSType")
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]
        spec.setdefault("requiresRepublish", False)
        spec.setdefault("seLinuxMount", False)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        name = obj["metadata"].get("name") or ""
        if len(name) > 63:
            yield FieldError("FieldValueTooLong", "metadata.name", "may not be more than 63 bytes")
        policy = spec.get("fsGroupPolicy")
        if policy not in _FS_GROUP_POLICIES:
            yield not_supported("spec.fsGroupPolicy", policy or "", _FS_GROUP_POLICIES)
        for mode in spec.get("volumeLifecycleModes") or ():
            if mode not in _MODES:
                yield not_supported("spec.volumeLifecycleModes", mode, _MODES)
        seen: set[str] = set()
        for index, request in enumerate(spec.get("tokenRequests") or ()):
            audience, lifetime = request.get("audience", ""), request.get("expirationSeconds")
            if audience in seen:
                yield duplicate(f"spec.tokenRequests[{index}].audience", audience)
            seen.add(audience)
            if lifetime is not None and not 600 <= lifetime <= 1 << 32:
                detail = "may not specify a duration less than 10 minutes" if lifetime < 600 else "is too large"
                yield invalid_value(f"spec.tokenRequests[{index}].expirationSeconds", lifetime, detail)
        if old is not None:
            before = old.get("spec") or {}
            for field in ("attachRequired", "volumeLifecycleModes"):
                yield from validate_immutable(spec.get(field), before.get(field), f"spec.{field}")


@strategy("storage.k8s.io", "CSINode")
class CSINodeStrategy(Strategy):
    allow_unconditional_update = False
    nulls = ("spec.drivers",)
    columns = (
        NAME,
        Column("Drivers", lambda obj, now: len(get_path(obj, "spec.drivers") or ()), type="integer"),
        AGE,
    )

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        drivers = (obj.get("spec") or {}).get("drivers") or []
        seen: set[str] = set()
        for index, driver in enumerate(drivers):
            path, name = f"spec.drivers[{index}]", driver.get("name") or ""
            if not name:
                yield required(f"{path}.name")
            else:
                for problem in dns_subdomain_problems(name.lower()):
                    yield invalid_value(f"{path}.name", name, problem)
            if name in seen:
                yield duplicate(f"{path}.name", name)
            seen.add(name)
            if not driver.get("nodeID"):
                yield required(f"{path}.nodeID")
            if (most := (driver.get("allocatable") or {}).get("count")) is not None and most < 0:
                yield invalid_value(f"{path}.allocatable.count", most, "must be greater than or equal to 0")
        if old is None:
            return
        before = {driver.get("name"): driver for driver in (old.get("spec") or {}).get("drivers") or ()}
        for driver in drivers:
            was = before.get(driver.get("name"))
            if was is not None and {**was, "allocatable": None} != {**driver, "allocatable": None}:
                yield invalid_value("spec.drivers", drivers, "field is immutable")
                return


@strategy("storage.k8s.io", "CSIStorageCapacity")
class CSIStorageCapacityStrategy(Strategy):
    allow_unconditional_update = False
    columns = (
        NAME,
        Column("StorageClassName", ".storageClassName"),
        Column("Capacity", columns.text("capacity", "<unset>")),
    )

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        name = obj.get("storageClassName") or ""
        for problem in dns_subdomain_problems(name):
            yield invalid_value("storageClassName", name, problem)
        yield from validate_label_selector(obj.get("nodeTopology"), "nodeTopology")
        if old is not None:
            for field in ("nodeTopology", "storageClassName"):
                yield from validate_immutable(obj.get(field), old.get(field), field)
