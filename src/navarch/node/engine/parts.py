"""`Parts`: what the pods of one node share, handed to each pod's worker."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from navarch.api.meta import Obj
from navarch.client.base import Client
from navarch.client.events import EventRecorder
from navarch.client.supervision import Failures
from navarch.node.backoff import Backoff
from navarch.node.config import KubeletConfig
from navarch.node.devices.manager import DeviceManager
from navarch.node.dra.claims import DeviceClaims
from navarch.node.engine.admission import Refusal
from navarch.node.engine.observed import Observer
from navarch.node.fieldref import PodFacts
from navarch.node.images.manager import ImageManager
from navarch.node.probes.handlers import HTTPCaller
from navarch.node.probes.prober import Prober
from navarch.node.references import APISource
from navarch.node.resources.cpu_manager import CPUManager
from navarch.node.resources.manager import ResourceManager
from navarch.node.resources.memory_manager import MemoryManager
from navarch.node.resources.usage import DiskUsage
from navarch.node.runtime.base import Runtime
from navarch.node.spec.container import NodeFacts
from navarch.node.user_namespaces import UserNamespaces
from navarch.node.volumes.manager import VolumeManager
from navarch.world import Clock, World


@dataclass(slots=True)
class Parts:
    """Shared by all pod workers; `owned` is told of every container and sandbox id and its pod's uid, `services` gives
    the services for environment variables, `allocatable` what the node can give. `room` says why the node has none for
    a pod that is resized to this; `freed` is told that it may have more now. `wired` is told of a pod's
    addresses, and returns when its containers may speak."""

    config: KubeletConfig
    client: Client
    runtime: Runtime
    observer: Observer
    images: ImageManager
    volumes: VolumeManager
    device_claims: DeviceClaims
    resources: ResourceManager
    source: APISource
    prober: Prober
    caller: HTTPCaller
    recorder: EventRecorder
    world: World
    random: random.Random
    backoff: Backoff
    users: UserNamespaces
    node: NodeFacts
    services: Callable[[], Sequence[Obj]]
    host_ips: Callable[[], Sequence[str]]
    allocatable: Callable[[], Obj]
    owned: Callable[[str, str], None]
    room: Callable[[Obj], Refusal | None]
    freed: Callable[[], None]
    wired: Callable[[Obj, Sequence[str]], Awaitable[None]]
    failures: Failures
    disks: DiskUsage
    devices: DeviceManager
    cpus: CPUManager
    memory: MemoryManager

    @property
    def clock(self) -> Clock:
        """The time of day."""
        return self.world

    def facts(self, pod_ips: Sequence[str]) -> PodFacts:
        return PodFacts(tuple(pod_ips), tuple(self.host_ips()), self.allocatable())
