"""Requests and limits: a pod's quality-of-service class, and what its containers get in the runtime's terms.

Pure. Works the same on cgroup v1 and v2: the runtime converts shares to weights; only the unified keys are v2's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from navarch.api import quantity
from navarch.api.meta import Obj
from navarch.kinds.core.pod_state import is_sidecar
from navarch.kinds.core.resource_lists import combined, limits_of, pod_limits, pod_requests, qos_class, requests_of
from navarch.node.config import CgroupsConfig
from navarch.node.runtime.base import Resources

_PERIOD_US: Final = 100_000
_CRITICAL: Final = 2_000_000_000
_PAGE: Final = 4096
_MIN_QUOTA_US: Final = 1_000
_MIN_SHARES: Final = 2
_MAX_SHARES: Final = 262_144
_GUARANTEED_OOM_SCORE: Final = -997
_BEST_EFFORT_OOM_SCORE: Final = 1000


_HUGE: Final = "hugepages-"
_USUAL: Final = CgroupsConfig()


def milli_cpu(amount: Any) -> int:
    return quantity.milli(quantity.parse(amount))


def whole(amount: Any) -> int:
    """A quantity as an integer (bytes of memory, numbers of things), rounded up."""
    return quantity.value(quantity.parse(amount))


def cpu_shares(milli: int) -> int:
    return min(max(milli * 1024 // 1000, _MIN_SHARES), _MAX_SHARES) if milli else _MIN_SHARES


def cpu_quota(milli: int, period_us: int = _PERIOD_US) -> int:
    """Microseconds of CPU per period of 100 ms; 0 is no limit."""
    return max(milli * period_us // 1000, _MIN_QUOTA_US) if milli else 0


def oom_score_adj(pod: Obj, container: Obj, memory_capacity: int) -> int:
    """How eagerly the kernel's OOM killer takes this container: the more it requested of the node, the less."""
    if int(pod["spec"].get("priority") or 0) >= 2_000_001_000:
        return _GUARANTEED_OOM_SCORE
    qos = qos_class(pod["spec"])
    if qos == "Guaranteed":
        return _GUARANTEED_OOM_SCORE
    if qos == "BestEffort":
        return _BEST_EFFORT_OOM_SCORE
    requested = _memory_requested(container)
    if container["name"] in {one["name"] for one in pod["spec"].get("initContainers") or () if is_sidecar(one)}:
        # It does not go before the containers that it is there for.
        requested = max(requested, min(_memory_requested(one) for one in pod["spec"]["containers"]))
    score = 1000 - 1000 * (requested + _memory_left_each(pod["spec"])) // max(memory_capacity, 1)
    lowest = 1000 + _GUARANTEED_OOM_SCORE
    return min(max(score, lowest), _BEST_EFFORT_OOM_SCORE - 1)


def _memory_requested(container: Obj) -> int:
    return whole(requests_of(container).get("memory", 0))


def _memory_left_each(spec: Obj) -> int:
    """What a pod requests as a whole and its containers do not, in equal parts."""
    stated = whole(requests_of(spec).get("memory", 0))
    if not stated:
        return 0
    wanted = combined(spec, lambda container: {"memory": _memory_requested(container)}, {}, {})
    return (stated - wanted["memory"]) // (len(spec["containers"]) + len(spec.get("initContainers") or ()))


def _bounds(pod: Obj, container: Obj) -> tuple[Any, Any, Any]:
    """The CPU that a container requests, and its limits of CPU and memory: the whole pod's where it has none."""
    whole_pod, own = limits_of(pod["spec"]), limits_of(container)
    cpu, memory = (own[name] if whole(own.get(name, 0)) else whole_pod.get(name, 0) for name in ("cpu", "memory"))
    return requests_of(container).get("cpu", cpu), cpu, memory


def container_resources(
    pod: Obj,
    container: Obj,
    *,
    memory_capacity: int,
    unified: bool,
    settings: CgroupsConfig = _USUAL,
    swap_capacity: int = 0,
) -> Resources:
    """What a container gets; `unified` where the node has cgroup v2."""
    cpu_request, cpu_limit, memory_limit = _bounds(pod, container)
    period_us = settings.cpu_period_us
    quota = cpu_quota(milli_cpu(cpu_limit), period_us) if settings.cpu_quota else 0
    return Resources(
        cpu_shares=cpu_shares(milli_cpu(cpu_request)),
        cpu_period_us=period_us if quota else 0,
        cpu_quota_us=quota,
        memory_limit_bytes=whole(memory_limit),
        oom_score_adj=oom_score_adj(pod, container, memory_capacity),
        hugepage_limits={
            _page_size(name): whole(amount)
            for name, amount in limits_of(container).items()
            if name.startswith("hugepages-")
        },
        unified=_unified(pod, container, settings, memory_capacity, swap_capacity) if unified else {},
    )


def _unified(
    pod: Obj, container: Obj, settings: CgroupsConfig, memory_capacity: int, swap_capacity: int
) -> dict[str, str]:
    """What only cgroup v2 has."""
    swap = 0
    if settings.swap == "LimitedSwap":
        swap = swap_limit(pod, container, memory_capacity, swap_capacity)
    result = {"memory.swap.max": str(swap)}
    if not settings.single_process_oom_kill:
        # A container whose processes were picked by the OOM killer one by one would limp on; it dies as a whole.
        result["memory.oom.group"] = "1"
    if settings.memory_qos:
        result |= _memory_qos(pod, container, settings, memory_capacity)
    return result


def swap_limit(pod: Obj, container: Obj, memory_capacity: int, swap_capacity: int) -> int:
    """How much a container may swap: of a burstable pod's, the part of the swap that it requested of the memory."""
    requested, limit = (whole(of(container).get("memory", 0)) for of in (requests_of, limits_of))
    critical = int(pod["spec"].get("priority") or 0) >= _CRITICAL
    if qos_class(pod["spec"]) != "Burstable" or critical or not requested or requested == limit:
        return 0
    return swap_capacity * requested // max(memory_capacity, 1)


def _memory_qos(pod: Obj, container: Obj, settings: CgroupsConfig, memory_capacity: int) -> dict[str, str]:
    """What a container keeps when memory is reclaimed, and where it is slowed down before it is killed."""
    requested, limit = (whole(of(container).get("memory", 0)) for of in (requests_of, limits_of))
    qos, result = qos_class(pod["spec"]), {}
    if requested and settings.memory_reservation == "TieredReservation":
        result["memory.min" if qos == "Guaranteed" else "memory.low"] = str(requested)
    if qos != "Guaranteed" and requested != (limit or None):
        most = limit or memory_capacity
        high = int(requested + settings.memory_throttling * (most - requested)) // _PAGE * _PAGE
        if requested < high:
            result["memory.high"] = str(high)
    return result


def hugepage_limits(pod: Obj) -> dict[str, int]:
    """Bytes of huge pages that a pod's containers may have together, by size of page (`2MB`)."""
    spec = pod["spec"]
    # What is stated of the pod as a whole counts instead of what its containers have.
    stated = [limits for limits in (limits_of(spec),) if any(name.startswith(_HUGE) for name in limits)]
    every = (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
    total: dict[str, int] = {}
    for limits in stated or [limits_of(container) for container in every]:
        for name, amount in limits.items():
            if name.startswith(_HUGE):
                size = _page_size(name)
                total[size] = total.get(size, 0) + whole(amount)
    return total


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


def swap_capacity() -> int:
    """The node's swap in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("SwapTotal:"):
            return int(line.split()[1]) * 1024
    return 0
