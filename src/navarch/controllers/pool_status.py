"""Questions about pools of devices, answered once each.

In: ResourcePoolStatusRequests; ResourceSlices and ResourceClaims as they are when the question is answered. Out: for
each pool of the driver how many devices it has, how many of them are allocated and how many are not. Questions go an
hour after they were answered, or a day after they were asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import ClassVar, Final

from navarch.api.meta import Key, Obj, Resource, name_of, uid_of
from navarch.api.time import format_time, parse_time
from navarch.client.informer import Informer
from navarch.client.resources import RESOURCE_CLAIMS, RESOURCE_POOL_STATUS_REQUESTS, RESOURCE_SLICES
from navarch.controllers.base import Requeue
from navarch.controllers.optional import OptionalController
from navarch.controllers.pods import created_at

_MOST: Final = 100
_ANSWERED: Final = timedelta(hours=1)
_ASKED: Final = timedelta(hours=24)
_SOON_S: Final = 5.0
_LONGEST_PROBLEM: Final = 256


class PoolStatusController(OptionalController):
    name: ClassVar[str] = "resource-pool-status-request"
    needs = RESOURCE_POOL_STATUS_REQUESTS
    workers = 1

    _served: Resource
    _requests: Informer

    def follow(self, served: Resource) -> None:
        self._served = served
        self._requests = self.watch_primary(served)

    async def reconcile(self, key: Key) -> Requeue | None:
        request = self._requests.get(*key)
        if request is None:
            return None
        request = self.newest(self._served, request)
        left = _end_of(request) - self.clock.now()
        if left <= timedelta():
            await self.client.delete(self._served, name_of(request), uid=uid_of(request))
            return None
        if request.get("status") is None:
            pools = await self._pools(request["spec"])
            if any("validationError" in pool for pool in pools):
                # The driver is not done with publishing the pool: an answer cannot be taken back.
                return Requeue(_SOON_S)
            await self.write_status(self._served, request, self._answer(request["spec"], pools))
            return Requeue(_ANSWERED.total_seconds())
        return Requeue(left.total_seconds())

    async def _pools(self, spec: Obj) -> list[Obj]:
        """What there is to say of each pool that the question is about, by name."""
        slices: defaultdict[str, list[Obj]] = defaultdict(list)
        for each in (await self.client.list(RESOURCE_SLICES)).items:
            pool = each["spec"]["pool"]
            if each["spec"]["driver"] == spec["driver"] and spec.get("poolName") in (None, pool["name"]):
                slices[pool["name"]].append(each["spec"])
        allocated = Counter(
            result["pool"]
            for claim in (await self.client.list(RESOURCE_CLAIMS)).items
            for result in _results(claim)
            if result["driver"] == spec["driver"]
        )
        return [_pool(spec["driver"], name, slices[name], allocated[name]) for name in sorted(slices)]

    def _answer(self, spec: Obj, pools: list[Obj]) -> Obj:
        shown = pools[: spec.get("limit") or _MOST]
        condition = {
            "type": "Complete",
            "status": "True",
            "lastTransitionTime": format_time(self.clock.now()),
            "reason": "CalculationComplete",
            "message": f"Calculated status for {len(shown)} pools",
        }
        answer: Obj = {"poolCount": len(pools), "conditions": [condition]}
        if shown:
            answer["pools"] = shown
        return answer


def _results(claim: Obj) -> list[Obj]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    return (allocation.get("devices") or {}).get("results") or []


def _pool(driver: str, name: str, slices: list[Obj], allocated: int) -> Obj:
    """What slices of one pool say together; those of older generations say nothing any more."""
    generation = max(each["pool"]["generation"] for each in slices)
    current = [each for each in slices if each["pool"]["generation"] == generation]
    status: Obj = {"driver": driver, "poolName": name, "generation": generation}
    nodes = {each.get("nodeName") for each in current}
    if len(nodes) == 1 and (node := nodes.pop()):
        status["nodeName"] = node
    expected = current[0]["pool"]["resourceSliceCount"]
    if len(current) < expected:
        seen = f"observed {len(current)}/{expected} slices at generation {generation}"
        status["validationError"] = f"pool {driver}/{name} is incomplete: {seen}"[:_LONGEST_PROBLEM]
        return status
    total = sum(len(each.get("devices") or ()) for each in current)
    return status | {
        "resourceSliceCount": len(current),
        "totalDevices": total,
        "allocatedDevices": allocated,
        "availableDevices": max(0, total - allocated),
        "unavailableDevices": 0,
    }


def _end_of(request: Obj) -> datetime:
    for condition in (request.get("status") or {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed"):
            return parse_time(condition["lastTransitionTime"]) + _ANSWERED
    return created_at(request) + (_ASKED if request.get("status") is None else _ANSWERED)
