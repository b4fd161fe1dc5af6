"""What `kubectl get pods` shows: readiness, the one word of status, restarts, and the wide columns.

In: a Pod and the time now.  Out: cells. The status word is the first trouble on the way from init containers over
containers to readiness, in Kubernetes' words (`Init:0/1`, `CrashLoopBackOff`, `Completed`, `Terminating` …).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from navarch.api.meta import Obj
from navarch.api.time import human_duration, parse_time
from navarch.kinds.base import AGE, NAME, Column
from navarch.kinds.core.pod_state import ENDED, is_sidecar

_NONE: Final = "<none>"


@dataclass(slots=True)
class _Restarts:
    """How often containers restarted, and when the last one ended."""

    count: int = 0
    last: str = ""

    def add(self, status: Obj) -> None:
        self.count += status.get("restartCount") or 0
        ended = ((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
        # RFC 3339 in UTC sorts as text.
        self.last = max(self.last, ended)


@dataclass(frozen=True, slots=True)
class PodSummary:
    """The cells that are worked out together."""

    ready: int
    total: int
    reason: str
    restarts: int
    last_restart: str


def summarize(pod: Obj) -> PodSummary:
    """A pod's readiness, status word and restarts, as kubectl users know them."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    inits: list[Obj] = spec.get("initContainers") or []
    sidecars = {container["name"] for container in inits if is_sidecar(container)}
    total = len(spec.get("containers") or ()) + len(sidecars)
    conditions = {condition.get("type"): condition for condition in status.get("conditions") or ()}
    reason = status.get("reason") or status.get("phase") or ""
    if (conditions.get("PodScheduled") or {}).get("reason") == "SchedulingGated":
        reason = "SchedulingGated"

    all_restarts, sidecar_restarts = _Restarts(), _Restarts()
    ready, trouble = 0, ""
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        all_restarts.add(container)
        sidecar = container.get("name") in sidecars
        if sidecar:
            sidecar_restarts.add(container)
        terminated = (container.get("state") or {}).get("terminated")
        if terminated and not terminated.get("exitCode"):
            continue
        if sidecar and container.get("started"):
            ready += bool(container.get("ready"))
            continue
        trouble = _init_trouble(container, index, len(inits))
        break

    restarts = all_restarts
    initialized = (conditions.get("Initialized") or {}).get("status") == "True"
    reason = trouble or reason
    if not trouble or initialized:
        restarts = sidecar_restarts
        running = False
        for container in reversed(status.get("containerStatuses") or ()):
            restarts.add(container)
            word = _trouble(container)
            if word:
                reason = word
            elif container.get("ready") and (container.get("state") or {}).get("running") is not None:
                running = True
                ready += 1
        if reason == "Completed" and running:
            is_ready = (conditions.get("Ready") or {}).get("status") == "True"
            reason = "Running" if is_ready else "NotReady"

    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ENDED:
            reason = "Terminating"
    return PodSummary(ready, total, reason, restarts.count, restarts.last)


def _init_trouble(container: Obj, index: int, count: int) -> str:
    state = container.get("state") or {}
    waiting = (state.get("waiting") or {}).get("reason")
    if state.get("terminated"):
        return "Init:" + _exit_word(state["terminated"])
    if waiting and waiting != "PodInitializing":
        return f"Init:{waiting}"
    return f"Init:{index}/{count}"


def _exit_word(terminated: Obj) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _trouble(container: Obj) -> str:
    state = container.get("state") or {}
    waiting = (state.get("waiting") or {}).get("reason")
    if waiting:
        return str(waiting)
    return _exit_word(state["terminated"]) if state.get("terminated") else ""


def _ready_cell(pod: Obj, now: datetime) -> str:
    summary = summarize(pod)
    return f"{summary.ready}/{summary.total}"


def _status_cell(pod: Obj, now: datetime) -> str:
    return summarize(pod).reason


def _restarts_cell(pod: Obj, now: datetime) -> str:
    summary = summarize(pod)
    if summary.restarts and summary.last_restart:
        return f"{summary.restarts} ({human_duration(now - parse_time(summary.last_restart))} ago)"
    return str(summary.restarts)


def _ip_cell(pod: Obj, now: datetime) -> str:
    status = pod.get("status") or {}
    addresses = status.get("podIPs") or ()
    return (addresses[0].get("ip") if addresses else status.get("podIP")) or _NONE


def _gates_cell(pod: Obj, now: datetime) -> str:
    gates = (pod.get("spec") or {}).get("readinessGates") or ()
    if not gates:
        return _NONE
    true = {c["type"] for c in (pod.get("status") or {}).get("conditions") or () if c.get("status") == "True"}
    return f"{sum(gate.get('conditionType') in true for gate in gates)}/{len(gates)}"


POD_COLUMNS: Final[Sequence[Column]] = (
    NAME,
    Column("Ready", _ready_cell, description="How many of the pod's containers are ready, of how many"),
    Column("Status", _status_cell, description="Where the pod is in its life, or what keeps it from getting on"),
    Column("Restarts", _restarts_cell, description="How often containers restarted, and when last"),
    AGE,
    Column("IP", _ip_cell, wide=True, description="The pod's address"),
    Column("Node", ".spec.nodeName", wide=True, none=True, description="The node that the pod is bound to"),
    Column(
        "Nominated Node",
        ".status.nominatedNodeName",
        wide=True,
        none=True,
        description="The node where room is being made for the pod",
    ),
    Column("Readiness Gates", _gates_cell, wide=True, description="How many readiness gates are open, of how many"),
)
