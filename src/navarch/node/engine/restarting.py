"""Whether a pod starts over as a whole, by the action RestartAllContainers of a container's restart rules, and what its
status says of that. Pure; `restart_whole.py` does it.
"""

from __future__ import annotations

from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.core.pod_state import WHOLE
from navarch.node import podspec
from navarch.node.engine.observed import ObservedContainer, ObservedPod

RESTARTING: Final = "RestartingAllContainers"
MESSAGE: Final = "The container is removed because RestartAllContainers in place"
CONDITION: Final = "AllContainersRestarting"
# How a container ended that was removed.
REMOVED: Final = {"exitCode": 137, "reason": RESTARTING, "message": MESSAGE, "startedAt": None, "finishedAt": None}
_STARTED: Final = {
    "status": "True",
    "reason": "RestartAllContainersStarted",
    "message": "container exited with restart policy rule",
}
_ENDED: Final = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}


def who_asks(pod: Obj, observed: ObservedPod) -> list[ObservedContainer]:
    """The containers whose end starts the pod over; none mostly."""
    if not podspec.restarts_whole(pod["spec"]):
        return []
    ended = ((one, observed.current(one["name"])) for one in restartable(pod))
    return [
        instance
        for container, instance in ended
        if instance is not None and instance.exited and podspec.restart_rule(container, instance.exit_code) == WHOLE
    ]


def restartable(pod: Obj) -> list[Obj]:
    """The containers that start over with their pod."""
    return [*podspec.init_containers(pod), *podspec.containers(pod)]


def condition(phase: str, *, under_way: bool) -> Obj:
    """What the status says, of a pod that can start over."""
    if phase in _ENDED:
        return {"status": "False", "reason": _ENDED[phase]}
    return dict(_STARTED) if under_way else {"status": "False"}
