"""Statistics of the node and its pods: `/stats/summary` for people and autoscalers, and metrics for Prometheus.

Containers' figures are the runtime's; CPU rates are taken between two readings that are some seconds apart.
"""

from __future__ import annotations

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
from navarch.node.resource_metrics import Sample, exposition
from navarch.node.runtime.base import POD_NAME, POD_NAMESPACE, POD_UID, ContainerStats, RuntimeFailure


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

    async def summary(self) -> Obj:
        """The body of `/stats/summary`."""
        pods: dict[str, Obj] = {}
        for stats in await self._containers():
            labels = stats.labels
            uid = labels.get(POD_UID, "")
            worker = self._pods.get(uid)
            if worker is None:
                continue
            pod = pods.setdefault(uid, self._pod(worker.pod, labels))
            pod["containers"].append(self._container(stats))
        for pod in pods.values():
            self._add_up(pod)
        return {"node": self._node(), "pods": list(pods.values())}

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
        used = sum(container["rootfs"]["usedBytes"] for container in containers)
        pod["ephemeral-storage"] = {**_disk(self._parts.config.data), "usedBytes": used}

    def _node(self) -> Obj:
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
            "fs": {"time": now, **_disk(self._parts.config.data)},
            "runtime": {"imageFs": {"time": now, **_disk(self._parts.config.data)}},
        }

    # Prometheus.

    async def metrics(self) -> str:
        """The kubelet's own metrics."""
        workers = list(self._pods)
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
