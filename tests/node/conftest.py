"""Fixtures: a containerd of its own with a pod network and a busybox image, shared by the tests of a session, and a
kubelet on it with an API server in the same process."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from navarch.node.config import KubeletConfig
from navarch.node.containerd import ContainerdPaths, unmount_below, why_unavailable
from navarch.node.ending import running_containerd
from navarch.node.images.archives import Platform, busybox_files, host_architecture, load_image, write_image
from navarch.node.kubelet import Kubelet
from navarch.node.resources import cgroups
from navarch.node.runtime.base import RuntimeFailure
from navarch.node.runtime.cri import CRIRuntime
from navarch.testing.embedded import EmbeddedCluster
from tests.node.api import API

Obj = dict[str, Any]
BUSYBOX = "navarch.local/busybox:1"
_BRIDGE = "nvtest0"


def _cni(paths: ContainerdPaths) -> None:
    paths.cni_conf.mkdir(parents=True, exist_ok=True)
    config = {
        "cniVersion": "0.4.0",
        "name": "test",
        "plugins": [
            {
                "type": "bridge",
                "bridge": _BRIDGE,
                "isGateway": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(paths.run / "ipam"),
                    "ranges": [[{"subnet": "10.211.7.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    (paths.cni_conf / "10-test.conflist").write_text(json.dumps(config))


@pytest.fixture(scope="session")
def containerd() -> Iterator[ContainerdPaths]:
    """A running containerd with the image `BUSYBOX`; skips where containers cannot be run."""
    why = why_unavailable() or ("" if Path("/bin/busybox").exists() else "busybox-static is not installed")
    if why:
        pytest.skip(why)
    directory = Path(tempfile.mkdtemp(prefix="nv-", dir="/tmp"))
    started = threading.Event()
    stop: asyncio.Event
    loop = asyncio.new_event_loop()
    failure: list[BaseException] = []

    async def hold() -> None:
        nonlocal stop
        stop = asyncio.Event()
        paths = ContainerdPaths(directory / "data", directory / "run")
        _cni(paths)
        async with running_containerd(directory) as config:
            archive = directory / "busybox.tar"
            files = busybox_files(Path("/bin/busybox"))
            write_image(archive, BUSYBOX, [Platform(host_architecture(), files, command=["sh"])])
            await load_image(paths.socket, archive, snapshotter=config.snapshotter)
            started.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(hold())
        except BaseException as error:
            failure.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    if failure:
        raise failure[0]
    yield ContainerdPaths(directory / "data", directory / "run")
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
    cgroups.remove_root("/nvtest")
    _delete_bridge()
    shutil.rmtree(directory, ignore_errors=True)


def _delete_bridge() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        for index in route.link_lookup(ifname=_BRIDGE):
            route.link("del", index=index)


class Node:
    """A kubelet under test and what it talks to; it can be stopped and started again over the same containers."""

    def __init__(self, config: KubeletConfig, api: API) -> None:
        self.api = api
        self.config = config
        self.runtime = CRIRuntime(config.runtime_socket)
        self.kubelet = Kubelet(config, self.api.client(), self.runtime)
        self._task: asyncio.Task[None] | None = None

    async def start_kubelet(self) -> None:
        self.kubelet = Kubelet(self.config, self.api.client(), self.runtime)
        self._task = asyncio.create_task(self.kubelet.run())

    async def stop_kubelet(self) -> None:
        assert self._task is not None
        if self._task.done():
            self._task.result()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def restart_kubelet(self) -> None:
        await self.stop_kubelet()
        await self.start_kubelet()

    async def delete(self, name: str) -> None:
        await self.api.delete_gracefully("default", name)
        await self.until(lambda: self.api.get("pods", "default", name) is None)

    async def no_sandboxes(self) -> bool:
        return not await self.runtime.list_sandboxes()

    async def until_async(self, check: Callable[[], Awaitable[bool]], timeout_s: float = 15.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not await check():
                await asyncio.sleep(0.05)

    async def pod(self, name: str, **spec: Any) -> Obj:
        """Create a pod on the node; `spec` as in the API, with one busybox container by default."""
        metadata = {"name": name, "namespace": "default", **spec.pop("metadata", {})}
        spec.setdefault("terminationGracePeriodSeconds", 1)
        for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:
            container.setdefault("image", BUSYBOX)
            container.setdefault("imagePullPolicy", "IfNotPresent")
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": "n1", **spec}}
        return await self.api.put("pods", body)

    def status(self, name: str) -> Obj:
        pod = self.api.get("pods", "default", name)
        return (pod or {}).get("status") or {}

    def container(self, name: str, index: int = 0, field: str = "containerStatuses") -> Obj:
        statuses = self.status(name).get(field) or []
        return statuses[index] if len(statuses) > index else {}

    def condition(self, name: str, kind: str) -> str:
        return next((c["status"] for c in self.status(name).get("conditions") or [] if c["type"] == kind), "")

    async def until(self, check: Callable[[], Any], timeout_s: float = 15.0) -> Any:
        """Wait until `check` gives something true, and return it."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (value := check()):
                    await asyncio.sleep(0.02)
                return value
        except TimeoutError:
            pods = [pod.get("status") for pod in self.api.list("pods")]
            events = [f"{e['reason']}: {e['message']}" for e in self.api.events()]
            raise AssertionError(f"never came true; pods: {json.dumps(pods, indent=1)}\n{events}") from None

    async def ready(self, name: str) -> None:
        await self.until(lambda: self.condition(name, "Ready") == "True")

    async def ended(self, name: str) -> str:
        return str(
            await self.until(
                lambda: self.status(name).get("phase") in ("Succeeded", "Failed") and self.status(name)["phase"]
            )
        )

    def log(self, name: str, container: str = "c", attempt: int = 0) -> str:
        pod = self.api.get("pods", "default", name)
        assert pod is not None
        path = self.config.log_directory("default", name, pod["metadata"]["uid"]) / container / f"{attempt}.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return "\n".join(line.split(" ", 3)[3] for line in lines)

    def reasons(self, name: str) -> list[str]:
        return [e["reason"] for e in self.api.events() if e["involvedObject"]["name"] == name]


async def _remove_sandboxes(runtime: CRIRuntime) -> None:
    """A stop that the cancelled kubelet had begun may still be under way, and make ours fail."""
    for _ in range(20):
        try:
            for sandbox in await runtime.list_sandboxes():
                await runtime.stop_sandbox(sandbox.id)
                await runtime.remove_sandbox(sandbox.id)
            return
        except RuntimeFailure:
            await asyncio.sleep(0.2)


@pytest.fixture
async def node(containerd: ContainerdPaths, tmp_path: Path) -> AsyncIterator[Node]:
    """A kubelet named n1 on the session's containerd; its pods are removed afterwards."""
    config = KubeletConfig(
        node_name="n1", data=tmp_path / "kubelet", runtime_socket=containerd.socket, cgroup_root="/nvtest", port=0
    )
    async with EmbeddedCluster(controllers=False) as cluster:
        node = Node(config, API(cluster))
        await node.api.prepare()
        await node.start_kubelet()
        try:
            yield node
        finally:
            try:
                await node.stop_kubelet()
            finally:
                await _remove_sandboxes(node.runtime)
                unmount_below([config.data])
                await node.runtime.close()
