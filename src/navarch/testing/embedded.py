"""A whole cluster in the calling process: API server, controllers, scheduler and simulated nodes, without sockets.

It is what `navarch up --runtime simulated` runs, put together in one event loop over a memory store. `client` talks to
it in process; `serve` opens an HTTPS port for programs that need one: kubectl, an operator in another language.
A component that fails is logged at once and makes the block that uses the cluster fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from navarch import filelock
from navarch.api.version import DEFAULT_VERSION
from navarch.apiserver.bootstrap import bootstrap
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.client.base import Client
from navarch.client.informer import Informers
from navarch.client.local import LocalTransport
from navarch.client.resources import NODES, SERVICE_ACCOUNTS
from navarch.cluster import pki, ranges
from navarch.cluster.assembly import attach, bootstrap_config, make_server
from navarch.cluster.config import ClusterConfig
from navarch.cluster.readiness import is_schedulable
from navarch.cluster.run_controllers import controller_config, scheduler_config, simulated_serving
from navarch.cluster.settings import settings_of
from navarch.controllers.manager import ControllerManager
from navarch.scheduler.scheduler import Scheduler
from navarch.sim.nodes import SimulatedNodes
from navarch.store.memory import MemoryStore
from navarch.tls import tls_context
from navarch.world import RealWorld, World

if TYPE_CHECKING:
    from navarch.apiserver.http import HTTPFront

log = logging.getLogger(__name__)

_LOCK = ".lock"

ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))
_IDENTITIES = {
    "controllers": User("system:kube-controller-manager", ("system:authenticated",)),
    "scheduler": User("system:kube-scheduler", ("system:authenticated",)),
    "nodes": User("navarch:simulated-nodes", ("system:authenticated",)),
}


# The managers that their writes are known by, as in a cluster of processes.
_AGENTS = {
    "controllers": "kube-controller-manager",
    "scheduler": "kube-scheduler",
    "nodes": "navarch-simulated-nodes",
}


class ComponentFailed(RuntimeError):
    """A part of the cluster ended with an error while the cluster was in use; the cause is that error."""


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s of the embedded cluster failed", task.get_name(), exc_info=error)


async def _problem(part: asyncio.Task[None]) -> str:
    """What is wrong with a component; empty while it runs."""
    return f"{part.get_name()} has ended" if part.done() else ""


class EmbeddedCluster:
    """Use it as `async with EmbeddedCluster(nodes=3) as cluster`; ready when the block begins.

    `seed` makes names and placements repeat; with a `VirtualWorld` (`navarch.sim.virtual`) as `world`, and `keys` (a
    folder that keeps the cluster's keys and certificates from one run to the next), everything does. `controllers`
    False leaves only the API server. `runtime_config` switches versions of groups on (`"api/all=true"`). `client` is
    the admin's; `nodes` has `fail(name)` and `recover(name)`. `node_capacity` says what is different on each node, such
    as `{"cpu": "64", "memory": "256Gi", "example.com/gpu": "4"}`.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        node_capacity: Mapping[str, str] | None = None,
        kubernetes_version: str = DEFAULT_VERSION,
        runtime_config: str = "",
        seed: int | None = None,
        controllers: bool = True,
        world: World | None = None,
        keys: Path | None = None,
    ) -> None:
        self._nodes = nodes if controllers else 0
        self._node_capacity = node_capacity
        self._controllers = controllers
        self._world = world or RealWorld(seed)
        self._folder = tempfile.TemporaryDirectory(prefix="navarch-")
        self.config = ClusterConfig(
            "embedded",
            self._folder.name,
            kubernetes_version=kubernetes_version,
            runtime_config=runtime_config,
            nodes=self._nodes,
            seed=seed,
        )
        self._keys = keys
        self._tasks: list[asyncio.Task[None]] = []
        self._front: HTTPFront | None = None
        self._served = False
        self.server: ApiServer
        self.client: Client
        self.nodes: SimulatedNodes

    def client_as(self, user: User, user_agent: str = "navarch") -> Client:
        """A client with another identity, to test what it may do."""
        return Client(LocalTransport(self.server.as_user(user)), user_agent=user_agent)

    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> Path:
        """Listen on HTTPS as well; the path of a kubeconfig for it."""
        if self._front is None:
            # Most clusters of tests are without, and save a tenth of what they would load.
            from navarch.apiserver.http import HTTPFront

            folder = self.config.pki
            tls = tls_context(folder / "apiserver.crt", folder / "apiserver.key", folder / "ca.crt")
            self._front = HTTPFront(self.server)
            bound = await self._front.start(host, port, tls)
            self.config = replace(self.config, port=bound)
            pki.ensure(self.config)
        return self.config.admin_kubeconfig

    async def __aenter__(self) -> EmbeddedCluster:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def _start(self) -> None:
        self._bring_keys()
        self.server = make_server(self.config, store=MemoryStore(clock=self._world), world=self._world)
        await self.server.start()
        self._served = True
        attach(self.server)
        await bootstrap(self.server, bootstrap_config(settings_of(self.config)))
        self.client = self.client_as(ADMIN)
        if self._controllers:
            self._start_components()
            await self._ready()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = [task for task in self._tasks if task.done() and not task.cancelled() and task.exception() is not None]
        await self._stop()
        for task in failed:
            message = f"{task.get_name()} of the embedded cluster failed: {task.exception()!r}"
            if error is None:
                raise ComponentFailed(message) from task.exception()
            # What the block raised may well be a consequence.
            error.add_note(message)

    def _bring_keys(self) -> None:
        """Those of an earlier run where there are any; what is missing is made, and kept for the next run. Runs that
        begin at the same time have the same, as tests have that are run side by side."""
        if self._keys is None:
            pki.ensure(self.config)
            return
        self._keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        with filelock.held(self._keys / _LOCK):
            shutil.copytree(self._keys, self.config.pki, dirs_exist_ok=True, ignore=shutil.ignore_patterns(_LOCK))
            pki.ensure(self.config)
            shutil.copytree(self.config.pki, self._keys, dirs_exist_ok=True)

    def _start_components(self) -> None:
        identities = {name: self.client_as(user, _AGENTS[name]) for name, user in _IDENTITIES.items()}
        informers = Informers(identities["controllers"], self._world)
        manager = ControllerManager(
            identities["controllers"],
            informers=informers,
            config=controller_config(self.config),
            world=self._world,
        )
        scheduler = Scheduler(
            identities["scheduler"], informers, world=self._world, config=scheduler_config(self.config)
        )
        parts = {"informers": informers.run(), "controllers": manager.run(), "scheduler": scheduler.run()}
        if self._nodes:
            # In a world of its own time there are no sockets, and no port that differs from run to run.
            serving = simulated_serving(self.config) if isinstance(self._world, RealWorld) else None
            self.nodes = SimulatedNodes(
                identities["nodes"],
                self._nodes,
                world=self._world,
                serving=serving,
                capacity=self._node_capacity,
                kubelet_version=f"v{self.config.kubernetes_version}.0-navarch",
                families=ranges.families(self.config.pod_cidr),
            )
            parts["simulated nodes"] = self.nodes.run()
        self._tasks = [asyncio.create_task(part, name=f"the part {name!r}") for name, part in parts.items()]
        for task in self._tasks:
            task.add_done_callback(_log_failure)
        running = dict(zip(parts, self._tasks, strict=True))
        self.server.core.components = {
            "controller-manager": partial(_problem, running["controllers"]),
            "scheduler": partial(_problem, running["scheduler"]),
        }

    async def _ready(self) -> None:
        """Until every node is Ready and the default namespace is usable, or a component has failed."""
        waiting = asyncio.ensure_future(self._nodes_ready())
        everything = [waiting, *self._tasks]
        done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        if waiting not in done:
            waiting.cancel()
        for task in everything:
            if task in done:
                task.result()

    async def _nodes_ready(self) -> None:
        ready: set[str] = set()
        if self._nodes:
            async with contextlib.aclosing(self.client.watch(NODES)) as events:
                async for event in events:
                    if is_schedulable(event.object):
                        ready.add(event.object["metadata"]["name"])
                    if len(ready) >= self._nodes:
                        break
        async with contextlib.aclosing(self.client.watch(SERVICE_ACCOUNTS, "default")) as events:
            async for event in events:
                if event.object["metadata"]["name"] == "default":
                    break

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._front is not None:
            await self._front.stop()
        if self._served:
            await self.server.stop()
        self._folder.cleanup()
