"""`PodWorker`: keeps one pod as its object says. Level-triggered: each turn looks at the runtime, plans, does the next
steps, and sleeps until something changes or a time comes.

A turn never waits for what may take long: volumes, pulls, hooks, probes and stops run beside it and wake it when they
end. A start is one turn where all goes well: what a step has made is looked at by itself and added to what was
observed, instead of asking the runtime for the whole pod again. The status is published by a task of its own, so that a
missing API server never keeps containers from being looked after.

Here are the turns and their order; the steps are done by those whom the worker owns, each with its part of the pod:
volumes, devices, sandbox, containers (starting, stopping, resizing, probing), status, and what is to be removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, annotations_of, is_deleting, labels_of, revision_of
from navarch.api.time import parse_time
from navarch.client.supervision import Delay, supervised, unless_cancelled
from navarch.node import oserrors, podspec
from navarch.node.engine import retries
from navarch.node.engine.messages import termination_message
from navarch.node.engine.observed import ObservedContainer, moment
from navarch.node.engine.parts import Parts
from navarch.node.engine.plan import ContainerMemory, make_plan
from navarch.node.engine.podcleanup import PodCleanup
from navarch.node.engine.poddevices import PodDevices
from navarch.node.engine.podprobes import PodProbes
from navarch.node.engine.podsandbox import PodSandbox
from navarch.node.engine.podstate import PodState
from navarch.node.engine.podvolumes import PodVolumes
from navarch.node.engine.publish import Publisher
from navarch.node.engine.resize import Resizer
from navarch.node.engine.restart_whole import WholeRestart
from navarch.node.engine.start import Starter
from navarch.node.engine.status import StatusInputs
from navarch.node.engine.stop import Stopper
from navarch.node.probes.prober import ready_without_probe, started_without_probe
from navarch.node.runtime.base import RuntimeFailure
from navarch.node.spec.security import apparmor_is_enabled, wants_apparmor

log = logging.getLogger(__name__)


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
        self._devices = PodDevices(self)
        self._sandbox = PodSandbox(self, self._volumes, self._devices, self._stopper, self.publisher.changed)
        self._cleanup = PodCleanup(self, self._devices)
        self._whole = WholeRestart(self, self._probes, self._cleanup)
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
            self._stop_preparing()
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
            self.wake_after(min(timedelta(seconds=self._delay.failed()), retries.AGAIN))
        except Exception as error:
            # A fault of ours, or of an object that nobody thought of. The next turn may see another one.
            self.parts.failures.note(f"pod {podspec.quoted(self.pod)}", error)
            self.troubled(f"{type(error).__name__}: {error}")
            self.wake_after(timedelta(seconds=self._delay.failed()))
        else:
            self._delay.succeeded()

    async def _turn(self) -> None:
        if not (self.is_to_end or (self.pod.get("status") or {}).get("startTime") or self._is_blocked()):
            # Nothing has been told of it, so that most likely the runtime has nothing of it either.
            self._volumes.begin()
        await self.observe()
        self._check_deadline()
        if self.is_to_end:
            self.ending = True
        if self.ending:
            self._stop_preparing()
            await self._end()
        else:
            await self._keep()
        self.publisher.changed()

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
        if self._is_blocked() or self._whole.is_under_way():
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
        if plan.start and not await self._devices.are_granted():
            return
        if plan.create_sandbox:
            if not await self._sandbox.make(plan):
                return
            plan = make_plan(self.pod, self.observed, self.memory)
            if plan.end or plan.create_sandbox or (plan.start and not await self._devices.are_granted()):
                self.wake()
                return
        if self._volumes.set_up():
            self._sandbox.configure()
            if plan.start:
                await self._sandbox.wire()
                await self._look_at(await self._starter.start(plan.start))
            await self._cleanup.prune()
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

    def _is_blocked(self) -> bool:
        """Whether the node cannot keep what the pod demands before it begins; it then waits."""
        begun = podspec.phase_of(self.pod) not in ("", "Pending")
        if begun or not wants_apparmor(self.pod) or apparmor_is_enabled():
            self.blocked = ("", "")
            return False
        self.blocked = ("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
        self.wake_after(retries.AGAIN)
        return True

    def _stop_preparing(self) -> None:
        self._devices.stop()
        self._volumes.stop()

    # A pod that is to end.

    async def _end(self) -> None:
        """Stop what runs; when nothing does, let go of what the pod holds, and with a deleted pod of everything."""
        if self.observed.any_running or self.observed.sandbox_ready:
            self._stopper.stop_pod(self._end_grace_s())
            return
        self._probes.end_all()
        if not self.gone and not is_deleting(self.pod):
            await self._cleanup.let_go()
            return
        if not self.gone and not self.publisher.final_published:
            return
        await self._cleanup.clean()

    def _end_grace_s(self) -> int:
        if self.longest_grace_s is not None:
            return min(podspec.grace_period_s(self.pod), self.longest_grace_s)
        if self.gone and not is_deleting(self.pod) and not self.static:
            return max(1, min(podspec.grace_period_s(self.pod), 30))
        return podspec.grace_period_s(self.pod)

    def status_inputs(self) -> StatusInputs:
        """What the pod's status is computed from, as of now."""
        return StatusInputs(
            pod=self.pod,
            observed=self.observed,
            memory=self.memory,
            messages=self.messages,
            started_over=self.started_over,
            host_ips=self.parts.host_ips(),
            now=self.parts.clock.now(),
            ending=self.ending,
            refused=self.refused,
            failure=self.failure,
            blocked=self.blocked,
            conditions=[*self.conditions, *self._resizer.conditions()],
            given=self._resizer.given,
            given_whole=self._resizer.given_whole,
            devices=self._devices.statuses,
        )
