"""Pods that are evicted, and what becomes of those who own them: minutes of a cluster in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, name_of, uid_of
from navarch.api.time import format_time, parse_time
from navarch.client.base import Client, PatchKind
from navarch.client.resources import (
    CLUSTER_ROLES,
    CONFIG_MAPS,
    EVENTS,
    JOBS,
    NAMESPACES,
    PODS,
    SECRETS,
    STATEFUL_SETS,
)
from navarch.sim.virtual import VirtualWorld, run
from navarch.testing.embedded import EmbeddedCluster

IGNORE_DISRUPTIONS = {
    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
}


def in_a_cluster(play: Callable[[Client], Awaitable[None]], *, nodes: int = 2) -> None:
    async def main(world: VirtualWorld) -> None:
        async with EmbeddedCluster(nodes=nodes, world=world) as cluster:
            await asyncio.sleep(5)
            await play(cluster.client)

    run(main, seed=1)


async def evict(client: Client, name: str, **options: Any) -> None:
    eviction: Obj = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}}
    if options:
        eviction["deleteOptions"] = options
    await client.create(PODS, eviction, namespace="default", name=name, subresource="eviction")


def job(**spec: Any) -> Obj:
    pod = {
        "metadata": {"annotations": {"sim.navarch.dev/run-duration": "100s"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "work", "image": "example/work:1"}]},
    }
    return {"metadata": {"name": "work", "namespace": "default"}, "spec": {"backoffLimit": 0, "template": pod, **spec}}


async def ending_of(client: Client) -> set[str]:
    status = (await client.get(JOBS, "work", "default"))["status"]
    return {c["type"] for c in status.get("conditions") or () if c["status"] == "True"}


def test_an_evicted_pod_says_why_it_ends() -> None:
    async def play(client: Client) -> None:
        spec = {"containers": [{"name": "main", "image": "example/main:1"}]}
        metadata = {"name": "lonely", "namespace": "default", "finalizers": ["example.com/seen"]}
        await client.create(PODS, {"metadata": metadata, "spec": spec})
        await asyncio.sleep(5)

        await evict(client, "lonely")

        pod = await client.get(PODS, "lonely", "default")
        [told] = [c for c in pod["status"]["conditions"] if c["type"] == "DisruptionTarget"]
        assert (told["status"], told["reason"]) == ("True", "EvictionByEvictionAPI")
        assert told["message"] == "Eviction API: evicting"
        assert pod["metadata"]["deletionTimestamp"]

    in_a_cluster(play)


def test_a_job_that_ignores_disruptions_survives_an_eviction() -> None:
    async def play(client: Client) -> None:
        await client.create(JOBS, job(podFailurePolicy=IGNORE_DISRUPTIONS))
        await asyncio.sleep(20)
        [pod] = (await client.list(PODS, "default")).items

        await evict(client, name_of(pod))
        await asyncio.sleep(300)

        assert await ending_of(client) == {"Complete", "SuccessCriteriaMet"}
        assert (await client.get(JOBS, "work", "default"))["status"].get("failed", 0) == 0

    in_a_cluster(play)


def test_a_job_without_a_policy_fails_on_an_eviction() -> None:
    async def play(client: Client) -> None:
        await client.create(JOBS, job())
        await asyncio.sleep(20)
        [pod] = (await client.list(PODS, "default")).items

        await evict(client, name_of(pod))
        await asyncio.sleep(300)

        assert await ending_of(client) == {"Failed", "FailureTarget"}

    in_a_cluster(play)


@pytest.mark.parametrize("policy", ["OrderedReady", "Parallel"])
def test_a_stateful_set_makes_evicted_and_refused_pods_anew(policy: str) -> None:
    async def play(client: Client) -> None:
        labels = {"app": "db"}
        spec = {"containers": [{"name": "main", "image": "example/db:1"}]}
        body = {"replicas": 3, "podManagementPolicy": policy, "selector": {"matchLabels": labels}}
        body["template"] = {"metadata": {"labels": labels}, "spec": spec}
        await client.create(STATEFUL_SETS, {"metadata": {"name": "db", "namespace": "default"}, "spec": body})
        await asyncio.sleep(60)
        before = {name_of(pod): uid_of(pod) for pod in (await client.list(PODS, "default")).items}
        assert sorted(before) == ["db-0", "db-1", "db-2"]

        await evict(client, "db-0")
        refused = {"status": {"phase": "Failed", "reason": "NodePorts", "message": "Pod was rejected"}}
        await client.patch(PODS, "db-2", "default", refused, kind=PatchKind.MERGE, subresource="status")
        await asyncio.sleep(120)

        pods = (await client.list(PODS, "default")).items
        after = {name_of(pod): uid_of(pod) for pod in pods}
        assert sorted(after) == sorted(before)
        assert {name for name in after if after[name] != before[name]} == {"db-0", "db-2"}
        assert {pod["status"]["phase"] for pod in pods} == {"Running"}

    in_a_cluster(play)


def owned(name: str, *owners: Obj, **changed: str) -> Obj:
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": name_of(owner), "uid": uid_of(owner), **changed}
        for owner in owners
    ]
    return {"metadata": {"name": name, "namespace": "default", "ownerReferences": references}}


def test_an_owner_in_another_namespace_counts_as_absent() -> None:
    async def play(client: Client) -> None:
        await client.create(NAMESPACES, {"metadata": {"name": "other"}})
        foreign = await client.create(CONFIG_MAPS, {"metadata": {"name": "owner", "namespace": "other"}})
        own = await client.create(CONFIG_MAPS, {"metadata": {"name": "owner", "namespace": "default"}})

        await client.create(CONFIG_MAPS, owned("lost", foreign))
        await client.create(CONFIG_MAPS, owned("wrong-kind", own, kind="Secret"))
        await client.create(CONFIG_MAPS, owned("shared", foreign, own))
        role = owned("role", foreign)
        del role["metadata"]["namespace"]
        await client.create(CLUSTER_ROLES, {**role, "rules": []})
        await asyncio.sleep(60)

        left = {name_of(obj): obj for obj in (await client.list(CONFIG_MAPS, "default")).items}
        assert left.keys() & {"lost", "wrong-kind", "shared"} == {"shared"}
        assert [ref["uid"] for ref in left["shared"]["metadata"]["ownerReferences"]] == [uid_of(own)]
        # Of a cluster-wide object it cannot be said where its owner would have to be.
        assert await client.get(CLUSTER_ROLES, "role")
        told = {
            event["involvedObject"]["name"]: event
            for event in (await client.list(EVENTS)).items
            if event["reason"] == "OwnerRefInvalidNamespace"
        }
        assert told.keys() == {"lost", "shared", "role"}
        what = f"[v1/ConfigMap, namespace: default, name: owner, uid: {uid_of(foreign)}]"
        assert told["lost"]["message"] == f'ownerRef {what} does not exist in namespace "default"'
        assert told["lost"]["type"] == "Warning"

    in_a_cluster(play, nodes=1)


def test_an_eviction_holds_its_preconditions_against_the_pod_as_it_was() -> None:
    async def play(client: Client) -> None:
        spec = {"containers": [{"name": "main", "image": "example/main:1"}]}
        await client.create(PODS, {"metadata": {"name": "lonely", "namespace": "default"}, "spec": spec})
        await asyncio.sleep(5)
        pod = await client.get(PODS, "lonely", "default")
        seen = {"uid": uid_of(pod), "resourceVersion": pod["metadata"]["resourceVersion"]}

        with pytest.raises(StatusError) as refused:
            await evict(client, "lonely", preconditions={**seen, "resourceVersion": "1"})
        assert refused.value.code == 409
        assert await client.get(PODS, "lonely", "default") == pod

        await evict(client, "lonely", preconditions=seen)
        await asyncio.sleep(60)
        assert await client.find(PODS, "lonely", "default") is None

    in_a_cluster(play)


def test_a_disruption_that_did_not_come_about_is_taken_back() -> None:
    async def play(client: Client) -> None:
        spec = {"containers": [{"name": "main", "image": "example/main:1"}]}
        await client.create(PODS, {"metadata": {"name": "spared", "namespace": "default"}, "spec": spec})
        await asyncio.sleep(5)
        since = (await client.get(PODS, "spared", "default"))["status"]["startTime"]
        told = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "soon",
                "lastTransitionTime": since}  # fmt: skip
        patch = {"status": {"conditions": [told]}}
        await client.patch(PODS, "spared", "default", patch, kind=PatchKind.STRATEGIC, subresource="status")

        async def said() -> str:
            conditions = (await client.get(PODS, "spared", "default"))["status"]["conditions"]
            return str(next(c["status"] for c in conditions if c["type"] == "DisruptionTarget"))

        await asyncio.sleep(60)
        assert await said() == "True"
        await asyncio.sleep(90)
        assert await said() == "False"

    in_a_cluster(play)


def test_a_bootstrap_token_goes_when_it_is_over() -> None:
    async def play(client: Client) -> None:
        now = parse_time((await client.get(NAMESPACES, "default"))["metadata"]["creationTimestamp"])

        def token(name: str, hours: int, namespace: str = "kube-system") -> Obj:
            data = {"token-id": name, "token-secret": "0123456789abcdef",
                    "expiration": format_time(now + timedelta(hours=hours))}  # fmt: skip
            metadata = {"name": f"bootstrap-token-{name}", "namespace": namespace}
            return {"metadata": metadata, "type": "bootstrap.kubernetes.io/token", "stringData": data}

        for made in (token("sooner", 1), token("laterx", 3), token("others", 1, "default")):
            await client.create(SECRETS, made)
        await asyncio.sleep(2 * 3600)

        left = {name_of(secret) for secret in (await client.list(SECRETS, "")).items}
        assert left == {"bootstrap-token-laterx", "bootstrap-token-others"}

    in_a_cluster(play)
