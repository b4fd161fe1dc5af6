"""Rolling update of a DaemonSet: which old pods to end, or which nodes to give a new pod beside the old. Pure.

Invariant: with `maxUnavailable` at most so many nodes are without an available pod because of the update; with
`maxSurge` the old pod goes only when the new one on its node is available.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime

from navarch.api.meta import Obj, is_deleting, labels_of
from navarch.controllers.pods import created_at, int_or_percent, is_available
from navarch.records import mutable

HASH_LABEL = "controller-revision-hash"


@mutable
class Step:
    delete: list[Obj] = field(default_factory=list)
    create_on: list[str] = field(default_factory=list)


def limits(daemon_set: Obj, desired: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as numbers of nodes."""
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    surge = int_or_percent(rolling.get("maxSurge", 0), desired, round_up=True)
    unavailable = int_or_percent(rolling.get("maxUnavailable", 1), desired, round_up=True)
    if desired and surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, unavailable


def next_step(
    daemon_set: Obj, pods_by_node: Mapping[str, Sequence[Obj]], desired: int, digest: str, now: datetime
) -> Step:
    """`pods_by_node` has the nodes that should have a pod, also those that have none."""
    surge, unavailable = limits(daemon_set, desired)
    min_ready_s = int(daemon_set["spec"].get("minReadySeconds") or 0)

    def available(pod: Obj) -> bool:
        return is_available(pod, min_ready_s, now)

    step = Step()
    waiting: list[Obj] = []
    nodes: list[str] = []
    down = surging = 0
    for node, pods in pods_by_node.items():
        new, old = _newest(pods, digest)
        if surge:
            if new is None and old is not None:
                # A pod that does not serve anyway is replaced without counting.
                (step.create_on if not available(old) else nodes).append(node)
            elif new is not None and old is not None:
                if available(new):
                    step.delete.append(old)
                else:
                    surging += 1
            continue
        if (new is None) == (old is None):
            down += 1
        elif new is not None:
            down += not available(new)
        elif old is not None and not available(old):
            step.delete.append(old)
            down += 1
        elif old is not None:
            waiting.append(old)
    if surge:
        step.create_on += nodes[: max(surge - surging, 0)]
    else:
        step.delete += waiting[: max(unavailable - down, 0)]
    return step


def _newest(pods: Sequence[Obj], digest: str) -> tuple[Obj | None, Obj | None]:
    new: Obj | None = None
    old: Obj | None = None
    for pod in sorted(pods, key=created_at):
        if is_deleting(pod):
            continue
        if labels_of(pod).get(HASH_LABEL) == digest:
            new = pod
        else:
            old = pod
    return new, old
