"""`SimulatedRuntime`: the `Runtime` whose containers are entries in a table, by the clock.

The whole kubelet runs over it as over containerd, on a machine without containers and without rights. What a container
does is said by its `Life`. (Nodes by the thousand need no kubelet each: `navarch.sim` computes what theirs would show.)
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from navarch.node.runtime.base import (
    Condition,
    Container,
    ContainerConfig,
    ContainerEvent,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    Features,
    Filesystem,
    HandlerFeatures,
    Image,
    Login,
    Namespace,
    NotFound,
    Resources,
    RuntimeFailure,
    Sandbox,
    SandboxConfig,
    State,
    Streams,
)
from navarch.node.runtime.operations import Operations
from navarch.world import Clock

_TERMINATED: Final = 143
_KILLED: Final = 137
_FIRST_ADDRESS: Final = 2
_ADDRESSES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Life:
    """What a container does: it exits by itself after `run_s` (None: never), and takes `stop_s` to stop."""

    run_s: float | None = None
    exit_code: int = 0
    stop_s: float = 0.0


FOREVER: Final = Life()
Lives = Callable[[ContainerConfig], Life]


@dataclass(slots=True)
class _Box:
    sandbox: Sandbox
    config: SandboxConfig


@dataclass(slots=True)
class _Made:
    status: ContainerStatus
    sandbox_id: str
    life: Life
    resources: Resources
    timer: asyncio.TimerHandle | None = None


class SimulatedRuntime:
    """`lives` says what each container does. Every image is there. Nothing is kept beyond the process."""

    def __init__(self, clock: Clock, lives: Lives = lambda _: FOREVER) -> None:
        self._clock = clock
        self._lives = lives
        self._numbers = itertools.count(1)
        self._boxes: dict[str, _Box] = {}
        self._containers: dict[str, _Made] = {}
        self._listeners: list[asyncio.Queue[ContainerEvent]] = []
        self.operations = Operations()

    # Sandboxes.

    async def version(self) -> str:
        return "1.0.0"

    async def conditions(self) -> Sequence[Condition]:
        return [Condition("RuntimeReady", True, "", ""), Condition("NetworkReady", True, "", "")]

    async def features(self) -> Features:
        return Features({"": HandlerFeatures(recursive_read_only=True, user_namespaces=True)}, True)

    async def run_sandbox(self, config: SandboxConfig, handler: str = "") -> str:
        number = next(self._numbers)
        on_host = config.security.namespaces.network is Namespace.NODE
        sandbox = Sandbox(
            id=f"{number:064x}",
            attempt=config.attempt,
            created_at_ns=self._now_ns(),
            ips=() if on_host else (_address(number),),
            labels=config.labels,
            annotations=config.annotations,
        )
        self._boxes[sandbox.id] = _Box(sandbox, config)
        return sandbox.id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        box = self._box(sandbox_id)
        for container_id, made in list(self._containers.items()):
            if made.sandbox_id == sandbox_id and made.status.state is State.RUNNING:
                self._exit(container_id, _KILLED)
        box.sandbox = replace(box.sandbox, ready=False)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        for container_id in [key for key, made in self._containers.items() if made.sandbox_id == sandbox_id]:
            await self.remove_container(container_id)
        del self._boxes[sandbox_id]

    async def sandbox_status(self, sandbox_id: str) -> Sandbox:
        return self._box(sandbox_id).sandbox

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[Sandbox]:
        return [replace(box.sandbox, ips=()) for box in self._boxes.values() if _has(box.sandbox.labels, labels)]

    def _box(self, sandbox_id: str) -> _Box:
        try:
            return self._boxes[sandbox_id]
        except KeyError:
            raise NotFound(f"sandbox {sandbox_id} not found") from None

    # Containers.

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        if not self._box(sandbox_id).sandbox.ready:
            raise RuntimeFailure(f"sandbox {sandbox_id} is not running")
        status = ContainerStatus(
            id=f"{next(self._numbers):064x}",
            name=config.name,
            attempt=config.attempt,
            state=State.CREATED,
            created_at_ns=self._now_ns(),
            image=config.image,
            image_ref=config.image_id,
            labels=config.labels,
            annotations=config.annotations,
            mounts=config.mounts,
        )
        self._containers[status.id] = _Made(status, sandbox_id, self._lives(config), config.resources)
        return status.id

    async def start_container(self, container_id: str) -> None:
        made = self._made(container_id)
        if made.status.state is not State.CREATED:
            raise RuntimeFailure(f"container {container_id} is not in created state")
        made.status = replace(made.status, state=State.RUNNING, started_at_ns=self._now_ns())
        self._tell(container_id, "start")
        if made.life.run_s is not None:
            loop = asyncio.get_running_loop()
            made.timer = loop.call_later(made.life.run_s, self._exit, container_id, made.life.exit_code)

    async def stop_container(self, container_id: str, grace_s: int) -> None:
        made = self._made(container_id)
        if made.status.state is not State.RUNNING:
            return
        await asyncio.sleep(min(made.life.stop_s, grace_s))
        self._exit(container_id, _TERMINATED if made.life.stop_s <= grace_s else _KILLED)

    async def remove_container(self, container_id: str) -> None:
        if self._made(container_id).status.state is State.RUNNING:
            self._exit(container_id, _KILLED)
        del self._containers[container_id]
        self._tell(container_id, "delete")

    async def container_status(self, container_id: str) -> ContainerStatus:
        return self._made(container_id).status

    async def list_containers(self, labels: Mapping[str, str] | None = None) -> Sequence[Container]:
        return [
            Container(
                one.status.id,
                one.sandbox_id,
                one.status.attempt,
                one.status.state,
                one.status.created_at_ns,
                one.status.image,
                one.status.image_ref,
            )
            for one in self._containers.values()
            if _has(one.status.labels, labels)
        ]

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        self._made(container_id).resources = resources

    def _made(self, container_id: str) -> _Made:
        try:
            return self._containers[container_id]
        except KeyError:
            raise NotFound(f"container {container_id} not found") from None

    def _exit(self, container_id: str, code: int) -> None:
        made = self._containers.get(container_id)
        if made is None or made.status.state is not State.RUNNING:
            return
        if made.timer is not None:
            made.timer.cancel()
        made.status = replace(made.status, state=State.EXITED, exit_code=code, finished_at_ns=self._now_ns())
        self._tell(container_id, "exit")

    # Processes: there are none.

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """Every command ends well and says nothing: so do probes and hooks."""
        if self._made(container_id).status.state is not State.RUNNING:
            raise RuntimeFailure(f"container {container_id} is not running")
        return ExecResult(0, b"")

    async def exec_url(self, container_id: str, command: Sequence[str], streams: Streams) -> str:
        raise RuntimeFailure("simulated containers have no processes")

    async def attach_url(self, container_id: str, streams: Streams) -> str:
        raise RuntimeFailure("simulated containers have no processes")

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        raise RuntimeFailure("simulated pods have no ports")

    async def reopen_log(self, container_id: str) -> None:
        """There is no log."""

    async def checkpoint(self, container_id: str, file: Path, timeout_s: int) -> None:
        raise RuntimeFailure("rpc error: code = Unimplemented desc = method CheckpointContainer not implemented")

    async def stats(self) -> Sequence[ContainerStats]:
        now_ns = self._now_ns()
        return [
            ContainerStats(one.id, one.name, one.labels, cpu_at_ns=now_ns, memory_at_ns=now_ns, layer_at_ns=now_ns)
            for one in (made.status for made in self._containers.values())
            if one.state is State.RUNNING
        ]

    # Images: all are there.

    async def list_images(self) -> Sequence[Image]:
        return []

    async def image_status(self, image: str) -> Image | None:
        return Image(id=f"simulated/{image}", tags=(image,))

    async def pull_image(self, image: str, login: Login | None) -> str:
        return f"simulated/{image}"

    async def remove_image(self, image: str) -> None:
        """It comes back at once."""

    async def image_filesystem(self) -> Filesystem:
        return Filesystem("/", 0, 0)

    async def collect(self) -> None:
        """Nothing is kept."""

    # Events.

    async def events(self) -> AsyncIterator[ContainerEvent]:
        queue: asyncio.Queue[ContainerEvent] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    def _tell(self, container_id: str, kind: str) -> None:
        for queue in self._listeners:
            queue.put_nowait(ContainerEvent(container_id, kind))

    async def close(self) -> None:
        for made in self._containers.values():
            if made.timer is not None:
                made.timer.cancel()

    def _now_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000) * 1000


def _has(labels: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    return all(labels.get(key) == value for key, value in (wanted or {}).items())


def _address(number: int) -> str:
    """Of 100.64.0.0/16, which no real network routes."""
    place = _FIRST_ADDRESS + number % (_ADDRESSES - 3)
    return f"100.64.{place >> 8}.{place & 255}"
