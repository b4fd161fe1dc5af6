"""Requests and limits: a pod's quality-of-service class, and what its containers get in the runtime's terms.

Pure. Works the same on cgroup v1 and v2: the runtime converts shares to weights; only the unified keys are v2's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from navarch.api import quantity
from navarch.api.meta import Obj
from navarch.kinds.core.resource_lists import limits_of, pod_limits, pod_requests, qos_class, requests_of
from navarch.node.runtime.base import Resources

_PERIOD_US: Final = 100_000
_MIN_QUOTA_US: Final = 1_000
_MIN_SHARES: Final = 2
_MAX_SHARES: Final = 262_144
_GUARANTEED_OOM_SCORE: Final = -997
_BEST_EFFORT_OOM_SCORE: Final = 1000


def milli_cpu(amount: Any) -> int:
    return quantity.milli(quantity.parse(amount))


def whole(amount: Any) -> int:
    """A quantity as an integer (bytes of memory, numbers of things), rounded up."""
    return quantity.value(quantity.parse(amount))


def cpu_shares(milli: int) -> int:
    return min(max(milli * 1024 // 1000, _MIN_SHARES), _MAX_SHARES) if milli else _MIN_SHARES


def cpu_quota(milli: int) -> int:
    """Microseconds of CPU per period of 100 ms; 0 is no limit."""
    return max(milli * _PERIOD_US // 1000, _MIN_QUOTA_US) if milli else 0


def oom_score_adj(pod: Obj, container: Obj, memory_capacity: int) -> int:
    """How eagerly the kernel's OOM killer takes this container: the more it requested of the node, the less."""
    if int(pod["spec"].get("priority") or 0) >= 2_000_001_000:
        return _GUARANTEED_OOM_SCORE
    qos = qos_class(pod["spec"])
    if qos == "Guaranteed":
        return _GUARANTEED_OOM_SCORE
    if qos == "BestEffort":
        return _BEST_EFFORT_OOM_SCORE
    requested = whole(requests_of(container).get("memory", 0))
    score = 1000 - 1000 * requested // max(memory_capacity, 1)
    lowest = 1000 + _GUARANTEED_OOM_SCORE
    return min(max(score, lowest), _BEST_EFFORT_OOM_SCORE - 1)


def container_resources(pod: Obj, container: Obj, *, memory_capacity: int, unified: bool) -> Resources:
    """What a container gets; `unified` where the node has cgroup v2."""
    requests, limits = requests_of(container), limits_of(container)
    quota = cpu_quota(milli_cpu(limits.get("cpu", 0)))
    return Resources(
        cpu_shares=cpu_shares(milli_cpu(requests.get("cpu", 0))),
        cpu_period_us=_PERIOD_US if quota else 0,
        cpu_quota_us=quota,
        memory_limit_bytes=whole(limits.get("memory", 0)),
        oom_score_adj=oom_score_adj(pod, container, memory_capacity),
        hugepage_limits={
            _page_size(name): whole(amount) for name, amount in limits.items() if name.startswith("hugepages-")
        },
        # A container whose processes were picked by the OOM killer one by one would limp on; it dies as a whole.
        unified={"memory.oom.group": "1", "memory.swap.max": "0"} if unified else {},
    )


def _page_size(resource: str) -> str:
    """`hugepages-2Mi` → `2MB`."""
    return resource.removeprefix("hugepages-").replace("i", "") + "B"


def pod_totals(pod: Obj) -> tuple[int, int, int]:
    """A pod's CPU request and limit in milli-cores, and memory limit in bytes; 0 where some container has no limit."""
    return pod_requests(pod).get("cpu", 0), pod_limits(pod, "cpu"), pod_limits(pod, "memory")


def has_unified_cgroups() -> bool:
    """Whether the node's cgroups are v2."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def memory_capacity() -> int:
    """The node's memory in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0
