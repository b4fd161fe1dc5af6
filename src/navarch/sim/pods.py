"""Pods on simulated nodes: one queue of pod keys for all nodes, each key brought level with what its pod should
report.

In: pods that are bound to one of our nodes.  Out: at most one status write per change of a pod's life, and the final
deletion of pods that were told to stop. What there is to remember of a pod is its address; the rest is computed anew
from the pod, so a restart changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Sequence
from datetime import datetime, timedelta

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, is_deleting, key_of, uid_of
from navarch.client import resources
from navarch.client.base import Client, PatchKind
from navarch.client.events import EventRecorder
from navarch.client.informer import Informer
from navarch.client.supervision import Failures
from navarch.client.workqueue import WorkQueue
from navarch.kinds.core.pod_state import is_finished
from navarch.node.engine.admission import Refusal
from navarch.sim.addresses import PodAddresses
from navarch.sim.admission import Admission
from navarch.sim.behaviour import Latencies, behaviour_of
from navarch.sim.podstatus import refused_status, shows, status_of, stopped_status
from navarch.world import Clock

log = logging.getLogger(__name__)


class PodRunner:
    """`nodes` are the names that are ours; `node_of` gives a node's object, `addresses_of` and `cidrs_of` its addresses
    and pod networks, one per IP family; `tells` says whether containers have events."""

    def __init__(
        self,
        client: Client,
        pods: Informer,
        nodes: Container[str],
        *,
        node_of: Callable[[str], Obj | None],
        addresses_of: Callable[[str], Sequence[str]],
        cidrs_of: Callable[[str], Sequence[str]],
        admission: Admission,
        clock: Clock,
        latencies: Latencies,
        recorder: EventRecorder,
        tells: bool,
        workers: int = 32,
    ) -> None:
        self._client = client
        self._pods = pods
        self._nodes = nodes
        self._node_of = node_of
        self._addresses_of = addresses_of
        self._cidrs_of = cidrs_of
        self._admission = admission
        self._clock = clock
        self._latencies = latencies
        self._recorder = recorder
        self._tells = tells
        self._workers = workers
        self._queue: WorkQueue[Key] = WorkQueue(max_delay_s=10.0)
        self._addresses = PodAddresses()
        self._failures = Failures()
        self._held: dict[str, tuple[str, Sequence[str]]] = {}
        """By pod uid: its node and the addresses that it has there."""
        self._deleted: dict[str, datetime] = {}
        """By pod uid: when its deletion was seen."""
        self._level_at: dict[str, tuple[str, datetime | None]] = {}
        """By pod uid: the revision at which it was level, and until when it stays so."""
        self._stopped: set[str] = set()

    async def run(self) -> None:
        """Follow the pods until cancelled."""
        self._pods.add_handler(self._added, lambda _, pod: self._changed(pod), self._gone)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._workers):
                tasks.create_task(self._work(), name="simulated pods")

    def pause(self, node: str) -> None:
        """Nothing happens any more on a node that is down."""
        self._stopped.add(node)

    def resume(self, node: str) -> None:
        self._stopped.discard(node)
        for pod in self._pods.list():
            if pod["spec"].get("nodeName") == node:
                self._queue.add(key_of(pod))

    # Following.

    def _added(self, pod: Obj) -> None:
        node = pod["spec"].get("nodeName")
        if not node or node not in self._nodes:
            return
        self._admission.seen(pod)
        addresses = [each["ip"] for each in (pod.get("status") or {}).get("podIPs") or ()]
        if addresses and not pod["spec"].get("hostNetwork") and uid_of(pod) not in self._held:
            for address in addresses:
                self._addresses.reserve(address)
            self._held[uid_of(pod)] = (node, addresses)
        self._queue.add(key_of(pod))

    def _changed(self, pod: Obj) -> None:
        node = pod["spec"].get("nodeName")
        if node and node in self._nodes:
            self._admission.seen(pod)
            self._queue.add(key_of(pod))

    def _gone(self, pod: Obj) -> None:
        uid = uid_of(pod)
        self._deleted.pop(uid, None)
        self._level_at.pop(uid, None)
        self._admission.gone(uid)
        self._give_back(uid)

    # Working.

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._level(key)
                self._queue.forget(key)
            except StatusError as error:
                if error.code == 404:
                    self._queue.forget(key)
                else:
                    log.debug("pod %s: %s", key, error)
                    self._queue.add_rate_limited(key)
            except OSError as error:
                log.debug("pod %s: %s", key, error)
                self._queue.add_rate_limited(key)
            except Exception as error:
                # An object that nobody thought of: its own pod waits, all others go on.
                self._failures.note(f"pod {key}", error)
                self._queue.add_rate_limited(key)
            finally:
                self._queue.done(key)

    async def _level(self, key: Key) -> None:
        pod = self._pods.get(*key)
        if pod is None or pod["spec"].get("nodeName") in self._stopped:
            return
        if is_deleting(pod):
            await self._stop(pod)
            return
        uid, revision = uid_of(pod), pod["metadata"]["resourceVersion"]
        seen, until = self._level_at.get(uid, ("", None))
        if seen == revision and (until is None or self._clock.now() < until):
            # The echo of what was written here.
            return
        current = pod.get("status") or {}
        if is_finished(pod):
            self._give_back(uid)
            return
        node = pod["spec"]["nodeName"]
        now = self._clock.now()
        refused = None if current.get("startTime") else await self._refusal(pod, node)
        if refused is not None:
            await self._refuse(pod, refused, now)
            return
        does = behaviour_of(pod, self._latencies)
        status, next_s = status_of(pod, does, self._addresses_in(pod, node), self._addresses_of(node), now)
        if not shows(current, status):
            answer = await self._write(pod, status)
            if current.get("phase") != "Running" and status["phase"] == "Running":
                self._tell(pod, status)
            if _has_changed(pod, answer):
                # Somebody was in between: what was written speaks of the pod before, and comes back as an event.
                return
            revision = answer["metadata"]["resourceVersion"]
        self._level_at[uid] = (revision, now + timedelta(seconds=next_s) if next_s is not None else None)
        if next_s is not None:
            self._queue.add_after(key, next_s + 0.001)

    async def _refusal(self, pod: Obj, node: str) -> Refusal | None:
        """Who chose the node may have seen it change before we did: no pod is refused for what has been."""
        refused = self._admission.refusal(pod, self._node_of(node))
        if refused is None:
            return None
        try:
            found = await self._client.get(resources.NODES, node)
        except StatusError as error:
            if error.code != 404:
                raise
            return refused
        return self._admission.refusal(pod, found)

    async def _refuse(self, pod: Obj, refused: Refusal, now: datetime) -> None:
        self._recorder.event(pod, "Warning", refused.reason, refused.message)
        await self._write(pod, refused_status(pod, refused, now))

    async def _stop(self, pod: Obj) -> None:
        uid = uid_of(pod)
        now = self._clock.now()
        seen = self._deleted.setdefault(uid, now)
        grace_s = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        takes_s = min(behaviour_of(pod, self._latencies).stop_s, grace_s)
        left_s = takes_s - (now - seen).total_seconds()
        if left_s > 0:
            self._queue.add_after(key_of(pod), left_s)
            return
        if pod["metadata"].get("finalizers"):
            # Those who hold the pod (a Job counting its pods) want to see how it ended.
            if not is_finished(pod):
                await self._write(
                    pod,
                    stopped_status(
                        pod, behaviour_of(pod, self._latencies), self._addresses_of(pod["spec"]["nodeName"]), now
                    ),
                )
            if grace_s == 0:
                return
        await self._client.delete(
            resources.PODS, pod["metadata"]["name"], pod["metadata"]["namespace"], grace_s=0, uid=uid
        )

    async def _write(self, pod: Obj, status: Obj) -> Obj:
        return await self._client.patch(
            resources.PODS,
            pod["metadata"]["name"],
            pod["metadata"]["namespace"],
            {"metadata": {"uid": uid_of(pod)}, "status": status},
            kind=PatchKind.MERGE,
            subresource="status",
        )

    # Addresses and events.

    def _addresses_in(self, pod: Obj, node: str) -> Sequence[str]:
        if pod["spec"].get("hostNetwork"):
            return self._addresses_of(node)
        held = self._held.get(uid_of(pod))
        if held is None:
            taken = tuple(self._addresses.take(cidr) for cidr in self._cidrs_of(node) or ("",))
            held = self._held[uid_of(pod)] = (node, taken)
        return held[1]

    def _give_back(self, uid: str) -> None:
        held = self._held.pop(uid, None)
        if held is not None:
            node, addresses = held
            cidrs = self._cidrs_of(node)
            for address in addresses:
                mine = next((cidr for cidr in cidrs if (":" in cidr) == (":" in address)), "")
                self._addresses.give_back(mine, address)

    def _tell(self, pod: Obj, status: Obj) -> None:
        if not self._tells:
            return
        for container in pod["spec"]["containers"]:
            path = f"spec.containers{{{container['name']}}}"
            image = container.get("image", "")
            text = f'Container image "{image}" already present on machine'
            self._recorder.event(pod, "Normal", "Pulled", text, field_path=path)
            self._recorder.event(pod, "Normal", "Created", "Container created", field_path=path)
            self._recorder.event(pod, "Normal", "Started", "Container started", field_path=path)


def _has_changed(pod: Obj, later: Obj) -> bool:
    """Whether what a status is made of differs between the two."""
    before, after = pod["metadata"], later["metadata"]
    return any(before.get(part) != after.get(part) for part in ("generation", "annotations", "deletionTimestamp"))
