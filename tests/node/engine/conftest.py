"""A kubelet on simulated containers: what the engine does, without containerd."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.node.config import KubeletConfig
from navarch.node.containerd import unmount_below
from navarch.node.kubelet import Kubelet
from navarch.node.resources import cgroups
from navarch.node.resources.capacity import Provider
from navarch.node.runtime.base import ContainerConfig
from navarch.node.runtime.simulated import FOREVER, Life, SimulatedRuntime
from navarch.testing.embedded import EmbeddedCluster
from navarch.world import RealWorld
from tests.node.api import API


class Simulated:
    """`lives` says what a container of a name does; `restart` gives the kubelet a successor over the same runtime."""

    def __init__(self, api: API, config: KubeletConfig) -> None:
        self.api = api
        self.config = config
        self.world = RealWorld()
        self.lives: dict[str, Life] = {}
        # What the runtime was told of each container, in order.
        self.told: list[ContainerConfig] = []
        self.runtime = SimulatedRuntime(self.world, self._life)
        self.kubelet = Kubelet(config, api.client(), self.runtime, world=self.world)
        self._task: asyncio.Task[None] | None = None

    def _life(self, config: ContainerConfig) -> Life:
        self.told.append(config)
        return self.lives.get(config.name, FOREVER)

    async def start(self) -> None:
        self._task = asyncio.create_task(self.kubelet.run())

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def start_again(self, devices: Sequence[Provider] = (), **config: Any) -> None:
        self.config = replace(self.config, **config)
        self.kubelet = Kubelet(self.config, self.api.client(), self.runtime, world=self.world, devices=devices)
        await self.start()

    async def restart(self, **config: Any) -> None:
        await self.stop()
        await self.start_again(**config)

    async def pod(self, name: str, *containers: Obj, **spec: Any) -> Obj:
        """Create a pod on the node."""
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "nodeName": "n1",
                "terminationGracePeriodSeconds": 1,
                "containers": [{"image": "web:1", **one} for one in containers or ({"name": "c"},)],
                **spec,
            },
        }
        return await self.api.put("pods", body)

    def shown(self, name: str) -> Any:
        """The pod as the API server has it; None where it has none."""
        return self.api.get("pods", "default", name)

    def phase(self, name: str) -> str:
        return str(((self.shown(name) or {}).get("status") or {}).get("phase"))

    async def until(self, check: Callable[[], Any], timeout_s: float = 15.0) -> Any:
        """Wait until `check` gives something true, and return it."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (value := check()):
                    await asyncio.sleep(0.02)
                return value
        except TimeoutError:
            pods = [(pod["metadata"]["name"], pod.get("status")) for pod in self.api.list("pods")]
            events = [f"{event['reason']}: {event['message']}" for event in self.api.events()]
            raise AssertionError(f"never came true; pods: {pods}\n{events}") from None

    async def until_async(self, check: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(15):
            while not await check():
                await asyncio.sleep(0.02)

    async def running(self, name: str) -> Obj:
        await self.until(lambda: self.phase(name) == "Running")
        return dict(self.shown(name))

    def reasons(self, name: str) -> list[str]:
        return [event["reason"] for event in self.api.events() if event["involvedObject"]["name"] == name]


@contextlib.asynccontextmanager
async def running(place: Path, *, controllers: bool) -> AsyncIterator[Simulated]:
    config = KubeletConfig(
        node_name="n1",
        data=place / "kubelet",
        runtime_socket=place / "none",
        # Its own: a kubelet removes what it does not know below it, of tests beside this one as well.
        cgroup_root=f"/nvsimulated-{os.getpid()}",
        port=0,
        static_pod_check_s=0.05,
    )
    async with EmbeddedCluster(nodes=0, controllers=controllers) as cluster:
        node = Simulated(API(cluster), config)
        if not controllers:
            await node.api.prepare()
        await node.start()
        try:
            yield node
        finally:
            await node.stop()
            unmount_below([config.data])
            cgroups.remove_root(config.cgroup_root)


@pytest.fixture
async def simulated(tmp_path: Path) -> AsyncIterator[Simulated]:
    async with running(tmp_path, controllers=False) as node:
        yield node


@pytest.fixture
async def controlled(tmp_path: Path) -> AsyncIterator[Simulated]:
    """With the controllers of a whole cluster."""
    async with running(tmp_path, controllers=True) as node:
        yield node
