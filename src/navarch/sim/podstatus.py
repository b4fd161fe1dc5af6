"""The status of a pod on a simulated node, as a function of what it does and how long ago it began.

In: the pod, its behaviour, its address, the time.  Out: the status fields that a kubelet would report now, and in how
many seconds they change by themselves. Pure: a node that is restarted computes the same again from the pod's
`startTime`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from navarch.api.meta import Obj
from navarch.api.time import format_time, parse_time
from navarch.sim.behaviour import Behaviour

_FIRST_BACKOFF_S = 10.0
_LAST_BACKOFF_S = 300.0
_RESET_AFTER_S = 600.0


@dataclass(frozen=True, slots=True)
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


def status_of(pod: Obj, does: Behaviour, pod_ip: str, host_ip: str, now: datetime) -> tuple[Obj, float | None]:
    """The status fields that the node owns, and in how many seconds to look again."""
    spec = pod["spec"]
    current = pod.get("status") or {}
    accepted = parse_time(current["startTime"]) if current.get("startTime") else now
    deadline_s = spec.get("activeDeadlineSeconds")
    expires_s = deadline_s - (now - accepted).total_seconds() if deadline_s else None
    moment = moment_of(spec.get("restartPolicy") or "Always", does, accepted, now)
    status: Obj = {"hostIP": host_ip, "hostIPs": [{"ip": host_ip}], "startTime": format_time(accepted)}
    if generation := pod["metadata"].get("generation"):
        status["observedGeneration"] = generation
    if expires_s is not None and expires_s <= 0 and moment.state != "done":
        message = "Pod was active on the node longer than the specified deadline"
        ended = Moment("done", moment.restarts, moment.started or now, now, None)
        status |= _running_part(pod, does, ended, pod_ip, now, ready=False, exit_code=137)
        return status | {"phase": "Failed", "reason": "DeadlineExceeded", "message": message}, None
    ready, ready_in_s = _readiness(does, moment, now)
    status |= _running_part(pod, does, moment, pod_ip, now, ready=ready, exit_code=does.exit_code)
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


def stopped_status(pod: Obj, now: datetime) -> Obj:
    """What is left to report of a pod that was told to stop: containers ended by SIGTERM, exit code 143."""
    current = pod.get("status") or {}
    started = parse_time(current["startTime"]) if current.get("startTime") else now
    moment = Moment("done", 0, started, now, None)
    does = Behaviour(0, 0, 0, 143, 0, False, "")
    part = _running_part(pod, does, moment, current.get("podIP", ""), now, ready=False, exit_code=143)
    return part | {"phase": "Failed"}


def _readiness(does: Behaviour, moment: Moment, now: datetime) -> tuple[bool, float | None]:
    if moment.state != "running" or moment.started is None:
        return False, None
    wait_s = does.ready_s - (now - moment.started).total_seconds()
    if wait_s > 0:
        return False, wait_s
    return does.ready, None


def _running_part(
    pod: Obj, does: Behaviour, moment: Moment, pod_ip: str, now: datetime, *, ready: bool, exit_code: int
) -> Obj:
    spec = pod["spec"]
    done = moment.state == "done"
    initialized = moment.state != "waiting"
    phase = "Pending" if not initialized else "Running"
    if done:
        phase = "Succeeded" if exit_code == 0 else "Failed"
    reason = "PodCompleted" if phase == "Succeeded" else "PodFailed" if phase == "Failed" else "ContainersNotReady"
    names = " ".join(container["name"] for container in spec["containers"])
    unready = {"reason": reason}
    if reason == "ContainersNotReady":
        unready["message"] = f"containers with unready status: [{names}]"
    uninitialized = {"reason": "ContainersNotInitialized"} if spec.get("initContainers") else {}
    gates = all(_condition_is_true(pod, gate["conditionType"]) for gate in spec.get("readinessGates") or ())
    wanted = [
        ("PodReadyToStartContainers", not done, {}),
        ("Initialized", initialized or not spec.get("initContainers"), uninitialized),
        ("Ready", ready and gates, unready if not ready else {"reason": "ReadinessGatesNotReady"}),
        ("ContainersReady", ready, unready),
    ]
    part: Obj = {
        "phase": phase,
        "conditions": _conditions(pod, wanted, now),
        "containerStatuses": [
            _container(pod, container, does, moment, ready=ready, exit_code=exit_code)
            for container in spec["containers"]
        ],
    }
    if spec.get("initContainers"):
        part["initContainerStatuses"] = [_init_container(pod, c, moment) for c in spec["initContainers"]]
    if pod_ip:
        part |= {"podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}
    return part


def _condition_is_true(pod: Obj, kind: str) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == kind and c.get("status") == "True" for c in conditions)


def _conditions(pod: Obj, wanted: list[tuple[str, bool, dict[str, str]]], now: datetime) -> list[Obj]:
    """Our conditions in the kubelet's order, then those of others as they are."""
    old = {condition["type"]: condition for condition in (pod.get("status") or {}).get("conditions") or ()}
    ours: list[Obj] = []
    generation = pod["metadata"].get("generation")
    for kind, true, why in wanted:
        before = old.pop(kind, None)
        status = "True" if true else "False"
        since = before["lastTransitionTime"] if before and before.get("status") == status else format_time(now)
        condition: Obj = {"type": kind, "status": status, "lastTransitionTime": since}
        if generation:
            condition["observedGeneration"] = generation
        if not true:
            condition |= why
        ours.append(condition)
    return ours + list(old.values())


def _container(pod: Obj, container: Obj, does: Behaviour, moment: Moment, *, ready: bool, exit_code: int) -> Obj:
    name = container["name"]
    ended = _terminated(pod, name, moment, exit_code) if moment.ended is not None else None
    status = _identity(pod, container, moment.restarts if moment.state != "waiting" else None)
    status |= {"restartCount": moment.restarts, "ready": ready, "started": moment.state == "running"}
    if moment.state == "waiting":
        status["state"] = {"waiting": {"reason": does.waiting_reason or "ContainerCreating"}}
        status["lastState"] = {}
    elif moment.state == "running" and moment.started is not None:
        status["state"] = {"running": {"startedAt": format_time(moment.started)}}
        status["lastState"] = {"terminated": ended} if ended else {}
    elif moment.state == "backoff":
        wait_s = min(_FIRST_BACKOFF_S * 2 ** max(moment.restarts - 1, 0), _LAST_BACKOFF_S)
        metadata = pod["metadata"]
        which = f"{metadata['name']}_{metadata.get('namespace')}({metadata.get('uid')})"
        text = f"back-off {wait_s:.0f}s restarting failed container={name} pod={which}"
        status["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": text}}
        status["lastState"] = {"terminated": ended}
    else:
        status["state"] = {"terminated": ended}
        status["lastState"] = {}
    return status


def _init_container(pod: Obj, container: Obj, moment: Moment) -> Obj:
    status = _identity(pod, container, 0 if moment.started is not None else None)
    sidecar = container.get("restartPolicy") == "Always"
    status |= {"restartCount": 0, "lastState": {}, "started": False}
    if moment.started is None:
        return status | {"ready": False, "state": {"waiting": {"reason": "PodInitializing"}}}
    started = format_time(moment.started)
    if sidecar and moment.state != "done":
        return status | {"ready": True, "started": True, "state": {"running": {"startedAt": started}}}
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": started}
    return status | {"ready": True, "state": {"terminated": ended | {"containerID": status["containerID"]}}}


def _identity(pod: Obj, container: Obj, restarts: int | None) -> Obj:
    image = container.get("image", "")
    status: Obj = {"name": container["name"], "image": image, "imageID": "", "containerID": ""}
    if restarts is not None:
        status["imageID"] = f"{image.split('@')[0]}@sha256:{_digest(image)}"
        status["containerID"] = _container_id(pod, container["name"], restarts)
    return status


def _container_id(pod: Obj, name: str, restarts: int) -> str:
    return f"simulated://{_digest(pod['metadata'].get('uid', ''), name, str(restarts))}"


def _terminated(pod: Obj, name: str, moment: Moment, exit_code: int) -> Obj:
    # While running again, what ended is the run before.
    run = moment.restarts - 1 if moment.state == "running" else moment.restarts
    ended = moment.ended
    assert ended is not None
    started = moment.started if moment.state != "running" else ended
    return {
        "exitCode": exit_code,
        "reason": "Completed" if exit_code == 0 else "Error",
        "startedAt": format_time(started or ended),
        "finishedAt": format_time(ended),
        "containerID": _container_id(pod, name, run),
    }


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
