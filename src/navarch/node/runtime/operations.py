"""`Operations`: how often the runtime was asked for what, how long that took, how often it failed, as the kubelet's
metrics tell it. What of a pod's start is the runtime's own is read there."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import field
from itertools import accumulate
from typing import Final

from navarch.records import mutable

_BOUNDS: Final = tuple(0.005 * 2.5**power for power in range(14))
# CRI's calls by the names that the metrics have for them.
_NAMES: Final = {
    "Version": "version",
    "Status": "status",
    "RunPodSandbox": "run_podsandbox",
    "StopPodSandbox": "stop_podsandbox",
    "RemovePodSandbox": "remove_podsandbox",
    "PodSandboxStatus": "podsandbox_status",
    "ListPodSandbox": "list_podsandbox",
    "CreateContainer": "create_container",
    "StartContainer": "start_container",
    "StopContainer": "stop_container",
    "RemoveContainer": "remove_container",
    "ContainerStatus": "container_status",
    "ListContainers": "list_containers",
    "UpdateContainerResources": "update_container",
    "ExecSync": "exec_sync",
    "Exec": "exec",
    "Attach": "attach",
    "PortForward": "port_forward",
    "ReopenContainerLog": "reopen_container_log",
    "ListContainerStats": "list_container_stats",
    "ListImages": "list_images",
    "ImageStatus": "image_status",
    "PullImage": "pull_image",
    "RemoveImage": "remove_image",
    "ImageFsInfo": "image_fs_info",
}


@mutable
class _Operation:
    total_s: float = 0.0
    errors: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))


class Operations:
    """Counted per call of CRI's."""

    def __init__(self) -> None:
        self._by_call: dict[str, _Operation] = {}

    def note(self, call: str, seconds: float, *, failed: bool) -> None:
        """A call has ended."""
        operation = self._by_call.get(call)
        if operation is None:
            operation = self._by_call[call] = _Operation()
        operation.total_s += seconds
        operation.counts[bisect_left(_BOUNDS, seconds)] += 1
        operation.errors += failed

    def exposition(self) -> list[str]:
        """Lines of the text format."""
        name = "kubelet_runtime_operations"
        total = [
            f"# HELP {name}_total Cumulative number of runtime operations by operation type.",
            f"# TYPE {name}_total counter",
        ]
        failed = [
            f"# HELP {name}_errors_total Cumulative number of runtime operation errors by operation type.",
            f"# TYPE {name}_errors_total counter",
        ]
        took = [
            f"# HELP {name}_duration_seconds Duration in seconds of runtime operations. Broken down by operation type.",
            f"# TYPE {name}_duration_seconds histogram",
        ]
        for call, operation in sorted(self._by_call.items()):
            label = f'operation_type="{_NAMES.get(call, call)}"'
            count = sum(operation.counts)
            total.append(f"{name}_total{{{label}}} {count}")
            if operation.errors:
                failed.append(f"{name}_errors_total{{{label}}} {operation.errors}")
            bounds = [*(f"{bound:g}" for bound in _BOUNDS), "+Inf"]
            for bound, below in zip(bounds, accumulate(operation.counts), strict=True):
                took.append(f'{name}_duration_seconds_bucket{{{label},le="{bound}"}} {below}')
            took.append(f"{name}_duration_seconds_sum{{{label}}} {operation.total_s:.9g}")
            took.append(f"{name}_duration_seconds_count{{{label}}} {count}")
        return [*total, *failed, *took]
