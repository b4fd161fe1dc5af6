"""The simulated end of a pod's life: what a runtime would show of it, as a function of what it does and of time.

In: the pod, its behaviour, its address, the time. Out: an `ObservedPod`, from which the kubelet's own `pod_status`
makes the status, and in how many seconds it changes by itself. Pure: a node that is restarted computes the same
again from the pod's `startTime`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from navarch.api.meta import Obj
from navarch.api.time import parse_time
from navarch.node import podspec
from navarch.node.backoff import go_duration
from navarch.node.engine.observed import ObservedContainer, ObservedPod
from navarch.node.engine.plan import ContainerMemory
from navarch.node.engine.status import StatusInputs, pod_status
from navarch.node.runtime.base import RESTART_COUNT, ContainerStatus, Sandbox, State
from navarch.records import frozen
from navarch.sim.behaviour import Behaviour

RUNTIME: Final = "simulated"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NO_MESSAGES: Final[Mapping[str, str]] = {}
_FIRST_BACKOFF_S = 10.0
_LAST_BACKOFF_S = 300.0
_RESET_AFTER_S = 600.0


@frozen
class Moment:
    """Where a pod's containers are in their lives. `state` is waiting, running, backoff or done."""

    state: str
    restarts: int
    started: datetime | None
    ended: datetime | None
    next_s: float | None
    """When this changes by itself, in seconds from now."""


def moment_of(restart_policy: str, does: Behaviour, accepted: datetime, now: datetime) -> Moment:
    """Follow the containers from the pod's acceptance to `now` through runs, exits and crash back-off."""
    started = accepted + timedelta(seconds=does.start_s)
    if does.waiting_reason:
        return Moment("waiting", 0, None, None, None)
    if now < started:
        return Moment("waiting", 0, None, None, (started - now).total_seconds())
    if does.run_s is None:
        return Moment("running", 0, started, None, None)
    run = timedelta(seconds=does.run_s)
    restarts_for_good = restart_policy == "Always" or (restart_policy == "OnFailure" and does.exit_code != 0)
    restarts, last_end, backoff_s = 0, None, 0.0
    while True:
        ended = started + run
        if now < ended:
            return Moment("running", restarts, started, last_end, (ended - now).total_seconds())
        if not restarts_for_good:
            return Moment("done", restarts, started, ended, None)
        # A container that ran for long enough starts over with the back-off.
        if does.run_s >= _RESET_AFTER_S:
            backoff_s = 0.0
        again = ended + timedelta(seconds=backoff_s)
        if now < again:
            return Moment("backoff", restarts, started, ended, (again - now).total_seconds())
        backoff_s = min(max(backoff_s * 2, _FIRST_BACKOFF_S), _LAST_BACKOFF_S)
        restarts, last_end = restarts + 1, ended
        # Exits that follow each other without a pause would make this loop endless.
        started = max(again, ended + timedelta(milliseconds=1))


def status_of(
    pod: Obj, does: Behaviour, pod_ips: Sequence[str], host_ips: Sequence[str], now: datetime
) -> tuple[Obj, float | None]:
    """The status that the node reports, and in how many seconds to look again."""
    spec, current = pod["spec"], pod.get("status") or {}
    accepted = parse_time(current["startTime"]) if current.get("startTime") else now
    deadline_s = spec.get("activeDeadlineSeconds")
    expires_s = deadline_s - (now - accepted).total_seconds() if deadline_s else None
    moment = moment_of(spec.get("restartPolicy") or "Always", does, accepted, now)
    if expires_s is not None and expires_s <= 0 and moment.state != "done":
        killed = Moment("done", moment.restarts, moment.started or now, now, None)
        failure = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        return _status(pod, does, killed, pod_ips, host_ips, now, exit_code=137, failure=failure), None
    ready, ready_in_s = _readiness(does, moment, now)
    status = _status(pod, does, moment, pod_ips, host_ips, now, exit_code=does.exit_code, ready=ready)
    times = [time_s for time_s in (moment.next_s, ready_in_s, expires_s) if time_s is not None]
    return status, min(times, default=None)


def shows(current: object, wanted: object) -> bool:
    """Whether what the API server has says all that is wanted; it leaves out what is empty and adds what is its own."""
    if isinstance(wanted, dict):
        held = current if isinstance(current, dict) else {}
        return all(shows(held.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        listed = current if isinstance(current, list) else []
        return len(listed) == len(wanted) and all(map(shows, listed, wanted))
    return current == wanted or (not current and not wanted)


def stopped_status(pod: Obj, does: Behaviour, host_ips: Sequence[str], now: datetime) -> Obj:
    """What is left to report of a pod that was told to stop: containers ended by SIGTERM, exit code 143."""
    current = pod.get("status") or {}
    started = parse_time(current["startTime"]) if current.get("startTime") else now
    ended = Moment("done", 0, started, now, None)
    pod_ips = [each["ip"] for each in current.get("podIPs") or ()]
    return _status(pod, does, ended, pod_ips, host_ips, now, exit_code=143)


def _readiness(does: Behaviour, moment: Moment, now: datetime) -> tuple[bool, float | None]:
    if moment.state != "running" or moment.started is None:
        return False, None
    wait_s = does.ready_s - (now - moment.started).total_seconds()
    if wait_s > 0:
        return False, wait_s
    return does.ready, None


def _status(
    pod: Obj,
    does: Behaviour,
    moment: Moment,
    pod_ips: Sequence[str],
    host_ips: Sequence[str],
    now: datetime,
    *,
    exit_code: int,
    ready: bool = False,
    failure: tuple[str, str] = ("", ""),
) -> Obj:
    seen, memory = observed(pod, does, moment, pod_ips, exit_code=exit_code, ready=ready)
    return pod_status(
        StatusInputs(
            pod=pod,
            observed=seen,
            memory=memory,
            messages=_NO_MESSAGES,
            host_ips=host_ips,
            now=now,
            ending=moment.state == "done",
            failure=failure,
            runtime=RUNTIME,
        )
    )


def observed(
    pod: Obj, does: Behaviour, moment: Moment, pod_ips: Sequence[str], *, exit_code: int, ready: bool
) -> tuple[ObservedPod, dict[str, ContainerMemory]]:
    """What a runtime would show of the pod's sandbox and containers, and what a kubelet would know beside it."""
    memory: dict[str, ContainerMemory] = {}
    containers: dict[str, tuple[ObservedContainer, ...]] = {}
    for container in podspec.containers(pod):
        name = container["name"]
        instances = _instances(pod, container, moment, exit_code)
        containers[name] = instances
        memory[name] = _remembered(pod, name, does, moment, instances, ready)
    for container in podspec.init_containers(pod):
        name = container["name"]
        containers[name] = _init_instances(pod, container, moment)
        for instance in containers[name]:
            memory[name] = ContainerMemory(instance.id, instance.running, instance.running)
    # A pod whose image cannot be had has its sandbox; one that is still on its way has none.
    made = moment.state != "waiting" or bool(does.waiting_reason)
    if not made:
        return ObservedPod((), containers), memory
    sandbox = Sandbox(pod["metadata"].get("uid", ""), ready=moment.state != "done", ips=tuple(pod_ips))
    return ObservedPod((sandbox,), containers), memory


def _remembered(
    pod: Obj, name: str, does: Behaviour, moment: Moment, instances: Sequence[ObservedContainer], ready: bool
) -> ContainerMemory:
    if moment.state == "waiting":
        return ContainerMemory(waiting_reason=does.waiting_reason or "ContainerCreating")
    if moment.state == "backoff":
        wait_s = min(_FIRST_BACKOFF_S * 2 ** max(moment.restarts - 1, 0), _LAST_BACKOFF_S)
        delay = go_duration(timedelta(seconds=wait_s))
        text = f"back-off {delay} restarting failed container={name} pod={podspec.quoted(pod)}"
        return ContainerMemory(waiting_reason="CrashLoopBackOff", waiting_message=text)
    return ContainerMemory(instances[0].id, ready, started=moment.state == "running")


def _instances(pod: Obj, container: Obj, moment: Moment, exit_code: int) -> tuple[ObservedContainer, ...]:
    """The container's newest instance, and the one before it where that is what ended last."""
    if moment.started is None:
        return ()
    if moment.state == "running":
        running = _instance(pod, container, moment.restarts, State.RUNNING, moment.started)
        if moment.ended is None:
            return (running,)
        # When the run before began is nobody's concern any more.
        ended = _instance(pod, container, moment.restarts - 1, State.EXITED, moment.ended, moment.ended, exit_code)
        return (running, ended)
    return (_instance(pod, container, moment.restarts, State.EXITED, moment.started, moment.ended, exit_code),)


def _init_instances(pod: Obj, container: Obj, moment: Moment) -> tuple[ObservedContainer, ...]:
    """Init containers take no time; sidecars run as long as the pod does."""
    if moment.started is None:
        return ()
    if not podspec.is_sidecar(container):
        return (_instance(pod, container, 0, State.EXITED, moment.started, moment.started),)
    if moment.state == "done":
        return (_instance(pod, container, 0, State.EXITED, moment.started, moment.ended),)
    return (_instance(pod, container, 0, State.RUNNING, moment.started),)


def _instance(
    pod: Obj,
    container: Obj,
    attempt: int,
    state: State,
    started: datetime,
    ended: datetime | None = None,
    exit_code: int = 0,
) -> ObservedContainer:
    uid, image = pod["metadata"].get("uid", ""), container.get("image", "")
    started_ns = _nanoseconds(started)
    status = ContainerStatus(
        id=_digest(uid, container["name"], str(attempt)),
        name=container["name"],
        attempt=attempt,
        state=state,
        created_at_ns=started_ns,
        started_at_ns=started_ns,
        finished_at_ns=_nanoseconds(ended) if ended is not None else 0,
        exit_code=exit_code,
        image=image,
        image_ref=_image_ref(image),
        annotations={RESTART_COUNT: str(attempt)},
    )
    return ObservedContainer(uid, status)


def _nanoseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND * 1000


@lru_cache(maxsize=1024)
def _image_ref(image: str) -> str:
    return f"{image.split('@')[0]}@sha256:{_digest(image)}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
