"""`PodWorker`: keeps one pod as its object says. Level-triggered: each turn looks at the runtime, plans, does the next
steps, and sleeps until something changes or a time comes.

A turn never waits for what may take long: volumes, pulls, hooks, probes and stops run beside it and wake it when they
end. A start is one turn where all goes well: what a step has made is looked at by itself and added to what was
observed, instead of asking the runtime for the whole pod again. The status is published by a task of its own, so that a
missing API server never keeps containers from being looked after.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, annotations_of, is_deleting, labels_of, revision_of
from navarch.api.time import parse_time
from navarch.client.supervision import Delay, supervised, unless_cancelled
from navarch.node import oserrors, podspec
from navarch.node.devices.manager import AllocationRefused
from navarch.node.dra.claims import DeviceError, has_claims
from navarch.node.engine.messages import termination_message
from navarch.node.engine.observed import ObservedContainer, moment
from navarch.node.engine.parts import Parts
from navarch.node.engine.plan import ContainerMemory, Plan, make_plan
from navarch.node.engine.podprobes import PodProbes
from navarch.node.engine.podstate import PodState
from navarch.node.engine.podvolumes import PodVolumes
from navarch.node.engine.publish import Publisher
from navarch.node.engine.resize import Resizer
from navarch.node.engine.start import Starter
from navarch.node.engine.status import StatusInputs
from navarch.node.engine.stop import Stopper
from navarch.node.probes.prober import ready_without_probe, started_without_probe
from navarch.node.runtime.base import NotFound, RuntimeFailure, SandboxConfig
from navarch.node.runtime.rotated_logs import remove_logs
from navarch.node.spec.dns import read_resolv_conf, resolver_of
from navarch.node.spec.sandbox import sandbox_config
from navarch.node.spec.security import apparmor_is_enabled, has_user_namespace, wants_apparmor
from navarch.node.user_namespaces import unsupported

log = logging.getLogger(__name__)

_RETRY: Final = timedelta(seconds=10)
_SHORT_RETRY: Final = timedelta(seconds=1)


class PodWorker(PodState):
    """One pod's worker. `update` and `object_gone` bring news of the object, `wake` of everything else; `run` ends when
    nothing of the pod is left on the node, and for nothing else: whatever goes wrong in a turn is told, counted, and
    tried again."""

    def __init__(self, pod: Obj, parts: Parts, *, static: bool = False) -> None:
        super().__init__(pod, parts, static=static)
        self._probes = PodProbes(self)
        self._stopper = Stopper(self, self._probes)
        self._resizer = Resizer(self)
        self.applied = self._resizer.applied
        self.take(pod)
        self._starter = Starter(self, self._probes, self._resizer)
        self._volumes = PodVolumes(self, self._starter.volume_image)
        self.publisher = Publisher(self, self.status_inputs)
        self._preparing: asyncio.Task[None] | None = None
        # An ended pod that is still an object has nothing on the node but its logs.
        self._let_go = False
        # The first attempt at a sandbox whose name the runtime has not taken for itself.
        self._free_attempt = 0
        # The sandbox whose network is known to who guards it.
        self._wired_sandbox = ""
        # What a pod that is ended by the node has, instead of its own grace period.
        self._longest_grace_s: int | None = None
        self._delay = Delay()

    # News.

    def update(self, pod: Obj) -> None:
        """The object changed."""
        if revision_of(pod) < revision_of(self.pod):
            return
        if labels_of(pod) != labels_of(self.pod) or annotations_of(pod) != annotations_of(self.pod):
            # Downward API volumes show these.
            self._volumes.outdate()
        if self.learn(pod):
            self.wake()
        else:
            self.publisher.changed()

    def mirrored(self, mirror: Obj | None) -> None:
        """This is the static pod's mirror pod now."""
        known = (self.pod.get("status") or {}).get("startTime")
        if mirror is not None and not known and mirror.get("status"):
            # An earlier kubelet told this of the pod: when it began, how often its containers were started.
            self.pod = {**self.pod, "status": mirror["status"]}
        self.mirror = mirror
        self.publisher.changed()

    def fail(self, reason: str, message: str, conditions: Sequence[Obj] = (), *, grace_s: int | None = None) -> None:
        """End the pod as Failed: it is evicted, or its time is over. With `grace_s` it has no longer than that."""
        if not self.failure[0]:
            self.failure = (reason, message)
            self.conditions = list(conditions)
            self._longest_grace_s = grace_s
            self.wake()

    def refuse(self, reason: str, message: str) -> None:
        """End the pod as Failed before anything of it began."""
        self.refused = True
        self.fail(reason, message)

    @property
    def waits_for_room(self) -> bool:
        """Whether it would be resized if the node had room for it."""
        return self._resizer.waits_for_room and not self.ending

    def look_for_room(self) -> None:
        """The node may have room now for what it is to be resized to."""
        self._resizer.allocate()
        self.wake()

    def refresh_volumes(self) -> None:
        """What volumes are made of has changed: bring them up to date in the next turn."""
        self._volumes.outdate()
        self.wake()

    # Running.

    async def run(self) -> None:
        """Take turns until the pod has gone from the node."""
        name = f"status of {podspec.quoted(self.pod)}"
        publishing = asyncio.create_task(supervised(name, self.publisher.run, self.parts.failures), name=name)
        try:
            while not (self.cleaned and (self.gone or self.publisher.deleted)):
                await self.woken()
                await self._guarded_turn()
        finally:
            publishing.cancel()
            self._probes.end_all()
            self._stop_publishing()
            self.parts.volumes.abandon(self.uid)
            for task in list(self.tasks):
                task.cancel()
            await asyncio.gather(publishing, *self.tasks, return_exceptions=True)

    async def _guarded_turn(self) -> None:
        try:
            await unless_cancelled(self._turn())
        except (RuntimeFailure, OSError, StatusError) as error:
            words = oserrors.words(error)
            log.warning("pod %s: %s", podspec.quoted(self.pod), words)
            self.troubled(words)
            # The runtime and the API server wake nobody when they answer again.
            self.wake_after(min(timedelta(seconds=self._delay.failed()), _RETRY))
        except Exception as error:
            # A fault of ours, or of an object that nobody thought of. The next turn may see another one.
            self.parts.failures.note(f"pod {podspec.quoted(self.pod)}", error)
            self.troubled(f"{type(error).__name__}: {error}")
            self.wake_after(timedelta(seconds=self._delay.failed()))
        else:
            self._delay.succeeded()

    async def _turn(self) -> None:
        if not (self._is_to_end() or (self.pod.get("status") or {}).get("startTime") or self._is_blocked()):
            # Nothing has been told of it, so that most likely the runtime has nothing of it either.
            self._volumes.begin()
        await self.observe()
        self._check_deadline()
        if self._is_to_end():
            self.ending = True
        if self.ending:
            self._stop_publishing()
            await self._end()
        else:
            await self._keep()
        self.publisher.changed()

    def _is_to_end(self) -> bool:
        return self.gone or is_deleting(self.pod) or bool(self.failure[0]) or podspec.is_finished(self.pod)

    async def observe(self) -> None:
        """Look at the runtime, and adjust what is remembered of containers to it."""
        self.observed = await self.parts.observer.observe(self.uid)
        await self._take_in()

    async def _take_in(self) -> None:
        for sandbox in self.observed.sandboxes:
            self.parts.owned(sandbox.id, self.uid)
        for container in podspec.all_containers(self.pod):
            for instance in self.observed.containers.get(container["name"]) or ():
                self.parts.owned(instance.id, self.uid)
                if instance.exited and instance.id not in self.messages:
                    self.messages[instance.id] = await self.parts.world.in_thread(termination_message, instance.status)
            latest = self.observed.latest(container["name"])
            if latest is not None:
                self._remember(container, latest)

    def _remember(self, container: Obj, instance: ObservedContainer) -> None:
        """Adopt a running instance that is not known yet, and drop the probes of one that ended."""
        name = container["name"]
        state = self.memory.setdefault(name, ContainerMemory())
        if instance.running:
            if state.container_id != instance.id:
                self._adopt(container, instance, state)
        elif self._probes.end(name):
            state.ready = state.started = False

    def _adopt(self, container: Obj, instance: ObservedContainer, state: ContainerMemory) -> None:
        """A container that ran before this kubelet did: what the API says of it still holds."""
        told: Obj = next(
            (
                status
                for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
                for status in (self.pod.get("status") or {}).get(field) or []
                if status["name"] == container["name"] and status.get("containerID", "").endswith(instance.id)
            ),
            {},
        )
        state.container_id = instance.id
        state.doomed = state.waiting_reason = state.waiting_message = ""
        state.hook_running = False
        state.started = bool(told.get("started")) or started_without_probe(container)
        state.ready = bool(told.get("ready")) or (ready_without_probe(container) and state.started)
        self._probes.start(container, instance.id, moment(instance.status.started_at_ns), adopted=True)

    def _check_deadline(self) -> None:
        limit = self.pod["spec"].get("activeDeadlineSeconds")
        started = (self.pod.get("status") or {}).get("startTime")
        if limit is None or not started or self.ending:
            return
        end = parse_time(started) + timedelta(seconds=int(limit))
        if self.parts.clock.now() >= end:
            message = "Pod was active on the node longer than the specified deadline"
            self.event("Normal", "DeadlineExceeded", message)
            self.fail("DeadlineExceeded", message)
        else:
            self.wake_at(end)

    # A pod that is to run.

    async def _keep(self) -> None:
        if self._is_blocked():
            return
        await self._resizer.apply()
        plan = make_plan(self.pod, self.observed, self.memory)
        if plan.end:
            self.ending = True
            await self._end()
            return
        for kill in plan.kill:
            self.memory.setdefault(kill.container["name"], ContainerMemory()).again |= kill.again
            self._stopper.kill(kill)
        if plan.start and not await self._has_devices():
            return
        if plan.create_sandbox:
            if not await self._make_sandbox(plan):
                return
            plan = make_plan(self.pod, self.observed, self.memory)
            if plan.end or plan.create_sandbox or (plan.start and not await self._has_devices()):
                self.wake()
                return
        if self._volumes.set_up() and await self._configure():
            if plan.start:
                await self._wired()
                await self._look_at(await self._starter.start(plan.start))
            await self._prune()
        self._volumes.schedule_refresh()

    async def _look_at(self, started: Sequence[str]) -> None:
        """See what became of containers that were started just now; another turn goes on where there is more to do."""
        if not started:
            return
        self.observed = await self.parts.observer.with_containers(self.observed, started)
        await self._take_in()
        plan = make_plan(self.pod, self.observed, self.memory)
        if plan.create_sandbox or plan.start or plan.kill or plan.end or self._resizer.under_way:
            self.wake()

    async def _wired(self) -> None:
        """Once per network that the pod gets: what it may say is settled before its containers say it."""
        sandbox = self.observed.sandboxes[0].id
        if sandbox != self._wired_sandbox and not self.pod["spec"].get("hostNetwork"):
            await self.parts.wired(self.pod, self.observed.ips)
        self._wired_sandbox = sandbox

    async def _has_devices(self) -> bool:
        """Whether the pod's plugins have said what its containers need; one that will not ends the pod."""
        try:
            await self.parts.devices.prepare(self.pod)
        except AllocationRefused as error:
            self.event("Warning", error.reason, error.told)
            self.fail(error.reason, f"Pod was rejected: {error.told}")
            return False
        return True

    async def _make_sandbox(self, plan: Plan) -> bool:
        """Whether the pod has its sandbox now, and its containers can be started in the same turn."""
        first = not self.observed.sandboxes and not self.observed.containers
        if self.observed.any_running or self.observed.sandbox_ready:
            self.event("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
            await self._stopper.stop_leftovers()
        if not self._volumes.set_up():
            self.publisher.changed()
            if not await self._volumes.soon() or self._is_to_end():
                return False
        missing = await self._missing_network()
        if missing:
            self.event("Warning", "NetworkNotReady", f"network is not ready: {missing}")
            self.wake_after(_SHORT_RETRY)
            return False
        if not self._prepare_devices():
            return False
        self.publisher.changed()
        attempt = max(plan.attempt, self._free_attempt)
        await self.parts.resources.publish(self.pod)
        try:
            handler = await self._runtime_handler()
            await self._check_users(handler)
            config = self._sandbox_config(attempt)
            await self.parts.world.in_thread(Path(config.log_directory).mkdir, parents=True, exist_ok=True)
            sandbox_id = await self.parts.runtime.run_sandbox(config, handler)
        except ConnectionError:
            raise
        except (RuntimeFailure, OSError) as error:
            words = oserrors.words(error)
            self.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {words}")
            if "failed to reserve sandbox name" in str(error):
                # containerd 1.6 keeps the name of a sandbox that it failed to make, and does not list that sandbox.
                self._free_attempt = attempt + 1
            self.wake_after(_RETRY if plan.attempt else _SHORT_RETRY * 3)
            return False
        self.parts.owned(sandbox_id, self.uid)
        self.sandbox_config = config
        if not first or self._is_to_end():
            self.wake()
            return False
        self.observed = await self.parts.observer.with_sandbox(self.uid, sandbox_id)
        self.publisher.changed()
        return True

    def _prepare_devices(self) -> bool:
        """Whether drivers have prepared what the pod claims; that is done beside the turns."""
        if not has_claims(self.pod):
            return True
        if self._preparing is None:
            self._preparing = asyncio.create_task(
                self.parts.device_claims.prepare(self.pod), name=f"claims of {podspec.quoted(self.pod)}"
            )
            self._preparing.add_done_callback(lambda _: self.wake())
        if not self._preparing.done():
            return False
        outcome, self._preparing = self._preparing, None
        try:
            outcome.result()
        except DeviceError as error:
            words = f"Failed to prepare dynamic resources: prepare dynamic resources: {error}"
            self.event("Warning", "FailedPrepareDynamicResources", words)
            self.wake_after(_SHORT_RETRY * 3)
            return False
        return True

    async def _give_devices_back(self) -> bool:
        """Whether nothing of what the pod claimed is prepared for it any more."""
        if not has_claims(self.pod):
            return True
        try:
            await self.parts.device_claims.unprepare(self.uid)
        except DeviceError as error:
            log.warning("%s: unprepare dynamic resources: %s", podspec.quoted(self.pod), error)
            return False
        return True

    async def _missing_network(self) -> str:
        """Why no sandbox can get a network now, as after a start of the node; empty where one can."""
        if podspec.host_network(self.pod):
            return ""
        for condition in await self.parts.runtime.conditions():
            if condition.type == "NetworkReady" and not condition.status:
                words = f"reason:{condition.reason} message:{condition.message}"
                return f"container runtime network not ready: NetworkReady=false {words}"
        return ""

    async def _runtime_handler(self) -> str:
        """The handler of the pod's RuntimeClass; `runc` is what there is without one."""
        name = self.pod["spec"].get("runtimeClassName")
        if not name:
            return ""
        from navarch.client.resources import RUNTIME_CLASSES

        found = await self.parts.source.get(RUNTIME_CLASSES, "", name)
        if found is None:
            raise RuntimeFailure(f'runtimeclass.node.k8s.io "{name}" not found')
        return str(found.get("handler") or "")

    async def _check_users(self, handler: str) -> None:
        """Raises RuntimeFailure where the pod is to have a user namespace and cannot."""
        if not has_user_namespace(self.pod):
            return
        if why := unsupported(await self.parts.runtime.features(), handler):
            raise RuntimeFailure(why)

    def _is_blocked(self) -> bool:
        """Whether the node cannot keep what the pod demands before it begins; it then waits."""
        begun = podspec.phase_of(self.pod) not in ("", "Pending")
        if begun or not wants_apparmor(self.pod) or apparmor_is_enabled():
            self.blocked = ("", "")
            return False
        self.blocked = ("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
        self.wake_after(_RETRY)
        return True

    def _sandbox_config(self, attempt: int) -> SandboxConfig:
        config = self.parts.config
        host = read_resolv_conf(config.host_resolv_conf)
        resolver = resolver_of(self.pod, host, config.cluster_dns, config.cluster_domain)
        return sandbox_config(self.pod, attempt, resolver, config, self.users())

    async def _configure(self) -> bool:
        """Have the sandbox's configuration at hand, also for a sandbox made by an earlier kubelet."""
        if self.sandbox_config is None:
            sandbox = self.observed.sandbox
            self.sandbox_config = self._sandbox_config(sandbox.attempt if sandbox is not None else 0)
        return True

    def _stop_publishing(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            self._preparing = None
        self._volumes.stop()

    async def _prune(self) -> None:
        """Keep one ended instance per container beside the newest, for its log and its state; remove older ones."""
        for name, instances in self.observed.containers.items():
            for old in instances[2:]:
                if old.running:
                    continue
                with contextlib.suppress(NotFound):
                    await self.parts.runtime.remove_container(old.id)
                self.parts.observer.forget(old.id)
                self.messages.pop(old.id, None)
                if old.status.log_path:
                    await self.parts.world.in_thread(remove_logs, Path(old.status.log_path))
                log.debug("removed an old instance of %s in %s", name, podspec.quoted(self.pod))
        for old_sandbox in self.observed.sandboxes[1:]:
            if not any(container.sandbox_id == old_sandbox.id for container in self.observed.all()):
                with contextlib.suppress(NotFound):
                    await self.parts.runtime.stop_sandbox(old_sandbox.id)
                    await self.parts.runtime.remove_sandbox(old_sandbox.id)

    # A pod that is to end.

    async def _end(self) -> None:
        """Stop what runs; when nothing does, let go of what the pod holds, and with a deleted pod of everything."""
        if self.observed.any_running or self.observed.sandbox_ready:
            self._stopper.stop_pod(self._end_grace_s())
            return
        self._probes.end_all()
        if not self.gone and not is_deleting(self.pod):
            if not self._let_go:
                self.volumes = {}
                self._let_go = await self._give_devices_back() and await self.parts.volumes.unpublish(self.uid)
                await self.parts.resources.unpublish(self.pod)
                if not self._let_go:
                    self.wake_after(_RETRY)
                self.parts.freed()
            return
        if not self.gone and not self.publisher.final_published:
            return
        await self._clean()

    def _end_grace_s(self) -> int:
        if self._longest_grace_s is not None:
            return min(podspec.grace_period_s(self.pod), self._longest_grace_s)
        if self.gone and not is_deleting(self.pod) and not self.static:
            return max(1, min(podspec.grace_period_s(self.pod), 30))
        return podspec.grace_period_s(self.pod)

    async def _clean(self) -> None:
        """Remove containers, sandboxes, volumes, logs and cgroups of a pod that is deleted."""
        if self.cleaned:
            return
        runtime = self.parts.runtime
        for container in self.observed.all():
            with contextlib.suppress(NotFound):
                await runtime.remove_container(container.id)
            self.parts.observer.forget(container.id)
        for sandbox in self.observed.sandboxes:
            with contextlib.suppress(NotFound):
                await runtime.stop_sandbox(sandbox.id)
                await runtime.remove_sandbox(sandbox.id)
        metadata = self.pod["metadata"]
        logs = self.parts.config.log_directory(metadata["namespace"], metadata["name"], self.uid)
        await self.parts.world.in_thread(shutil.rmtree, logs, ignore_errors=True)
        await self.parts.resources.unpublish(self.pod)
        if not (await self._give_devices_back() and await self.parts.volumes.unpublish(self.uid)):
            # As in Kubernetes, a pod is not gone while something of its volumes is here.
            self.wake_after(_RETRY)
            return
        self.parts.images.forget_pod(self.uid)
        self.parts.source.forget_pod(self.pod)
        self.parts.backoff.forget(f"{self.uid}/")
        self.parts.users.release(self.uid)
        self.cleaned = True
        self.wake()

    def status_inputs(self) -> StatusInputs:
        """What the pod's status is computed from, as of now."""
        return StatusInputs(
            pod=self.pod,
            observed=self.observed,
            memory=self.memory,
            messages=self.messages,
            host_ips=self.parts.host_ips(),
            now=self.parts.clock.now(),
            ending=self.ending,
            refused=self.refused,
            failure=self.failure,
            blocked=self.blocked,
            conditions=[*self.conditions, *self._resizer.conditions()],
            given=self._resizer.given,
            devices=self._devices_of,
        )

    def _devices_of(self, container: Obj) -> Sequence[Obj]:
        if not self.parts.config.features.on("ResourceHealthStatus"):
            return ()
        of_claims = self.parts.device_claims.statuses(self.pod, container)
        return [*self.parts.devices.statuses(self.pod, container), *of_claims]
