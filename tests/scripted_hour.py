"""An hour in the life of an embedded cluster, in virtual time: `python -m tests.scripted_hour KEYS OUT SEED`.

Rolling updates of every kind of workload, nodes that fail and come back, jobs, preemption, evictions and quota. Every
commit to the store, as its revision, key and bytes, goes to `OUT/stored`, every log line with its time to `OUT/log`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from navarch.api.errors import StatusError
from navarch.api.meta import Resource
from navarch.client.base import Client, PatchKind
from navarch.client.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    NAMESPACES,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    RESOURCE_QUOTAS,
    SERVICES,
    STATEFUL_SETS,
)
from navarch.sim.virtual import VirtualWorld, run, stamped_logs
from navarch.store.base import Event
from navarch.testing.embedded import EmbeddedCluster

MINUTE_S = 60.0
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False)


def template(app: str, *, cpu: str = "500m", priority: str = "", **annotations: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "containers": [
            {"name": "main", "image": f"example/{app}:1", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}}
        ]
    }
    if priority:
        spec["priorityClassName"] = priority
    told = {f"sim.navarch.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return {"metadata": {"labels": {"app": app}, "annotations": told}, "spec": spec}


def workload(app: str, replicas: int | None, **spec: Any) -> dict[str, Any]:
    body = {"selector": {"matchLabels": {"app": app}}, **spec}
    if replicas is not None:
        body["replicas"] = replicas
    return {"metadata": {"name": app, "namespace": "default"}, "spec": body}


async def patch(
    client: Client, resource: Resource, name: str, body: dict[str, Any], namespace: str = "default"
) -> None:
    await client.patch(resource, name, namespace, body, kind=PatchKind.STRATEGIC)


async def update_image(client: Client, resource: Resource, name: str, version: int) -> None:
    container = {"name": "main", "image": f"example/{name}:{version}"}
    await patch(client, resource, name, {"spec": {"template": {"spec": {"containers": [container]}}}})


async def set_up(client: Client) -> None:
    await client.create(NAMESPACES, {"metadata": {"name": "team"}})
    quota = {"metadata": {"name": "few", "namespace": "team"}, "spec": {"hard": {"pods": "3", "requests.cpu": "2"}}}
    await client.create(RESOURCE_QUOTAS, quota)
    await client.create(PRIORITY_CLASSES, {"metadata": {"name": "urgent"}, "value": 1000})
    web = template("web", start_duration="7s")
    await client.create(DEPLOYMENTS, workload("web", 12, minReadySeconds=5, template=web))
    await client.create(
        STATEFUL_SETS, workload("db", 3, serviceName="db", template=template("db", start_duration="4s"))
    )
    await client.create(DAEMON_SETS, workload("agent", None, template=template("agent", cpu="100m")))
    await client.create(DEPLOYMENTS, workload("filler", 12, template=template("filler", cpu="3")))
    ports = [{"port": 80}]
    service = {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": ports},
    }
    await client.create(SERVICES, service)
    budget = {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 10}
    await client.create(POD_DISRUPTION_BUDGETS, {"metadata": {"name": "web", "namespace": "default"}, "spec": budget})
    pod = template("tick", run_duration="20s")
    pod["spec"]["restartPolicy"] = "Never"
    cron = {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": pod}}}
    await client.create(CRON_JOBS, {"metadata": {"name": "tick", "namespace": "default"}, "spec": cron})
    batch = template("batch", run_duration="40s", exit_code="1")
    batch["spec"]["restartPolicy"] = "Never"
    job = {"completions": 4, "parallelism": 2, "backoffLimit": 3, "template": batch}
    await client.create(JOBS, {"metadata": {"name": "batch", "namespace": "default"}, "spec": job})


async def evict_all(client: Client, app: str) -> None:
    """Evict one pod after the other; a disruption budget refuses some."""
    for pod in (await client.list(PODS, "default", labels=f"app={app}")).items:
        metadata = {"name": pod["metadata"]["name"], "namespace": "default"}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        with contextlib.suppress(StatusError):
            await client.create(PODS, eviction, namespace="default", name=metadata["name"], subresource="eviction")


async def hour(cluster: EmbeddedCluster) -> None:
    client, nodes = cluster.client, cluster.nodes
    await set_up(client)
    await asyncio.sleep(5 * MINUTE_S)
    await update_image(client, DEPLOYMENTS, "web", 2)
    await update_image(client, STATEFUL_SETS, "db", 2)
    await asyncio.sleep(3 * MINUTE_S)
    nodes.fail("node-2")
    await asyncio.sleep(2 * MINUTE_S)
    await update_image(client, DAEMON_SETS, "agent", 2)
    await asyncio.sleep(8 * MINUTE_S)
    await nodes.recover("node-2")
    await patch(client, DEPLOYMENTS, "web", {"spec": {"replicas": 20}})
    await asyncio.sleep(2 * MINUTE_S)
    await update_image(client, DEPLOYMENTS, "web", 3)
    await asyncio.sleep(5)
    nodes.fail("node-3")
    nodes.fail("node-5")
    await asyncio.sleep(10 * MINUTE_S)
    await client.create(DEPLOYMENTS, workload("urgent", 8, template=template("urgent", cpu="2", priority="urgent")))
    await asyncio.sleep(5 * MINUTE_S)
    await nodes.recover("node-3")
    await nodes.recover("node-5")
    await asyncio.sleep(2 * MINUTE_S)
    await evict_all(client, "web")
    crowd = workload("crowd", 6, template=template("crowd"))
    crowd["metadata"]["namespace"] = "team"
    await client.create(DEPLOYMENTS, crowd)
    await asyncio.sleep(5 * MINUTE_S)
    await client.delete(NODES, "node-6", "")
    await client.delete(DEPLOYMENTS, "urgent", "default")
    await client.delete(NAMESPACES, "team", "")
    await asyncio.sleep(3 * MINUTE_S)
    await update_image(client, DEPLOYMENTS, "web", 2)
    await patch(client, STATEFUL_SETS, "db", {"spec": {"replicas": 1}})
    await asyncio.sleep(3600 - 45 * MINUTE_S - 5)


@contextlib.contextmanager
def logged(world: VirtualWorld, file: Path) -> Iterator[None]:
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    with stamped_logs(world, handler):
        yield
    root.removeHandler(handler)


async def record(cluster: EmbeddedCluster, file: Path) -> None:
    store = cluster.server.store
    with file.open("wb") as out:
        # A cluster that begins forgets how it came about.
        page = await store.range("/registry/")
        for entry in page.entries:
            out.write(b"%d %s %s\n" % (entry.mod_revision, entry.key.encode(), entry.value))
        async for event in store.watch("/registry/", page.revision):
            if isinstance(event, Event):
                out.write(b"%d %s %s\n" % (event.revision, event.key.encode(), event.value or b"(deleted)"))


def main(keys: Path, out: Path, seed: int) -> None:
    async def play(world: VirtualWorld) -> None:
        with logged(world, out / "log"):
            async with EmbeddedCluster(nodes=6, world=world, keys=keys) as cluster, asyncio.TaskGroup() as tasks:
                recording = tasks.create_task(record(cluster, out / "stored"))
                await hour(cluster)
                assert world.monotonic() >= 3600
                recording.cancel()

    run(play, seed=seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
