"""What to do for a pod next: compares its specification with what the runtime shows. Pure; `worker.py` carries it out.

The order is Kubernetes': a sandbox; init containers one after another (sidecars stay up); then all others, each
restarted as its policy says. Invariant: no regular container starts before every init container is done or, for a
sidecar, started. Ephemeral containers wait for nothing but the sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import NamedTuple

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.engine.observed import ObservedContainer, ObservedPod
from navarch.node.runtime.base import HASH
from navarch.records import mutable


@mutable
class ContainerMemory:
    """What the kubelet knows of a container beside the runtime: probe results, hooks, why it waits.

    All of it is about the instance `container_id`, and starts anew with the next."""

    container_id: str = ""
    ready: bool = False
    started: bool = False
    # The postStart hook still runs, and later containers wait for it.
    hook_running: bool = False
    # Why it must be killed (and perhaps restarted): a probe or a hook failed.
    doomed: str = ""
    # The probe that doomed it, if one did.
    doomed_by: str = ""
    # It is stopped in order to be started again, however it ends; and that for the sake of new amounts.
    again: bool = False
    resized: bool = False
    waiting_reason: str = ""
    waiting_message: str = ""


class Kill(NamedTuple):
    """A running container to stop, with the words of the Killing event; `again` says that it is to be started again
    however it ends."""

    container: Obj
    instance: ObservedContainer
    message: str
    again: bool = False


@mutable
class Plan:
    """`end` says that the pod has nothing left to run: stop it for good."""

    create_sandbox: bool = False
    attempt: int = 0
    start: list[Obj] = field(default_factory=list)
    kill: list[Kill] = field(default_factory=list)
    end: bool = False


def make_plan(pod: Obj, observed: ObservedPod, memory: Mapping[str, ContainerMemory]) -> Plan:
    """The next steps for a pod that is to run."""
    plan = Plan()
    if not observed.sandbox_ready or not (observed.ips or podspec.host_network(pod)):
        return _new_sandbox(pod, observed)
    if not _initialise(pod, observed, memory, plan):
        if not plan.end:
            _debug(pod, observed, plan)
        return plan
    waiting = False
    for container in podspec.containers(pod):
        waiting = _regular(pod, container, observed, memory, plan) or waiting
    _debug(pod, observed, plan)
    regular = {container["name"] for container in podspec.containers(pod)}
    going = any(
        (instance := observed.current(name)) is not None and (instance.running or instance.created_only)
        for name in regular
    )
    if not going and not waiting:
        plan.end = True
        plan.start.clear()
    return plan


def _debug(pod: Obj, observed: ObservedPod, plan: Plan) -> None:
    """Plan ephemeral containers: each is started once, whether or not the pod is initialised."""
    for container in podspec.ephemeral_containers(pod):
        if observed.latest(container["name"]) is None:
            plan.start.append(container)


def _new_sandbox(pod: Obj, observed: ObservedPod) -> Plan:
    attempt = 0 if observed.sandbox is None else observed.sandbox.attempt + 1
    containers = podspec.containers(pod)
    ran = [observed.latest(container["name"]) for container in containers]
    if attempt and any(ran):
        # The sandbox died under containers that have run: it is worth a new one only if one of them may run again.
        again = any(
            instance is None or podspec.should_restart(pod, container, instance.exit_code if instance.exited else 137)
            for container, instance in zip(containers, ran, strict=True)
        )
        if not again:
            return Plan(end=True)
    return Plan(create_sandbox=True, attempt=attempt)


def initialised(pod: Obj, observed: ObservedPod, memory: Mapping[str, ContainerMemory]) -> bool:
    """Whether every init container is done, and every sidecar started, in the current sandbox."""
    if any(observed.current(container["name"]) is not None for container in podspec.containers(pod)):
        return True
    for container in podspec.init_containers(pod):
        instance = observed.current(container["name"])
        if podspec.is_sidecar(container):
            state = memory.get(container["name"])
            if instance is None or not instance.running or state is None or not state.started:
                return False
        elif instance is None or not instance.exited or instance.exit_code != 0:
            return False
    return True


def _initialise(pod: Obj, observed: ObservedPod, memory: Mapping[str, ContainerMemory], plan: Plan) -> bool:
    """Plan the init containers; True where the regular ones may be looked at."""
    done = initialised(pod, observed, memory)
    for container in podspec.init_containers(pod):
        instance = observed.current(container["name"])
        if podspec.is_sidecar(container):
            _sidecar(pod, container, instance, memory, plan)
            state = memory.get(container["name"])
            if not done and (instance is None or not instance.running or state is None or not state.started):
                return False
            continue
        if done:
            continue
        if instance is None or instance.created_only:
            plan.start.append(container)
            return False
        if instance.running:
            return False
        if instance.exit_code != 0:
            if podspec.should_restart(pod, _as_failing_init(pod, container), instance.exit_code):
                plan.start.append(container)
            else:
                plan.end = True
                plan.start.clear()
            return False
    return True


def _as_failing_init(pod: Obj, container: Obj) -> Obj:
    """An init container that failed is tried again unless the policy is Never; with Always it is as with OnFailure."""
    if container.get("restartPolicy") or podspec.restart_policy(pod) == "Never":
        return container
    return {**container, "restartPolicy": "OnFailure"}


def _sidecar(
    pod: Obj, container: Obj, instance: ObservedContainer | None, memory: Mapping[str, ContainerMemory], plan: Plan
) -> None:
    if instance is None or not instance.running:
        plan.start.append(container)
        return
    _doom(container, instance, memory, plan)


def _regular(
    pod: Obj, container: Obj, observed: ObservedPod, memory: Mapping[str, ContainerMemory], plan: Plan
) -> bool:
    """Plan one regular container; True where it is to be (re)started."""
    instance = observed.current(container["name"])
    if instance is None:
        latest = observed.latest(container["name"])
        if latest is not None and latest.exited and not podspec.should_restart(pod, container, latest.exit_code):
            return False
        plan.start.append(container)
        return True
    if instance.created_only:
        plan.start.append(container)
        return True
    if instance.exited:
        if restarts(pod, container, instance, memory):
            plan.start.append(container)
            return True
        return False
    _doom(container, instance, memory, plan)
    return False


def restarts(pod: Obj, container: Obj, instance: ObservedContainer, memory: Mapping[str, ContainerMemory]) -> bool:
    """Whether a container that ended is started again: by its policy, or as it was stopped for that."""
    state = memory.get(container["name"])
    if state is not None and state.container_id == instance.id and state.again:
        return True
    return podspec.should_restart(pod, container, instance.exit_code)


def _doom(container: Obj, instance: ObservedContainer, memory: Mapping[str, ContainerMemory], plan: Plan) -> None:
    """Plan the end of a running container that may not stay as it is."""
    name = container["name"]
    if instance.status.annotations.get(HASH) != podspec.container_hash(container):
        message = f"Container {name} definition changed, will be restarted"
        plan.kill.append(Kill(container, instance, message, again=True))
        return
    state = memory.get(name)
    if state is not None and state.container_id == instance.id and state.doomed:
        plan.kill.append(Kill(container, instance, state.doomed, state.again))
