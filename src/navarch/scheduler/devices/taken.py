"""What of the devices is taken already: whole devices, and parts of those that allow several allocations.

In: allocations of claims, as they come and go.  Out: whether a device is taken, how much of it, which devices of a
pool.
Invariant: what is put in and taken out again leaves nothing behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Final, TypeVar

from navarch.api import quantity
from navarch.api.meta import Obj
from navarch.scheduler.devices.pools import DeviceId, PoolId

K = TypeVar("K")

_NOTHING: Final[Mapping[str, Fraction]] = {}


class Taken:
    """Devices by id. Access for administrators takes nothing away."""

    def __init__(self) -> None:
        self._whole: Counter[DeviceId] = Counter()
        self._shares: Counter[DeviceId] = Counter()
        self._amounts: dict[DeviceId, dict[str, Fraction]] = {}
        self._by_pool: dict[PoolId, Counter[str]] = {}

    def whole(self, id: DeviceId) -> bool:
        return self._whole[id] > 0

    def shared(self, id: DeviceId) -> bool:
        return self._shares[id] > 0

    def amounts(self, id: DeviceId) -> Mapping[str, Fraction]:
        """By full name."""
        return self._amounts.get(id, _NOTHING)

    def of_pool(self, id: PoolId) -> Iterable[str]:
        """Names of the pool's devices of which anything is taken."""
        return self._by_pool.get(id, {}).keys()

    def add(self, allocation: Obj | None, sign: int = 1) -> None:
        """A claim's allocation comes, or goes (-1)."""
        for result in ((allocation or {}).get("devices") or {}).get("results") or ():
            if not result.get("adminAccess"):
                self._add(result, sign)

    def remove(self, allocation: Obj | None) -> None:
        self.add(allocation, -1)

    def _add(self, result: Obj, sign: int) -> None:
        id = DeviceId(result["driver"], result["pool"], result["device"])
        _count(self._shares if result.get("shareID") else self._whole, id, sign)
        pool = self._by_pool.setdefault(PoolId(id.driver, id.pool), Counter())
        _count(pool, id.name, sign)
        if not pool:
            del self._by_pool[PoolId(id.driver, id.pool)]
        amounts = self._amounts.setdefault(id, {})
        for name, stated in (result.get("consumedCapacity") or {}).items():
            full = name if "/" in name else f"{id.driver}/{name}"
            amounts[full] = amounts.get(full, Fraction(0)) + sign * quantity.parse(stated)
            if not amounts[full]:
                del amounts[full]
        if not amounts:
            del self._amounts[id]


def _count(counter: Counter[K], key: K, sign: int) -> None:
    counter[key] += sign
    if not counter[key]:
        del counter[key]
