"""Which pods a controller gives up first."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from navarch.api.meta import Obj, name_of
from navarch.api.time import format_time, parse_time
from navarch.controllers.pods import deletion_cost, deletion_order, removal_order

_NOW = parse_time("2026-01-01T12:00:00Z")


def pod(name: str, ready_s: float | None = 3600, created_s: float = 7200, node: str = "n1", **more: Any) -> Obj:
    """A running pod that has been ready for `ready_s` seconds, or is not."""
    status: Obj = {"phase": more.pop("phase", "Running")}
    if ready_s is not None:
        status["conditions"] = [{"type": "Ready", "status": "True", "lastTransitionTime": _ago(ready_s)}]
    status["containerStatuses"] = [{"name": "main", "restartCount": more.pop("restarts", 0)}]
    status["initContainerStatuses"] = [{"name": "beside", "restartCount": more.pop("beside", 0)}]
    metadata = {"name": name, "uid": name, "creationTimestamp": _ago(created_s)}
    if "cost" in more:
        metadata["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": more.pop("cost")}
    spec = {"initContainers": [{"name": "beside", "restartPolicy": "Always"}]} | ({"nodeName": node} if node else {})
    return {"metadata": metadata, "spec": spec, "status": status}


def _ago(seconds: float) -> str:
    return format_time(_NOW - timedelta(seconds=seconds))


def order(*pods: Obj, related: dict[str, int] | None = None, now: datetime = _NOW) -> list[str]:
    counts = related or {}
    found = [name_of(each) for each in deletion_order(pods, now, lambda node: counts.get(node, 0))]
    assert found == [name_of(each) for each in deletion_order(pods[::-1], now, lambda node: counts.get(node, 0))]
    return found


def test_those_that_got_least_far_go_first() -> None:
    pods = [
        pod("ready"),
        pod("unready", ready_s=None),
        pod("unknown", phase="Unknown"),
        pod("pending", phase="Pending"),
        pod("nowhere", node="", phase="Pending", ready_s=None),
    ]

    assert order(*pods) == ["nowhere", "pending", "unknown", "unready", "ready"]


def test_a_lower_cost_and_more_of_its_kind_beside_it_come_before_age() -> None:
    assert order(pod("dear", cost="5"), pod("cheap", cost="-5", ready_s=9000)) == ["cheap", "dear"]
    crowded = [pod("alone", node="n2"), pod("crowded", node="n1", ready_s=9000)]
    assert order(*crowded, related={"n1": 3, "n2": 1}) == ["crowded", "alone"]
    # Of pods that are not ready as well.
    unready = [pod("alone", None, node="n2"), pod("crowded", None, node="n1")]
    assert order(*unready, related={"n1": 3, "n2": 1}) == ["crowded", "alone"]


def test_ages_decide_by_powers_of_two_and_near_equals_by_uid() -> None:
    # 2³⁰ nanoseconds are 1.07 seconds: one second is below, two are above.
    assert order(pod("old", 2), pod("young", 1)) == ["young", "old"]
    # Between 2⁴¹ and 2⁴² (2199 and 4398 seconds): whoever has the smaller uid, whatever else tells them apart.
    assert order(pod("b", 2300), pod("a", 4300, restarts=9)) == ["a", "b"]
    assert order(pod("b", 2100), pod("a", 4300)) == ["b", "a"]


def test_restarts_decide_between_pods_that_became_ready_together() -> None:
    assert order(pod("steady"), pod("shaky", restarts=2)) == ["shaky", "steady"]
    assert order(pod("steady"), pod("shaky", beside=2)) == ["shaky", "steady"], "its sidecar"
    assert order(pod("steady", restarts=1), pod("shaky", beside=2)) == ["steady", "shaky"]
    assert order(pod("old", None, 9000), pod("young", None, 100)) == ["young", "old"]


@pytest.mark.parametrize(
    ("text", "cost"), [("7", 7), ("-7", -7), ("0", 0), ("+7", 0), ("07", 0), ("7.5", 0), ("99999999999", 0), ("", 0)]
)
def test_a_cost_is_what_kubernetes_takes_for_a_number(text: str, cost: int) -> None:
    assert deletion_cost(pod("web", cost=text)) == cost


def test_a_job_gives_up_the_youngest_whatever_it_costs() -> None:
    pods = [pod("b", 2300, cost="-9"), pod("a", 4300), pod("c", 2299, cost="9"), pod("d", None)]

    assert [name_of(each) for each in removal_order(pods)] == ["d", "c", "b", "a"]
