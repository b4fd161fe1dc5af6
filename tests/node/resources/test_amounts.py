"""Requests and limits in the runtime's terms."""

from __future__ import annotations

import pytest

from navarch.kinds.core.resource_lists import pod_requests, qos_class
from navarch.node.resources.amounts import cpu_quota, cpu_shares, oom_score_adj, pod_totals
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


def test_a_pod_needs_what_its_largest_moment_needs() -> None:
    init = {"name": "i", "resources": {"requests": {"cpu": "3"}}}
    side = {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}
    one = resources({"cpu": "1"})

    assert pod_requests(pod(one, one, initContainers=[side, init])) == {"cpu": 4000}
    assert pod_requests(pod(one, one, one, one, initContainers=[side, init])) == {"cpu": 5000}
    assert pod_totals(pod(resources({}, {"cpu": "1"}), resources())) == (1000, 0, 0)
