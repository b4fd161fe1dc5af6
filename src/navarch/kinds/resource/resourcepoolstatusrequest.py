"""ResourcePoolStatusRequest: a question about the pools of a driver, answered once in its status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.validation import validate_immutable
from navarch.kinds.base import SETTABLE_METADATA, Strategy
from navarch.kinds.conditions import validate_conditions
from navarch.kinds.resource.names import driver_problems, each, node_name_problems, pool_problems
from navarch.kinds.strategies import strategy

_MOST: Final = 1000
_DEFAULT: Final = 100
_COUNTS: Final = ("totalDevices", "allocatedDevices", "availableDevices", "unavailableDevices", "generation")


@strategy("resource.k8s.io", "ResourcePoolStatusRequest")
class ResourcePoolStatusRequestStrategy(Strategy):
    has_generation = True
    returns_deleted = True
    status_keeps = SETTABLE_METADATA

    def defaults(self, obj: Obj) -> None:
        spec = obj.get("spec")
        if spec is not None:
            spec.setdefault("limit", _DEFAULT)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        if old is not None:
            yield from validate_immutable(spec, old.get("spec") or {}, "spec")
            return
        if spec.get("driver"):
            yield from driver_problems(spec["driver"], "spec.driver")
        else:
            yield required("spec.driver", "driver name is required")
        pool, limit = spec.get("poolName"), spec.get("limit")
        if pool == "":
            yield invalid_value("spec.poolName", pool, "must not be empty when specified")
        elif pool is not None:
            yield from pool_problems(pool, "spec.poolName")
        if limit is not None and limit < 1:
            yield invalid_value("spec.limit", limit, "must be at least 1")
        if limit is not None and limit > _MOST:
            yield invalid_value("spec.limit", limit, f"must not exceed {_MOST}")

    def prepare_create(self, obj: Obj) -> None:
        """No status yet, not even an empty one: whether there is one says whether the question was answered."""
        obj.pop("status", None)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        status, before = obj.get("status") or {}, old.get("status") or {}
        if before.get("conditions") or before.get("pools"):
            yield from validate_immutable(status, before, "status")
            return
        yield from each(status.get("pools"), -1, _pool_status_problems, "status.pools")
        yield from validate_conditions(status.get("conditions") or (), "status.conditions")


def _pool_status_problems(pool: Obj, path: str) -> Iterator[FieldError]:
    yield from driver_problems(pool.get("driver") or "", f"{path}.driver")
    yield from pool_problems(pool.get("poolName") or "", f"{path}.poolName")
    node = pool.get("nodeName")
    if node == "":
        yield required(f"{path}.nodeName", "nodeName must not be empty when specified")
    elif node is not None:
        yield from node_name_problems(node, f"{path}.nodeName")
    for name in _COUNTS:
        if (count := pool.get(name)) is not None and count < 0:
            yield invalid_value(f"{path}.{name}", count, "must be non-negative")
