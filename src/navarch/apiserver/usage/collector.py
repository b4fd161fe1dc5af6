"""The kubelets' word, every 15 seconds: one request to each node that has a kubelet.

In: Nodes, as the cache has them.  Out: `points`, the last two answers of each. Bounded: a number of requests at a time,
a time and a size for each; a round that is not done when the next begins leaves the rest to it, those first that were
not asked for longest. A node that does not answer is asked less and less often. Simulated nodes are not asked: what
they use is worked out when somebody wants to know (`figures`). Without real nodes nothing runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import TYPE_CHECKING, Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.apiserver.changes import Cached, Change
from navarch.apiserver.core import Core
from navarch.apiserver.handlers.targets import Target, kubelet_of
from navarch.apiserver.usage.exposition import read
from navarch.apiserver.usage.points import RESOLUTION_NS, NodePoints, Scrape
from navarch.client.supervision import Failures, supervised
from navarch.kinds.core.kubelets import is_simulated
from navarch.kinds.resources import NODES
from navarch.records import mutable

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

EVERY_S: Final = RESOLUTION_NS / 1e9
_AT_ONCE: Final = 16
_TIMEOUT_S: Final = 10.0
_CONNECT_S: Final = 5.0
_MOST_BYTES: Final = 16 << 20
# Rounds that a silent node is left alone, at most: four minutes.
_LONGEST_REST: Final = 16
# Longer than a round, so that its connection is there for the next.
_KEEP_S: Final = 4 * EVERY_S


class ScrapeError(Exception):
    """A kubelet gave no answer, or none that can be used."""


@mutable
class _Asked:
    """A node, and how it went with it. `asked` counts up over all nodes with each request; `due` is the round in which
    it is asked next."""

    target: Target
    points: NodePoints = field(default_factory=NodePoints)
    asked: int = 0
    due: int = 0
    failures: int = 0


class Collector:
    """One API server's. `ask` fetches one kubelet's text, and is HTTPS unless a test says otherwise."""

    def __init__(self, core: Core, ask: Callable[[Target], Awaitable[str]] | None = None) -> None:
        self._core = core
        self._ask = self._fetch if ask is None else ask
        self._nodes: dict[str, _Asked] = {}
        self._round = 0
        self._count = 0
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._failures = Failures()

    def start(self) -> None:
        """Follow the nodes from now on."""
        cache = self._core.caches.of(NODES)
        cache.listeners.append(self._changed)
        for cached in cache.items(""):
            self._take(cached)
        what = "usage of nodes"
        self._task = asyncio.create_task(supervised(what, self._run, self._failures), name=what)

    async def stop(self) -> None:
        with contextlib.suppress(ValueError):
            self._core.caches.of(NODES).listeners.remove(self._changed)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def points(self, node: str) -> NodePoints | None:
        """What is known of a node; None for one that is not asked."""
        asked = self._nodes.get(node)
        return None if asked is None else asked.points

    # Nodes

    def _changed(self, change: Change) -> None:
        if change.new is not None:
            self._take(change.new)
        elif change.old is not None:
            self._nodes.pop(change.old.name, None)

    def _take(self, cached: Cached) -> None:
        target = _kubelet(cached.shared(), self._core)
        known = self._nodes.get(cached.name)
        if target is None:
            self._nodes.pop(cached.name, None)
        elif known is None or known.target != target:
            self._nodes[cached.name] = _Asked(target)
            self._some.set()

    # Rounds

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._nodes:
                self._some.clear()
                await self._some.wait()
            began = loop.time()
            await self._ask_all(began + EVERY_S)
            self._round += 1
            await asyncio.sleep(max(began + EVERY_S - loop.time(), 0.0))

    async def _ask_all(self, until: float) -> None:
        """Begin with no more after `until`, a time of the event loop."""
        loop = asyncio.get_running_loop()
        due = [(name, asked) for name, asked in self._nodes.items() if asked.due <= self._round]
        # Those that answer come first; among equals, whoever waited longest.
        due.sort(key=lambda each: (each[1].failures > 0, each[1].asked))
        left = iter(due)

        async def in_turn() -> None:
            for name, asked in left:
                if loop.time() >= until:
                    return
                await self._ask_one(name, asked)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(_AT_ONCE, len(due))):
                tasks.create_task(in_turn())

    async def _ask_one(self, name: str, asked: _Asked) -> None:
        self._count += 1
        asked.asked = self._count
        try:
            scrape = await self._scrape(asked.target)
        except ScrapeError as error:
            asked.failures += 1
            asked.due = self._round + min(2 ** min(asked.failures - 1, 8), _LONGEST_REST)
            log.log(logging.WARNING if asked.failures == 1 else logging.DEBUG, "usage of node %s: %s", name, error)
            return
        asked.failures, asked.due = 0, self._round + 1
        asked.points.take(scrape)

    async def _scrape(self, target: Target) -> Scrape:
        """Raises ScrapeError."""
        asked_ns = int(self._core.world.now().timestamp() * 1e9)
        text = await self._ask(target)
        return await self._core.work.apart(len(text), read, text, asked_ns)

    async def _fetch(self, target: Target) -> str:
        """Raises ScrapeError."""
        import aiohttp

        try:
            async with self._open().get(
                f"{target.base_url}/metrics/resource",
                ssl=target.tls if target.tls is not None else True,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S, sock_connect=_CONNECT_S),
            ) as answer:
                if answer.status != 200:
                    raise ScrapeError(f"the kubelet answered {answer.status}")
                data = bytearray()
                async for chunk in answer.content.iter_any():
                    data += chunk
                    if len(data) > _MOST_BYTES:
                        raise ScrapeError("the kubelet's answer does not end")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ScrapeError(str(error) or type(error).__name__) from error
        return data.decode(errors="replace")

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_S)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session


def _kubelet(node: Obj, core: Core) -> Target | None:
    """Where a node's kubelet is; None for one that has not said so, and for a simulated one."""
    port = ((((node.get("status") or {}).get("daemonEndpoints")) or {}).get("kubeletEndpoint") or {}).get("Port")
    if not port or is_simulated(node):
        return None
    try:
        return kubelet_of(node, core.kubelet_tls)
    except StatusError:
        return None
