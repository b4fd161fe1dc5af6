"""Claims written for a pod that has a node: protected, allocated, reserved for the pod; and what is undone where the
pod does not get there after all.

In: claims and the allocations decided on.  Out: writes, again on top of what others wrote in between.
Invariant: a claim that got devices elsewhere in the meantime keeps them, and the pod is tried again.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, is_deleting, name_of, namespace_of, uid_of
from navarch.api.time import format_time
from navarch.client.base import Client
from navarch.client.resources import RESOURCE_CLAIMS
from navarch.scheduler.devices.inventory import DeviceInventory
from navarch.scheduler.devices.requests import shown
from navarch.scheduler.podinfo import PodInfo
from navarch.world import Clock

FINALIZER: Final = "resource.kubernetes.io/delete-protection"
MOST_USERS: Final = 256
_TRIES: Final = 5

Change = Callable[[Obj], Awaitable[Obj | None]]


class ClaimWriter:
    def __init__(self, client: Client, clock: Clock, inventory: DeviceInventory) -> None:
        self._client = client
        self._clock = clock
        self._inventory = inventory

    async def create(self, claim: Obj) -> Obj:
        """A claim that was in memory only."""
        metadata = {name: value for name, value in claim["metadata"].items() if name not in ("name", "uid")}
        return await self._client.create(RESOURCE_CLAIMS, {**claim, "metadata": metadata})

    async def bind(self, claim: Obj, pod: PodInfo, allocation: Obj | None) -> Obj:
        """Give the claim its devices, where it has none yet, and reserve it for the pod."""

        async def change(claim: Obj) -> Obj | None:
            status = claim.get("status") or {}
            if allocation is not None and status.get("allocation") is not None:
                raise StatusError(409, "Conflict", f"claim {shown(claim)} got allocated elsewhere in the meantime")
            if allocation is None and status.get("allocation") is None:
                raise StatusError(409, "Conflict", f"claim {shown(claim)} got deallocated elsewhere in the meantime")
            users = status.get("reservedFor") or []
            if allocation is None and is_user(claim, pod):
                return None
            if FINALIZER not in (claim["metadata"].get("finalizers") or ()):
                claim = copy.deepcopy(claim)
                claim["metadata"].setdefault("finalizers", []).append(FINALIZER)
                claim = await self._client.update(RESOURCE_CLAIMS, claim)
            if not is_user(claim, pod):
                users = [*users, {"resource": "pods", "name": pod.key.name, "uid": pod.uid}]
            fresh = {**status, "reservedFor": users}
            if allocation is not None:
                fresh["allocation"] = {**allocation, "allocationTimestamp": format_time(self._clock.now())}
            return await self._client.update(RESOURCE_CLAIMS, {**claim, "status": fresh}, subresource="status")

        return await self._changed(claim, change)

    async def unreserve(self, claim: Obj, pod: PodInfo) -> None:
        async def change(claim: Obj) -> Obj | None:
            if not is_user(claim, pod):
                return None
            status = dict(claim["status"])
            users = [user for user in status.pop("reservedFor") if user["uid"] != pod.uid]
            if users:
                status["reservedFor"] = users
            return await self._client.update(RESOURCE_CLAIMS, {**claim, "status": status}, subresource="status")

        await self._changed(claim, change)

    async def deallocate(self, claim: Obj) -> None:
        """Take devices back from a claim that nobody uses."""
        rest = {n: v for n, v in claim["status"].items() if n not in ("allocation", "reservedFor", "devices")}
        written = await self._client.update(RESOURCE_CLAIMS, {**claim, "status": rest}, subresource="status")
        self._inventory.written(written)

    async def delete(self, claim: Obj) -> None:
        """A claim for extended resources that is of no use any more."""

        async def change(claim: Obj) -> Obj | None:
            if FINALIZER not in (claim["metadata"].get("finalizers") or ()):
                return None
            claim = copy.deepcopy(claim)
            claim["metadata"]["finalizers"].remove(FINALIZER)
            return await self._client.update(RESOURCE_CLAIMS, claim)

        try:
            await self._changed(claim, change)
            await self._client.delete(RESOURCE_CLAIMS, name_of(claim), namespace_of(claim), uid=uid_of(claim))
        except StatusError as error:
            if error.code != 404:
                raise

    async def _changed(self, claim: Obj, change: Change) -> Obj:
        uid = uid_of(claim)
        for left in reversed(range(_TRIES)):
            if uid_of(claim) != uid or (is_deleting(claim) and not (claim.get("status") or {}).get("allocation")):
                raise StatusError(409, "Conflict", f"claim {shown(claim)} got deleted in the meantime")
            try:
                written = await change(claim)
            except StatusError as error:
                if error.code != 409 or not left or "meantime" in error.message:
                    raise
                claim = await self._client.get(RESOURCE_CLAIMS, name_of(claim), namespace_of(claim))
                continue
            if written is None:
                return claim
            self._inventory.written(written)
            return written
        raise AssertionError("the last try returns or raises")


def is_user(claim: Obj, pod: PodInfo) -> bool:
    return any(user.get("uid") == pod.uid for user in (claim.get("status") or {}).get("reservedFor") or ())


# Devices that are not ready at once


def is_ready(claim: Obj) -> bool:
    """Whether all devices of the claim have what has to be true of them before a pod is bound."""
    return all(
        all(_is_true(claim, result, name) for name in result.get("bindingConditions") or ())
        for result in _results(claim)
    )


def failure(claim: Obj) -> str:
    """Why a device of the claim will never be ready; empty where none says so."""
    for result in _results(claim):
        for name in result.get("bindingFailureConditions") or ():
            condition = _condition(claim, result, name)
            if condition is not None and condition.get("status") == "True":
                reason, message = condition.get("reason", ""), condition.get("message", "")
                return f'claim {shown(claim)} binding failed: reason={reason}, message="{message}"'
    return ""


def _results(claim: Obj) -> list[Obj]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    return (allocation.get("devices") or {}).get("results") or []


def _is_true(claim: Obj, result: Obj, name: str) -> bool:
    condition = _condition(claim, result, name)
    return condition is not None and condition.get("status") == "True"


def _condition(claim: Obj, result: Obj, name: str) -> Obj | None:
    identity = ("driver", "pool", "device", "shareID")
    for device in (claim.get("status") or {}).get("devices") or ():
        if all(device.get(part) == result.get(part) for part in identity):
            for condition in device.get("conditions") or ():
                if condition.get("type") == name:
                    return dict(condition)
    return None
