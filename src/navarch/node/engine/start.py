"""Starting containers: image, environment, configuration, creation, start, postStart hook, probes; and the back-off of
those that keep failing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from navarch.api.meta import Obj
from navarch.client.supervision import unless_cancelled
from navarch.node import oserrors, podspec
from navarch.node.backoff import go_duration
from navarch.node.devices.manager import AllocationRefused
from navarch.node.dra.claims import DeviceError
from navarch.node.engine import retries
from navarch.node.engine.observed import ObservedContainer
from navarch.node.engine.plan import ContainerMemory
from navarch.node.engine.podprobes import PodProbes
from navarch.node.engine.podstate import PodState
from navarch.node.engine.resize import Resizer
from navarch.node.podspec import ConfigError
from navarch.node.probes.handlers import Outcome, run_hook
from navarch.node.probes.prober import ready_without_probe, started_without_probe
from navarch.node.runtime.base import ContainerConfig, Image, NotFound, RuntimeFailure
from navarch.node.runtime.oom import KILLED
from navarch.node.spec.container import ContainerInputs, container_config
from navarch.node.spec.env import environment
from navarch.node.volumes.base import VolumePending

# Who stops a sandbox has stopped its containers before it.
_SANDBOX_FOLLOWS: Final = timedelta(milliseconds=500)


class Starter:
    """Owned by a PodWorker."""

    def __init__(self, worker: PodState, probes: PodProbes, resizer: Resizer) -> None:
        self._worker = worker
        self._probes = probes
        self._resizer = resizer

    async def start(self, containers: Sequence[Obj]) -> list[str]:
        """Start each that may start now, in order; one whose postStart hook runs holds back those after it. Returns the
        ids of those that were started."""
        started: list[str] = []
        for container in containers:
            worker = self._worker
            if any(
                state.hook_running and self._before(name, container["name"]) for name, state in worker.memory.items()
            ):
                break
            if container_id := await self._start(container):
                started.append(container_id)
        return started

    def _before(self, one: str, other: str) -> bool:
        names = [container["name"] for container in podspec.all_containers(self._worker.pod)]
        return one in names and other in names and names.index(one) < names.index(other)

    async def _start(self, container: Obj) -> str:
        """The id of the container, where it was started."""
        worker = self._worker
        name = container["name"]
        state = worker.memory.setdefault(name, ContainerMemory())
        latest = worker.observed.latest(name)
        if latest is not None and latest.created_only:
            # Left by an attempt that was cut short; nothing of it has run.
            with contextlib.suppress(NotFound):
                await worker.parts.runtime.remove_container(latest.id)
            latest = None
        # What was stopped to get other resources has not failed, and does not wait.
        failed = latest is not None and latest.exited and not (state.resized and state.container_id == latest.id)
        if latest is not None and failed:
            if self._backing_off(container, latest, state) or self._may_lose_its_sandbox(latest, state):
                return ""
        attempt = self._attempt(name, latest)
        image = await self._image(container, attempt, state)
        if image is None:
            return ""
        try:
            config = await self._config(container, attempt, image)
        except ConnectionError:
            raise
        except (ConfigError, OSError) as error:
            words = oserrors.words(error)
            self._fail(container, state, "CreateContainerConfigError", words, f"Error: {words}")
            return ""
        if latest is not None and failed:
            now = worker.parts.clock.now()
            worker.parts.backoff.attempted(self._key(container), latest.finished_at, now)
        return await self._create(container, config, state)

    def _attempt(self, name: str, latest: ObservedContainer | None) -> int:
        """The restart count of the instance to make: one more than the last, also when the runtime has forgotten it."""
        if latest is not None:
            return latest.restart_count + 1
        if name in self._worker.started_over:
            return self._worker.started_over[name]
        status = self._worker.pod.get("status") or {}
        for field in ("containerStatuses", "initContainerStatuses"):
            for told in status.get(field) or []:
                if told["name"] == name:
                    # One that is told of without an instance has been counted when the pod started over.
                    return int(told.get("restartCount") or 0) + bool(told.get("containerID"))
        return 0

    def _key(self, container: Obj) -> str:
        return f"{self._worker.uid}/{container['name']}/{podspec.container_hash(container)}"

    def _backing_off(self, container: Obj, latest: ObservedContainer, state: ContainerMemory) -> bool:
        worker = self._worker
        if latest.exit_code == 0 and not self._restarted_when_done(container):
            return False
        now = worker.parts.clock.now()
        remaining = worker.parts.backoff.remaining(self._key(container), latest.finished_at, now)
        if remaining.total_seconds() <= 0:
            return False
        delay = go_duration(worker.parts.backoff.delay(self._key(container)))
        name, where = container["name"], podspec.quoted(worker.pod)
        state.waiting_reason = "CrashLoopBackOff"
        state.waiting_message = f"back-off {delay} restarting failed container={name} pod={where}"
        worker.event("Warning", "BackOff", f"Back-off restarting failed container {name} in pod {where}", name)
        worker.wake_at(now + remaining)
        return True

    def _may_lose_its_sandbox(self, latest: ObservedContainer, state: ContainerMemory) -> bool:
        """Whether to wait a moment: somebody killed the container. If it was who stops the pod's sandbox from outside,
        that goes next, and what is started in it until then goes with it."""
        if latest.exit_code != KILLED or latest.status.reason == "OOMKilled" or state.doomed or state.again:
            return False
        settled = latest.finished_at + _SANDBOX_FOLLOWS
        if self._worker.parts.clock.now() >= settled:
            return False
        self._worker.wake_at(settled)
        return True

    def _restarted_when_done(self, container: Obj) -> bool:
        return podspec.should_restart(self._worker.pod, container, 0)

    async def _image(self, container: Obj, attempt: int, state: ContainerMemory) -> Image | None:
        worker = self._worker
        name = container["name"]

        def notify(kind: str, reason: str, message: str) -> None:
            worker.event(kind, reason, message, name)

        found = await worker.parts.images.ensure(worker.pod, container, attempt, notify, worker.wake)
        if found.image is not None:
            return found.image
        if found.reason:
            if found.reason != state.waiting_reason and found.reason != "ErrImagePull":
                notify("Warning", "Failed", f"Error: {found.reason}")
            state.waiting_reason, state.waiting_message = found.reason, found.message
            if found.retry_at is not None:
                worker.wake_at(found.retry_at)
            else:
                worker.wake_after(retries.AGAIN)
        return None

    async def volume_image(self, volume: Obj) -> Image:
        """The image of an image volume, pulled as a container's is.  Raises VolumePending until it is there."""
        worker = self._worker
        stated = volume["image"]
        asked = {"name": f"volume {volume['name']}", "image": stated.get("reference", "")}
        if stated.get("pullPolicy"):
            asked["imagePullPolicy"] = stated["pullPolicy"]
        found = await worker.parts.images.ensure(worker.pod, asked, 0, worker.event, worker.wake)
        if found.image is None:
            if found.reason:
                worker.wake_at(found.retry_at or worker.parts.clock.now() + retries.AGAIN)
                for container in podspec.containers(worker.pod):
                    state = worker.memory.setdefault(container["name"], ContainerMemory())
                    state.waiting_reason, state.waiting_message = found.reason, found.message
            raise VolumePending(found.reason or "the image is being pulled")
        return found.image

    async def _config(self, container: Obj, attempt: int, image: Image) -> ContainerConfig:
        worker = self._worker
        facts = worker.parts.facts(worker.ips())
        env = await environment(
            worker.pod,
            container,
            worker.parts.services(),
            worker.parts.source,
            facts,
            worker.volumes,
            worker.parts.world.in_thread,
        )
        # It makes files and mounts on the way.
        config = await worker.parts.world.in_thread(
            container_config,
            ContainerInputs(
                pod=worker.pod,
                container=container,
                attempt=attempt,
                image=image,
                env=env,
                volumes=worker.volumes,
                facts=facts,
                node=worker.parts.node,
                target_id=self._target_id(container),
                users=worker.users(),
                recursive_read_only=await self._mounts_recursively(container),
                cdi_devices=await self._cdi_devices(container),
            ),
            worker.parts.config,
        )
        cpus, memory = worker.parts.cpus, worker.parts.memory
        if cpus.on or memory.on:
            held_by = worker.uid, container["name"]
            where = replace(config.resources, cpuset_cpus=cpus.cpuset(*held_by), cpuset_mems=memory.mems(*held_by))
            config = replace(config, resources=where)
        return worker.parts.devices.dressed(worker.pod, container, config)

    async def _mounts_recursively(self, container: Obj) -> bool:
        """Whether the runtime can mount read-only what is mounted below a volume, too; asked where it matters."""
        if not any(mount.get("recursiveReadOnly") for mount in container.get("volumeMounts") or ()):
            return False
        return any(
            handler.recursive_read_only for handler in (await self._worker.parts.runtime.features()).handlers.values()
        )

    async def _cdi_devices(self, container: Obj) -> Sequence[str]:
        try:
            return await self._worker.parts.device_claims.cdi_devices(self._worker.pod, container)
        except DeviceError as error:
            raise ConfigError(str(error)) from None

    def _target_id(self, container: Obj) -> str:
        """The running container whose processes an ephemeral one joins."""
        target = container.get("targetContainerName")
        if not target:
            return ""
        instance = self._worker.observed.current(target)
        if instance is None or not instance.running:
            raise ConfigError(f"container {target} is not running, its process namespace cannot be joined")
        return instance.id

    def _fail(self, container: Obj, state: ContainerMemory, reason: str, message: str, told: str) -> None:
        """The container cannot be made or run now: say so, and try again later."""
        state.waiting_reason, state.waiting_message = reason, message
        self._worker.event("Warning", "Failed", told, container["name"])
        self._worker.wake_after(retries.AGAIN)

    async def _refused(
        self, container: Obj, state: ContainerMemory, reason: str, error: RuntimeFailure, container_id: str = ""
    ) -> None:
        """The runtime could not make or start the container. Where that is because its sandbox was stopped meanwhile,
        it was no attempt: the next turn makes another sandbox, and the container in it."""
        worker = self._worker
        sandbox = worker.observed.sandbox
        if sandbox is None or await self._is_ready(sandbox.id):
            self._fail(container, state, reason, error.words, f"Error: {error.words}")
            return
        if container_id:
            with contextlib.suppress(RuntimeFailure):
                await worker.parts.runtime.remove_container(container_id)
        worker.parts.backoff.forget(self._key(container))
        worker.wake()

    async def _is_ready(self, sandbox_id: str) -> bool:
        try:
            return (await self._worker.parts.runtime.sandbox_status(sandbox_id)).ready
        except NotFound:
            return False
        except RuntimeFailure:
            return True

    async def _create(self, container: Obj, config: ContainerConfig, state: ContainerMemory) -> str:
        worker = self._worker
        runtime = worker.parts.runtime
        name = container["name"]
        sandbox = worker.observed.sandbox
        assert sandbox is not None
        assert worker.sandbox_config is not None
        try:
            container_id = await runtime.create_container(sandbox.id, config, worker.sandbox_config)
        except RuntimeFailure as error:
            await self._refused(container, state, "CreateContainerError", error)
            return ""
        worker.parts.owned(container_id, worker.uid)
        self._resizer.record(container, container_id)
        worker.event("Normal", "Created", "Container created", name)
        try:
            await worker.parts.devices.starting(worker.pod, container)
        except AllocationRefused as error:
            words = f"Internal PreStartContainer hook failed: {error}"
            self._fail(container, state, "PreStartHookError", str(error), words)
            return ""
        try:
            await runtime.start_container(container_id)
        except RuntimeFailure as error:
            await self._refused(container, state, "RunContainerError", error, container_id)
            return ""
        worker.event("Normal", "Started", "Container started", name)
        fresh = ContainerMemory(container_id=container_id)
        worker.memory[name] = fresh
        hook = (container.get("lifecycle") or {}).get("postStart")
        if hook:
            fresh.hook_running = True
            task = asyncio.create_task(self._after_hook(container, container_id, hook), name=f"postStart of {name}")
            worker.spawn(task)
        else:
            self._started(container, container_id)
        return container_id

    async def _after_hook(self, container: Obj, container_id: str, hook: Obj) -> None:
        worker = self._worker
        outcome = await self._hook(container, container_id, hook)
        state = worker.memory[container["name"]]
        if state.container_id != container_id:
            return
        state.hook_running = False
        if outcome.ok:
            self._started(container, container_id)
            return
        worker.event("Warning", "FailedPostStartHook", "PostStartHook failed", container["name"])
        state.doomed = "FailedPostStartHook"

    async def _hook(self, container: Obj, container_id: str, hook: Obj) -> Outcome:
        worker, parts = self._worker, self._worker.parts
        try:
            call = run_hook(
                parts.runtime, parts.caller, worker.pod, container, hook, container_id, worker.pod_ip(), worker.event
            )
            return await unless_cancelled(call)
        except Exception as error:
            # Whatever it is, the hook has not done its work; left running it would hold back the whole pod.
            parts.failures.note(f"postStart of {container['name']} in {podspec.quoted(worker.pod)}", error)
            return Outcome(False, str(error))

    def _started(self, container: Obj, container_id: str) -> None:
        state = self._worker.memory[container["name"]]
        state.started = started_without_probe(container)
        state.ready = state.started and ready_without_probe(container)
        self._probes.start(container, container_id, self._worker.parts.clock.now())
