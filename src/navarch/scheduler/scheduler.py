"""The scheduler: takes pending pods off the queue, chooses a node for each, and binds them, many bindings at a time.

One placement, through the files: an informer reports the pod (`following`), `podinfo` parses it, `queue` holds it
until it is its turn, `evaluator` asks the plugins of its profile about all nodes of `table` at once, `selection`
chooses, `cache` counts the pod as placed at once, and `writes` binds it. If no node can take it, `preemption` looks
for pods to remove, and the pod waits in the queue for an event that may help.

A decision never waits for anything, so it always sees one consistent state; everything that waits is a task of its
own.
"""

from __future__ import annotations

import asyncio
import logging

from navarch.api.errors import StatusError
from navarch.api.meta import is_deleting
from navarch.client import resources
from navarch.client.base import Client
from navarch.client.events import EventRecorder
from navarch.client.informer import Informers
from navarch.scheduler.cache import SchedulerCache
from navarch.scheduler.columns import NodeColumns
from navarch.scheduler.config import SchedulerConfig
from navarch.scheduler.counters import PodCounters
from navarch.scheduler.environment import Environment
from navarch.scheduler.evaluator import Diagnosis, Evaluator
from navarch.scheduler.following import Follower
from navarch.scheduler.framework import Failure, Plugin, Profile
from navarch.scheduler.nominator import Nominator
from navarch.scheduler.podinfo import PodInfo, PodParser
from navarch.scheduler.preemption import Preemptor
from navarch.scheduler.queue import SchedulingQueue
from navarch.scheduler.selection import choose, explain
from navarch.scheduler.writes import Writer
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)

# Decisions between two turns of the event loop: enough to be quick, few enough to keep watches and bindings flowing.
_BATCH = 16


class Scheduler:
    """Schedules the pods whose `schedulerName` is one of its profiles'. The informers are run by their owner."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        *,
        world: World | None = None,
        config: SchedulerConfig | None = None,
    ) -> None:
        self.config = config or SchedulerConfig()
        world = world or RealWorld()
        self._ties = world.random("scheduler", "ties")
        self._writer = Writer(client, world)
        self.columns = NodeColumns()
        parser = PodParser()
        self.cache = SchedulerCache(self.columns, parser)
        self.queue = SchedulingQueue(
            self._plugins_of,
            first_backoff_s=self.config.first_backoff_s,
            last_backoff_s=self.config.last_backoff_s,
        )
        self.nominator = Nominator()
        self.environment = Environment(client, informers, self.queue.happened, world)
        counters = PodCounters(self.columns, self.environment)
        self._profiles = {profile.name: profile for profile in self.config.profiles}
        self.evaluators = {
            profile.name: Evaluator(profile, self.columns, counters, self.environment)
            for profile in self.config.profiles
        }
        self._events = {name: EventRecorder(client, name, world=world) for name in self._profiles}
        self._preemptor = Preemptor(
            self.columns, self.environment, self.nominator, world.random("scheduler", "preemption")
        )
        self._preempting = asyncio.Lock()
        self._pods = informers.get(resources.PODS)
        self._nodes = informers.get(resources.NODES)
        self._follower = Follower(self.cache, self.queue, self.nominator, parser, frozenset(self._profiles))
        self._slots = asyncio.Semaphore(self.config.binds_in_flight)

    async def run(self) -> None:
        """Schedule until cancelled."""
        self.environment.start()
        await self.environment.synced()
        await self._nodes.synced()
        self._follower.start(self._nodes, self._pods)
        await self._pods.synced()
        try:
            async with asyncio.TaskGroup() as tasks:
                for recorder in self._events.values():
                    tasks.create_task(recorder.run(), name="scheduler events")
                await self._schedule(tasks)
        finally:
            if self.config.extenders is not None:
                await self.config.extenders.close()

    async def _schedule(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self.queue.ready()
            for _ in range(_BATCH):
                # The slot first: a pod that waited for one would be neither in the queue nor in flight, and what
                # happened to it meanwhile would put it into the queue a second time.
                await self._slots.acquire()
                pod = self.queue.pop()
                if pod is None or not await self._try(pod, tasks):
                    self._slots.release()
                if pod is None:
                    break
            await asyncio.sleep(0)

    async def _try(self, pod: PodInfo, tasks: asyncio.TaskGroup) -> bool:
        """Decide on one pod; True where a task was started that will release the slot."""
        current = self._pods.get(*pod.key)
        if current is None or current["metadata"].get("uid") != pod.uid or is_deleting(current):
            self.nominator.remove(pod.uid)
            return False
        evaluator = self.evaluators[pod.scheduler_name]
        self._follower.in_flight.add(pod.uid)
        try:
            rejection = evaluator.reject(pod)
            if rejection is not None and rejection.is_quiet:
                self._follower.in_flight.discard(pod.uid)
                self.queue.park(self._follower.renewed(pod, current), frozenset({rejection.plugin}))
                return False
            if rejection is not None:
                self.queue.expect(pod.uid)
                tasks.create_task(self._refuse(pod, Diagnosis.rejected(self.columns, rejection), evaluator))
                return True
            if evaluator.prepares(pod):
                self.queue.expect(pod.uid)
                await evaluator.prepare(pod, self.nominator.node_of(pod.uid))
            return self._place(pod, evaluator, tasks)
        except Failure as failure:
            tasks.create_task(self._fail(pod, str(failure)))
            return True
        except Exception:
            # A plugin that fails must not take the scheduler down: the pod is tried again after its back-off.
            log.exception("scheduling %s", pod.key)
            self._requeue(pod, frozenset())
            return False

    def _place(self, pod: PodInfo, evaluator: Evaluator, tasks: asyncio.TaskGroup) -> bool:
        node_name = choose(pod, evaluator, self.columns, self.nominator, self._ties)
        if node_name is None:
            self.queue.expect(pod.uid)
            diagnosis = explain(pod, evaluator, self.columns, self.nominator)
            tasks.create_task(self._refuse(pod, diagnosis, evaluator))
            return True
        try:
            for plugin in evaluator.profile.at("reserve"):
                if plugin.binds(pod):
                    plugin.reserve(pod, node_name, self.environment)
        except StatusError as error:
            tasks.create_task(self._fail(pod, f'running Reserve plugin "{plugin.name}": {error.message}'))
            return True
        self.cache.assume(pod, node_name)
        tasks.create_task(self._bind(pod, node_name))
        return True

    # Bound.

    async def _bind(self, pod: PodInfo, node_name: str) -> None:
        profile = self._profiles[pod.scheduler_name]
        try:
            await self._pre_bind(pod, node_name, profile)
            binder = next((plugin for plugin in profile.plugins if plugin.binds_instead(pod)), None)
            await (self._writer if binder is None else binder).bind(pod, node_name)
        except (StatusError, OSError) as error:
            await self._binding_failed(pod, node_name, error)
            return
        except Exception as error:
            # A plugin that fails costs its pod another try, not everybody the scheduler.
            log.exception("preparing %s for %s", pod.key, node_name)
            await self._binding_failed(pod, node_name, error)
            return
        finally:
            self._slots.release()
        self.nominator.remove(pod.uid)
        self._follower.in_flight.discard(pod.uid)
        text = f"Successfully assigned {pod.key.namespace}/{pod.key.name} to {node_name}"
        self._events[profile.name].event(pod.obj, "Normal", "Scheduled", text, action="Binding")
        self._follower.settle(pod)

    async def _pre_bind(self, pod: PodInfo, node_name: str, profile: Profile) -> None:
        """What has to be ready before the pod is. That may take minutes, of which no other pod is to know: the slot
        is lent to others meanwhile."""
        preparing = [plugin for plugin in profile.at("preBind") if plugin.binds(pod)]
        if not preparing:
            return
        self._slots.release()
        try:
            for plugin in preparing:
                await plugin.pre_bind(pod, self._nodes.get("", node_name) or {}, self.environment)
        finally:
            await self._slots.acquire()

    async def _binding_failed(self, pod: PodInfo, node_name: str, error: Exception) -> None:
        log.info("binding %s to %s: %s", pod.key, node_name, error)
        for plugin in self._profiles[pod.scheduler_name].at("reserve"):
            if plugin.binds(pod):
                try:
                    await plugin.roll_back(pod, self.environment)
                except (StatusError, OSError) as further:
                    log.info("%s for %s: %s", plugin.name, pod.key, further)
        self.cache.forget(pod)
        if isinstance(error, StatusError) and error.code != 404:
            self._events[pod.scheduler_name].event(
                pod.obj, "Warning", "FailedScheduling", f"binding rejected: {error.message}", action="Scheduling"
            )
        self._requeue(pod, frozenset())
        self.queue.retry_all()

    # Refused.

    async def _fail(self, pod: PodInfo, message: str) -> None:
        """The pod could not be judged."""
        try:
            self._requeue(pod, frozenset())
            self._events[pod.scheduler_name].event(pod.obj, "Warning", "FailedScheduling", message, action="Scheduling")
            await self._writer.unscheduled(pod, "SchedulerError", message)
        except (StatusError, OSError) as error:
            log.info("telling %s: %s", pod.key, error)
        finally:
            self._slots.release()

    async def _refuse(self, pod: PodInfo, diagnosis: Diagnosis, evaluator: Evaluator) -> None:
        profile = evaluator.profile
        appendix, nominated = "", None
        # From when it is in the queue again it is the next attempt's, even while this one still tells of its refusal.
        held = True
        try:
            if diagnosis.nodes:
                appendix, nominated = await self._make_room(pod, diagnosis, evaluator)
            if diagnosis.nodes:
                message = diagnosis.message(appendix)
            else:
                message = "no nodes available to schedule pods"
            everybody = frozenset(plugin.name for plugin in profile.plugins)
            held = False
            self._requeue(pod, diagnosis.plugins or everybody, outright=bool(diagnosis.rejection))
            self._events[profile.name].event(pod.obj, "Warning", "FailedScheduling", message, action="Scheduling")
            await self._writer.unscheduled(pod, "Unschedulable", message, nominated)
        except Failure as failure:
            # Preemption is not what the pod is refused for: it is tried again, as after other errors.
            log.info("making room for %s: %s", pod.key, failure)
            self._requeue(pod, frozenset())
        except (StatusError, OSError) as error:
            log.info("refusing %s: %s", pod.key, error)
            if held:
                self._requeue(pod, frozenset())
        except Exception:
            log.exception("refusing %s", pod.key)
            if held:
                self._requeue(pod, frozenset())
        finally:
            self._slots.release()

    async def _make_room(self, pod: PodInfo, diagnosis: Diagnosis, evaluator: Evaluator) -> tuple[str, str | None]:
        # Devices are asked before other pods are, whether the pod has claims or not.
        profile = evaluator.profile
        asked = [plugin for plugin in profile.at("postFilter") if type(plugin).make_room is not Plugin.make_room]
        if asked and diagnosis.rejection and not any(plugin.name in diagnosis.plugins for plugin in asked):
            # What Kubernetes says of claims that nobody came to look at.
            return "not found", None
        said = [await plugin.make_room(pod, self.environment) for plugin in asked]
        if not profile.preemption:
            return ", ".join(said), None
        appendix, nominated = await self._preempt(pod, diagnosis, evaluator)
        return appendix and ", ".join([*said, appendix]), nominated

    async def _preempt(self, pod: PodInfo, diagnosis: Diagnosis, evaluator: Evaluator) -> tuple[str, str | None]:
        """Make room for the pod if that is possible. Returns what to say, and the node that is promised to it."""
        waits = self._preempting.locked()
        async with self._preempting:
            # One after the other, so that each sees the promises made before, and with a turn for all others between.
            await asyncio.sleep(0)
            if waits:
                if choose(pod, evaluator, self.columns, self.nominator, self._ties) is not None:
                    # Room has come meanwhile; what brought it wakes the pod.
                    return "", None
                diagnosis = explain(pod, evaluator, self.columns, self.nominator)
            outcome = await self._preemptor.find(pod, diagnosis, evaluator)
            if outcome.node_name is not None:
                self.nominator.set(pod, outcome.node_name)
        if outcome.node_name is None:
            if outcome.keeps_nomination or not self.nominator.node_of(pod.uid):
                return outcome.message, None
            self.nominator.remove(pod.uid)
            return outcome.message, ""
        for victim in outcome.victims:
            # Those that are ending already have only to be waited for.
            if not victim.deleting and await self._writer.evict(victim, evaluator.profile.name):
                text = f"Preempted by pod {pod.uid} on node {outcome.node_name}"
                self._events[evaluator.profile.name].event(
                    victim.obj, "Normal", "Preempted", text, action="Preempting", related=pod.obj
                )
        for other in self.nominator.below(outcome.node_name, pod.priority):
            # A promise to a lesser pod is void now; it looks for another place at its next turn.
            self.nominator.remove(other.uid)
            await self._writer.forget_nomination(other)
        return "", outcome.node_name

    def _requeue(self, pod: PodInfo, rejected_by: frozenset[str], *, outright: bool = False) -> None:
        self._follower.in_flight.discard(pod.uid)
        current = self._pods.get(*pod.key)
        if current is None or current["metadata"].get("uid") != pod.uid or current["spec"].get("nodeName"):
            self.nominator.remove(pod.uid)
            self.queue.remove(pod.uid)
            return
        self.queue.refuse(self._follower.renewed(pod, current), rejected_by, outright=outright)

    def _plugins_of(self, pod: PodInfo) -> list[Plugin]:
        profile: Profile | None = self._profiles.get(pod.scheduler_name)
        return profile.plugins if profile is not None else []
