"""What the runtime says of a pod: its sandboxes and containers, newest first. Rebuilt from the runtime alone, so that a
restarted kubelet finds everything again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from navarch.node.runtime.cri import CONTAINER_NAME, POD_UID, NotFound, Runtime
from navarch.node.runtime.oom import KILLED, was_killed_for_memory
from navarch.node.runtime.proto import cri_pb2 as cri

HASH: Final = "io.kubernetes.container.hash"
RESTART_COUNT: Final = "io.kubernetes.container.restartCount"
MESSAGE_PATH: Final = "io.kubernetes.container.terminationMessagePath"
MESSAGE_POLICY: Final = "io.kubernetes.container.terminationMessagePolicy"
GRACE_PERIOD: Final = "io.kubernetes.pod.terminationGracePeriod"


def moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


@dataclass(frozen=True, slots=True)
class ObservedContainer:
    """One container instance. `status` is CRI's ContainerStatus."""

    sandbox_id: str
    status: Any

    @property
    def id(self) -> str:
        return str(self.status.id)

    @property
    def name(self) -> str:
        return str(self.status.labels.get(CONTAINER_NAME) or self.status.metadata.name)

    @property
    def running(self) -> bool:
        return bool(self.status.state == cri.CONTAINER_RUNNING)

    @property
    def created_only(self) -> bool:
        """Made but not started: left by an attempt that was interrupted."""
        return bool(self.status.state == cri.CONTAINER_CREATED)

    @property
    def exited(self) -> bool:
        return bool(self.status.state in (cri.CONTAINER_EXITED, cri.CONTAINER_UNKNOWN))

    @property
    def restart_count(self) -> int:
        return int(self.status.annotations.get(RESTART_COUNT) or 0)

    @property
    def exit_code(self) -> int:
        return int(self.status.exit_code)

    @property
    def finished_at(self) -> datetime:
        return moment(self.status.finished_at or self.status.created_at)


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """A pod's sandboxes (CRI's PodSandboxStatus) and container instances by container name."""

    sandboxes: Sequence[Any] = ()
    containers: Mapping[str, Sequence[ObservedContainer]] = field(default_factory=dict)

    @property
    def sandbox(self) -> Any | None:
        """The newest sandbox, ready or not."""
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def sandbox_ready(self) -> bool:
        return bool(self.sandboxes) and self.sandboxes[0].state == cri.SANDBOX_READY

    @property
    def ips(self) -> tuple[str, ...]:
        if not self.sandbox_ready:
            return ()
        network = self.sandboxes[0].network
        return tuple(ip for ip in (network.ip, *(other.ip for other in network.additional_ips)) if ip)

    def latest(self, name: str) -> ObservedContainer | None:
        """The newest instance of a container, whatever its sandbox."""
        instances = self.containers.get(name)
        return instances[0] if instances else None

    def current(self, name: str) -> ObservedContainer | None:
        """The newest instance, if it belongs to the newest sandbox."""
        latest = self.latest(name)
        if latest is None or self.sandbox is None or latest.sandbox_id != self.sandbox.id:
            return None
        return latest

    def all(self) -> Iterable[ObservedContainer]:
        for instances in self.containers.values():
            yield from instances

    @property
    def any_running(self) -> bool:
        return any(container.running for container in self.all())


class Observer:
    """Reads pods from the runtime, asking for a container's details only when its state changed."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[str, Any] = {}

    async def observe(self, uid: str) -> ObservedPod:
        """The pod with this uid, as the runtime has it now."""
        labels = {POD_UID: uid}
        sandboxes = []
        for sandbox in sorted(await self._runtime.list_sandboxes(labels), key=lambda s: s.created_at, reverse=True):
            try:
                sandboxes.append(await self._runtime.sandbox_status(sandbox.id))
            except NotFound:
                continue
        listed = await self._runtime.list_containers(labels)
        containers: dict[str, list[ObservedContainer]] = {}
        for container in sorted(listed, key=lambda c: (c.metadata.attempt, c.created_at), reverse=True):
            status = await self._details(container)
            if status is not None:
                observed = ObservedContainer(container.pod_sandbox_id, status)
                containers.setdefault(observed.name, []).append(observed)
        return ObservedPod(sandboxes, containers)

    async def _details(self, container: Any) -> Any | None:
        known = self._known.get(container.id)
        if known is not None and known.state == container.state:
            return known
        try:
            status = await self._runtime.container_status(container.id)
        except NotFound:
            self._known.pop(container.id, None)
            return None
        if status.state == cri.CONTAINER_EXITED and status.exit_code == KILLED and status.reason == "Error":
            if await asyncio.to_thread(was_killed_for_memory, container.id):
                status.reason = "OOMKilled"
        self._known[container.id] = status
        return status

    def forget(self, container_id: str) -> None:
        self._known.pop(container_id, None)
