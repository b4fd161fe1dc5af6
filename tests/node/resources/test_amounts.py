"""Requests and limits in the runtime's terms."""

from __future__ import annotations

import pytest

from navarch.kinds.core.resource_lists import pod_requests, qos_class
from navarch.node.resources.amounts import container_resources, cpu_quota, cpu_shares, oom_score_adj, pod_totals
from tests.node.objects import Obj, pod, resources


@pytest.mark.parametrize(
    ("container", "qos"),
    [
        (resources(), "BestEffort"),
        (resources({"cpu": "1"}), "Burstable"),
        (resources({"cpu": "0"}), "BestEffort"),
        (resources({}, {"cpu": "1", "memory": "1Gi"}), "Guaranteed"),
        (resources({"cpu": "1000m"}, {"cpu": "1", "memory": "1Gi"}), "Guaranteed"),
        (resources({"cpu": "500m"}, {"cpu": "1", "memory": "1Gi"}), "Burstable"),
    ],
)
def test_quality_of_service(container: Obj, qos: str) -> None:
    assert qos_class(pod(container)["spec"]) == qos


def test_shares_quota_and_oom_score() -> None:
    assert (cpu_shares(0), cpu_shares(1), cpu_shares(500), cpu_shares(10**9)) == (2, 2, 512, 262144)
    assert (cpu_quota(0), cpu_quota(1), cpu_quota(500)) == (0, 1000, 50000)
    burstable = resources({"memory": "1Gi"})
    assert oom_score_adj(pod(burstable), burstable, 4 << 30) == 750
    assert oom_score_adj(pod(resources()), resources(), 4 << 30) == 1000


def test_a_container_without_limits_has_those_of_its_pod() -> None:
    bound, free = resources({"cpu": "20m"}, {"memory": "1Gi"}), resources()
    whole = {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "3Gi"}}
    stated, alone = pod(bound, free, resources=whole), pod(bound, free)

    made = [
        container_resources(of, one, memory_capacity=8 << 30, unified=False)
        for of in (stated, alone)
        for one in (bound, free)
    ]

    assert [one.memory_limit_bytes >> 30 for one in made] == [1, 3, 1, 0]
    assert [one.cpu_quota_us for one in made] == [20_000, 20_000, 0, 0]
    assert [one.cpu_shares for one in made] == [20, 204, 20, 2]


def test_what_a_pod_requests_as_a_whole_saves_each_container_from_the_oom_killer() -> None:
    one, other = resources({"memory": "1Gi"}), resources()
    side = {"name": "s", "restartPolicy": "Always"}
    whole = {"requests": {"memory": "2500Mi"}}

    def scores(of: Obj) -> list[int]:
        return [oom_score_adj(of, each, 4 << 30) for each in (*of["spec"]["containers"], *of["spec"]["initContainers"])]

    assert scores(pod(one, other, initContainers=[side], resources=whole)) == [630, 880, 880]
    assert scores(pod(one, initContainers=[side])) == [750, 750], "a sidecar does not go before those it is there for"


def test_a_pod_needs_what_its_largest_moment_needs() -> None:
    init = {"name": "i", "resources": {"requests": {"cpu": "3"}}}
    side = {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}
    one = resources({"cpu": "1"})

    assert pod_requests(pod(one, one, initContainers=[side, init])) == {"cpu": 4000}
    assert pod_requests(pod(one, one, one, one, initContainers=[side, init])) == {"cpu": 5000}
    assert pod_totals(pod(resources({}, {"cpu": "1"}), resources())) == (1000, 0, 0)
