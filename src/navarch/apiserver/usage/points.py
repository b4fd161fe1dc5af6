"""What one node's kubelet said the last two times, and what was used in between.

In: scrapes, each a set of points: CPU time until then and memory at that moment, of the node and of its containers.
Out: rates. A container that was started between two scrapes has a rate since its start, if that is at least ten
seconds ago; one that was restarted has none until it was seen twice. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final, NamedTuple

from navarch.records import frozen

RESOLUTION_NS: Final = 15 * 10**9
_FRESH_NS: Final = 10 * 10**9


class Point(NamedTuple):
    """CPU time since `started_ns` and memory, at a moment; times in nanoseconds since 1970."""

    at_ns: int
    cpu_ns: int
    memory: int
    started_ns: int = 0


class Usage(NamedTuple):
    """CPU in billionths, memory in bytes; on average over `window_ns` until `at_ns`."""

    cpu_nano: int
    memory: int
    at_ns: int
    window_ns: int


# By namespace and name of the pod, and by container.
Pods = Mapping[tuple[str, str], Mapping[str, Point]]


@frozen
class Scrape:
    """What a kubelet said."""

    node: Point | None = None
    pods: Pods = field(default_factory=dict)


class NodePoints:
    """Two scrapes of one node."""

    def __init__(self) -> None:
        self._last = Scrape()
        self._before = Scrape()

    def take(self, scrape: Scrape) -> None:
        """A new scrape; what said nothing new leaves what there was."""
        before: dict[tuple[str, str], dict[str, Point]] = {}
        for pod, points in scrape.pods.items():
            last, earlier = self._last.pods.get(pod, {}), self._before.pods.get(pod, {})
            found = {
                name: kept
                for name, point in points.items()
                if (kept := _earlier(point, last.get(name), earlier.get(name))) is not None
            }
            if found:
                before[pod] = found
        node = None
        if scrape.node is not None:
            node = _earlier(scrape.node, self._last.node, self._before.node)
        self._before, self._last = Scrape(node, before), scrape

    def node(self) -> Usage | None:
        """What the node uses; None where that is not known yet."""
        last, before = self._last.node, self._before.node
        return None if last is None or before is None else _between(before, last)

    def pod(self, namespace: str, name: str) -> dict[str, Usage] | None:
        """What each container of a pod uses; None where it is not known of all."""
        last, before = self._last.pods.get((namespace, name)), self._before.pods.get((namespace, name), {})
        if not last or any(container not in before for container in last):
            return None
        used = {container: _between(before[container], point) for container, point in last.items()}
        return {container: usage for container, usage in used.items() if usage is not None}


def _earlier(point: Point, last: Point | None, before: Point | None) -> Point | None:
    """Since when what is used until `point` can be told; None where it cannot."""
    age = point.at_ns - point.started_ns
    if point.started_ns and _FRESH_NS <= age < RESOLUTION_NS:
        return Point(point.started_ns, 0, 0, point.started_ns)
    if last is None or point.started_ns >= last.at_ns:
        return None
    if point.at_ns > last.at_ns:
        return last
    return before if before is not None and before.at_ns < point.at_ns else None


def _between(before: Point, last: Point) -> Usage | None:
    """None where the clock or the counter ran backwards."""
    window = last.at_ns - before.at_ns
    if window <= 0 or last.cpu_ns < before.cpu_ns:
        return None
    return Usage((last.cpu_ns - before.cpu_ns) * 10**9 // window, last.memory, last.at_ns, window)
