"""Heartbeats of simulated nodes: leases renewed one after the other in an even stream, so that no moment has a burst.

One node renews every 10 s, as a kubelet does. Many nodes renew less often, but never so late that the node lifecycle
controller (grace period 50 s, 40 s in older versions) would take them for dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.api.time import format_micro_time
from navarch.client import resources
from navarch.client.base import Client, PatchKind
from navarch.client.supervision import Failures
from navarch.sim.nodeobjects import LEASE_NAMESPACE, conditions, lease_object
from navarch.world import Clock

log = logging.getLogger(__name__)

_SHORTEST_S = 10.0
_LONGEST_S = 25.0
_WRITES_PER_S = 20.0
_LEAST_TICK_S = 1.0
_IN_FLIGHT = 16


def interval_s(nodes: int) -> float:
    """How often each of so many nodes renews its lease."""
    return min(max(nodes / _WRITES_PER_S, _SHORTEST_S), _LONGEST_S)


class Heartbeats:
    """Renews the leases of nodes, each every `every_s` where that is given; `node_of` gives the Node as the API server
    has it, None while it is gone."""

    def __init__(
        self, client: Client, clock: Clock, node_of: Callable[[str], Obj | None], *, every_s: float | None = None
    ) -> None:
        self._client = client
        self._clock = clock
        self._node_of = node_of
        self._every_s = every_s
        self._names: list[str] = []
        self._leased: set[str] = set()
        self._silent: set[str] = set()
        self._failures = Failures()

    def add(self, name: str) -> None:
        self._names.append(name)

    def silence(self, name: str) -> None:
        """The node stops reporting, as if it had crashed."""
        self._silent.add(name)

    async def revive(self, name: str) -> None:
        """The node reports again: its lease and its conditions are as new."""
        self._silent.discard(name)
        await self._beat(name)
        node = self._node_of(name)
        if node is not None:
            await self._report(name, node)

    async def run(self) -> None:
        """Renew until cancelled; every node is due once per interval."""
        if self._names:
            await self._beat_all(list(self._names))
        position = 0.0
        while True:
            count = max(len(self._names), 1)
            period_s = interval_s(count) if self._every_s is None else self._every_s
            tick_s = max(_LEAST_TICK_S, period_s / count)
            await asyncio.sleep(tick_s)
            before = position
            position += count * tick_s / period_s
            due = [self._names[i % count] for i in range(int(before), int(position))] if self._names else []
            await self._beat_all(due)
            if position >= count:
                position -= count

    async def _beat_all(self, names: list[str]) -> None:
        slots = asyncio.Semaphore(_IN_FLIGHT)

        async def one(name: str) -> None:
            async with slots:
                await self._beat(name)

        await asyncio.gather(*(one(name) for name in names))

    async def _beat(self, name: str) -> None:
        node = self._node_of(name)
        if name in self._silent or node is None:
            self._leased.discard(name)
            return
        try:
            if name in self._leased and not await self._renew(name):
                self._leased.discard(name)
            if name not in self._leased:
                await self._create(node)
                self._leased.add(name)
            if not _is_ready(node):
                # Marked unknown while our reports did not get through.
                await self._report(name, node)
        except (StatusError, OSError) as error:
            log.debug("lease of %s: %s", name, error)
        except Exception as error:
            self._failures.note(f"lease of {name}", error)

    async def _renew(self, name: str) -> bool:
        patch = {"spec": {"renewTime": format_micro_time(self._clock.now())}}
        try:
            await self._client.patch(resources.LEASES, name, LEASE_NAMESPACE, patch, kind=PatchKind.MERGE)
        except StatusError as error:
            if error.code == 404:
                return False
            raise
        return True

    async def _create(self, node: Obj) -> None:
        try:
            await self._client.create(resources.LEASES, lease_object(node, self._clock.now()))
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
            await self._renew(node["metadata"]["name"])

    async def _report(self, name: str, node: Obj) -> None:
        held = {
            c["type"]: c.get("lastTransitionTime", "")
            for c in (node.get("status") or {}).get("conditions") or ()
            if c.get("status") == ("True" if c["type"] == "Ready" else "False")
        }
        status = {"status": {"conditions": conditions(self._clock.now(), held)}}
        await self._client.patch(resources.NODES, name, "", status, kind=PatchKind.STRATEGIC, subresource="status")


def _is_ready(node: Obj) -> bool:
    conditions_now = (node.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions_now)
