"""A kubelet's `/metrics/resource`, in Prometheus' text form.

In: the text, and when it was asked for.  Out: a `Scrape`. What is not about CPU time, memory or start of the node or of
a container is passed over, as is a line that cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from navarch.apiserver.usage.points import Point, Scrape

_LINE: Final = re.compile(
    r"(node_cpu_usage_seconds_total|node_memory_working_set_bytes|container_cpu_usage_seconds_total"
    r"|container_memory_working_set_bytes|container_start_time_seconds)(?:\{(.*)\})?\s+(\S+)(?:\s+(-?\d+))?\s*",
    re.ASCII,
)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"', re.ASCII)
_CPU: Final = "cpu_usage_seconds_total"
_MEMORY: Final = "memory_working_set_bytes"
_START: Final = "start_time_seconds"
_NANO: Final = 10**9


class _Found:
    """What is known of one container so far."""

    __slots__ = ("at_ns", "values")

    def __init__(self) -> None:
        self.at_ns = 0
        self.values: dict[str, float] = {}

    def point(self, asked_ns: int) -> Point | None:
        cpu, memory = self.values.get(_CPU), self.values.get(_MEMORY)
        if not cpu or not memory:
            # A container that has ended, or has only just begun, is told with zeroes.
            return None
        started = int(self.values.get(_START, 0.0) * _NANO)
        return Point(self.at_ns or asked_ns, round(cpu * _NANO), int(memory), started)


def read(text: str, asked_ns: int) -> Scrape:
    """`asked_ns` is the moment of samples that do not say theirs."""
    node = _Found()
    containers: dict[tuple[str, str], dict[str, _Found]] = {}
    for name, labels, value, stamp_ns in _samples(text):
        kind, _, measure = name.partition("_")
        if kind == "node":
            found = node
        else:
            pod = (labels.get("namespace", ""), labels.get("pod", ""))
            found = containers.setdefault(pod, {}).setdefault(labels.get("container", ""), _Found())
        found.values[measure] = value
        if measure == _CPU:
            found.at_ns = stamp_ns
    pods: dict[tuple[str, str], dict[str, Point]] = {}
    for pod, named in containers.items():
        points = {name: point for name, each in named.items() if (point := each.point(asked_ns)) is not None}
        # A pod of which one container says nothing is not added up from the others.
        if points and len(points) == len(named):
            pods[pod] = points
    return Scrape(node.point(asked_ns), pods)


def _samples(text: str) -> Iterator[tuple[str, Mapping[str, str], float, int]]:
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        name, labels, value, stamp = match.groups()
        try:
            number = float(value)
        except ValueError:
            continue
        if 0 <= number < 2**63:
            yield name, dict(_LABEL.findall(labels or "")), number, int(stamp or 0) * 1_000_000
