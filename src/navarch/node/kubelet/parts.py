"""`Parts`: what the pods of one node share, handed to each pod's worker."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from navarch.api.meta import Obj
from navarch.api.time import Clock
from navarch.client.base import Client
from navarch.client.events import EventRecorder
from navarch.node.kubelet.backoff import Backoff
from navarch.node.kubelet.config import KubeletConfig
from navarch.node.kubelet.container import NodeFacts
from navarch.node.kubelet.fieldref import PodFacts
from navarch.node.kubelet.images import ImageManager
from navarch.node.kubelet.lifecycle import HTTPCaller
from navarch.node.kubelet.observed import Observer
from navarch.node.kubelet.probes import Prober
from navarch.node.kubelet.runtime import Runtime
from navarch.node.kubelet.sources import APISource
from navarch.node.kubelet.volumes.manager import VolumeManager


@dataclass(slots=True)
class Parts:
    """Shared by all pod workers; `owned` is told of every container and sandbox id and its pod's uid, `services` gives
    the services for environment variables, `allocatable` what the node can give."""

    config: KubeletConfig
    client: Client
    runtime: Runtime
    observer: Observer
    images: ImageManager
    volumes: VolumeManager
    source: APISource
    prober: Prober
    caller: HTTPCaller
    recorder: EventRecorder
    clock: Clock
    random: random.Random
    backoff: Backoff
    node: NodeFacts
    services: Callable[[], Sequence[Obj]]
    host_ips: Callable[[], Sequence[str]]
    allocatable: Callable[[], Obj]
    owned: Callable[[str, str], None]

    def facts(self, pod_ips: Sequence[str]) -> PodFacts:
        return PodFacts(tuple(pod_ips), tuple(self.host_ips()), self.allocatable())
