"""`metrics.k8s.io` as clients see it. In virtual time: what pods use is known with the next tick of 15 seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.apiserver.user import User
from navarch.client.base import Client, PatchKind
from navarch.client.resources import API_SERVICES, PODS, ROLE_BINDINGS
from navarch.sim.virtual import VirtualWorld, run
from navarch.testing.embedded import EmbeddedCluster

POD_METRICS = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", True)
NODE_METRICS = Resource("metrics.k8s.io", "v1beta1", "nodes", "NodeMetrics", False)
ROOT = "/apis/metrics.k8s.io/v1beta1"
SERVICE = "v1beta1.metrics.k8s.io"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


Play = Callable[[EmbeddedCluster], Awaitable[None]]


def in_a_cluster(play: Play, *, nodes: int = 2) -> None:
    async def main(world: VirtualWorld) -> None:
        async with EmbeddedCluster(nodes=nodes, world=world) as cluster:
            await play(cluster)

    run(main, seed=1)


def pod(name: str, node: str = "node-1", **annotations: str) -> Obj:
    told = {f"sim.navarch.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    requests = {"cpu": "100m", "memory": "64Mi"}
    containers = [{"name": each, "image": "i", "resources": {"requests": requests}} for each in ("main", "side")]
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name[0]}, "annotations": told},
        "spec": {"nodeName": node, "containers": containers},
    }


async def known(client: Client, count: int, **how: Any) -> list[Obj]:
    """What is said of pods, once it is said of so many."""
    await asyncio.sleep(20)
    items = (await client.list(POD_METRICS, "default", **how)).items
    assert len(items) == count
    return items


async def raw(client: Client, path: str, accept: str = "application/json", **query: str) -> Any:
    return orjson.loads(
        await client.request("GET", f"{ROOT}{path}", query=[*query.items()], headers={"accept": accept})
    )


def test_simulated_pods_use_what_they_say_or_half_of_what_they_request() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        await client.create(PODS, pod("a1"))
        await client.create(PODS, pod("b1", "node-2", cpu_usage="1500m", memory_usage_side="3Mi"))
        await client.create(PODS, pod("b2", "node-2", start_duration="1h"))

        a, b = await known(client, 2)

        assert a["metadata"]["labels"] == {"app": "a"}
        assert a["window"] == "15s"
        half = {"cpu": "50m", "memory": "32Mi"}
        assert a["containers"] == [{"name": "main", "usage": half}, {"name": "side", "usage": half}]
        assert [each["usage"] for each in b["containers"]] == [
            {"cpu": "1500m", "memory": "32Mi"},
            {"cpu": "1500m", "memory": "32Mi"},
        ]
        nodes = {each["metadata"]["name"]: each["usage"] for each in (await client.list(NODE_METRICS)).items}
        assert nodes == {"node-1": {"cpu": "100m", "memory": "64Mi"}, "node-2": {"cpu": "3", "memory": "64Mi"}}
        with pytest.raises(StatusError, match=r'podmetrics\.metrics\.k8s\.io "default/b2" not found'):
            await client.get(POD_METRICS, "b2", "default")

    in_a_cluster(play)


def test_what_is_asked_for_is_selected() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        for name in ("a1", "a2", "b1"):
            await client.create(PODS, pod(name))
        await known(client, 3)

        def names(answer: Obj) -> list[str]:
            return [each["metadata"]["name"] for each in answer["items"]]

        assert names(await raw(client, "/pods")) == ["a1", "a2", "b1"]
        assert names(await raw(client, "/namespaces/default/pods", labelSelector="app=a")) == ["a1", "a2"]
        assert names(await raw(client, "/pods", fieldSelector="metadata.name=b1")) == ["b1"]
        assert names(await raw(client, "/namespaces/kube-system/pods")) == []
        assert names(await raw(client, "/nodes", labelSelector="kubernetes.io/hostname in (node-2)")) == ["node-2"]
        one = await raw(client, "/namespaces/default/pods/a1")
        assert (one["kind"], one["apiVersion"]) == ("PodMetrics", "metrics.k8s.io/v1beta1")
        with pytest.raises(StatusError, match=r'"spec\.nodeName" is not a known field selector: only "metadata\.name"'):
            await raw(client, "/pods", fieldSelector="spec.nodeName=x")

    in_a_cluster(play)


def test_a_table_has_the_pods_whole_usage() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        await client.create(PODS, pod("a1"))
        await known(client, 1)

        shown = await raw(client, "/namespaces/default/pods", TABLE)

        assert [column["name"] for column in shown["columnDefinitions"]] == ["Name", "cpu", "memory", "Window"]
        assert [row["cells"] for row in shown["rows"]] == [["a1", "100m", "64Mi", "15s"]]
        assert shown["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
        assert (await raw(client, "/nodes/node-1", TABLE))["rows"][0]["cells"] == ["node-1", "100m", "64Mi", "15s"]
        partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        assert (await raw(client, "/pods", partial))["items"][0]["kind"] == "PartialObjectMetadata"

    in_a_cluster(play)


def test_paths_and_methods_are_those_of_metrics_server() -> None:
    expected = {
        "POST /nodes": 405,
        "DELETE /namespaces/default/pods/a1": 405,
        "GET /pods?watch=true": 405,
        "GET /watch/pods": 405,
        "GET /namespaces": 404,
        "GET /pods/a1": 404,
        "GET /namespaces/default/nodes": 404,
        "GET /namespaces/default/pods/a1/log": 404,
        "GET /nodes/none": 404,
        "GET /pods": 200,
        "GET ": 200,
    }

    async def play(cluster: EmbeddedCluster) -> None:
        found = {asked: await answered(cluster.client, asked) for asked in expected}

        assert found == expected

    in_a_cluster(play)


async def answered(client: Client, asked: str) -> int:
    method, _, rest = asked.partition(" ")
    path, _, query = rest.partition("?")
    name, _, value = query.partition("=")
    try:
        await client.request(method, ROOT + path, query=[(name, value)] if query else [])
    except StatusError as error:
        return error.code
    return 200


def test_who_may_view_a_namespace_may_see_what_its_pods_use() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        viewer = cluster.client_as(User("vera", ("system:authenticated",)))
        with pytest.raises(StatusError, match=r'cannot list resource "pods" in API group "metrics\.k8s\.io"'):
            await viewer.list(POD_METRICS, "default")
        group = "rbac.authorization.k8s.io"
        binding = {
            "metadata": {"name": "vera", "namespace": "default"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "vera"}],
        }

        await cluster.client.create(ROLE_BINDINGS, binding)

        assert (await viewer.list(POD_METRICS, "default")).items == []
        with pytest.raises(StatusError, match="forbidden"):
            await viewer.list(POD_METRICS, "kube-system")

    in_a_cluster(play)


def test_it_is_discovered_and_its_api_service_is_there() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        groups = orjson.loads(await client.request("GET", "/apis"))["groups"]
        assert groups[-1]["name"] == "metrics.k8s.io"
        listed = orjson.loads(await client.request("GET", ROOT))
        assert [(each["name"], each["kind"], each["verbs"]) for each in listed["resources"]] == [
            ("nodes", "NodeMetrics", ["get", "list"]),
            ("pods", "PodMetrics", ["get", "list"]),
        ]
        found = await client.get(API_SERVICES, SERVICE)
        assert (found["spec"]["groupPriorityMinimum"], found["spec"]["versionPriority"]) == (100, 100)
        assert found["status"]["conditions"][0]["status"] == "True"

    in_a_cluster(play)


def test_a_metrics_server_of_ones_own_takes_over_and_gives_back() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        service = {"name": "metrics-server", "namespace": "kube-system"}
        theirs = {"spec": {"service": service, "insecureSkipTLSVerify": True}}

        await client.patch(API_SERVICES, SERVICE, "", theirs, kind=PatchKind.MERGE)
        async with asyncio.timeout(30):
            while await answered(client, "GET /nodes") != 503:
                await asyncio.sleep(0.01)
        # Nobody puts it right: it is theirs.
        assert (await client.get(API_SERVICES, SERVICE))["spec"]["service"]["name"] == "metrics-server"

        await client.delete(API_SERVICES, SERVICE)
        async with asyncio.timeout(30):
            while await answered(client, "GET /nodes") != 200:
                await asyncio.sleep(0.01)
            while await client.find(API_SERVICES, SERVICE) is None:
                await asyncio.sleep(0.01)
        assert "service" not in (await client.get(API_SERVICES, SERVICE))["spec"]

    in_a_cluster(play)


def test_a_cluster_without_nodes_has_none_of_it() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        assert b"metrics.k8s.io" not in await cluster.client.request("GET", "/apis")
        assert await cluster.client.find(API_SERVICES, SERVICE) is None
        with pytest.raises(StatusError, match="404 page not found"):
            await cluster.client.list(NODE_METRICS)

    in_a_cluster(play, nodes=0)
