"""Nothing that happens is lost on a pod that waits, whenever it happens."""

from __future__ import annotations

from navarch.scheduler.changes import Change, ClusterEvent
from navarch.scheduler.framework import Plugin
from navarch.scheduler.podinfo import PodInfo, PodParser
from navarch.scheduler.queue import SchedulingQueue

HELP = ClusterEvent(Change.VOLUMES)
REJECTED = frozenset({"Volumes"})


class Volumes(Plugin):
    name = "Volumes"
    changes = frozenset({Change.VOLUMES})


def queue() -> SchedulingQueue:
    return SchedulingQueue(lambda _: [Volumes()], first_backoff_s=0)


def taken(waiting: SchedulingQueue) -> PodInfo:
    """A pod that was just taken from the queue."""
    metadata = {"name": "web", "namespace": "default", "uid": "uid-web"}
    waiting.add(PodParser().parse({"metadata": metadata, "spec": {"containers": [{"image": "web"}]}}))
    pod = waiting.pop()
    assert pod is not None
    return pod


async def test_a_refused_pod_waits_for_what_may_help() -> None:
    waiting = queue()
    pod = taken(waiting)
    waiting.expect(pod.uid)
    waiting.refuse(pod, REJECTED)
    assert waiting.pop() is None

    waiting.happened(ClusterEvent(Change.NAMESPACE))
    assert waiting.pop() is None
    waiting.happened(HELP)

    assert waiting.pop() is pod


async def test_what_happens_between_the_decision_and_the_refusal_counts() -> None:
    waiting = queue()
    pod = taken(waiting)
    waiting.expect(pod.uid)
    waiting.happened(HELP)

    waiting.refuse(pod, REJECTED)

    assert waiting.pop() is pod


async def test_what_happens_while_something_is_found_out_for_a_pod_counts() -> None:
    waiting = queue()
    pod = taken(waiting)
    waiting.expect(pod.uid)
    waiting.happened(HELP)
    waiting.expect(pod.uid)

    waiting.refuse(pod, REJECTED)

    assert waiting.pop() is pod


async def test_what_happens_before_a_pod_is_parked_counts() -> None:
    waiting = queue()
    pod = taken(waiting)
    waiting.expect(pod.uid)
    waiting.happened(HELP)

    waiting.park(pod, REJECTED)

    assert waiting.pop() is pod


async def test_what_happened_before_an_attempt_does_not_count_for_the_next() -> None:
    waiting = queue()
    pod = taken(waiting)
    waiting.expect(pod.uid)
    waiting.happened(HELP)
    waiting.refuse(pod, REJECTED)
    again = waiting.pop()
    assert again is pod

    waiting.expect(again.uid)
    waiting.refuse(again, REJECTED)

    assert waiting.pop() is None
