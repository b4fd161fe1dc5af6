"""`/metrics/cadvisor`: what the kernel counts for pods and containers, under the names of cAdvisor's series that
dashboards and autoscalers read, with the kubelet's labels (`container`, `id`, `image`, `name`, `namespace`, `pod`).

In: readings of cgroups.  Out: Prometheus' text. Series exist for what runs now and for nothing else, so that their
number is bounded by that of containers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from navarch.node.resources.readings import Interface, Reading


class Counted(NamedTuple):
    """A cgroup with what is known of it. `container` is empty for a pod as a whole, `pod` for what is above pods.
    `network` is that of the pod."""

    cgroup: str
    reading: Reading
    at_ms: int
    container: str = ""
    pod: str = ""
    namespace: str = ""
    image: str = ""
    name: str = ""
    started_s: float = 0.0
    layer_bytes: int | None = None
    network: Sequence[Interface] = ()

    def labels(self, *more: tuple[str, str]) -> str:
        found = [
            ("container", self.container),
            ("id", self.cgroup),
            ("image", self.image),
            ("name", self.name),
            ("namespace", self.namespace),
            ("pod", self.pod),
        ]
        return ",".join(f'{key}="{_escaped(value)}"' for key, value in sorted([*found, *more]))


# Name, type, help, value of a reading, further label.
_TOTAL_CPU: Final = ("cpu", "total")
_S: Final = 1e9
_FAMILIES: Final = (
    ("cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals.", "periods", 1, None),
    ("cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals.",
     "throttled_periods", 1, None),
    ("cpu_cfs_throttled_seconds_total", "counter", "Total time duration the container has been throttled.",
     "throttled_ns", _S, None),
    ("cpu_system_seconds_total", "counter", "Cumulative system cpu time consumed in seconds.", "system_ns", _S, None),
    ("cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", "cpu_ns", _S, _TOTAL_CPU),
    ("cpu_user_seconds_total", "counter", "Cumulative user cpu time consumed in seconds.", "user_ns", _S, None),
    ("memory_cache", "gauge", "Number of bytes of page cache memory.", "cache", 1, None),
    ("memory_failcnt", "counter", "Number of memory usage hits limits", "memory_failures", 1, None),
    ("memory_mapped_file", "gauge", "Size of memory mapped files in bytes.", "mapped", 1, None),
    ("memory_max_usage_bytes", "gauge", "Maximum memory usage recorded in bytes", "memory_most", 1, None),
    ("memory_rss", "gauge", "Size of RSS in bytes.", "rss", 1, None),
    ("memory_swap", "gauge", "Container swap usage in bytes.", "swap", 1, None),
    ("memory_usage_bytes", "gauge",
     "Current memory usage in bytes, including all memory regardless of when it was accessed", "memory", 1, None),
    ("memory_working_set_bytes", "gauge", "Current working set in bytes.", "working_set", 1, None),
    ("oom_events_total", "counter", "Count of out of memory events observed for the container", "oom_kills", 1, None),
    ("processes", "gauge", "Number of processes running inside the container.", "processes", 1, None),
    ("spec_cpu_period", "gauge", "CPU period of the container.", "period_us", 1, None),
    ("spec_cpu_shares", "gauge", "CPU share of the container.", "shares", 1, None),
    ("spec_memory_limit_bytes", "gauge", "Memory limit for the container.", "memory_limit", 1, None),
    ("threads", "gauge", "Number of threads running inside the container", "threads", 1, None),
    ("threads_max", "gauge", "Maximum number of threads allowed inside the container, infinity if value is zero",
     "threads_most", 1, None),
)  # fmt: skip
_NETWORK: Final = ("bytes", "packets", "errors", "packets_dropped")
_NETWORK_NAMES: Final = {
    "receive": "Cumulative count of {} received",
    "transmit": "Cumulative count of {} transmitted",
}


def exposition(counted: Sequence[Counted], *, cpus: int, memory: int, version: str, kernel: str, failed: bool) -> str:
    """The text; `failed`: not all could be read."""
    lines: list[str] = []
    info = f'cadvisorRevision="",cadvisorVersion="",dockerVersion="",kernelVersion="{kernel}",osVersion="{version}"'
    about = "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version"
    lines += _family("cadvisor_version_info", "gauge", f"{about} & cadvisor revision.", [(info, 1, None)])
    for name, kind, about, field, unit, more in _FAMILIES:
        samples = (
            (each.labels(*((more,) if more else ())), _scaled(getattr(each.reading, field), unit), each.at_ms)
            for each in counted
        )
        lines += _family(f"container_{name}", kind, about, samples)
    lines += _odd(counted)
    lines += _networks(counted)
    lines += _family("container_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 "
                     "otherwise", [("", int(failed), None)])  # fmt: skip
    lines += _family("machine_cpu_cores", "gauge", "Number of logical CPU cores.", [("", cpus, None)])
    lines += _family(
        "machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", [("", memory, None)]
    )
    return "\n".join(lines) + "\n"


def _scaled(value: int, unit: float) -> float:
    return value if unit == 1 else value / unit


_Samples = Iterable[tuple[str, float, int | None]]


def _odd(counted: Sequence[Counted]) -> Iterator[str]:
    """Those that not every cgroup has, or that have further labels."""
    failures = (
        (each.labels(("failure_type", kind), ("scope", scope)), value, each.at_ms)
        for each in counted
        for scope in ("container", "hierarchy")
        for kind, value in (("pgfault", each.reading.faults), ("pgmajfault", each.reading.major_faults))
    )
    yield from _family(
        "container_memory_failures_total", "counter", "Cumulative count of memory allocation failures.", failures
    )
    quotas = ((each.labels(), each.reading.quota_us, each.at_ms) for each in counted if each.reading.quota_us)
    yield from _family("container_spec_cpu_quota", "gauge", "CPU quota of the container.", quotas)
    starts = ((each.labels(), each.started_s, each.at_ms) for each in counted if each.started_s)
    yield from _family(
        "container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.", starts
    )
    seen = ((each.labels(), each.at_ms // 1000, each.at_ms) for each in counted)
    yield from _family("container_last_seen", "gauge", "Last time a container was seen by the exporter", seen)
    layers = (
        (each.labels(("device", "")), each.layer_bytes, each.at_ms) for each in counted if each.layer_bytes is not None
    )
    about = "Number of bytes that are consumed by the container on this filesystem."
    yield from _family("container_fs_usage_bytes", "gauge", about, layers)


def _networks(counted: Sequence[Counted]) -> Iterator[str]:
    for direction, about in _NETWORK_NAMES.items():
        for index, what in enumerate(_NETWORK):
            samples = (
                (
                    each.labels(("interface", one.name)),
                    (one.received if direction == "receive" else one.sent)[index],
                    each.at_ms,
                )
                for each in counted
                for one in each.network
            )
            words = about.format(what.replace("_", " "))
            yield from _family(f"container_network_{direction}_{what}_total", "counter", words, samples)


def _family(name: str, kind: str, about: str, samples: _Samples) -> Iterator[str]:
    told = list(samples)
    if not told:
        return
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value, at_ms in told:
        when = "" if at_ms is None else f" {at_ms}"
        yield f"{name}{{{labels}}} {value!r}{when}" if labels else f"{name} {value!r}{when}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
