"""A small world for scheduler tests: real informers fed by hand, and a client that does what an API server would with a
binding, a status patch or a deletion."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from navarch.api.errors import conflict, not_found
from navarch.api.meta import Key, Obj, Resource, key_of
from navarch.client import resources
from navarch.client.informer import Informers
from navarch.scheduler import Scheduler, SchedulerConfig
from navarch.world import RealWorld
from tests.untouched import informers_untouched


class World:
    """Nodes and pods, and the scheduler that looks at them."""

    def __init__(self) -> None:
        self.informers = Informers(self)  # type: ignore[arg-type]
        self.events: list[tuple[str, str, str]] = []
        self.related: dict[str, str] = {}
        """By an event's reason: the name of the other object that the last such event tells of."""
        self.served: list[Resource] = []
        """Kinds that need not be there, and are."""
        self.fail_bindings = 0
        self.fail_requests = 0
        self.graceful = False
        """Whether pods that are deleted go on until they are removed."""
        self._revisions = itertools.count(1)

    # What the client does.

    async def request(self, method: str, path: str) -> bytes:
        if self.fail_requests:
            self.fail_requests -= 1
            raise ConnectionError("the server is away")
        group, _, version = path.removeprefix("/apis/").partition("/")
        found = [resource for resource in self.served if resource.group == group]
        if not found:
            raise not_found("groups", "", group)
        if not version:
            return orjson.dumps({"versions": [{"version": each} for each in sorted({r.version for r in found})]})
        return orjson.dumps({"resources": [{"name": r.plural} for r in found if r.version == version]})

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Obj:
        obj = self.informers.get(resource).get(namespace, name)
        if obj is None:
            raise not_found(resource.plural, resource.group, name)
        return obj

    async def update(self, resource: Resource, obj: Obj, *, subresource: str = "") -> Obj:
        current = await self.get(resource, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
        if current["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise conflict(resource.plural, resource.group, obj["metadata"]["name"])
        kept = {**current, "status": obj["status"]} if subresource else {**obj, "status": current.get("status") or {}}
        return self.put(resource, kept)

    async def create(self, resource: Resource, obj: Obj, *, subresource: str = "", name: str = "", **_: Any) -> Obj:
        if subresource == "binding":
            if self.fail_bindings:
                self.fail_bindings -= 1
                raise ConnectionError("the server is away")
            self.change_pod(name, spec={"nodeName": obj["target"]["name"]}, namespace=obj["metadata"]["namespace"])
        elif resource.plural == "events":
            self.events.append((obj["regarding"]["name"], obj["reason"], obj["note"]))
            self.related[obj["reason"]] = (obj.get("related") or {}).get("name", "")
        elif resource == resources.RESOURCE_CLAIMS:
            return self.put(
                resource, {**obj, "metadata": {**obj["metadata"], "name": f"{obj['metadata']['generateName']}x"}}
            )
        return obj

    async def patch(self, resource: Resource, name: str, namespace: str, patch: Any, **_: Any) -> Obj:
        if resource == resources.PODS:
            self.change_pod(name, status=patch.get("status") or {}, namespace=namespace)
        elif resource != resources.EVENTS:
            informer = self.informers.get(resource)
            old = informer.get(namespace, name)
            assert old is not None
            metadata = patch.get("metadata", {})
            annotations = {**old["metadata"].get("annotations", {}), **metadata.get("annotations", {})}
            changed = {**old, "metadata": {**old["metadata"], "annotations": annotations}}
            changed["spec"] = {**old.get("spec", {}), **patch.get("spec", {})}
            self.put(resource, changed)
        return {}

    async def delete(self, resource: Resource, name: str, namespace: str = "", **_: Any) -> Obj:
        if self.graceful:
            obj = await self.get(resource, name, namespace)
            metadata = {**obj["metadata"], "deletionTimestamp": "2026-01-01T00:00:30Z"}
            return self.put(resource, {**obj, "metadata": metadata})
        self.remove(resource, name, namespace)
        return {}

    # What tests do.

    def put(self, resource: Resource, obj: Obj) -> Obj:
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(next(self._revisions))}}
        obj["metadata"].setdefault("uid", f"uid-{obj['metadata']['name']}")
        self.informers.get(resource)._store(obj)
        return obj

    def remove(self, resource: Resource, name: str, namespace: str = "default") -> None:
        informer = self.informers.get(resource)
        obj = informer.get(namespace, name)
        if obj is None:
            raise not_found(resource.plural, resource.group, name)
        informer._remove(key_of(obj), obj)

    def node(self, name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> Obj:
        allocatable = {
            "cpu": spec.pop("cpu", "4"),
            "memory": spec.pop("memory", "8Gi"),
            "pods": spec.pop("pods", "110"),
        }
        allocatable |= spec.pop("extended", {})
        images = spec.pop("images", [])
        metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
        status: Obj = {"allocatable": allocatable, "images": images}
        if features := spec.pop("features", None):
            status["declaredFeatures"] = features
        return self.put(resources.NODES, {"metadata": metadata, "spec": spec, "status": status})

    def pod(self, name: str, *, cpu: str = "", memory: str = "", **spec: Any) -> Obj:
        requests = {key: value for key, value in {"cpu": cpu, "memory": memory}.items() if value}
        requests |= spec.pop("extended", {})
        metadata: Obj = {"name": name, "namespace": spec.pop("namespace", "default"), "labels": spec.pop("labels", {})}
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        if owner := spec.pop("owner", None):
            metadata["ownerReferences"] = [owner]
        container = {"name": "c", "image": spec.pop("image", "web"), "resources": {"requests": requests}}
        if ports := spec.pop("ports", None):
            container["ports"] = ports
        if rules := spec.pop("rules", None):
            container |= {"restartPolicy": "Never", "restartPolicyRules": rules}
        status = {"phase": "Pending"}
        obj = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}
        return self.put(resources.PODS, {**obj, "status": status})

    def change_pod(
        self, name: str, *, spec: Obj | None = None, status: Obj | None = None, namespace: str = "default"
    ) -> None:
        old = self.informers.get(resources.PODS).get(namespace, name)
        if old is None:
            raise not_found("pods", "", name)
        changed = {**old, "spec": {**old["spec"], **(spec or {})}, "status": {**old["status"], **(status or {})}}
        self.put(resources.PODS, changed)

    def where(self, name: str, namespace: str = "default") -> str:
        """The pod's node; empty while it has none."""
        pod = self.informers.get(resources.PODS).get(namespace, name)
        return str((pod or {"spec": {}})["spec"].get("nodeName") or "")

    def message(self, name: str) -> str:
        """What PodScheduled says of the pod."""
        pod = self.informers.get(resources.PODS)._objects[Key("default", name)]
        found = [c for c in pod["status"].get("conditions", ()) if c["type"] == "PodScheduled"]
        return str(found[0]["message"]) if found else ""

    def condition(self, name: str, kind: str) -> Obj:
        pod = self.informers.get(resources.PODS)._objects[Key("default", name)]
        found: Obj = next(c for c in pod["status"].get("conditions", ()) if c["type"] == kind)
        return found

    def nominated(self, name: str) -> str:
        """The node that is promised to the pod."""
        pod = self.informers.get(resources.PODS)._objects[Key("default", name)]
        return str(pod["status"].get("nominatedNodeName") or "")

    @asynccontextmanager
    async def scheduling(self, config: SchedulerConfig | None = None) -> AsyncIterator[Scheduler]:
        """The scheduler at work; on entry it has looked at everything that was there."""
        config = config or SchedulerConfig(first_backoff_s=0.01, last_backoff_s=0.02)
        scheduler = Scheduler(self, self.informers, world=RealWorld(1), config=config)  # type: ignore[arg-type]
        for resource in (resources.RESOURCE_CLAIMS, resources.RESOURCE_SLICES, resources.DEVICE_CLASSES):
            self.informers.get(resource)
        for informer in self.informers._informers.values():
            informer._synced.set()
        task = asyncio.create_task(scheduler.run())
        await self.settle()
        try:
            yield scheduler
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def settle(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], object], timeout_s: float = 20) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.002)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    with informers_untouched():
        yield
