"""`PodState`: what a pod's worker and those that work for it know of the pod, and how they wake it.

The worker owns it; starting, stopping, resizing, probing and publishing read and change it. It imports none of them, so
that each depends on this and on nothing above.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj, is_deleting
from navarch.node import podspec
from navarch.node.engine.observed import ObservedPod
from navarch.node.engine.parts import Parts
from navarch.node.engine.plan import ContainerMemory
from navarch.node.engine.status import in_order
from navarch.node.runtime.base import IDRange, SandboxConfig
from navarch.node.spec.security import has_user_namespace

log = logging.getLogger(__name__)

# What the kubelet itself writes into a pod's status.
_TOLD: Final = frozenset(
    (
        "allocatedResources",
        "conditions",
        "containerStatuses",
        "ephemeralContainerStatuses",
        "hostIP",
        "hostIPs",
        "initContainerStatuses",
        "message",
        "observedGeneration",
        "phase",
        "podIP",
        "podIPs",
        "qosClass",
        "reason",
        "resources",
        "startTime",
    )
)
# The reason of a pod that has to go so that the node stays usable.
EVICTED: Final = "Evicted"
_LONGEST_MESSAGE: Final = 1000
_OF_STORAGE: Final = frozenset(("managedFields", "resourceVersion"))


class PodState:
    """`observed` is what the runtime showed last, `memory` what is known of containers beside it. `ending` says that
    nothing will be started any more: the pod has ended or is to end; `gone` that its object is."""

    def __init__(self, pod: Obj, parts: Parts, *, static: bool = False) -> None:
        # The pod as it is run: as the API server has it (`stated`), but for amounts that it is not allocated yet.
        self.pod = self.stated = pod
        self.applied: Callable[[Obj], Obj] = lambda stated: stated
        # A static pod is no object of the API server's; its mirror pod is, and has its status.
        self.static = static
        self.mirror: Obj | None = None
        self.uid: str = pod["metadata"]["uid"]
        self.parts = parts
        self.observed = ObservedPod()
        self.memory: dict[str, ContainerMemory] = {}
        self.messages: dict[str, str] = {}
        # How often containers were restarted that went when the pod last started over.
        self.started_over: dict[str, int] = {}
        # Probes so far, by container, type and result.
        self.probe_counts: dict[tuple[str, str, str], int] = {}
        self.failure: tuple[str, str] = ("", "")
        # What a pod that is ended by the node has, instead of its own grace period.
        self.longest_grace_s: int | None = None
        # The node has not taken the pod at all.
        self.refused = False
        self.conditions: list[Obj] = []
        # Why the pod waits, though it is admitted: its status' reason and message.
        self.blocked: tuple[str, str] = ("", "")
        self.gone = False
        self.ending = False
        # Nothing of the pod is left in the runtime or on disk.
        self.cleaned = False
        # It has ended, and what it held of the node's disk and devices is given back.
        self.reclaimed = False
        self.volumes: dict[str, Path] = {}
        self.sandbox_config: SandboxConfig | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self._awake = asyncio.Event()
        self._awake.set()
        self._next: datetime | None = None

    @property
    def takes_room(self) -> bool:
        """Whether the pod holds its resources and ports: until nothing of it runs any more, though it is to end."""
        if self.observed.any_running or self.observed.sandbox_ready:
            return True
        return not (self.ending or self.failure[0] or podspec.is_finished(self.pod))

    @property
    def counts(self) -> bool:
        """Whether others find the node's resources and ports taken by the pod. One that is told to have ended, or whose
        object is gone, leaves its room though something of it is still to stop: the scheduler counts it no longer, and
        who is refused in that moment is refused for good."""
        return self.takes_room and not self.gone and not podspec.is_finished(self.pod)

    @property
    def is_to_end(self) -> bool:
        """Whether it goes, or has failed or ended, whatever of it still runs."""
        return self.gone or is_deleting(self.pod) or bool(self.failure[0]) or podspec.is_finished(self.pod)

    @property
    def was_evicted(self) -> bool:
        """Whether it was ended so that the node has room; also by an earlier kubelet."""
        return EVICTED in (self.failure[0], (self.pod.get("status") or {}).get("reason"))

    def take(self, pod: Obj) -> None:
        """The object is this now."""
        self.stated, self.pod = pod, self.applied(pod)

    def learn(self, pod: Obj) -> bool:
        """The object is this now. Returns whether that asks for a turn: a status that was told does not."""
        before = self.stated
        self.take(pod)
        return _asks_for_a_turn(before, pod)

    def wake(self) -> None:
        """Take a turn now."""
        self._awake.set()

    def wake_at(self, when: datetime) -> None:
        """Take a turn at `when` at the latest."""
        if self._next is None or when < self._next:
            self._next = when

    def wake_after(self, delay: timedelta) -> None:
        self.wake_at(self.parts.clock.now() + delay)

    async def woken(self) -> None:
        """Wait for the next turn."""
        timeout_s = None
        if self._next is not None:
            timeout_s = max((self._next - self.parts.clock.now()).total_seconds(), 0.0)
        try:
            async with asyncio.timeout(timeout_s):
                await self._awake.wait()
        except TimeoutError:
            pass
        self._awake.clear()
        self._next = None

    def object_gone(self) -> None:
        """The object is gone from its source: stop, and write nothing."""
        self.gone = True
        self.wake()

    def fail(self, reason: str, message: str, conditions: Sequence[Obj] = (), *, grace_s: int | None = None) -> None:
        """End the pod as Failed: it is evicted, or its time is over. With `grace_s` it has no longer than that."""
        if not self.failure[0]:
            self.failure = (reason, message)
            self.conditions = list(conditions)
            self.longest_grace_s = grace_s
            self.wake()

    def refuse(self, reason: str, message: str) -> None:
        """End the pod as Failed before anything of it began."""
        self.refused = True
        self.fail(reason, message)

    def event(self, kind: str, reason: str, message: str, container: str = "") -> None:
        """An event about the pod, or about one of its containers."""
        path = podspec.field_path(self.pod, container) if container else ""
        self.parts.recorder.event(self.pod, kind, reason, message, field_path=path)

    def troubled(self, words: str) -> None:
        """Tell people that the pod could not be looked after, and why; it will be tried again."""
        self.event("Warning", "FailedSync", f"error syncing pod: {words}"[:_LONGEST_MESSAGE])

    def spawn(self, task: asyncio.Task[None]) -> None:
        """Keep a task that runs beside the turns; it is cancelled with the worker, and wakes it when it ends."""
        self.tasks.add(task)

        def done(ended: asyncio.Task[None]) -> None:
            self.tasks.discard(ended)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                self.parts.failures.note(ended.get_name(), error)
                self.troubled(f"{ended.get_name()}: {type(error).__name__}: {error}")
            self.wake()

        task.add_done_callback(done)

    def ips(self) -> Sequence[str]:
        """The pod's addresses."""
        host_ips = tuple(self.parts.host_ips())
        return host_ips if podspec.host_network(self.pod) else in_order(self.observed.ips, host_ips)

    def users(self) -> IDRange | None:
        """The pod's users, where they are others than the host's."""
        return self.parts.users.of(self.uid) if has_user_namespace(self.pod) else None

    def pod_ip(self) -> str:
        """The address to reach the pod's containers at."""
        if podspec.host_network(self.pod):
            return next(iter(self.parts.host_ips()), "127.0.0.1")
        return next(iter(self.ips()), "")


def _asks_for_a_turn(before: Obj, after: Obj) -> bool:
    """Whether the kubelet has something to do because of what changed, beside telling the pod's status."""
    if before["spec"] != after["spec"]:
        return True
    if _without(before["metadata"], _OF_STORAGE) != _without(after["metadata"], _OF_STORAGE):
        return True
    old, new = before.get("status") or {}, after.get("status") or {}
    if _without(old, _TOLD) != _without(new, _TOLD) or podspec.is_finished(before) != podspec.is_finished(after):
        return True
    # The pod's deadline is counted from its start.
    return old.get("startTime") != new.get("startTime") and "activeDeadlineSeconds" in after["spec"]


def _without(part: Obj, names: frozenset[str]) -> Obj:
    return {name: value for name, value in part.items() if name not in names}
