"""A cluster for controller tests: the real API server in process, real controllers, and a kubelet on paper."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource, annotations_of, is_deleting, name_of, namespace_of
from navarch.api.time import format_time
from navarch.apiserver.admission.base import Attributes, Plugin
from navarch.apiserver.admission.chain import AdmissionConfig, default_chain
from navarch.apiserver.allocation.services import AllocationConfig
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.client.base import Client, PatchKind
from navarch.client.informer import Informer
from navarch.client.local import LocalTransport
from navarch.client.resources import EVENTS, NAMESPACES, NODES, PODS
from navarch.controllers.base import ControllerConfig
from navarch.controllers.daemonset.placement import node_of
from navarch.controllers.manager import ControllerManager
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld, SystemClock
from tests.untouched import informers_untouched

_ADMIN = User("admin", groups=("system:masters",))


KEEP = "example.com/keep"


class Keeper(Plugin):
    """Refuses to delete what is annotated `KEEP`."""

    name = "Keeper"
    operations = frozenset({"DELETE"})

    async def validate(self, attributes: Attributes) -> None:
        if attributes.old is not None and KEEP in annotations_of(attributes.old):
            raise attributes.refused("it is to be kept")


class PaperKubelet:
    """Runs every pod at once on node `n1`, without containers: binds it, reports it ready, lets it go when deleted.

    `outcomes` says by container image how the pod ends instead: an exit code.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.outcomes: dict[str, int] = {}
        self.unready_images: set[str] = set()
        self._pods = Informer(client, PODS)
        self._todo: asyncio.Queue[Obj] = asyncio.Queue()
        self._pods.add_handler(self._todo.put_nowait, lambda _old, new: self._todo.put_nowait(new))
        self._count = 0
        # What a test says of a pod stays; an older look at it must not speak against it.
        self._reported: set[str] = set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pods.run())
            for _ in range(8):
                tasks.create_task(self._work())

    async def _work(self) -> None:
        while True:
            pod = await self._todo.get()
            try:
                await self._handle(pod)
            except StatusError as error:
                if error.code not in (404, 409):
                    raise

    async def _handle(self, pod: Obj) -> None:
        name, namespace = name_of(pod), namespace_of(pod)
        if is_deleting(pod):
            await self._client.delete(PODS, name, namespace, grace_s=0, uid=pod["metadata"]["uid"])
            return
        if not pod["spec"].get("nodeName"):
            binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node_of(pod) or "n1"}}
            with contextlib.suppress(StatusError):
                await self._client.create(
                    PODS, {"apiVersion": "v1", "kind": "Binding", **binding}, namespace=namespace,
                    subresource="binding", name=name,
                )  # fmt: skip
                return
        if (pod.get("status") or {}).get("phase", "Pending") != "Pending" or pod["metadata"]["uid"] in self._reported:
            return
        image = pod["spec"]["containers"][0]["image"]
        try:
            # Not over what a test has said since.
            version = pod["metadata"]["resourceVersion"]
            await self.report(pod, self.outcomes.get(image), ready=image not in self.unready_images, version=version)
        except StatusError:
            self._reported.discard(pod["metadata"]["uid"])
            raise

    async def report(
        self, pod: Obj, exit_code: int | None = None, *, ready: bool = True, version: str | None = None
    ) -> None:
        """Write a status: running, or ended with an exit code; with a `version` only of the pod as it was then."""
        self._reported.add(pod["metadata"]["uid"])
        now = format_time(SystemClock().now())
        phase = "Running" if exit_code is None else ("Succeeded" if exit_code == 0 else "Failed")
        self._count += 1
        address = f"10.42.{self._count // 250}.{self._count % 250 + 1}"
        container: Obj = {
            "name": pod["spec"]["containers"][0]["name"], "image": "x", "imageID": "", "restartCount": 0,
            "ready": phase == "Running" and ready,
            "state": {"running": {"startedAt": now}}
            if exit_code is None
            else {"terminated": {"exitCode": exit_code, "finishedAt": now}},
        }  # fmt: skip
        is_ready = "True" if phase == "Running" and ready else "False"
        status = {
            "phase": phase,
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
            "conditions": [{"type": "Ready", "status": is_ready, "lastTransitionTime": now}],
            "containerStatuses": [container],
        }
        patch = {"metadata": {"resourceVersion": version}, "status": status} if version else {"status": status}
        await self._client.patch(
            PODS, name_of(pod), namespace_of(pod), patch, kind=PatchKind.MERGE, subresource="status"
        )


class Cluster:
    """What a test does to a cluster, and waits to see in it."""

    def __init__(self, server: ApiServer, client: Client, manager: ControllerManager, kubelet: PaperKubelet) -> None:
        self.server = server
        self.client = client
        self.manager = manager
        self.kubelet = kubelet

    async def create(self, resource: Resource, obj: Obj) -> Obj:
        return await self.client.create(resource, obj)

    async def get(self, resource: Resource, name: str, namespace: str = "default") -> Obj:
        return await self.client.get(resource, name, namespace if resource.namespaced else "")

    async def list(self, resource: Resource, namespace: str = "default", labels: str = "") -> list[Obj]:
        listed = await self.client.list(resource, namespace if resource.namespaced else "", labels=labels)
        return listed.items

    async def patch(self, resource: Resource, name: str, patch: Any, namespace: str = "default") -> Obj:
        return await self.client.patch(resource, name, namespace if resource.namespaced else "", patch)

    async def until(self, check: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """Wait for an async `check` to give something true, and return it."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            result = await check()
            if result:
                return result
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"never came true: {check}")
            await asyncio.sleep(0.02)

    async def until_status(self, resource: Resource, name: str, timeout_s: float = 10.0, **wanted: Any) -> Obj:
        """Wait until the status of an object has these values."""
        seen: Obj = {}

        async def check() -> Obj | None:
            nonlocal seen
            seen = await self.get(resource, name)
            status = seen.get("status") or {}
            return seen if all((status.get(field) or 0) == value for field, value in wanted.items()) else None

        try:
            found: Obj = await self.until(check, timeout_s)
        except AssertionError:
            raise AssertionError(f"{name}: wanted {wanted}, have {seen.get('status')}") from None
        return found

    async def until_count(self, resource: Resource, count: int, labels: str = "", timeout_s: float = 10.0) -> list[Obj]:
        found: list[Obj] = []

        async def check() -> bool:
            nonlocal found
            found = await self.list(resource, labels=labels)
            return len(found) == count

        try:
            await self.until(check, timeout_s)
        except AssertionError:
            raise AssertionError(f"wanted {count}, have {[name_of(obj) for obj in found]}") from None
        return found

    async def events(self, name: str) -> list[tuple[str, str]]:
        """(reason, message) of the events on the object of that name."""
        return [
            (event["reason"], event["message"])
            for event in await self.list(EVENTS)
            if event["involvedObject"].get("name") == name
        ]


@asynccontextmanager
async def running(
    config: ControllerConfig | None = None, *, kubelet: bool = True, clock: Any = None, namespaces: Iterable[str] = ()
) -> AsyncIterator[Cluster]:
    """A cluster with controllers, while the context lasts."""
    server = ApiServer(MemoryStore())
    server.use(
        admission=default_chain(
            server.reader, server.writer, AdmissionConfig(), RealWorld(2), more=lambda: (Keeper(),)
        ),
        allocation=AllocationConfig(),
    )
    await server.start()
    client = Client(LocalTransport(server.as_user(_ADMIN)))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop)
        for namespace in ("default", *namespaces):
            made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            await client.create(NAMESPACES, made)
        await client.create(NODES, node("n1"))
        manager = ControllerManager(client, world=RealWorld(1, clock=clock), config=config)
        paper = PaperKubelet(client)
        tasks = [asyncio.create_task(manager.run())]
        if kubelet:
            tasks.append(asyncio.create_task(paper.run()))
        cluster = Cluster(server, client, manager, paper)
        try:
            yield cluster
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                    raise result


def node(name: str, **spec: Any) -> Obj:
    now = format_time(SystemClock().now())
    conditions = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now,
                   "lastTransitionTime": now}]  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name},
            # As every kubelet says of itself.
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": spec,
        "status": {"conditions": conditions, "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                   "nodeInfo": {"kubeletVersion": "v1.37.0"}},
    }  # fmt: skip


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running() as made:
        yield made


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    with informers_untouched():
        yield
