"""`/metrics/resource`: what a node and its containers use, in Prometheus' text form, under Kubernetes' names.

In: CPU time and memory with their times.  Out: the text, in which each sample says when it was taken, so that whoever
reads it can tell a rate. Real and simulated kubelets write it alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple


class Sample(NamedTuple):
    """Of a container, whose name, namespace and pod are its `labels`, or, without, of the node. Times are in
    milliseconds since 1970, `started_s` in seconds."""

    labels: tuple[str, ...]
    cpu_ns: int
    cpu_at_ms: int
    memory: int
    memory_at_ms: int
    started_s: float = 0.0


_CPU: Final = "cpu_usage_seconds_total"
_MEMORY: Final = "memory_working_set_bytes"


def exposition(node: Sample, containers: Sequence[Sample], *, failed: bool = False) -> str:
    """`failed`: there are no containers because nobody could say."""
    lines: list[str] = []
    pods = _by_pod(containers)
    for kind, samples in (("container", containers), ("node", [node]), ("pod", pods)):
        lines += _family(
            f"{kind}_{_CPU}",
            "counter",
            f"Cumulative cpu time consumed by the {kind} in core-seconds",
            (f"{_labelled(each)} {each.cpu_ns / 1e9!r} {each.cpu_at_ms}" for each in samples),
        )
        lines += _family(
            f"{kind}_{_MEMORY}",
            "gauge",
            f"Current working set of the {kind} in bytes",
            (f"{_labelled(each)} {each.memory} {each.memory_at_ms}" for each in samples),
        )
    lines += _family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
        (f"{_labelled(each)} {each.started_s!r}" for each in containers if each.started_s),
    )
    error = "1 if there was an error while getting container metrics, 0 otherwise"
    lines += _family("resource_scrape_error", "gauge", error, [f" {int(failed)}"])
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, help: str, samples: Iterable[str]) -> Iterator[str]:
    told = list(samples)
    if told:
        yield f"# HELP {name} [STABLE] {help}"
        yield f"# TYPE {name} {kind}"
        yield from (name + each for each in told)


def _labelled(sample: Sample) -> str:
    if not sample.labels:
        return ""
    names = ("container", "namespace", "pod")[-len(sample.labels) :]
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(names, sample.labels, strict=True)) + "}"


def _by_pod(containers: Iterable[Sample]) -> list[Sample]:
    """The containers of each pod together."""
    found: dict[tuple[str, ...], Sample] = {}
    for each in containers:
        pod = each.labels[1:]
        sum_ = found.get(pod, Sample(pod, 0, 0, 0, 0))
        found[pod] = Sample(
            pod,
            sum_.cpu_ns + each.cpu_ns,
            max(sum_.cpu_at_ms, each.cpu_at_ms),
            sum_.memory + each.memory,
            max(sum_.memory_at_ms, each.memory_at_ms),
        )
    return list(found.values())
