"""Statistics of the node and its pods: `/stats/summary` for people and autoscalers, and metrics for Prometheus.

Containers' figures are the runtime's; CPU rates are taken between two readings that are some seconds apart.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from navarch.api.meta import Obj
from navarch.api.time import format_time
from navarch.node.engine.observed import moment
from navarch.node.engine.parts import Parts
from navarch.node.engine.pods import Pods
from navarch.node.engine.worker import PodWorker
from navarch.node.resource_metrics import Sample, exposition
from navarch.node.resources.cgroups import cgroup_parent, processes
from navarch.node.resources.readings import interfaces, read
from navarch.node.resources.signals import processes_left
from navarch.node.resources.usage import total
from navarch.node.runtime.base import POD_NAME, POD_NAMESPACE, POD_UID, ContainerStats, RuntimeFailure
from navarch.node.server import volume_stats
from navarch.node.server.volume_stats import summary_entry
from navarch.node.volumes.measuring import ClaimUse


class _Reading(NamedTuple):
    at_ns: int
    cpu_ns: int


class Statistics:
    """Owned by the kubelet's server; reads only when somebody asks."""

    def __init__(self, parts: Parts, pods: Pods) -> None:
        self._parts = parts
        self._pods = pods
        self._readings: dict[str, _Reading] = {}
        self._rates: dict[str, int] = {}
        self._problems: dict[tuple[str, str], str] = {}

    async def summary(self) -> Obj:
        """The body of `/stats/summary`."""
        pods: dict[str, Obj] = {}
        workers: dict[str, PodWorker] = {}
        for stats in await self._containers():
            labels = stats.labels
            uid = labels.get(POD_UID, "")
            worker = self._pods.get(uid)
            if worker is None:
                continue
            workers[uid] = worker
            pod = pods.setdefault(uid, self._pod(worker.pod, labels))
            pod["containers"].append(self._container(stats))
        in_thread = self._parts.world.in_thread
        node_disk = await in_thread(_disk, self._parts.config.data)
        images = await self._images()
        for uid, pod in pods.items():
            await self._measure(workers[uid], pod, node_disk)
        return {"node": await in_thread(self._node, node_disk, images), "pods": list(pods.values())}

    async def _images(self) -> Obj:
        """The file system of images, and what images use of it."""
        try:
            found = await self._parts.runtime.image_filesystem()
        except (RuntimeFailure, ConnectionError):
            return {}
        disk = await self._parts.world.in_thread(_disk, Path(found.mountpoint))
        return {**disk, "usedBytes": found.used_bytes, "inodesUsed": found.inodes}

    async def _measure(self, worker: PodWorker, pod: Obj, disk: Obj) -> None:
        """Add up the containers, and what the pod's volumes, logs and processes are."""
        config, metadata = self._parts.config, worker.pod["metadata"]
        place = config.log_directory(metadata["namespace"], metadata["name"], worker.uid)
        disks = await self._parts.disks.of(worker.pod, worker.volumes, place, max_age_s=config.volume_stats_s)
        at = format_time(disks.at)
        shared = {name: disk[name] for name in ("availableBytes", "capacityBytes", "inodesFree", "inodes")}
        for container in pod["containers"]:
            used = disks.logs.get(container["name"])
            if used is not None:
                use = {"usedBytes": used.bytes, "inodesUsed": used.inodes}
                container["logs"] = {"time": at, **shared, **use}
            container["rootfs"] = {**shared, **container["rootfs"]}
        volumes: list[Obj] = [
            {"time": at, **shared, "usedBytes": used.bytes, "inodesUsed": used.inodes, "name": name}
            for name, used in disks.volumes.items()
        ]
        now = format_time(self._parts.clock.now())
        volumes += [summary_entry(use, metadata["namespace"], now) for use in await self._claims(worker)]
        if volumes:
            pod["volume"] = volumes
        self._add_up(pod)
        whole = total([*disks.volumes.values(), *disks.logs.values()])
        layers = sum(container["rootfs"]["usedBytes"] for container in pod["containers"])
        inodes = sum(container["rootfs"]["inodesUsed"] for container in pod["containers"])
        storage = {"usedBytes": whole.bytes + layers, "inodesUsed": whole.inodes + inodes}
        pod["ephemeral-storage"] = {"time": at, **shared, **storage}
        parent = cgroup_parent(worker.pod, config)
        pod["process_stats"] = {"process_count": await self._parts.world.in_thread(processes, parent)}
        sandbox = worker.observed.sandbox
        if sandbox is not None and not worker.pod["spec"].get("hostNetwork"):
            network = await self._parts.world.in_thread(_network, f"{parent}/{sandbox.id}")
            if network:
                pod["network"] = {"time": format_time(self._parts.clock.now()), **network}

    async def _claims(self, worker: PodWorker) -> list[ClaimUse]:
        """How full the pod's claims are. What a driver finds wrong with one is told once."""
        found = await self._parts.volumes.measuring.of(worker.uid, max_age_s=self._parts.config.volume_stats_s)
        for use in found:
            key = (worker.uid, use.volume)
            problem = use.health.problem or ""
            if problem and self._problems.get(key) != problem:
                worker.event("Warning", "VolumeConditionAbnormal", f"Volume {use.volume}: {problem}")
            self._problems[key] = problem
        return found

    async def _containers(self) -> list[ContainerStats]:
        try:
            return list(await self._parts.runtime.stats())
        except (RuntimeFailure, ConnectionError):
            return []

    def _pod(self, pod: Obj, labels: Mapping[str, str]) -> Obj:
        reference = {"name": labels.get(POD_NAME), "namespace": labels.get(POD_NAMESPACE), "uid": labels.get(POD_UID)}
        started = (pod.get("status") or {}).get("startTime")
        return {"podRef": reference, "startTime": started, "containers": []}

    def _container(self, stats: ContainerStats) -> Obj:
        rate = self._rate(stats.id, stats.cpu_at_ns, stats.cpu_ns)
        result: Obj = {
            "name": stats.name,
            "cpu": {
                "time": _time(stats.cpu_at_ns),
                "usageNanoCores": stats.cpu_nano_cores or rate,
                "usageCoreNanoSeconds": stats.cpu_ns,
            },
            "memory": {
                "time": _time(stats.memory_at_ns),
                "usageBytes": stats.memory_used_bytes,
                "workingSetBytes": stats.memory_working_set_bytes,
                "rssBytes": stats.memory_rss_bytes,
                "pageFaults": stats.page_faults,
                "majorPageFaults": stats.major_page_faults,
            },
            "rootfs": {
                "time": _time(stats.layer_at_ns),
                "usedBytes": stats.layer_used_bytes,
                "inodesUsed": stats.layer_inodes,
            },
        }
        if stats.memory_available_bytes:
            result["memory"]["availableBytes"] = stats.memory_available_bytes
        return result

    def _rate(self, identity: str, at_ns: int, cpu_ns: int) -> int:
        before = self._readings.get(identity)
        if before is not None and at_ns > before.at_ns:
            self._rates[identity] = max((cpu_ns - before.cpu_ns) * 1_000_000_000 // (at_ns - before.at_ns), 0)
        self._readings[identity] = _Reading(at_ns, cpu_ns)
        return self._rates.get(identity, 0)

    def _add_up(self, pod: Obj) -> None:
        containers = pod["containers"]
        for part, fields in (
            ("cpu", ("usageNanoCores", "usageCoreNanoSeconds")),
            ("memory", ("usageBytes", "workingSetBytes", "rssBytes", "pageFaults", "majorPageFaults")),
        ):
            latest = max(container[part]["time"] for container in containers)
            pod[part] = {"time": latest, **{f: sum(c[part][f] for c in containers) for f in fields}}

    def _node(self, disk: Obj, images: Obj) -> Obj:
        now = format_time(self._parts.clock.now())
        memory = _memory()
        cpu_ns = _node_cpu_ns()
        stamp = int(self._parts.clock.now().timestamp() * 1_000_000_000)
        working_set = _working_set(memory)
        return {
            "nodeName": self._parts.config.node_name,
            "startTime": format_time(_boot_time()),
            "cpu": {
                "time": now,
                "usageNanoCores": self._rate("node", stamp, cpu_ns),
                "usageCoreNanoSeconds": cpu_ns,
            },
            "memory": {
                "time": now,
                "availableBytes": memory.get("MemAvailable", 0),
                "usageBytes": max(memory.get("MemTotal", 0) - memory.get("MemFree", 0), 0),
                "workingSetBytes": working_set,
                "rssBytes": memory.get("AnonPages", 0),
            },
            "fs": {"time": now, **disk},
            "runtime": {"imageFs": {"time": now, **(images or disk)}, "containerFs": {"time": now, **(images or disk)}},
            "rlimit": {"time": now, **_processes()},
        }

    # Prometheus.

    async def metrics(self) -> str:
        """The kubelet's own metrics."""
        workers = list(self._pods)
        measured = await asyncio.gather(*map(self._claims, workers))
        claims = [
            (worker.pod["metadata"]["namespace"], use)
            for worker, uses in zip(workers, measured, strict=True)
            for use in uses
        ]
        self._problems = {key: text for key, text in self._problems.items() if self._pods.get(key[0]) is not None}
        running = sum(1 for worker in workers if worker.observed.sandbox_ready)
        states = {"running": 0, "exited": 0, "created": 0}
        for worker in workers:
            for container in worker.observed.all():
                key = "running" if container.running else "created" if container.created_only else "exited"
                states[key] += 1
        lines = [
            "# HELP kubelet_running_pods Number of pods that have a running pod sandbox",
            "# TYPE kubelet_running_pods gauge",
            f"kubelet_running_pods {running}",
            "# HELP kubelet_running_containers Number of containers currently running",
            "# TYPE kubelet_running_containers gauge",
            *(f'kubelet_running_containers{{container_state="{k}"}} {v}' for k, v in states.items() if v),
            "# HELP kubelet_node_name The node's name. The count is always 1.",
            "# TYPE kubelet_node_name gauge",
            f'kubelet_node_name{{node="{self._parts.config.node_name}"}} 1',
            *volume_stats.exposition(claims),
            *self._parts.runtime.operations.exposition(),
            "# HELP kubelet_caught_errors_total Errors that nobody foresaw, by kind; what failed was tried again.",
            "# TYPE kubelet_caught_errors_total counter",
            *(f'kubelet_caught_errors_total{{kind="{k}"}} {v}' for k, v in sorted(self._parts.failures.counts.items())),
            "# HELP process_resident_memory_bytes Resident memory size in bytes.",
            "# TYPE process_resident_memory_bytes gauge",
            f"process_resident_memory_bytes {_own_memory()}",
            "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.",
            "# TYPE process_cpu_seconds_total counter",
            f"process_cpu_seconds_total {sum(os.times()[:2]):.2f}",
        ]
        return "\n".join(lines) + "\n"

    async def resource_metrics(self) -> str:
        """What metrics-server reads."""
        now_ms = int(self._parts.clock.now().timestamp() * 1000)
        working_set = _working_set(_memory())
        node = Sample((), _node_cpu_ns(), now_ms, working_set, now_ms)
        try:
            listed = list(await self._parts.runtime.stats())
        except (RuntimeFailure, ConnectionError):
            return exposition(node, [], failed=True)
        samples = []
        for stats in listed:
            worker = self._pods.get(stats.labels.get(POD_UID, ""))
            instance = None if worker is None else worker.observed.latest(stats.name)
            if instance is None or instance.id != stats.id or not instance.running:
                # One that has been replaced would be told beside its successor, under the same name.
                continue
            labels = (stats.name, stats.labels.get(POD_NAMESPACE, ""), stats.labels.get(POD_NAME, ""))
            times = (stats.cpu_at_ns // 1_000_000, stats.memory_at_ns // 1_000_000)
            started_s = instance.status.started_at_ns / 1e9
            samples.append(Sample(labels, stats.cpu_ns, times[0], stats.memory_working_set_bytes, times[1], started_s))
        return exposition(node, samples)


def _time(nanoseconds: int) -> str:
    return format_time(moment(nanoseconds))


def _network(sandbox: str) -> Obj:
    """A pod's interfaces, the main one first; empty where the pod has ended."""
    reading = read(sandbox)
    if reading is None or not reading.pids:
        return {}
    found = [
        {
            "name": one.name,
            "rxBytes": one.received[0],
            "rxErrors": one.received[2],
            "txBytes": one.sent[0],
            "txErrors": one.sent[2],
        }
        for one in interfaces(reading.pids[0])
    ]
    return {**found[0], "interfaces": found} if found else {}


def _processes() -> Obj:
    left = processes_left()
    return {"maxpid": left.capacity, "curproc": left.capacity - left.available} if left is not None else {}


def _disk(path: Path) -> Obj:
    disk = os.statvfs(path if path.exists() else "/")
    return {
        "availableBytes": disk.f_bavail * disk.f_frsize,
        "capacityBytes": disk.f_blocks * disk.f_frsize,
        "usedBytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        "inodesFree": disk.f_ffree,
        "inodes": disk.f_files,
        "inodesUsed": disk.f_files - disk.f_ffree,
    }


def _memory() -> dict[str, int]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if ":" in line}


def _working_set(memory: Mapping[str, int]) -> int:
    return max(memory.get("MemTotal", 0) - memory.get("MemAvailable", 0), 0)


def _node_cpu_ns() -> int:
    """CPU time that the machine has spent on anything but idling."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    busy = sum(fields[:3]) + sum(fields[5:8])
    return busy * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _boot_time() -> datetime:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return moment(int(line.split()[1]) * 1_000_000_000)
    return moment(0)


def _own_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
