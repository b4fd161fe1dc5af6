"""What the runtime says of a pod: its sandboxes and containers, newest first. Rebuilt from the runtime alone, so that a
restarted kubelet finds everything again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime

from navarch.node.runtime.base import (
    POD_UID,
    RESTART_COUNT,
    Container,
    ContainerStatus,
    NotFound,
    Runtime,
    Sandbox,
    State,
)
from navarch.node.runtime.oom import KILLED, was_killed_for_memory
from navarch.records import frozen
from navarch.world import World


def moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


@frozen
class ObservedContainer:
    """One container instance."""

    sandbox_id: str
    status: ContainerStatus

    @property
    def id(self) -> str:
        return self.status.id

    @property
    def name(self) -> str:
        return self.status.name

    @property
    def running(self) -> bool:
        return self.status.state is State.RUNNING

    @property
    def created_only(self) -> bool:
        """Made but not started: left by an attempt that was interrupted."""
        return self.status.state is State.CREATED

    @property
    def exited(self) -> bool:
        return self.status.state in (State.EXITED, State.UNKNOWN)

    @property
    def restart_count(self) -> int:
        return int(self.status.annotations.get(RESTART_COUNT) or 0)

    @property
    def exit_code(self) -> int:
        return self.status.exit_code

    @property
    def finished_at(self) -> datetime:
        return moment(self.status.finished_at_ns or self.status.created_at_ns)


@frozen
class ObservedPod:
    """A pod's sandboxes and, by container name, its container instances."""

    sandboxes: Sequence[Sandbox] = ()
    containers: Mapping[str, Sequence[ObservedContainer]] = field(default_factory=dict)

    @property
    def sandbox(self) -> Sandbox | None:
        """The newest sandbox, ready or not."""
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def sandbox_ready(self) -> bool:
        return bool(self.sandboxes) and self.sandboxes[0].ready

    @property
    def ips(self) -> tuple[str, ...]:
        return self.sandboxes[0].ips if self.sandbox_ready else ()

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

    def __init__(self, runtime: Runtime, world: World) -> None:
        self._runtime = runtime
        self._world = world
        self._known: dict[str, ContainerStatus] = {}
        # Sandboxes with their addresses, by pod; these stay as long as a sandbox is ready.
        self._boxes: dict[str, dict[str, Sandbox]] = {}

    async def observe(self, uid: str) -> ObservedPod:
        """The pod with this uid, as the runtime has it now."""
        labels = {POD_UID: uid}
        known = self._boxes.pop(uid, {})
        sandboxes = []
        for listed_box in sorted(
            await self._runtime.list_sandboxes(labels), key=lambda s: s.created_at_ns, reverse=True
        ):
            sandbox = known.get(listed_box.id) if listed_box.ready else None
            try:
                sandboxes.append(sandbox or await self._runtime.sandbox_status(listed_box.id))
            except NotFound:
                continue
        self._keep(uid, sandboxes)
        listed = await self._runtime.list_containers(labels)
        containers: dict[str, list[ObservedContainer]] = {}
        for container in sorted(listed, key=lambda c: (c.attempt, c.created_at_ns), reverse=True):
            status = await self._details(container)
            if status is not None:
                observed = ObservedContainer(container.sandbox_id, status)
                containers.setdefault(observed.name, []).append(observed)
        return ObservedPod(sandboxes, containers)

    async def with_sandbox(self, uid: str, sandbox_id: str) -> ObservedPod:
        """A pod that had nothing and has got this sandbox."""
        sandboxes = [await self._runtime.sandbox_status(sandbox_id)]
        self._keep(uid, sandboxes)
        return ObservedPod(sandboxes)

    async def with_containers(self, pod: ObservedPod, container_ids: Iterable[str]) -> ObservedPod:
        """A pod whose newest sandbox has got these containers."""
        assert pod.sandbox is not None
        containers = dict(pod.containers)
        for container_id in container_ids:
            status = await self._status(container_id)
            if status is not None:
                containers[status.name] = [
                    ObservedContainer(pod.sandbox.id, status),
                    *(one for one in containers.get(status.name) or () if one.id != container_id),
                ]
        return ObservedPod(pod.sandboxes, containers)

    def _keep(self, uid: str, sandboxes: Iterable[Sandbox]) -> None:
        ready = {sandbox.id: sandbox for sandbox in sandboxes if sandbox.ready and sandbox.ips}
        if ready:
            self._boxes[uid] = ready

    async def _details(self, container: Container) -> ContainerStatus | None:
        known = self._known.get(container.id)
        if known is not None and known.state == container.state:
            return known
        return await self._status(container.id)

    async def _status(self, container_id: str) -> ContainerStatus | None:
        try:
            status = await self._runtime.container_status(container_id)
        except NotFound:
            self._known.pop(container_id, None)
            return None
        if status.state is State.EXITED and status.exit_code == KILLED and status.reason == "Error":
            if await self._world.in_thread(was_killed_for_memory, container_id):
                status = replace(status, reason="OOMKilled")
        self._known[container_id] = status
        return status

    def forget(self, container_id: str) -> None:
        self._known.pop(container_id, None)
