"""Who uses what, as far as it is known: real nodes by what their kubelets said, simulated ones by what their pods would
use.

In: objects as the caches have them.  Out: what a pod's containers, or a node, used until the last tick. A pod's figure
is worked out when it is asked for. What simulated nodes use is the sum of their pods', added up for all of them at most
once in a tick, in slices, and only if somebody asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.changes import Cached
from navarch.apiserver.core import Core
from navarch.apiserver.usage.collector import Collector
from navarch.apiserver.usage.points import RESOLUTION_NS, Usage
from navarch.kinds.core.kubelets import is_simulated
from navarch.kinds.core.pod_state import is_ready
from navarch.kinds.resources import NODES, PODS

_NODE: Final = "spec.nodeName"
_PHASE: Final = "status.phase"

# What a pod on a simulated node uses at a moment: CPU in billionths and memory in bytes, by container.
Simulate = Callable[[Obj, datetime], Mapping[str, tuple[int, int]]]


class Figures:
    """`simulate` None: there are no simulated nodes."""

    def __init__(self, core: Core, collector: Collector | None, simulate: Simulate | None) -> None:
        self._core = core
        self._collector = collector
        self._simulate = simulate
        self._adding = asyncio.Lock()
        self._tick = 0
        self._sums: dict[str, tuple[int, int]] = {}

    def pod(self, cached: Cached) -> dict[str, Usage] | None:
        """What a pod's containers use; None where it is not known."""
        node = cached.field(_NODE)
        if cached.field(_PHASE) != "Running" or not node:
            return None
        if self._collector is not None and (points := self._collector.points(node)) is not None:
            return points.pod(cached.namespace, cached.name)
        if self._simulate is None or not self._simulates(node):
            return None
        tick = self._now()
        used = self._simulate(cached.obj(), _moment(tick))
        return {name: Usage(*amounts, tick, RESOLUTION_NS) for name, amounts in used.items()} or None

    async def nodes(self, wanted: Mapping[str, Cached]) -> dict[str, Usage]:
        """What some nodes use, as far as it is known."""
        found: dict[str, Usage] = {}
        simulated: list[str] = []
        for name in wanted:
            points = None if self._collector is None else self._collector.points(name)
            if points is None:
                simulated.append(name)
            elif (usage := points.node()) is not None:
                found[name] = usage
        simulated = [name for name in simulated if self._simulate is not None and self._simulates(name)]
        if simulated:
            async with self._adding:
                if self._tick != self._now():
                    await self._add_up()
            for name in simulated:
                found[name] = Usage(*self._sums.get(name, (0, 0)), self._tick, RESOLUTION_NS)
        return found

    def _simulates(self, name: str) -> bool:
        """Whether a node is simulated and up."""
        cached = self._core.caches.of(NODES).get("", name)
        return cached is not None and is_simulated(node := cached.shared()) and is_ready(node)

    def _now(self) -> int:
        """The last tick."""
        now = int(self._core.world.now().timestamp() * 1e9)
        return now - now % RESOLUTION_NS

    async def _add_up(self) -> None:
        tick, sums = self._now(), dict[str, tuple[int, int]]()
        simulate = self._simulate
        assert simulate is not None

        def steps() -> Iterator[None]:
            for cached in self._core.caches.of(PODS).items(""):
                node = cached.field(_NODE)
                if node and cached.field(_PHASE) == "Running":
                    for cpu, memory in simulate(cached.obj(), _moment(tick)).values():
                        before = sums.get(node, (0, 0))
                        sums[node] = (before[0] + cpu, before[1] + memory)
                yield

        await self._core.work.do(steps())
        self._tick, self._sums = tick, sums


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC)
