"""Repair of the keys that hold service addresses and node ports, as Kubernetes' repair loops do it.

In: services and keys, from the caches. Out: keys that services lack are written (a store of before there were keys, or
one that somebody deleted), keys that leaked are deleted. Every API server may run it at any time: each change is a
compare-and-swap, and what another was quicker to do is done.
"""

from __future__ import annotations

import logging
from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.allocation.keys import NODE_PORTS, Held, held_by
from navarch.apiserver.allocation.services import ServiceAllocation
from navarch.kinds.resources import IP_ADDRESSES, SERVICES
from navarch.store.base import Conflict, Delete, Put

log = logging.getLogger(__name__)

EVERY_S: Final = 180.0


class Repair:
    def __init__(self, allocation: ServiceAllocation) -> None:
        self._allocation = allocation

    async def __call__(self) -> None:
        """Raises StoreUnavailable."""
        await self._allocation.caches.sync()
        await self._write_lacking()
        await self._delete_leaked()

    async def _write_lacking(self) -> None:
        author, caches = self._allocation.author, self._allocation.caches
        lacking: list[tuple[Held, Obj]] = []
        for cached in caches.of(SERVICES).items():
            service = cached.obj()
            lacking += [(held, service) for held in held_by(service["spec"]) if self._allocation.find(held) is None]
        # Each key once, however many services say that they have it: which of two is right is not for us to say.
        unique = {author.key(held): (held, service) for held, service in reversed(lacking)}
        if len(unique) < len(lacking):
            log.warning("%d addresses or node ports are claimed by several services", len(lacking) - len(unique))
        puts = [Put(key, author.value(held, service), 0) for key, (held, service) in unique.items()]
        most = caches.store.max_ops
        for start in range(0, len(puts), most):
            batch = puts[start : start + most]
            try:
                await caches.wait(await caches.store.commit(batch))
            except Conflict:
                for put in batch:
                    await self._try(put)

    async def _delete_leaked(self) -> None:
        caches = self._allocation.caches
        for resource in (IP_ADDRESSES, NODE_PORTS):
            for cached in caches.of(resource).items():
                if self._allocation.has_leaked(Held(resource, cached.name), cached):
                    log.info("%s %s has leaked: cleaning up", resource.kind, cached.name)
                    await self._try(Delete(cached.key, cached.revision))

    async def _try(self, op: Put | Delete) -> None:
        """Another may have been quicker."""
        caches = self._allocation.caches
        try:
            await caches.wait(await caches.store.commit([op]))
        except Conflict:
            return
