"""The API server's own numbers, in Prometheus' text format, under the names that Kubernetes gives them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from navarch.kinds.base import Kind

_BUCKETS_S = (
    0.005,
    0.025,
    0.05,
    0.1,
    0.2,
    0.4,
    0.6,
    0.8,
    1.0,
    1.25,
    1.5,
    2.0,
    3.0,
    4.0,
    5.0,
    6.0,
    8.0,
    10.0,
    15.0,
    20.0,
)

# Group, version, resource and subresource of what is served; all empty for what is not.
ServedLabel = tuple[str, str, str, str]
NOTHING_SERVED: Final[ServedLabel] = ("", "", "", "")
_VERBS: Final = {
    verb: verb.upper()
    for verb in ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "connect")
}
_OTHER_VERB: Final = "other"


class _Requests:
    """Those of one verb and resource: how many had which code, and how long they took, but for those that are long by
    nature (`counts` by bucket)."""

    __slots__ = ("codes", "counts", "total_s")

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.counts = [0] * (len(_BUCKETS_S) + 1)
        self.total_s = 0.0


class Metrics:
    """Counted on the event loop, without locks. Labels come from what is served, never from what a client sent: their
    number is bounded by that of the served resources, their verbs and the codes of answers."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, ServedLabel], _Requests] = {}
        self._running: dict[str, int] = {"mutating": 0, "readOnly": 0}
        self.watches = 0
        self.watch_events: dict[tuple[str, str, str], int] = {}
        self._chore_failures: dict[str, int] = {}
        # The numbers of parts that count for themselves.
        self.parts: list[Callable[[], Iterable[str]]] = []

    def request(self, verb: str, served: ServedLabel, code: int, seconds: float | None) -> None:
        """One finished request; `seconds` None for those that are long by nature (WATCH, CONNECT)."""
        key = (_VERBS.get(verb, _OTHER_VERB), served)
        known = self._requests.get(key)
        if known is None:
            known = self._requests[key] = _Requests()
        known.codes[code] = known.codes.get(code, 0) + 1
        if seconds is not None:
            known.counts[bisect_left(_BUCKETS_S, seconds)] += 1
            known.total_s += seconds

    def sent_events(self, group: str, version: str, kind: str, count: int) -> None:
        key = (group, version, kind)
        self.watch_events[key] = self.watch_events.get(key, 0) + count

    def forget_all_but(self, served: Iterable[Kind]) -> None:
        """Resources come and go for as long as a server lives: of those that are gone nothing is told any more."""
        kinds = [kind.resource for kind in served]
        left = {NOTHING_SERVED[:3], *((kind.group, kind.version, kind.plural) for kind in kinds)}
        self._requests = {key: found for key, found in self._requests.items() if key[1][:3] in left}
        left = {(kind.group, kind.version, kind.kind) for kind in kinds}
        self.watch_events = {key: count for key, count in self.watch_events.items() if key in left}

    def chore_failed(self, chore: str) -> None:
        self._chore_failures[chore] = self._chore_failures.get(chore, 0) + 1

    def render(self, objects: Iterable[tuple[str, int]], revision: int) -> str:
        """`objects` are the counts of stored objects by resource (`pods`, `deployments.apps`)."""
        lines: list[str] = []
        lines += _family("apiserver_request_total", "counter", "Counter of apiserver requests.")
        for (verb, (group, version, resource, subresource)), requests in self._requests.items():
            labels = {
                "dry_run": "",
                "group": group,
                "resource": resource,
                "scope": "",
                "subresource": subresource,
                "verb": verb,
                "version": version,
            }
            for code, count in requests.codes.items():
                lines.append(f"apiserver_request_total{_show({'code': str(code), **labels})} {count}")
        lines += _family("apiserver_request_duration_seconds", "histogram", "Response latency distribution in seconds.")
        for (verb, (group, version, resource, subresource)), requests in self._requests.items():
            if not any(requests.counts):
                continue
            labels = {
                "group": group,
                "resource": resource,
                "subresource": subresource,
                "verb": verb,
                "version": version,
            }
            lines += _histogram("apiserver_request_duration_seconds", labels, requests)
        lines += _family("apiserver_storage_objects", "gauge", "Number of stored objects, by resource.")
        lines += [f"apiserver_storage_objects{_show({'resource': resource})} {count}" for resource, count in objects]
        lines += _family("apiserver_longrunning_requests", "gauge", "Running watches.")
        lines.append(f'apiserver_longrunning_requests{{verb="WATCH"}} {self.watches}')
        lines += _family("apiserver_watch_events_total", "counter", "Number of events sent to watch clients.")
        for (group, version, kind), count in self.watch_events.items():
            labels = {"group": group, "kind": kind, "version": version}
            lines.append(f"apiserver_watch_events_total{_show(labels)} {count}")
        lines += _family("navarch_store_revision", "gauge", "The newest revision that the watch caches have.")
        lines.append(f"navarch_store_revision {revision}")
        lines += _family("navarch_housekeeping_failures_total", "counter", "Failed turns of housekeeping, by chore.")
        for chore, count in self._chore_failures.items():
            lines.append(f"navarch_housekeeping_failures_total{_show({'chore': chore})} {count}")
        for part in self.parts:
            lines += part()
        return "\n".join(lines) + "\n"


def _family(name: str, type_: str, help_: str) -> list[str]:
    return [f"# HELP {name} {help_}", f"# TYPE {name} {type_}"]


def _show(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    """A label's value as the text format has it."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _histogram(name: str, labels: dict[str, str], requests: _Requests) -> Iterator[str]:
    running = 0
    for bound, count in zip((*(f"{bound:g}" for bound in _BUCKETS_S), "+Inf"), requests.counts, strict=True):
        running += count
        yield f"{name}_bucket{_show({**labels, 'le': bound})} {running}"
    yield f"{name}_sum{_show(labels)} {requests.total_s:g}"
    yield f"{name}_count{_show(labels)} {running}"
