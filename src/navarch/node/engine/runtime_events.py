"""`RuntimeEvents`: what the runtime says happened to containers, on its way to the workers of their pods.

Nothing is decided here: a worker that is woken looks at the runtime itself. After an interruption, in which events may
have been missed, all of them are.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from navarch.client.supervision import Failures
from navarch.node.engine.pods import Pods
from navarch.node.engine.worker import PodWorker
from navarch.node.runtime.base import Runtime, RuntimeFailure
from navarch.node.runtime.cri import settled_exit

log = logging.getLogger(__name__)

RECONNECT_S: Final = 0.5


class RuntimeEvents:
    def __init__(self, runtime: Runtime, pods: Pods, failures: Failures) -> None:
        self._runtime = runtime
        self._pods = pods
        self._failures = failures

    async def run(self) -> None:
        """Wake the pods whose containers changed, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    async for event in self._runtime.events():
                        worker = self._pods.owner(event.container_id)
                        if worker is None or event.kind in ("start", "delete"):
                            continue
                        tasks.create_task(self._ended(worker, event.container_id, oom=event.kind == "oom"))
                except (ConnectionError, RuntimeFailure) as error:
                    log.debug("runtime events: %s", error)
                await asyncio.sleep(RECONNECT_S)
                for worker in self._pods:
                    worker.wake()

    async def _ended(self, worker: PodWorker, container_id: str, *, oom: bool) -> None:
        try:
            await settled_exit(self._runtime, container_id)
            if oom:
                # CRI may write down why a container ended after it wrote down that it did.
                await asyncio.sleep(RECONNECT_S)
                worker.parts.observer.forget(container_id)
        except ConnectionError:
            pass
        except Exception as error:
            self._failures.note("runtime events", error)
        worker.wake()
