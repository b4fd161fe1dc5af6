"""`ControllerManager`: all controllers of a cluster in one process, on one set of shared informers.

In: a client (over HTTP or in process), the world, the cluster's configuration. `run` starts the
informers side by side and every controller as soon as its own informers have synced. Invariant: nothing polls; what is
periodic (node monitoring, pod collection) is so because Kubernetes needs it to be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from navarch.client.base import Client
from navarch.client.informer import Informers
from navarch.controllers.base import Context, Controller, ControllerConfig, Runnable, metrics_text
from navarch.controllers.registry import CONTROLLERS
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)


class ControllerManager:
    """Builds the controllers; `await run()` works until cancelled.

    `informers` may be shared with other components of the process, which then run them; otherwise they are run here.
    """

    def __init__(
        self,
        client: Client,
        *,
        world: World | None = None,
        config: ControllerConfig | None = None,
        informers: Informers | None = None,
        controllers: tuple[Callable[[Context], Runnable], ...] | None = None,
    ) -> None:
        world = world or RealWorld()
        self._own_informers = informers is None
        self.context = Context(
            client=client,
            informers=informers or Informers(client, world),
            world=world,
            config=config or ControllerConfig(),
        )
        made = [factory(self.context) for factory in (CONTROLLERS if controllers is None else controllers)]
        self.controllers: list[Runnable] = [c for c in made if c.name not in self.context.config.disabled]

    async def run(self) -> None:
        """Run informers, event senders and controllers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._own_informers:
                tasks.create_task(self.context.informers.run(), name="informers")
            for component, recorder in self.context.recorders.items():
                tasks.create_task(recorder.run(), name=f"events of {component}")
            for controller in self.controllers:
                tasks.create_task(controller.run(), name=f"controller {controller.name}")

    async def synced(self) -> None:
        """Wait until every shared informer has its first list."""
        await self.context.informers.synced()

    def metrics(self) -> str:
        """Prometheus text."""
        return metrics_text(
            {
                controller.name: (
                    controller.metrics,
                    len(controller.queue) if isinstance(controller, Controller) else 0,
                )
                for controller in self.controllers
            },
            self.context.failures,
        )
