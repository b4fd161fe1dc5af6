"""An embedded cluster for code without an event loop: it runs in a thread of its own and listens on HTTPS.

In: what an `EmbeddedCluster` is to be.  Out: a kubeconfig, for whatever client library, operator or program the test
drives, and `call`, by which the test reaches what is on the cluster's own event loop. The block that uses it begins
when the cluster is ready, raises what kept it from becoming so, and leaves neither thread nor socket behind.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from navarch.api.version import DEFAULT_VERSION
from navarch.testing.embedded import EmbeddedCluster

T = TypeVar("T")


class ServedCluster:
    """Use it as `with ServedCluster(nodes=3) as cluster`; `cluster.kubeconfig` is the path of a kubeconfig.

    The arguments are those of `EmbeddedCluster`, but for `world`: who is in another thread lives in real time.
    """

    kubeconfig: Path

    def __init__(
        self,
        *,
        nodes: int = 1,
        node_capacity: Mapping[str, str] | None = None,
        kubernetes_version: str = DEFAULT_VERSION,
        runtime_config: str = "",
        seed: int | None = None,
        controllers: bool = True,
        keys: Path | None = None,
    ) -> None:
        self._cluster = EmbeddedCluster(
            nodes=nodes,
            node_capacity=node_capacity,
            kubernetes_version=kubernetes_version,
            runtime_config=runtime_config,
            seed=seed,
            controllers=controllers,
            keys=keys,
        )
        self._usable: Future[asyncio.AbstractEventLoop] = Future()
        self._over: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="navarch cluster", daemon=True)

    def call(self, function: Callable[[EmbeddedCluster], T | Awaitable[T]]) -> T:
        """What `function` gives, called with the cluster on its event loop, and awaited there if it is to be awaited:
        `cluster.call(lambda it: it.nodes.fail("node-1"))`."""
        return asyncio.run_coroutine_threadsafe(self._called(function), self._usable.result()).result()

    async def _called(self, function: Callable[[EmbeddedCluster], T | Awaitable[T]]) -> T:
        found = function(self._cluster)
        return await found if isinstance(found, Awaitable) else found

    def __enter__(self) -> ServedCluster:
        self._thread.start()
        try:
            self._usable.result()
        except BaseException:
            # The error that ended the thread, or Ctrl-C here, while the cluster began.
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        failure = self._ended.exception()
        if failure is None:
            return
        if error is None:
            raise failure
        # What the block raised may well be a consequence.
        error.add_note(str(failure))

    def _end(self) -> None:
        self._over.set_result(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._usable.done():
                self._usable.set_exception(error)
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _serve(self) -> None:
        async with self._cluster:
            self.kubeconfig = await self._cluster.serve()
            self._usable.set_result(asyncio.get_running_loop())
            await asyncio.wrap_future(self._over)
