"""What `/metrics/cadvisor` and `/metrics/probes` say, put together from the node's pods and the kernel's counters."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import NamedTuple

from navarch.node.engine.observed import ObservedContainer
from navarch.node.engine.parts import Parts
from navarch.node.engine.pods import Pods
from navarch.node.engine.worker import PodWorker
from navarch.node.resources.amounts import memory_capacity
from navarch.node.resources.cgroups import cgroup_parent
from navarch.node.resources.readings import Interface, Reading, interfaces, read
from navarch.node.runtime.base import ContainerStats, RuntimeFailure
from navarch.node.server import cadvisor
from navarch.node.server.cadvisor import Counted


class _Asked(NamedTuple):
    """What is read for a pod: its cgroup, its sandbox's id, its containers."""

    worker: PodWorker
    cgroup: str
    sandbox: str
    containers: tuple[ObservedContainer, ...]
    layers: Mapping[str, ContainerStats]


class Counting:
    """Owned by the kubelet's server; reads only when somebody asks."""

    def __init__(self, parts: Parts, pods: Pods) -> None:
        self._parts = parts
        self._pods = pods

    async def cadvisor(self) -> str:
        """The body of `/metrics/cadvisor`."""
        failed = False
        layers: dict[str, ContainerStats] = {}
        try:
            layers = {one.id: one for one in await self._parts.runtime.stats()}
        except (RuntimeFailure, ConnectionError):
            failed = True
        asked = []
        for worker in self._pods:
            sandbox = worker.observed.sandbox
            if sandbox is None or not worker.observed.sandbox_ready:
                continue
            running = tuple(one for one in worker.observed.all() if one.running)
            asked.append(_Asked(worker, cgroup_parent(worker.pod, self._parts.config), sandbox.id, running, layers))
        counted = await self._parts.world.in_thread(self._read, asked)
        return cadvisor.exposition(
            counted,
            cpus=os.cpu_count() or 1,
            memory=memory_capacity(),
            version=_system(),
            kernel=platform.release(),
            failed=failed,
        )

    def _read(self, asked: list[_Asked]) -> list[Counted]:
        now_ms = int(self._parts.clock.now().timestamp() * 1000)
        root = self._parts.config.cgroup_root
        found = []
        for cgroup in ("/", root, f"{root}/besteffort", f"{root}/burstable"):
            reading = read(cgroup)
            if reading is not None:
                found.append(Counted(cgroup, reading, now_ms))
        for one in asked:
            found += _of_pod(one, now_ms)
        return found

    def probes(self) -> str:
        """The body of `/metrics/probes`."""
        lines = []
        for worker in self._pods:
            metadata = worker.pod["metadata"]
            pod = f'namespace="{metadata["namespace"]}",pod="{metadata["name"]}",pod_uid="{worker.uid}"'
            for (container, kind, result), count in sorted(worker.probe_counts.items()):
                labels = f'container="{container}",{pod},probe_type="{kind}",result="{result}"'
                lines.append(f"prober_probe_total{{{labels}}} {count}")
        if lines:
            words = "Cumulative number of a liveness, readiness or startup probe for a container by result."
            lines = [
                f"# HELP prober_probe_total [BETA] {words}",
                "# TYPE prober_probe_total counter",
                *lines,
            ]
        return "".join(f"{line}\n" for line in lines)


def _of_pod(asked: _Asked, now_ms: int) -> list[Counted]:
    """The pod's cgroup, which has its network, and those of its containers."""
    whole = read(asked.cgroup)
    if whole is None:
        return []
    metadata = asked.worker.pod["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    sandbox = read(f"{asked.cgroup}/{asked.sandbox}")
    found = [Counted(asked.cgroup, whole, now_ms, pod=name, namespace=namespace, network=_network(asked, sandbox))]
    for one in asked.containers:
        reading = read(f"{asked.cgroup}/{one.id}")
        if reading is None:
            continue
        layer = asked.layers.get(one.id)
        found.append(
            Counted(
                f"{asked.cgroup}/{one.id}",
                reading,
                now_ms,
                container=one.name,
                pod=name,
                namespace=namespace,
                image=one.status.image,
                name=one.id,
                started_s=one.status.started_at_ns / 1e9,
                layer_bytes=None if layer is None else layer.layer_used_bytes,
            )
        )
    return found


def _network(asked: _Asked, sandbox: Reading | None) -> list[Interface]:
    """That of the pod; one on the host's network has none of its own."""
    if asked.worker.pod["spec"].get("hostNetwork") or sandbox is None or not sandbox.pids:
        return []
    return interfaces(sandbox.pids[0])


def _system() -> str:
    try:
        with open("/etc/os-release") as file:
            names = dict(line.rstrip("\n").partition("=")[::2] for line in file)
    except OSError:
        return "Linux"
    return names.get("PRETTY_NAME", "Linux").strip('"')
