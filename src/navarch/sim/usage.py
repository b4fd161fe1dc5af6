"""What a pod on a simulated node uses.

In: the pod and a moment.  Out: CPU in billionths and memory in bytes, for each container that has been running since
before that moment: what the pod's annotations say, else half of what the container requests, else little. Pure, and the
same wherever it is asked: the API server answers for simulated nodes by it, as do their kubelets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from fractions import Fraction
from typing import Any, Final

from navarch.api import quantity
from navarch.api.meta import Obj, annotations_of
from navarch.api.time import parse_time
from navarch.kinds.core.resource_lists import requests_of
from navarch.node import podspec
from navarch.node.resource_metrics import Sample, exposition
from navarch.sim.behaviour import PREFIX

_IDLE: Final = {"cpu": Fraction(1, 200), "memory": Fraction(16 << 20)}
_NANO: Final = 10**9


def usage_of(pod: Obj, at: datetime) -> dict[str, tuple[int, int]]:
    """By container."""
    annotations = annotations_of(pod)
    running = running_since(pod)
    return {
        container["name"]: (
            int(_amount(container, "cpu", annotations) * _NANO),
            int(_amount(container, "memory", annotations)),
        )
        for container in _containers(pod)
        if (started := running.get(container["name"])) is not None and started <= at
    }


def resource_metrics(pods: Iterable[Obj], now: datetime) -> str:
    """What the kubelet of a simulated node with these pods says: as if they had used what they use ever since."""
    now_ms = int(now.timestamp() * 1000)
    samples = []
    for pod in pods:
        metadata, running = pod["metadata"], running_since(pod)
        for name, (cpu, memory) in usage_of(pod, now).items():
            used_ns = int(cpu * (now - running[name]).total_seconds())
            labels = (name, metadata["namespace"], metadata["name"])
            samples.append(Sample(labels, used_ns, now_ms, memory, now_ms, running[name].timestamp()))
    node = Sample((), sum(each.cpu_ns for each in samples), now_ms, sum(each.memory for each in samples), now_ms)
    return exposition(node, samples)


def running_since(pod: Obj) -> dict[str, datetime]:
    """The containers that run, and since when."""
    status = pod.get("status") or {}
    found: dict[str, datetime] = {}
    for field in ("containerStatuses", "initContainerStatuses"):
        for one in status.get(field) or ():
            started = ((one.get("state") or {}).get("running") or {}).get("startedAt")
            if started:
                found[one["name"]] = parse_time(started)
    return found


def _containers(pod: Obj) -> Iterable[Obj]:
    yield from podspec.containers(pod)
    for container in podspec.init_containers(pod):
        if podspec.is_sidecar(container):
            yield container


def _amount(container: Obj, resource: str, annotations: Mapping[str, str]) -> Fraction:
    name = f"{PREFIX}{resource}-usage"
    stated = _quantity(annotations.get(f"{name}.{container['name']}", annotations.get(name)))
    if stated is not None:
        return stated
    requested = _quantity(requests_of(container).get(resource))
    return requested / 2 if requested else _IDLE[resource]


def _quantity(text: Any) -> Fraction | None:
    """None for what is none; what cannot be read counts as not given."""
    if text is None:
        return None
    try:
        return max(quantity.parse(text), Fraction())
    except ValueError:
        return None
