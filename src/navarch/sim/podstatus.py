"""The simulated end of a pod's life: what a runtime would show of it, as a function of what it does and of time.

In: the pod, its behaviour, its address, the time. Out: an `ObservedPod`, from which the kubelet's own `pod_status`
makes the status, and in how many seconds it changes by itself. Pure: a node that is restarted computes the same
again from the pod's `startTime`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from navarch.api.meta import Obj
from navarch.api.time import parse_time
from navarch.kinds.core.pod_state import WHOLE
from navarch.node import podspec
from navarch.node.backoff import go_duration
from navarch.node.engine.admission import Refusal
from navarch.node.engine.observed import ObservedContainer, ObservedPod
from navarch.node.engine.plan import ContainerMemory
from navarch.node.engine.restarting import restartable
from navarch.node.engine.status import StatusInputs, pod_status
from navarch.node.runtime.base import RESTART_COUNT, ContainerStatus, Sandbox, State
from navarch.records import frozen
from navarch.sim.behaviour import Behaviour

RUNTIME: Final = "simulated"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NO_MESSAGES: Final[Mapping[str, str]] = {}
_NOBODY: Final[Mapping[str, int]] = {}
_FIRST_BACKOFF_S = 10.0
_LAST_BACKOFF_S = 300.0
_RESET_AFTER_S = 600.0


@frozen
class Moment:
    """Where a container is in its life. `state` is waiting, running, backoff or done."""

    state: str
    restarts: int
    started: datetime | None
    ended: datetime | None
    next_s: float | None
    """When this changes by itself, in seconds from now."""
    exit_code: int = 0
    """With which it ended last."""


def moment_of(does: Behaviour, accepted: datetime, now: datetime, *, again: bool) -> Moment:
    """Follow a container from its pod's acceptance to `now` through runs, exits and crash back-off; `again` says
    whether it is restarted each time."""
    started = accepted + timedelta(seconds=does.start_s)
    if does.waiting_reason:
        return Moment("waiting", 0, None, None, None)
    if now < started:
        return Moment("waiting", 0, None, None, (started - now).total_seconds())
    if does.run_s is None:
        return Moment("running", 0, started, None, None)
    run, code = timedelta(seconds=does.run_s), does.exit_code
    restarts, last_end, backoff_s = 0, None, 0.0
    while True:
        ended = started + run
        if now < ended:
            return Moment("running", restarts, started, last_end, (ended - now).total_seconds(), code)
        if not again:
            return Moment("done", restarts, started, ended, None, code)
        # A container that ran for long enough starts over with the back-off.
        if does.run_s >= _RESET_AFTER_S:
            backoff_s = 0.0
        next_start = ended + timedelta(seconds=backoff_s)
        if now < next_start:
            return Moment("backoff", restarts, started, ended, (next_start - now).total_seconds(), code)
        backoff_s = min(max(backoff_s * 2, _FIRST_BACKOFF_S), _LAST_BACKOFF_S)
        restarts, last_end = restarts + 1, ended
        # Exits that follow each other without a pause would make this loop endless.
        started = max(next_start, ended + timedelta(milliseconds=1))


@frozen
class Life:
    """Where the containers of a pod are in theirs, by name. `whole` says that they start over together, init containers
    too, by a restart rule; `began` when the first of them ran."""

    moments: Mapping[str, Moment]
    whole: bool
    began: datetime | None

    @property
    def ended(self) -> bool:
        return all(moment.state == "done" for moment in self.moments.values())

    def killed(self, now: datetime, exit_code: int) -> Life:
        """Nothing of it runs on."""

        def end(moment: Moment) -> Moment:
            if moment.state == "done":
                return moment
            if moment.state == "backoff":
                return replace(moment, state="done", next_s=None)
            started = moment.started or now
            return Moment("done", moment.restarts, started, now, None, exit_code)

        ended = {name: end(moment) for name, moment in self.moments.items()}
        return Life(ended, self.whole, self.began or now)


def life_of(pod: Obj, does: Behaviour, accepted: datetime, now: datetime) -> Life:
    """The pod's containers do the same; what comes of that their own restart policies and rules say, then the pod's."""
    containers = podspec.containers(pod)
    whole = does.run_s is not None and any(podspec.restart_rule(one, does.exit_code) == WHOLE for one in containers)
    moments = {
        container["name"]: moment_of(
            does, accepted, now, again=whole or podspec.should_restart(pod, container, does.exit_code)
        )
        for container in containers
    }
    runs = any(moment.started is not None for moment in moments.values())
    return Life(moments, whole, accepted + timedelta(seconds=does.start_s) if runs else None)


def status_of(
    pod: Obj, does: Behaviour, pod_ips: Sequence[str], host_ips: Sequence[str], now: datetime
) -> tuple[Obj, float | None]:
    """The status that the node reports, and in how many seconds to look again."""
    spec, current = pod["spec"], pod.get("status") or {}
    accepted = parse_time(current["startTime"]) if current.get("startTime") else now
    deadline_s = spec.get("activeDeadlineSeconds")
    expires_s = deadline_s - (now - accepted).total_seconds() if deadline_s else None
    life = life_of(pod, does, accepted, now)
    if expires_s is not None and expires_s <= 0 and not life.ended:
        failure = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        return _status(pod, does, life.killed(now, 137), pod_ips, host_ips, now, failure=failure), None
    times = [expires_s, *(moment.next_s for moment in life.moments.values())]
    ready = set()
    for name, moment in life.moments.items():
        is_ready, ready_in_s = _readiness(does, moment, now)
        times.append(ready_in_s)
        if is_ready:
            ready.add(name)
    status = _status(pod, does, life, pod_ips, host_ips, now, ready=ready)
    return status, min((time_s for time_s in times if time_s is not None), default=None)


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
    accepted = parse_time(current["startTime"]) if current.get("startTime") else now
    pod_ips = [each["ip"] for each in current.get("podIPs") or ()]
    return _status(pod, does, life_of(pod, does, accepted, now).killed(now, 143), pod_ips, host_ips, now)


def refused_status(pod: Obj, refused: Refusal, now: datetime) -> Obj:
    """Of a pod that its node does not take."""
    told = (refused.reason, refused.told)
    return pod_status(StatusInputs(pod, ObservedPod(), {}, _NO_MESSAGES, (), now, refused=True, failure=told))


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
    life: Life,
    pod_ips: Sequence[str],
    host_ips: Sequence[str],
    now: datetime,
    *,
    ready: Collection[str] = (),
    failure: tuple[str, str] = ("", ""),
) -> Obj:
    seen, memory = observed(pod, does, life, pod_ips, ready=ready)
    return pod_status(
        StatusInputs(
            pod=pod,
            observed=seen,
            memory=memory,
            messages=_NO_MESSAGES,
            host_ips=host_ips,
            now=now,
            ending=life.ended,
            failure=failure,
            started_over=_started_over(pod, life) if life.whole else _NOBODY,
            runtime=RUNTIME,
        )
    )


def _started_over(pod: Obj, life: Life) -> Mapping[str, int]:
    """How often containers were restarted with their pod, those counted that are about to be."""
    moment = next(iter(life.moments.values()))
    times = moment.restarts + (moment.state == "backoff")
    return {container["name"]: times for container in restartable(pod)} if times else _NOBODY


def observed(
    pod: Obj, does: Behaviour, life: Life, pod_ips: Sequence[str], *, ready: Collection[str]
) -> tuple[ObservedPod, dict[str, ContainerMemory]]:
    """What a runtime would show of the pod's sandbox and containers, and what a kubelet would know beside it."""
    memory: dict[str, ContainerMemory] = {}
    containers: dict[str, tuple[ObservedContainer, ...]] = {}
    waits = False
    for container in podspec.containers(pod):
        name = container["name"]
        moment = life.moments[name]
        waits = waits or moment.state == "waiting"
        instances = containers[name] = _instances(pod, container, moment, whole=life.whole)
        memory[name] = _remembered(pod, name, does, moment, instances, ready=name in ready)
    for container in podspec.init_containers(pod):
        name = container["name"]
        containers[name] = _init_instances(pod, container, life)
        for instance in containers[name]:
            memory[name] = ContainerMemory(instance.id, instance.running, instance.running)
    # A pod whose image cannot be had has its sandbox; one that is still on its way has none.
    if waits and not does.waiting_reason:
        return ObservedPod((), containers), memory
    sandbox = Sandbox(pod["metadata"].get("uid", ""), ready=not life.ended, ips=tuple(pod_ips))
    return ObservedPod((sandbox,), containers), memory


def _remembered(
    pod: Obj, name: str, does: Behaviour, moment: Moment, instances: Sequence[ObservedContainer], *, ready: bool
) -> ContainerMemory:
    if moment.state == "waiting":
        return ContainerMemory(waiting_reason=does.waiting_reason or "ContainerCreating")
    if moment.state == "backoff":
        wait_s = min(_FIRST_BACKOFF_S * 2 ** max(moment.restarts - 1, 0), _LAST_BACKOFF_S)
        delay = go_duration(timedelta(seconds=wait_s))
        text = f"back-off {delay} restarting failed container={name} pod={podspec.quoted(pod)}"
        return ContainerMemory(waiting_reason="CrashLoopBackOff", waiting_message=text)
    return ContainerMemory(instances[0].id, ready, started=moment.state == "running")


def _instances(pod: Obj, container: Obj, moment: Moment, *, whole: bool) -> tuple[ObservedContainer, ...]:
    """The container's newest instance, and the one before it where that is what ended last; none of them is left where
    all are removed to start over."""
    if moment.started is None or (whole and moment.state == "backoff"):
        return ()
    if moment.state == "running":
        running = _instance(pod, container, moment.restarts, State.RUNNING, moment.started)
        if moment.ended is None or whole:
            return (running,)
        # When the run before began is nobody's concern any more.
        code = moment.exit_code
        ended = _instance(pod, container, moment.restarts - 1, State.EXITED, moment.ended, moment.ended, code)
        return (running, ended)
    code = moment.exit_code
    return (_instance(pod, container, moment.restarts, State.EXITED, moment.started, moment.ended, code),)


def _init_instances(pod: Obj, container: Obj, life: Life) -> tuple[ObservedContainer, ...]:
    """Init containers take no time; sidecars run as long as the pod does."""
    if life.began is None:
        return ()
    started, restarts = life.began, 0
    if life.whole:
        moment = next(iter(life.moments.values()))
        if moment.state == "backoff":
            return ()
        started, restarts = moment.started or started, moment.restarts
    if not podspec.is_sidecar(container):
        return (_instance(pod, container, restarts, State.EXITED, started, started),)
    if life.ended:
        last = max(moment.ended or started for moment in life.moments.values())
        return (_instance(pod, container, restarts, State.EXITED, started, last),)
    return (_instance(pod, container, restarts, State.RUNNING, started),)


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
