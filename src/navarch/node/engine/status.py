"""A pod's status, computed: phase, conditions and container statuses from the specification, what the runtime shows and
what the kubelet remembers. Pure, so that the same inputs give the same status and nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Final

from navarch.api.meta import Obj, is_deleting
from navarch.api.time import format_time
from navarch.kinds.core.resource_lists import qos_class
from navarch.node import podspec
from navarch.node.engine import restarting
from navarch.node.engine.observed import ObservedContainer, ObservedPod, moment
from navarch.node.engine.plan import ContainerMemory, restarts
from navarch.node.engine.status_patch import PASSING
from navarch.node.runtime.base import User
from navarch.records import frozen

# What others write, which stays.
_KEPT: Final = ("nominatedNodeName", "resourceClaimStatuses", "resize")


@frozen
class StatusInputs:
    """What a status is made of. `ending` says that the pod will not run (again): it is deleted, evicted or has ended.
    `messages` are termination messages by container id; `failure` is a reason and message for the whole pod."""

    pod: Obj
    observed: ObservedPod
    memory: Mapping[str, ContainerMemory]
    messages: Mapping[str, str]
    host_ips: Sequence[str]
    now: datetime
    ending: bool = False
    # The node has not taken the pod at all: `failure` says why.
    refused: bool = False
    failure: tuple[str, str] = ("", "")
    # Reason and message of a pod that cannot begin yet.
    blocked: tuple[str, str] = ("", "")
    conditions: Sequence[Obj] = ()
    # How often containers were restarted that are no more, as the pod started over.
    started_over: Mapping[str, int] = field(default_factory=dict)
    # What a container has of resources now.
    given: Callable[[Obj], Obj] = lambda container: container.get("resources") or {}
    # What the pod as a whole has of them; None where that is what it states.
    given_whole: Callable[[], Obj] | None = None
    # The devices that a container has, and how they are.
    devices: Callable[[Obj], Sequence[Obj]] = lambda container: ()
    # Before the ids of its containers.
    runtime: str = "containerd"


def pod_status(inputs: StatusInputs) -> Obj:
    """The status to publish."""
    pod = inputs.pod
    old: Obj = pod.get("status") or {}
    if inputs.refused:
        return _refused(inputs, old, inputs.failure)
    if _was_refused(old):
        return _refused(inputs, old, (old["reason"], old.get("message", "")))
    init = [_container_status(inputs, c, init=True) for c in podspec.init_containers(pod)]
    regular = [_container_status(inputs, c, init=False) for c in podspec.containers(pod)]
    ephemeral = [_container_status(inputs, c, init=False) for c in podspec.ephemeral_containers(pod)]
    phase = _phase(inputs, init, regular)
    for status in regular:
        status["ready"] = status["ready"] and phase == "Running"
    result: Obj = {
        "phase": phase,
        "qosClass": old.get("qosClass") or qos_class(pod["spec"]),
        "startTime": old.get("startTime") or format_time(inputs.now),
        "hostIP": next(iter(inputs.host_ips), ""),
        "hostIPs": [{"ip": address} for address in inputs.host_ips],
        "conditions": _conditions(inputs, phase, init, regular),
        "containerStatuses": regular,
    }
    if "generation" in pod["metadata"]:
        result["observedGeneration"] = pod["metadata"]["generation"]
    if init:
        result["initContainerStatuses"] = init
    if ephemeral:
        result["ephemeralContainerStatuses"] = ephemeral
    if stated := pod["spec"].get("resources"):
        result["resources"] = stated if inputs.given_whole is None else inputs.given_whole()
        if stated.get("requests"):
            result["allocatedResources"] = stated["requests"]
    ips = _pod_ips(inputs, old)
    if ips:
        result["podIP"] = ips[0]
        result["podIPs"] = [{"ip": address} for address in ips]
    reason, message = inputs.failure if inputs.failure[0] else inputs.blocked
    if reason and (phase == "Failed" or inputs.blocked[0]):
        result["reason"], result["message"] = reason, message
    for kept in _KEPT:
        if kept in old:
            result[kept] = old[kept]
    return result


def _was_refused(old: Obj) -> bool:
    """Whether an earlier kubelet refused the pod."""
    return old.get("phase") == "Failed" and bool(old.get("reason")) and not old.get("containerStatuses")


def _refused(inputs: StatusInputs, old: Obj, why: tuple[str, str]) -> Obj:
    """Nothing of a pod that was refused ever was: it has no containers, no addresses, no conditions of the node's."""
    result: Obj = {
        "phase": "Failed",
        "reason": why[0],
        "message": why[1],
        "qosClass": old.get("qosClass") or qos_class(inputs.pod["spec"]),
        "startTime": old.get("startTime") or format_time(inputs.now),
    }
    if "generation" in inputs.pod["metadata"]:
        result["observedGeneration"] = inputs.pod["metadata"]["generation"]
    return result | {kept: old[kept] for kept in _KEPT if kept in old}


def _pod_ips(inputs: StatusInputs, old: Obj) -> list[str]:
    if podspec.host_network(inputs.pod):
        return list(inputs.host_ips)
    # The addresses of a pod that has ended stay readable.
    return in_order(inputs.observed.ips, inputs.host_ips) or [entry["ip"] for entry in old.get("podIPs") or []]


def in_order(ips: Sequence[str], host_ips: Sequence[str]) -> list[str]:
    """A pod's addresses, whatever the order of its networks: first that of the IP family that its node has first."""
    if len(ips) < 2 or not host_ips:
        return list(ips)
    return sorted(ips, key=lambda ip: (":" in ip) != (":" in host_ips[0]))


# Containers.


def _old_status(inputs: StatusInputs, name: str) -> Obj:
    old = inputs.pod.get("status") or {}
    for listed in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for status in old.get(listed) or []:
            if status["name"] == name:
                return status  # type: ignore[no-any-return]
    return {}


def _container_status(inputs: StatusInputs, container: Obj, *, init: bool) -> Obj:
    name = container["name"]
    observed = inputs.observed
    instance = observed.latest(name)
    memory = inputs.memory.get(name) or ContainerMemory()
    old = _old_status(inputs, name)
    status: Obj = {
        "name": name,
        "image": container.get("image", ""),
        "imageID": "",
        "ready": False,
        "restartCount": int(old.get("restartCount") or 0),
        "started": False,
        "state": {},
        "lastState": {},
    }
    mounts = [_mount_status(mount, instance) for mount in container.get("volumeMounts") or []]
    if mounts:
        status["volumeMounts"] = mounts
    devices = inputs.devices(container)
    if devices:
        status["allocatedResourcesStatus"] = list(devices)
    if instance is None:
        _never_made(inputs, status, memory, old)
        return status
    status["resources"] = inputs.given(container)
    allocated = (container.get("resources") or {}).get("requests")
    if allocated:
        status["allocatedResources"] = allocated
    status["containerID"] = f"{inputs.runtime}://{instance.id}"
    status["restartCount"] = instance.restart_count
    status["image"] = _image_name(instance, container)
    status["imageID"] = instance.status.image_ref
    if instance.status.user is not None:
        status["user"] = {"linux": _linux_user(instance.status.user)}
    previous = _previous(inputs, name, instance, old)
    if instance.running and not memory.hook_running:
        status["state"] = {"running": {"startedAt": format_time(moment(instance.status.started_at_ns))}}
        if memory.container_id == instance.id:
            status["started"] = memory.started
            status["ready"] = memory.ready if not init or podspec.is_sidecar(container) else False
    elif instance.running or instance.created_only:
        status["state"] = {"waiting": _waiting(memory, "ContainerCreating")}
    else:
        ended = _terminated(inputs, instance)
        if memory.waiting_reason and not inputs.ending:
            status["state"] = {"waiting": _waiting(memory, "")}
            previous = ended
        else:
            status["state"] = {"terminated": ended}
            if init and not podspec.is_sidecar(container):
                status["ready"] = instance.exit_code == 0
    if previous is not None:
        status["lastState"] = {"terminated": previous}
    return status


def _linux_user(user: User) -> Obj:
    result: Obj = {"uid": user.uid, "gid": user.gid}
    if user.groups:
        result["supplementalGroups"] = list(user.groups)
    return result


def _never_made(inputs: StatusInputs, status: Obj, memory: ContainerMemory, old: Obj) -> None:
    """A container of which the runtime knows nothing: not made yet, or lost."""
    if inputs.ending and ((old.get("state") or {}).get("terminated")):
        # How it ended is told already, and stays as it was told.
        status.update({key: value for key, value in old.items() if key not in ("ready", "started")})
        return
    if inputs.ending and ((old.get("state") or {}).get("running") or _was_never_to_be(inputs, status["name"])):
        status["state"] = {
            "terminated": {
                "exitCode": 137,
                "reason": "ContainerStatusUnknown",
                "message": "The container could not be located when the pod was terminated",
                "startedAt": None,
                "finishedAt": None,
            }
        }
        return
    has_init = bool(podspec.init_containers(inputs.pod))
    if inputs.blocked[0]:
        status["state"] = {"waiting": {"reason": "Blocked"}}
        return
    status["state"] = {"waiting": _waiting(memory, "PodInitializing" if has_init else "ContainerCreating")}
    if status["name"] in inputs.started_over:
        status["restartCount"] = inputs.started_over[status["name"]]
        status["lastState"] = {"terminated": dict(restarting.REMOVED)}
    elif old.get("lastState"):
        status["lastState"] = old["lastState"]
    elif (old.get("state") or {}).get("terminated"):
        status["lastState"] = old["state"]


def _is_over(inputs: StatusInputs) -> bool:
    """Whether the pod is deleted and nothing of it is left in the runtime: what it never made, it never will."""
    observed = inputs.observed
    return inputs.ending and is_deleting(inputs.pod) and not observed.any_running and not observed.sandbox_ready


def _was_never_to_be(inputs: StatusInputs, name: str) -> bool:
    """Whether the container's turn had come, and its pod was deleted before it was made."""
    if not _is_over(inputs) or name not in {container["name"] for container in podspec.containers(inputs.pod)}:
        return False
    init = podspec.init_containers(inputs.pod)
    last = inputs.observed.latest(init[-1]["name"]) if init else None
    return not init or (last is not None and last.exited and last.exit_code == 0)


def _waiting(memory: ContainerMemory, default: str) -> Obj:
    result = {"reason": memory.waiting_reason or default}
    if memory.waiting_message:
        result["message"] = memory.waiting_message
    return result


def _image_name(instance: ObservedContainer, container: Obj) -> str:
    """The name by which the runtime knows the image; where that is only its digest, the one that the user wrote."""
    image = instance.status.image
    return container.get("image", "") if not image or image.startswith("sha256:") else image


def _mount_status(mount: Obj, instance: ObservedContainer | None) -> Obj:
    result = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        result["readOnly"] = True
        made = instance.status.mounts if instance is not None else ()
        deep = any(one.recursive_read_only for one in made if one.container_path == mount["mountPath"])
        deep = deep or mount.get("recursiveReadOnly") == "Enabled"
        result["recursiveReadOnly"] = "Enabled" if deep else "Disabled"
    return result


def _terminated(inputs: StatusInputs, instance: ObservedContainer) -> Obj:
    status = instance.status
    reason = status.reason or ("Completed" if instance.exit_code == 0 else "Error")
    result: Obj = {
        "exitCode": instance.exit_code,
        "reason": reason,
        "startedAt": format_time(moment(status.started_at_ns)) if status.started_at_ns else None,
        "finishedAt": format_time(instance.finished_at),
        "containerID": f"{inputs.runtime}://{instance.id}",
    }
    message = inputs.messages.get(instance.id) or status.message
    if message:
        result["message"] = message
    return result


def _previous(inputs: StatusInputs, name: str, instance: ObservedContainer, old: Obj) -> Obj | None:
    """How the instance before this one ended; from the API's own record where the runtime has forgotten it."""
    for earlier in inputs.observed.containers.get(name) or ():
        if earlier.id != instance.id and earlier.exited:
            return _terminated(inputs, earlier)
    if instance.restart_count:
        if inputs.started_over.get(name) == instance.restart_count:
            return dict(restarting.REMOVED)
        for state in ((old.get("state") or {}), (old.get("lastState") or {})):
            ended: Obj | None = state.get("terminated")
            if ended and ended.get("containerID") != f"{inputs.runtime}://{instance.id}":
                return ended
    return None


# Phase.


def _phase(inputs: StatusInputs, init: Sequence[Obj], regular: Sequence[Obj]) -> str:
    old = podspec.phase_of(inputs.pod)
    if podspec.is_finished(inputs.pod):
        return old
    if inputs.failure[0] and not inputs.observed.any_running:
        # Nobody may take a pod for ended, and start another in its place, while a container of it runs.
        return "Failed"
    pod = inputs.pod
    policies = {container["name"]: container for container in podspec.init_containers(pod)}
    for status in init:
        container = policies[status["name"]]
        if podspec.is_sidecar(container):
            continue
        ended = status["state"].get("terminated") or {}
        if ended and ended["exitCode"] != 0 and not _retried_init(pod, container, int(ended["exitCode"])):
            return "Failed"
    if _starts_over(inputs):
        return "Running" if old == "Running" or _past_initialisation(inputs) else "Pending"
    waiting = running = failed = succeeded = 0
    for status in regular:
        state = status["state"]
        last = (status["lastState"] or {}).get("terminated")
        if "running" in state:
            running += 1
        elif "terminated" in state:
            failed, succeeded = _count(state["terminated"], failed, succeeded)
        elif last and int(status["restartCount"] or 0) >= 0 and status.get("containerID"):
            failed, succeeded = _count(last, failed, succeeded)
        elif last and last.get("reason") == restarting.RESTARTING and not inputs.ending:
            # It ran, and will again.
            running += 1
        else:
            waiting += 1
    return _phase_of_counts(inputs, waiting, running, failed, succeeded)


def _retried_init(pod: Obj, container: Obj, exit_code: int) -> bool:
    if container.get("restartPolicy") or container.get("restartPolicyRules"):
        return podspec.should_restart(pod, container, exit_code)
    return podspec.restart_policy(pod) != "Never"


def _count(ended: Obj, failed: int, succeeded: int) -> tuple[int, int]:
    return (failed, succeeded + 1) if ended["exitCode"] == 0 else (failed + 1, succeeded)


def _phase_of_counts(inputs: StatusInputs, waiting: int, running: int, failed: int, succeeded: int) -> str:
    if inputs.ending and not inputs.observed.any_running:
        if waiting and not failed and not succeeded:
            # A deleted pod ends before it goes, also one that never ran: who waits for its end is told of it.
            return "Failed" if podspec.phase_of(inputs.pod) == "Running" or _is_over(inputs) else "Pending"
        return "Failed" if failed or waiting else "Succeeded"
    if waiting:
        return "Pending"
    if running:
        return "Running"
    statuses = {
        container["name"]: inputs.observed.latest(container["name"]) for container in podspec.containers(inputs.pod)
    }
    again = any(
        instance is None or restarts(inputs.pod, container, instance, inputs.memory)
        for container in podspec.containers(inputs.pod)
        for instance in (statuses[container["name"]],)
    )
    if again:
        return "Running"
    # A sidecar may still run; the pod has ended when its regular containers have.
    if inputs.observed.any_running:
        return "Running"
    return "Failed" if failed else "Succeeded"


# Conditions.


def _conditions(inputs: StatusInputs, phase: str, init: Sequence[Obj], regular: Sequence[Obj]) -> list[Obj]:
    pod = inputs.pod
    sidecars = {c["name"] for c in podspec.init_containers(pod) if podspec.is_sidecar(c)}
    counted = [*(status for status in init if status["name"] in sidecars), *regular]
    containers_ready = _containers_ready(phase, counted)
    found = [
        ("PodReadyToStartContainers", _true(inputs.observed.sandbox_ready and not inputs.ending)),
        ("Initialized", _initialised(inputs, phase, init, sidecars)),
        ("Ready", _ready(pod, phase, containers_ready, inputs.conditions)),
        ("ContainersReady", containers_ready),
        ("PodScheduled", _true(True)),
    ]
    if podspec.restarts_whole(pod["spec"]):
        found.append((restarting.CONDITION, restarting.condition(phase, under_way=_starts_over(inputs))))
    old = {condition["type"]: condition for condition in (pod.get("status") or {}).get("conditions") or []}
    now, generation = format_time(inputs.now), pod["metadata"].get("generation")
    result = [_dated(kind, status, old.get(kind), now, generation) for kind, status in found]
    result += [_dated(c["type"], c, old.get(c["type"]), now, generation) for c in inputs.conditions]
    own = {condition["type"] for condition in result}
    return result + [condition for kind, condition in old.items() if kind not in own and kind not in PASSING]


def _true(value: bool) -> Obj:
    return {"status": "True" if value else "False"}


def _dated(kind: str, status: Obj, old: Obj | None, now: str, generation: int | None) -> Obj:
    since = old.get("lastTransitionTime") if old is not None and old.get("status") == status["status"] else None
    result: Obj = {"type": kind, "lastProbeTime": None, "lastTransitionTime": since or now}
    for key, value in status.items():
        if value and key != "type":
            result[key] = value
    if generation is not None:
        result["observedGeneration"] = generation
    return result


def _initialised(inputs: StatusInputs, phase: str, init: Sequence[Obj], sidecars: Iterable[str]) -> Obj:
    if phase == "Succeeded":
        return {"status": "True", "reason": "PodCompleted"}
    past = _past_initialisation(inputs)
    incomplete = [
        status["name"] for status in init if not (status["started"] if status["name"] in sidecars else status["ready"])
    ]
    if past or not incomplete:
        return {"status": "True"}
    names = " ".join(incomplete)
    return {
        "status": "False",
        "reason": "ContainersNotInitialized",
        "message": f"containers with incomplete status: [{names}]",
    }


def _past_initialisation(inputs: StatusInputs) -> bool:
    """Whether a regular container was made, in this sandbox or before the pod started over."""
    return any(
        inputs.observed.current(c["name"]) is not None or c["name"] in inputs.started_over
        for c in podspec.containers(inputs.pod)
    )


def _starts_over(inputs: StatusInputs) -> bool:
    """Whether all of the pod is about to be started again."""
    return not inputs.ending and bool(restarting.who_asks(inputs.pod, inputs.observed))


def _containers_ready(phase: str, statuses: Sequence[Obj]) -> Obj:
    if phase == "Succeeded":
        return {"status": "False", "reason": "PodCompleted"}
    if phase == "Failed":
        return {"status": "False", "reason": "PodFailed"}
    unready = [status["name"] for status in statuses if not status["ready"]]
    if not unready:
        return {"status": "True"}
    return {
        "status": "False",
        "reason": "ContainersNotReady",
        "message": f"containers with unready status: [{' '.join(unready)}]",
    }


def _ready(pod: Obj, phase: str, containers_ready: Obj, extra: Sequence[Obj]) -> Obj:
    if containers_ready["status"] != "True":
        return containers_ready
    conditions = {c["type"]: c for c in [*((pod.get("status") or {}).get("conditions") or []), *extra]}
    complaints = []
    for gate in pod["spec"].get("readinessGates") or []:
        kind = gate["conditionType"]
        condition = conditions.get(kind)
        if condition is None:
            complaints.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif condition.get("status") != "True":
            complaints.append(f'the status of pod readiness gate "{kind}" is not "True", but {condition.get("status")}')
    if complaints:
        return {"status": "False", "reason": "ReadinessGatesNotReady", "message": ", ".join(complaints)}
    return {"status": "True"}
