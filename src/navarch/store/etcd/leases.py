"""Leases: how keys expire in etcd, which deletes what is attached to a lease when its time is over.

A lease per key would be a write more per event; so all keys with the same time to live that are written within a minute
(or a twentieth of that time, if shorter) share one, whose own time is longer by as much. None is kept alive.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final, NamedTuple

from navarch.store import failpoints
from navarch.store.etcd.client import Client
from navarch.store.etcd.proto import rpc_pb2 as rpc
from navarch.world import Clock

_GRANTED = failpoints.Point("etcd.lease.granted")

_SHARED_S: Final = 60.0
_SHARED_PART: Final = 0.05
# A lease that ends deletes all its keys in one go.
_KEYS_MAX: Final = 1_000


class _Lease(NamedTuple):
    id: int
    shared_until_s: float
    keys: int


class Leases:
    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._known: dict[float, _Lease] = {}
        self._granting = asyncio.Lock()

    async def lease(self, ttl_s: float) -> int:
        """One with at least `ttl_s` to live.  Raises StoreUnavailable."""
        if (found := self._take(ttl_s)) is not None:
            return found
        async with self._granting:
            if (found := self._take(ttl_s)) is not None:
                return found
            shared_s = max(1.0, min(_SHARED_S, _SHARED_PART * ttl_s))
            until_s = self._now_s() + shared_s
            request = rpc.LeaseGrantRequest(TTL=math.ceil(ttl_s + shared_s))
            answer = await self._client.call("Lease/LeaseGrant", request)
            if failpoints.armed:
                _GRANTED.visit()
            self._known = {ttl: lease for ttl, lease in self._known.items() if lease.shared_until_s > self._now_s()}
            self._known[ttl_s] = _Lease(answer.ID, until_s, 1)
            return int(answer.ID)

    def _take(self, ttl_s: float) -> int | None:
        lease = self._known.get(ttl_s)
        if lease is None or lease.keys >= _KEYS_MAX or lease.shared_until_s <= self._now_s():
            return None
        self._known[ttl_s] = lease._replace(keys=lease.keys + 1)
        return lease.id

    def forget(self) -> None:
        """One of them is gone before its time (somebody revoked it)."""
        self._known.clear()

    def _now_s(self) -> float:
        return self._clock.now().timestamp()
