"""`Kubelet`: the node's pods, each with its worker, and all that works for them put together and kept running.

In: pods from their sources (the API server, manifests), and the runtime's events. Out: containers, and statuses.
Everything that is needed to go on after a restart is in these sources and in the runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from typing import Final

from navarch.api.meta import Obj, uid_of
from navarch.client.base import Client
from navarch.client.events import EventRecorder
from navarch.client.informer import Informer
from navarch.client.resources import NODES, SERVICES
from navarch.client.supervision import Failures, supervised
from navarch.node import podspec
from navarch.node.backoff import Backoff
from navarch.node.config import KubeletConfig
from navarch.node.devices.pod_resources import PodResources
from navarch.node.dra.claims import DeviceClaims
from navarch.node.dra.drivers import DeviceDrivers
from navarch.node.engine.admission import Host, Refusal, no_room, refusal
from navarch.node.engine.eviction import Evictor
from navarch.node.engine.gc import Sweeper
from navarch.node.engine.log_rotation import LogRotator
from navarch.node.engine.managers import Managers
from navarch.node.engine.mirrors import Mirrors
from navarch.node.engine.node_status import NodeReporter
from navarch.node.engine.observed import Observer
from navarch.node.engine.parts import Parts
from navarch.node.engine.pods import Pods
from navarch.node.engine.runtime_events import RECONNECT_S, RuntimeEvents
from navarch.node.engine.shutdown import NOT_NOW, Announcer, NodeShutdown
from navarch.node.engine.sources import APIPods, PodSource, slim
from navarch.node.engine.static_pods import StaticPods
from navarch.node.engine.static_sources import FilePods, URLPods
from navarch.node.engine.taken import Taken
from navarch.node.engine.worker import PodWorker
from navarch.node.images.manager import ImageManager, fits, registry_of
from navarch.node.images.providers import CredentialProviders
from navarch.node.images.providers import read as read_providers
from navarch.node.images.records import PullRecords
from navarch.node.plugins.registry import PluginRegistry
from navarch.node.probes.handlers import HTTPCaller
from navarch.node.probes.prober import Prober
from navarch.node.references import APISource
from navarch.node.resources.amounts import has_unified_cgroups, memory_capacity, swap_capacity
from navarch.node.resources.capacity import Provider
from navarch.node.resources.manager import ResourceManager
from navarch.node.resources.usage import DiskUsage
from navarch.node.runtime.base import Runtime, RuntimeFailure
from navarch.node.server.app import KubeletServer
from navarch.node.spec.container import NodeFacts
from navarch.node.user_namespaces import UserNamespaces
from navarch.node.volumes.csi.drivers import Drivers
from navarch.node.volumes.csi.growing import Growing
from navarch.node.volumes.local_path import Removals
from navarch.node.volumes.manager import VolumeManager
from navarch.node.volumes.mounts import share
from navarch.node.volumes.pod_certificate import PodCertificates
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)

_LOOK_AGAIN_S: Final = 0.05


async def _nothing_to_do(_pod: Obj, _addresses: Sequence[str]) -> None:
    """For a kubelet whose pods are on nobody's network."""


class Kubelet:
    """Runs the pods of one node until cancelled; containers go on running after that."""

    def __init__(
        self,
        config: KubeletConfig,
        client: Client,
        runtime: Runtime,
        *,
        world: World | None = None,
        devices: Sequence[Provider] = (),
    ) -> None:
        self.config = config
        self.runtime = runtime
        world = world or RealWorld()
        source = world.random("kubelet", config.node_name)
        self.failures = Failures()
        self.pods = Pods(self.failures)
        self.services = Informer(client, SERVICES, transform=slim)
        self.recorder = EventRecorder(client, "kubelet", host=config.node_name, world=world)
        self._own_node = Informer(client, NODES, fields=f"metadata.name={config.node_name}", transform=slim)
        self._caller = HTTPCaller(config.kubernetes_version)
        self._removals = Removals(client, self._own_node, config.data, world)
        self.drivers = Drivers(client, config.node_name, config.data)
        self.device_drivers = DeviceDrivers(client, config.node_name, config.data)
        # Types of plugins by the name that they state when they register.
        self.plugins = PluginRegistry(
            config.data / "plugins_registry",
            {"CSIPlugin": self.drivers, "DRAPlugin": self.device_drivers},
            world,
            self.failures,
        )
        self.managers = Managers(config, world, self.failures)
        providers = [*devices, self.managers.devices]
        self.node = NodeReporter(config, client, runtime, world, source, self.recorder, providers)
        # A pod has its addresses; its containers are started when this returns.
        self.on_wired: Callable[[Obj, Sequence[str]], Awaitable[None]] = _nothing_to_do
        self.parts = self._shared_parts(client, world, source)
        self._mirrors = Mirrors(client, config.node_name, self.failures)
        self._api_pods: PodSource = APIPods(client, config.node_name, self._mirrors)
        self._static_pods = StaticPods(self._mirrors, self._start_static)
        self._static_sources = static_sources(config, world)
        self.events = RuntimeEvents(runtime, self.pods, self.failures)
        self.logs = LogRotator(self.parts, self.pods)
        self.sweeper = Sweeper(self.parts, self.pods, self.node, self._uids)
        self.evictor = Evictor(self.parts, self.pods, self.node, self.sweeper)
        self.shutdown = NodeShutdown(config.shutdown_periods, self.pods, _logind, self._shutdown_changed)
        self.server = KubeletServer(self.parts, self.pods)
        self.pod_resources = self._pod_resources()
        self._knows_all = False
        self._listen()

    def _shared_parts(self, client: Client, world: World, source: random.Random) -> Parts:
        """What all pods' workers are handed."""
        config, references = self.config, APISource(client, world)
        growing = Growing(client, self.recorder, config.node_name)
        certificates = PodCertificates(client, self.recorder, world, config.node_name)
        return Parts(
            config=config,
            client=client,
            runtime=self.runtime,
            observer=Observer(self.runtime, world),
            images=image_manager(config, self.runtime, references, world),
            volumes=VolumeManager(config, references, world, self.drivers, growing, certificates),
            resources=ResourceManager(config, world, self._holders),
            device_claims=DeviceClaims(client, self.device_drivers, config.data, world, self._uids),
            source=references,
            prober=Prober(self.runtime, self._caller),
            caller=self._caller,
            recorder=self.recorder,
            world=world,
            random=source,
            backoff=Backoff(maximum=timedelta(seconds=config.crash_back_off_s)),
            users=UserNamespaces(config),
            node=NodeFacts(memory_capacity(), has_unified_cgroups(), swap_capacity()),
            services=self.services.list,
            host_ips=self.node.addresses,
            allocatable=self.node.allocatable,
            owned=self.pods.owned,
            room=self._no_room,
            freed=self._freed,
            wired=lambda pod, addresses: self.on_wired(pod, addresses),
            failures=self.failures,
            disks=DiskUsage(world),
            devices=self.managers.devices,
            cpus=self.managers.cpus,
            memory=self.managers.memory,
        )

    def _pod_resources(self) -> PodResources:
        managers = self.managers
        return PodResources(
            self.config.pod_resources_socket,
            self._holders,
            managers.devices,
            cpus=managers.cpus.exclusive,
            allocatable_cpus=managers.cpus.allocatable,
            memory=managers.memory.shown,
            allocatable_memory=managers.memory.shown_allocatable,
            claims=self.parts.device_claims.used_by,
        )

    def _listen(self) -> None:
        """Have the parts tell each other what has changed."""
        node, devices, claims = self.node, self.managers.devices, self.parts.device_claims
        self._own_node.add_handler(node.seen, lambda _old, new: node.seen(new), lambda _node: node.deleted())
        devices.on_change, devices.on_health = node.look_again, self._devices_changed
        self.device_drivers.health.changed = lambda driver: self._devices_changed(claims.users_of(driver))
        csi = self.parts.volumes.csi
        if csi is not None:
            node.volumes_in_use = csi.in_use
            csi.in_use_changed = node.look_again
            csi.is_reported = node.says_in_use
        self.pods.on_end = self._ended_for_good

    def _uids(self) -> set[str]:
        """Of all pods that the node is to have."""
        return self._api_pods.uids().union(*(source.uids() for source in self._static_sources))

    async def run(self) -> None:
        """Run the node's pods until cancelled."""
        await self._make_folders()
        try:
            if self.config.serving.enabled:
                await self.server.start()
                self.node.port = self.server.port
            async with asyncio.TaskGroup() as tasks:

                def keep(name: str, run: Callable[[], Awaitable[None]]) -> None:
                    tasks.create_task(supervised(name, run, self.failures), name=name)

                keep("events", self.recorder.run)
                keep("services", self.services.run)
                keep("own node", self._own_node.run)
                keep("node status", self.node.run)
                keep("runtime events", self.events.run)
                if self.managers.cpus.on:
                    keep("CPUs", partial(self.managers.move_containers, self.runtime, self.pods))
                keep("device plugins", self.managers.devices.plugins.run)
                keep("pod resources", self.pod_resources.run)
                await self._enforce()
                await self._when_runtime_answers()
                # These run also where no API server answers.
                for source in self._static_sources:
                    keep("static pods", partial(source.run, self._static_pods))
                await self.services.synced()
                await self._registered()
                keep("directories to remove", self._removals.run)
                keep("CSINode", self._prepare_drivers)
                keep("ResourceSlices", self.device_drivers.run)
                keep("claims of devices", self.parts.device_claims.run)
                keep("pods", partial(self._api_pods.run, self))
                await asyncio.gather(self._api_pods.synced(), *(source.synced() for source in self._static_sources))
                with contextlib.suppress(OSError):
                    await self.parts.resources.share()
                self._knows_all = True
                keep("mirror pods", self._mirrors.run)
                keep("sweeper", self.sweeper.run)
                keep("log rotation", self.logs.run)
                keep("eviction", self.evictor.run)
                if self.config.shutdown_periods:
                    keep("node shutdown", self.shutdown.run)
        finally:
            await self.pods.stop()
            await self.server.stop()
            await self.drivers.close()
            await self.device_drivers.close()
            await self.parts.images.close()
            await self._caller.close()

    async def _make_folders(self) -> None:
        """The pods' own, their logs', and that of manifests."""
        for place in (self.config.pods, self.config.logs):
            place.mkdir(parents=True, exist_ok=True)
            # Below are the files of secrets and tokens, and what pods say: nothing for the machine's other users.
            place.chmod(0o750)
        if self.config.runtime_socket.exists():
            why = await self.parts.world.in_thread(share, self.config.data)
            if why:
                log.info("mounts below %s are not propagated: %s", self.config.data, why)
        # Where it is to be a file that comes later, it comes into a folder that is there.
        with contextlib.suppress(OSError):
            self.config.manifests.mkdir(mode=0o700, exist_ok=True)

    async def _enforce(self) -> None:
        """Bound what pods, and what is reserved, may have of the machine."""
        try:
            await self.parts.resources.enforce(memory_capacity(), os.cpu_count() or 1)
        except OSError as error:
            log.error("%s", error)
            self.node.event("Warning", "FailedNodeAllocatableEnforcement", str(error))

    async def _when_runtime_answers(self) -> None:
        while True:
            with contextlib.suppress(ConnectionError, RuntimeFailure):
                await self.runtime.version()
                return
            await asyncio.sleep(RECONNECT_S)

    async def _registered(self) -> None:
        """Wait until the node is there: what it says of itself decides which pods it takes."""
        await self._own_node.synced()
        while not len(self._own_node):  # noqa: ASYNC110 - once in the life of a node
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _prepare_drivers(self) -> None:
        """Storage drivers that register are taken once the node is there, of which they are told."""
        if self.parts.volumes.csi is not None:
            await self.parts.volumes.csi.prepare()
        await self.drivers.prepare()
        await self.plugins.run()

    # Pods.

    def pod_set(self, pod: Obj) -> None:
        """The API server has this pod for the node."""
        worker = self.pods.get(uid_of(pod))
        if worker is None:
            self._start(pod, static=False)
        else:
            worker.update(pod)

    def pod_gone(self, pod: Obj) -> None:
        """The API server has it no longer."""
        worker = self.pods.get(uid_of(pod))
        if worker is not None:
            worker.update(pod)
            worker.object_gone()
            self._freed()

    def _start_static(self, pod: Obj) -> PodWorker:
        return self._start(pod, static=True)

    def _start(self, pod: Obj, *, static: bool) -> PodWorker:
        worker = PodWorker(pod, self.parts, static=static)
        try:
            refused = None if _was_admitted(pod) else self._refusal(worker.pod, static=static)
        except Exception as error:
            # Whether it fits cannot be told; what becomes of it shows when its worker tries.
            self.failures.note(f"admission of {podspec.quoted(pod)}", error)
            refused = None
        if refused is not None:
            worker.event("Warning", refused.reason, refused.message)
            worker.refuse(refused.reason, refused.told)
        self.pods.start(worker)
        return worker

    def _refusal(self, pod: Obj, *, static: bool) -> Refusal | None:
        """Why the pod may not be here; else it has its devices."""
        if self.shutdown.active:
            return NOT_NOW
        there = self._holders()
        host = self._host(there)
        # Until all are known that the node has, none has given up its devices.
        holders = {uid_of(other) for other in there}
        if not self._knows_all:
            holders |= self.managers.holders()
        refused = self.managers.admit(pod, holders)
        if refused is None:
            refused = refusal(pod, host, static=static)
            if refused is not None:
                self.managers.give_back(uid_of(pod))
        return refused

    def _devices_changed(self, uids: Collection[str]) -> None:
        for uid in uids:
            worker = self.pods.get(uid)
            if worker is not None:
                worker.publisher.changed()

    def _shutdown_changed(self) -> None:
        self.node.shutting_down = self.shutdown.active
        self.node.look_again()

    def _ended_for_good(self, worker: PodWorker) -> None:
        self.managers.give_back(worker.uid)
        self._static_pods.ended(worker)
        self._freed()

    # Room for pods that are resized.

    def _no_room(self, pod: Obj) -> Refusal | None:
        # What others are allocated counts, which is in their specifications, not what their statuses show yet.
        others = [{**other, "status": {}} for other in self._holders() if uid_of(other) != uid_of(pod)]
        return no_room({**pod, "status": {}}, self._host(others))

    def _freed(self) -> None:
        """Something has given back room: whoever waits for it looks again, the most important first."""
        waiting = [worker for worker in self.pods if worker.waits_for_room]
        for worker in sorted(waiting, key=lambda one: -int(one.pod["spec"].get("priority") or 0)):
            worker.look_for_room()

    def _holders(self) -> list[Obj]:
        return [worker.pod for worker in self.pods if worker.counts]

    def _host(self, pods: Iterable[Obj]) -> Host:
        """The node as a pod that comes to it finds it, with these pods there."""
        found = self._own_node.list()
        return Host(
            found[0] if found else None,
            {**(((found[0].get("status") or {}).get("allocatable") or {}) if found else {}), **self.node.allocatable()},
            self.node.pressures(),
            Taken(pods),
            self.config.unsafe_sysctls,
            self.config.features,
        )


def _logind() -> AbstractAsyncContextManager[Announcer]:
    """Only nodes that are to end with grace need it, and its library."""
    from navarch.node.logind import Logind

    return Logind.connected()


def _was_admitted(pod: Obj) -> bool:
    """Whether the pod has been here before: an earlier kubelet took it, or refused it, or it has ended."""
    return bool((pod.get("status") or {}).get("startTime")) or podspec.is_finished(pod)


def image_manager(config: KubeletConfig, runtime: Runtime, references: APISource, world: World) -> ImageManager:
    """With who may use which image, and the providers of credentials that the node has."""
    images = config.images
    records = PullRecords(config.data / "image_manager" / "pulled", images.verification, images.allowlist, world)
    providers = None
    if images.credential_providers is not None and images.credential_provider_bin is not None:
        known = read_providers(images.credential_providers)
        providers = CredentialProviders(known, images.credential_provider_bin, world, fits, registry_of)
    return ImageManager(runtime, references, world, config=images, records=records, providers=providers)


def static_sources(config: KubeletConfig, world: World) -> list[PodSource]:
    """Where this node's static pods come from."""
    name = config.node_name
    sources: list[PodSource] = [FilePods(config.manifests, name, world, look_every_s=config.static_pod_check_s)]
    if config.static_pod_url:
        period_s = config.static_pod_url_check_s
        headers = {name: ", ".join(values) for name, values in config.static_pod_headers.items()}
        sources.append(URLPods(config.static_pod_url, name, world, look_every_s=period_s, headers=headers))
    return sources
