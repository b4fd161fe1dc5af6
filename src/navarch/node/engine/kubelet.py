"""`Kubelet`: the node's pods, each with its worker; the runtime's events on their way to them; what is left over
cleaned up.

In: the pods that the API server binds to this node, and the runtime's events. Out: containers, and statuses. Everything
that is needed to go on after a restart is in the API server and in the runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from navarch.api.meta import Obj, uid_of
from navarch.api.time import Clock
from navarch.client.base import Client
from navarch.client.events import EventRecorder
from navarch.client.informer import Informer
from navarch.client.resources import PODS, SERVICES
from navarch.node.config import KubeletConfig
from navarch.node.engine.backoff import Backoff
from navarch.node.engine.eviction import Evictor
from navarch.node.engine.gc import Sweeper
from navarch.node.engine.node_status import NodeReporter
from navarch.node.engine.observed import Observer
from navarch.node.engine.parts import Parts
from navarch.node.engine.worker import PodWorker
from navarch.node.images.manager import ImageManager
from navarch.node.probes.handlers import HTTPCaller
from navarch.node.probes.prober import Prober
from navarch.node.references import APISource
from navarch.node.resources.amounts import has_unified_cgroups, memory_capacity
from navarch.node.runtime.base import POD_UID, Runtime, RuntimeFailure
from navarch.node.runtime.cri import settled_exit
from navarch.node.server.app import KubeletServer
from navarch.node.spec import podspec
from navarch.node.spec.container import NodeFacts
from navarch.node.volumes.manager import VolumeManager
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)

_RECONNECT_S: Final = 0.5


def slim(obj: Obj) -> Obj:
    """An object without the record of who set which field, which is as large as the rest and of no use here."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


class Kubelet:
    """Runs the pods of one node until cancelled; containers go on running after that."""

    def __init__(
        self,
        config: KubeletConfig,
        client: Client,
        runtime: Runtime,
        *,
        world: World | None = None,
        node_name: str = "",
    ) -> None:
        self.config = config
        self.client = client
        self.runtime = runtime
        self.world = world or RealWorld()
        self.clock: Clock = self.world
        self.random = self.world.random("kubelet", config.node_name)
        name = node_name or config.node_name
        self.pods = Informer(client, PODS, fields=f"spec.nodeName={name}", transform=slim)
        self.services = Informer(client, SERVICES, transform=slim)
        self.recorder = EventRecorder(client, "kubelet", host=name, world=self.world)
        self.workers: dict[str, PodWorker] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._owners: dict[str, str] = {}
        self._caller = HTTPCaller()
        source = APISource(client, self.clock)
        self.node = NodeReporter(config, client, runtime, self.clock, self.random, self.recorder)
        self.parts = Parts(
            config=config,
            client=client,
            runtime=runtime,
            observer=Observer(runtime),
            images=ImageManager(runtime, source, self.clock),
            volumes=VolumeManager(config, source, self.clock),
            source=source,
            prober=Prober(runtime, self._caller),
            caller=self._caller,
            recorder=self.recorder,
            clock=self.clock,
            random=self.random,
            backoff=Backoff(),
            node=NodeFacts(memory_capacity(), has_unified_cgroups()),
            services=self._services,
            host_ips=self.node.addresses,
            allocatable=self.node.allocatable,
            owned=self._owned,
        )
        self.sweeper = Sweeper(self)
        self.server = KubeletServer(self)

    def _services(self) -> Sequence[Obj]:
        return self.services.list()

    def _owned(self, runtime_id: str, uid: str) -> None:
        self._owners[runtime_id] = uid

    async def run(self) -> None:
        """Run the node's pods until cancelled."""
        for place in (self.config.pods, self.config.logs):
            place.mkdir(parents=True, exist_ok=True)
            # Below are the files of secrets and tokens, and what pods say: nothing for the machine's other users.
            place.chmod(0o750)
        try:
            await self.server.start()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.recorder.run(), name="events")
                tasks.create_task(self.services.run(), name="services")
                tasks.create_task(self.node.run(), name="node status")
                tasks.create_task(self._follow_runtime(), name="runtime events")
                await self._when_runtime_answers()
                await self.services.synced()
                self.pods.add_handler(self._added, self._updated, self._deleted)
                tasks.create_task(self.pods.run(), name="pods")
                await self.pods.synced()
                await self.sweeper.adopt_orphans()
                tasks.create_task(self.sweeper.run(), name="sweeper")
                tasks.create_task(Evictor(self).run(), name="eviction")
        finally:
            for task in list(self._running.values()):
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)
            await self.server.stop()
            await self.parts.images.close()
            await self._caller.close()

    async def _when_runtime_answers(self) -> None:
        while True:
            with contextlib.suppress(ConnectionError, RuntimeFailure):
                await self.runtime.version()
                return
            await asyncio.sleep(_RECONNECT_S)

    # Pods.

    def _added(self, pod: Obj) -> None:
        self._take(pod)

    def _updated(self, old: Obj, new: Obj) -> None:
        if uid_of(old) != uid_of(new):
            self._deleted(old)
        self._take(new)

    def _deleted(self, pod: Obj) -> None:
        worker = self.workers.get(uid_of(pod))
        if worker is not None:
            worker.update(pod)
            worker.removed()

    def _take(self, pod: Obj) -> None:
        uid = uid_of(pod)
        worker = self.workers.get(uid)
        if worker is not None:
            worker.update(pod)
            return
        if podspec.is_mirror(pod):
            return
        worker = PodWorker(pod, self.parts)
        refusal = self.node.refusal(pod, [other.pod for other in self.workers.values() if not other.ending])
        if refusal is not None and not podspec.is_terminal(pod):
            worker.event("Warning", refusal[0], refusal[1])
            worker.fail(*refusal)
        self.start_worker(worker)

    def start_worker(self, worker: PodWorker) -> None:
        """Run a worker until its pod has gone from the node."""
        uid = worker.uid
        self.workers[uid] = worker
        task = asyncio.create_task(worker.run(), name=f"pod {podspec.quoted(worker.pod)}")
        self._running[uid] = task

        def done(ended: asyncio.Task[None]) -> None:
            self.workers.pop(uid, None)
            self._running.pop(uid, None)
            for runtime_id in [key for key, owner in self._owners.items() if owner == uid]:
                del self._owners[runtime_id]
            if not ended.cancelled() and ended.exception() is not None:
                log.error("%s", ended.get_name(), exc_info=ended.exception())

        task.add_done_callback(done)

    def find(self, namespace: str, name: str, uid: str = "") -> PodWorker | None:
        """The worker of a pod by name; of several (one being deleted, its successor) the newest."""
        found = None
        for worker in self.workers.values():
            metadata = worker.pod["metadata"]
            if metadata["namespace"] == namespace and metadata["name"] == name and uid in ("", worker.uid):
                found = worker
        return found

    # The runtime's events.

    async def _follow_runtime(self) -> None:
        """Wake the pods whose containers changed; after an interruption all of them."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    async for event in self.runtime.events():
                        uid = self._owners.get(event.container_id)
                        worker = self.workers.get(uid) if uid else None
                        if worker is None or event.kind in ("start", "delete"):
                            continue
                        tasks.create_task(self._ended(worker, event.container_id, oom=event.kind == "oom"))
                except (ConnectionError, RuntimeFailure) as error:
                    log.debug("runtime events: %s", error)
                await asyncio.sleep(_RECONNECT_S)
                for worker in self.workers.values():
                    worker.wake()

    async def _ended(self, worker: PodWorker, container_id: str, *, oom: bool) -> None:
        with contextlib.suppress(ConnectionError):
            await settled_exit(self.runtime, container_id)
        if oom:
            # CRI may write down why a container ended after it wrote down that it did.
            await asyncio.sleep(_RECONNECT_S)
            worker.parts.observer.forget(container_id)
        worker.wake()

    async def pod_uids_in_runtime(self) -> dict[str, list[str]]:
        """Sandbox ids by the uid of their pod."""
        result: dict[str, list[str]] = {}
        for sandbox in await self.runtime.list_sandboxes():
            result.setdefault(sandbox.labels.get(POD_UID, ""), []).append(sandbox.id)
        return result
