"""Leases of the `etcd` of `navarch envtest`: keys that go when nobody keeps them alive.

In: grants, revocations and signs of life in etcd's messages.  Out: its answers, and the deletion of keys in one
transaction per lease. A lease ends by its time to live since the last sign, looked at by one thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from navarch.cluster.kube.etcd_keys import NO_LEASE, Keys, KeysError
from navarch.store.etcd.proto import rpc_pb2 as rpc
from navarch.world import World

_LEAST_S: Final = 1
EXISTS: Final = "etcdserver: lease already exists"


@dataclass
class _Lease:
    granted_s: int
    ends_s: float


class Leases:
    def __init__(self, keys: Keys, world: World) -> None:
        self._keys = keys
        self._world = world
        self._leases: dict[int, _Lease] = {}
        self._next = 1
        self._closed = False
        self._changed = threading.Condition(keys.lock)
        keys.knows_lease = self._leases.__contains__
        threading.Thread(target=self._expire, daemon=True).start()

    def close(self) -> None:
        """No lease ends by itself any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def grant(self, asked: rpc.LeaseGrantRequest) -> rpc.LeaseGrantResponse:
        with self._changed:
            lease = asked.ID
            if lease in self._leases:
                raise KeysError(EXISTS)
            while not lease:
                lease, self._next = self._next if self._next not in self._leases else 0, self._next + 1
            granted_s = max(asked.TTL, _LEAST_S)
            self._leases[lease] = _Lease(granted_s, self._world.monotonic() + granted_s)
            self._changed.notify_all()
            return rpc.LeaseGrantResponse(header=self._keys.header(), ID=lease, TTL=granted_s)

    def revoke(self, asked: rpc.LeaseRevokeRequest) -> rpc.LeaseRevokeResponse:
        with self._changed:
            self._end(asked.ID)
            return rpc.LeaseRevokeResponse(header=self._keys.header())

    def keep_alive(self, asked: rpc.LeaseKeepAliveRequest) -> rpc.LeaseKeepAliveResponse:
        """A time to live of zero says that there is no such lease any more."""
        with self._changed:
            answer = rpc.LeaseKeepAliveResponse(header=self._keys.header(), ID=asked.ID)
            if (lease := self._leases.get(asked.ID)) is not None:
                lease.ends_s = self._world.monotonic() + lease.granted_s
                answer.TTL = lease.granted_s
            return answer

    def time_to_live(self, asked: rpc.LeaseTimeToLiveRequest) -> rpc.LeaseTimeToLiveResponse:
        with self._changed:
            answer = rpc.LeaseTimeToLiveResponse(header=self._keys.header(), ID=asked.ID, TTL=-1)
            if (lease := self._leases.get(asked.ID)) is not None:
                answer.TTL = max(int(lease.ends_s - self._world.monotonic()), 0)
                answer.grantedTTL = lease.granted_s
                if asked.keys:
                    answer.keys.extend(self._held(asked.ID))
            return answer

    def all(self, asked: rpc.LeaseLeasesRequest) -> rpc.LeaseLeasesResponse:
        with self._changed:
            leases = [rpc.LeaseStatus(ID=lease) for lease in sorted(self._leases)]
            return rpc.LeaseLeasesResponse(header=self._keys.header(), leases=leases)

    def _held(self, lease: int) -> list[bytes]:
        everything = self._keys.range(rpc.RangeRequest(key=b"\0", range_end=b"\0"))
        return [kv.key for kv in everything.kvs if kv.lease == lease]

    def _end(self, lease: int) -> None:
        if self._leases.pop(lease, None) is None:
            raise KeysError(NO_LEASE)
        deletions = [rpc.RequestOp(request_delete_range={"key": key}) for key in self._held(lease)]
        if deletions:
            self._keys.txn(rpc.TxnRequest(success=deletions))

    def _expire(self) -> None:
        with self._changed:
            while not self._closed:
                now_s = self._world.monotonic()
                for lease in [lease for lease, each in self._leases.items() if each.ends_s <= now_s]:
                    self._end(lease)
                ends_s = min((each.ends_s for each in self._leases.values()), default=None)
                self._changed.wait(None if ends_s is None else max(ends_s - now_s, 0))
