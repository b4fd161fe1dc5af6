"""CSIDriver, CSINode, CSIStorageCapacity: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from navarch.api import quantity
from navarch.api.errors import FieldError, duplicate, immutable, invalid_value, not_supported, required, too_long
from navarch.api.meta import Obj, get_path
from navarch.api.validation import (
    dns_subdomain_problems,
    validate_immutable,
    validate_label_selector,
    validate_non_negative,
    validate_qualified_name,
)
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.cells import CREATED_AT
from navarch.kinds.internal import internal
from navarch.kinds.strategies import strategy

_MODES: Final = ("Persistent", "Ephemeral")
_MAX_NAME: Final = 63
_MAX_NODE_ID: Final = 256
_MIN_PERIOD_S: Final = 10
_MIN_TOKEN_S: Final = 600
_MAX_TOKEN_S: Final = 1 << 32
_FS_GROUP_POLICIES: Final = ("File", "None", "ReadWriteOnceWithFSType")


def _audiences_cell(obj: Obj, now: datetime) -> str:
    requests = get_path(obj, "spec.tokenRequests")
    return ",".join(str(request.get("audience", "")) for request in requests) if requests else "<unset>"


@strategy("storage.k8s.io", "CSIDriver")
class CSIDriverStrategy(Strategy):
    has_generation = True
    first_generation = 0
    gates = ("VolumeLimitScaling",)
    allow_unconditional_update = False
    returns_deleted = True
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

    def prepare_create(self, obj: Obj) -> None:
        super().prepare_create(obj)
        self._drop_scheduling(obj, {})

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        self._drop_scheduling(obj, old)

    def _drop_scheduling(self, obj: Obj, old: Obj) -> None:
        field = "preventPodSchedulingIfMissing"
        if not self.on and (old.get("spec") or {}).get(field) is None:
            obj["spec"].pop(field, None)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        if (policy := spec.get("fsGroupPolicy")) not in _FS_GROUP_POLICIES:
            yield not_supported("spec.fsGroupPolicy", policy or "", _FS_GROUP_POLICIES)
        yield from _validate_tokens(spec.get("tokenRequests") or ())
        for mode in spec.get("volumeLifecycleModes") or ():
            if mode not in _MODES:
                yield not_supported("spec.volumeLifecycleModes", mode, _MODES)
        period = spec.get("nodeAllocatableUpdatePeriodSeconds")
        if period is not None and period < _MIN_PERIOD_S:
            at = "spec.nodeAllocatableUpdatePeriodSeconds"
            yield invalid_value(at, period, f"must be greater than or equal to {_MIN_PERIOD_S} seconds")
        in_secrets = spec.get("serviceAccountTokenInSecrets")
        if in_secrets is not None and not spec.get("tokenRequests"):
            detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified"
            yield invalid_value("spec.serviceAccountTokenInSecrets", in_secrets, detail)
        if old is not None:
            before = old.get("spec") or {}
            attached = (spec.get("attachRequired"), before.get("attachRequired"))
            yield from validate_immutable(*attached, "spec.attachedRequired")
            modes = (spec.get("volumeLifecycleModes"), before.get("volumeLifecycleModes"))
            yield from validate_immutable(*modes, "spec.volumeLifecycleModes")

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        spec = obj.get("spec") or {}
        requests, before = spec.get("tokenRequests") or [], get_path(old or {}, "spec.tokenRequests") or []
        if requests and requests != before and spec.get("serviceAccountTokenInSecrets") is None:
            yield (
                "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent "
                "possible logging of tokens in volume attributes"
            )


def _validate_tokens(requests: Sequence[Obj]) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, request in enumerate(requests):
        at, audience, lifetime = (
            f"spec.tokenRequests[{index}]",
            request.get("audience", ""),
            request.get("expirationSeconds"),
        )
        if audience in seen:
            yield duplicate(f"{at}.audience", audience)
            continue
        seen.add(audience)
        if lifetime is None:
            continue
        if lifetime < _MIN_TOKEN_S:
            yield invalid_value(f"{at}.expirationSeconds", lifetime, "may not specify a duration less than 10 minutes")
        if lifetime > _MAX_TOKEN_S:
            detail = "may not specify a duration larger than 2^32 seconds"
            yield invalid_value(f"{at}.expirationSeconds", lifetime, detail)


@strategy("storage.k8s.io", "CSINode")
class CSINodeStrategy(Strategy):
    allow_unconditional_update = False
    nulls = ("spec.drivers",)
    nulls_within = ("spec.drivers.*.topologyKeys",)
    columns = (
        NAME,
        Column("Drivers", lambda obj, now: len(get_path(obj, "spec.drivers") or ()), type="integer"),
        AGE,
    )

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        drivers = (obj.get("spec") or {}).get("drivers") or []
        seen: set[str] = set()
        for index, driver in enumerate(drivers):
            yield from _validate_driver(driver, f"spec.drivers[{index}]", seen)
        before = {driver.get("name"): driver for driver in ((old or {}).get("spec") or {}).get("drivers") or ()}
        for driver in drivers:
            was = before.get(driver.get("name"))
            fixed = {**driver, "allocatable": None}
            if was is not None and {**was, "allocatable": None} != fixed:
                yield immutable("spec.drivers", internal(fixed, "CSINodeDriver"))


def _validate_driver(driver: Obj, path: str, seen: set[str]) -> Iterator[FieldError]:
    name, node_id = driver.get("name") or "", driver.get("nodeID") or ""
    yield from validate_driver_name(name, f"{path}.name")
    if not node_id:
        yield required(f"{path}.nodeID")
    if len(node_id) > _MAX_NODE_ID:
        yield invalid_value(f"{path}.nodeID", node_id, f"must be {_MAX_NODE_ID} characters or less")
    if (most := (driver.get("allocatable") or {}).get("count")) is not None:
        yield from validate_non_negative(most, f"{path}.allocatable.count")
    if name in seen:
        yield duplicate(f"{path}.name", name)
    seen.add(name)
    keys: set[str] = set()
    for key in driver.get("topologyKeys") or ():
        if not key:
            yield required(path)
        if key in keys:
            yield duplicate(path, key)
        keys.add(key)
        yield from validate_qualified_name(key, path)


def validate_driver_name(name: str, path: str) -> Iterator[FieldError]:
    if not name:
        yield required(path)
        return
    if len(name) > _MAX_NAME:
        yield too_long(path, _MAX_NAME)
    for problem in dns_subdomain_problems(name.lower()):
        yield invalid_value(path, name, problem)


@strategy("storage.k8s.io", "CSIStorageCapacity")
class CSIStorageCapacityStrategy(Strategy):
    allow_unconditional_update = False
    # Kubernetes gives it no columns of its own.
    columns = (NAME, CREATED_AT)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        name = obj.get("storageClassName") or ""
        yield from validate_label_selector(obj.get("nodeTopology"), "nodeTopology")
        for problem in dns_subdomain_problems(name):
            yield invalid_value("storageClassName", name, problem)
        if (amount := obj.get("capacity")) is not None and quantity.parse(amount) < 0:
            yield invalid_value("capacity", amount, "must be greater than or equal to 0")
        if old is not None:
            yield from validate_immutable(obj.get("nodeTopology"), old.get("nodeTopology"), "nodeTopology")
            yield from validate_immutable(name, old.get("storageClassName") or "", "storageClassName")
