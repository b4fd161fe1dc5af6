"""What simulated pods use, and what their kubelets say of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from navarch.api.meta import Obj
from navarch.api.time import format_time
from navarch.apiserver.usage.exposition import read
from navarch.apiserver.usage.points import NodePoints
from navarch.sim.usage import resource_metrics, usage_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def pod(*containers: Obj, age_s: float = 60, **annotations: str) -> Obj:
    state = {"running": {"startedAt": format_time(NOW - timedelta(seconds=age_s))}}
    return {
        "metadata": {
            "name": "web",
            "namespace": "default",
            "annotations": {f"sim.navarch.dev/{name}": value for name, value in annotations.items()},
        },
        "spec": {"containers": list(containers)},
        "status": {"containerStatuses": [{"name": each["name"], "state": state} for each in containers]},
    }


def container(name: str = "main", **requests: str) -> Obj:
    return {"name": name, "resources": {"requests": requests} if requests else {}}


def test_half_of_what_is_requested_is_used_and_little_where_nothing_is() -> None:
    assert usage_of(pod(container(cpu="1", memory="1Gi")), NOW) == {"main": (500_000_000, 512 << 20)}
    assert usage_of(pod(container()), NOW) == {"main": (5_000_000, 16 << 20)}


def test_annotations_say_what_is_used_by_all_containers_or_by_one() -> None:
    found = pod(container("a"), container("b"), **{"cpu-usage": "1", "cpu-usage.b": "250m", "memory-usage": "junk"})

    assert usage_of(found, NOW) == {"a": (10**9, 16 << 20), "b": (250_000_000, 16 << 20)}


def test_what_has_only_just_begun_uses_nothing_yet() -> None:
    assert usage_of(pod(container(), age_s=-5), NOW) == {}
    assert usage_of({**pod(container()), "status": {}}, NOW) == {}


def test_what_a_kubelet_says_leads_to_the_same_figures() -> None:
    web, points = pod(container(cpu="1", memory="1Gi"), age_s=3600), NodePoints()
    for at in (NOW, NOW + timedelta(seconds=15)):
        points.take(read(resource_metrics([web], at), 0))

    used = points.pod("default", "web")

    assert used is not None
    assert (used["main"].cpu_nano, used["main"].memory) == (500_000_000, 512 << 20)
    node = points.node()
    assert node is not None
    assert node.cpu_nano == 500_000_000
