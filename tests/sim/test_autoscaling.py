"""HorizontalPodAutoscalers at work on simulated pods, whose load their annotations say. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from navarch.api.errors import PathNotFound, StatusError
from navarch.api.meta import Obj, Resource
from navarch.api.time import parse_time
from navarch.apiserver.aggregation.aggregator import Aggregator
from navarch.apiserver.aggregation.directory import Remote
from navarch.apiserver.aggregation.foreign import ForeignVersion
from navarch.apiserver.routes import Route
from navarch.apiserver.user import User
from navarch.client.base import Client, PatchKind
from navarch.client.resources import (
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    EVENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    HORIZONTAL_POD_AUTOSCALERS_V1,
    PODS,
    STATEFUL_SETS,
)
from navarch.client.transport import Request, Response
from navarch.sim.virtual import VirtualWorld, run
from navarch.testing.embedded import EmbeddedCluster

SETTLED_S = 60


class Metrics:
    """Whoever serves custom and external metrics: `values` by the end of the path. `asked` are the queries."""

    def __init__(self, group: str, version: str, values: dict[str, list[Obj]]) -> None:
        self.group, self.version = group, version
        self.values = values
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.resources: tuple[Obj, ...] = ()
        self.api_service: Obj = {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def handle(self, request: Request, route: Route) -> Response:
        path = route.path.removeprefix(f"/apis/{self.group}/{self.version}/namespaces/default/")
        self.asked.append((path, dict(request.query)))
        if path not in self.values:
            raise PathNotFound()
        return Response(200, orjson.dumps({"kind": "MetricValueList", "items": self.values[path]}))

    def served_by(self, cluster: EmbeddedCluster) -> Metrics:
        """Answered for by this cluster, as if an APIService led to it."""
        delegate = cluster.server.core.delegate
        assert isinstance(delegate, Aggregator)
        delegate.embedded = {**delegate.embedded, (self.group, self.version): self}
        remote = Remote("m", self.group, self.version, 100, 100, "", "", 0, b"", False)
        delegate.foreign = delegate.foreign.with_version(ForeignVersion(remote, (), True))
        return self


def value(amount: str, name: str = "x") -> Obj:
    return {"describedObject": {"name": name}, "timestamp": "2030-01-01T00:00:00Z", "value": amount}


def in_a_cluster(play: Callable[[EmbeddedCluster], Awaitable[None]]) -> None:
    async def main(world: VirtualWorld) -> None:
        async with EmbeddedCluster(nodes=2, world=world) as cluster:
            await play(cluster)

    run(main, seed=1)


def workload(replicas: int, cpu: str = "100m", name: str = "web", **annotations: str) -> Obj:
    told = {f"sim.navarch.dev/{key.replace('_', '-')}": each for key, each in annotations.items()}
    requests = {"cpu": cpu, "memory": "100Mi"}
    containers = [{"name": "main", "image": "web:1", "resources": {"requests": requests}}]
    template = {"metadata": {"labels": {"app": name}, "annotations": told}, "spec": {"containers": containers}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def autoscaler(*metrics: Obj, kind: str = "Deployment", name: str = "web", target: str = "web", **spec: Any) -> Obj:
    group = "apps/v1" if kind in ("Deployment", "StatefulSet") else "stable.example.com/v1"
    reference = {"apiVersion": group, "kind": kind, "name": target}
    body = {"scaleTargetRef": reference, "maxReplicas": 10, "metrics": list(metrics), **spec}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": body}


def cpu(percent: int) -> Obj:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


async def load(client: Client, amount: str) -> None:
    """Every pod of the workload uses so much CPU from now on."""
    patch = {"metadata": {"annotations": {"sim.navarch.dev/cpu-usage": amount}}}
    for pod in (await client.list(PODS, "default", labels="app=web")).items:
        await client.patch(PODS, pod["metadata"]["name"], "default", patch, kind=PatchKind.MERGE)


async def replicas(client: Client, after_s: float, resource: Resource = DEPLOYMENTS) -> int:
    await asyncio.sleep(after_s)
    return int((await client.get(resource, "web", "default"))["spec"].get("replicas") or 0)


async def status(client: Client, name: str = "web") -> Obj:
    found: Obj = (await client.get(HORIZONTAL_POD_AUTOSCALERS, name, "default"))["status"]
    return found


async def condition(client: Client, type: str, name: str = "web") -> tuple[str, str, str]:
    conditions = (await status(client, name)).get("conditions") or ()
    found = next(each for each in conditions if each["type"] == type)
    return found["status"], found["reason"], found["message"]


async def events(client: Client) -> list[tuple[str, str]]:
    found = [each for each in (await client.list(EVENTS, "default")).items if _of_autoscaler(each)]
    return [(each["reason"], each["message"]) for each in found]


def _of_autoscaler(event: Obj) -> bool:
    return bool(event["source"].get("component") == "horizontal-pod-autoscaler")


def test_a_deployment_follows_its_load_up_at_once_and_down_after_five_minutes() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        await client.create(DEPLOYMENTS, workload(1, cpu_usage="100m"))
        await asyncio.sleep(SETTLED_S)
        await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(cpu(50), maxReplicas=6))

        assert await replicas(client, 16) == 2
        assert await condition(client, "AbleToScale") == (
            "True",
            "SucceededRescale",
            "the HPA controller was able to update the target scale to 2",
        )
        assert await replicas(client, 180) == 6
        seen = await status(client)
        assert (seen["currentReplicas"], seen["desiredReplicas"]) == (6, 6)
        current = {"averageUtilization": 100, "averageValue": "100m"}
        assert seen["currentMetrics"] == [{"type": "Resource", "resource": {"name": "cpu", "current": current}}]
        assert (await condition(client, "ScalingLimited"))[:2] == ("True", "TooManyReplicas")
        assert (await condition(client, "ScalingActive"))[1] == "ValidMetricFound"

        await load(client, "10m")
        assert await replicas(client, 240) == 6
        assert (await condition(client, "AbleToScale"))[1] == "ScaleDownStabilized"
        assert await replicas(client, 120) == 2
        done = [message for reason, message in await events(client) if reason == "SuccessfulRescale"]
        above = "reason: cpu resource utilization (percentage of request) above target"
        assert done == [
            f"New size: 2; {above}",
            f"New size: 4; {above}",
            f"New size: 6; {above}",
            "New size: 2; reason: All metrics below target",
        ]

    in_a_cluster(play)


def test_policies_hold_the_growth_back_and_windows_the_shrinking() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        await client.create(DEPLOYMENTS, workload(1, cpu_usage="1"))
        await asyncio.sleep(SETTLED_S)
        one_a_minute = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
        soon = {"stabilizationWindowSeconds": 30}
        behavior = {"scaleUp": one_a_minute, "scaleDown": soon}
        await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(cpu(50), behavior=behavior))

        assert await replicas(client, 16) == 2
        assert await replicas(client, 50) == 2
        assert (await condition(client, "ScalingLimited"))[1] == "ScaleUpLimit"
        assert await replicas(client, 30) == 3

        await load(client, "10m")
        assert await replicas(client, 90) == 1

    in_a_cluster(play)


def test_an_autoscaler_is_looked_at_every_fifteen_seconds() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        before = parse_time((await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(cpu(50))))["metadata"][
            "creationTimestamp"
        ])  # fmt: skip
        await asyncio.sleep(16)
        assert await condition(client, "AbleToScale") == (
            "False",
            "FailedGetScale",
            'the HPA controller was unable to get the target\'s current scale: deployments.apps "web" not found',
        )
        await client.create(DEPLOYMENTS, workload(1))
        await asyncio.sleep(16)

        found = next(each for each in (await status(client))["conditions"] if each["type"] == "AbleToScale")
        assert found["status"] == "True"
        assert (parse_time(found["lastTransitionTime"]) - before).total_seconds() == 30

    in_a_cluster(play)


def test_bounds_hold_without_any_metric_and_zero_switches_it_off() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        await client.create(DEPLOYMENTS, workload(1))
        await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(cpu(50), minReplicas=3, maxReplicas=4))
        assert await replicas(client, 16) == 3

        await client.patch(DEPLOYMENTS, "web", "default", {"spec": {"replicas": 9}})
        assert await replicas(client, 16) == 4
        await client.patch(DEPLOYMENTS, "web", "default", {"spec": {"replicas": 0}})
        assert await replicas(client, 16) == 0
        assert await condition(client, "ScalingActive") == (
            "False",
            "ScalingDisabled",
            "scaling is disabled since the replica count of the target is zero",
        )
        sizes = [message for reason, message in await events(client) if reason == "SuccessfulRescale"]
        assert sizes == [
            "New size: 3; reason: Current number of replicas below Spec.MinReplicas",
            "New size: 4; reason: Current number of replicas above Spec.MaxReplicas",
        ]

    in_a_cluster(play)


def test_containers_memory_and_tolerance_count_as_stated() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        stateful = workload(2, cpu_usage="52m", memory_usage="30Mi")
        await client.create(STATEFUL_SETS, {**stateful, "spec": {**stateful["spec"], "serviceName": "web"}})
        await asyncio.sleep(SETTLED_S)
        target = {"type": "AverageValue", "averageValue": "10Mi"}
        memory = {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "main"}}
        memory["containerResource"] |= {"target": target}  # type: ignore[operator]
        await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(memory, cpu(50), kind="StatefulSet"))

        # Three times as much memory as there should be; 4 % too much CPU is within tolerance.
        assert await replicas(client, 16, STATEFUL_SETS) == 4
        assert (await events(client))[-1][1] == "New size: 4; reason: memory resource above target"
        await client.delete(HORIZONTAL_POD_AUTOSCALERS, "web", "default")
        strict = {"scaleUp": {"tolerance": "0.03"}}
        await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(cpu(50), kind="StatefulSet", behavior=strict))
        assert await replicas(client, 60, STATEFUL_SETS) > 4

    in_a_cluster(play)


def test_pods_objects_and_what_is_outside_are_asked_for_where_somebody_serves_them() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        await client.create(DEPLOYMENTS, workload(1))
        await asyncio.sleep(SETTLED_S)
        pod = (await client.list(PODS, "default")).items[0]["metadata"]["name"]
        selector = {"matchLabels": {"verb": "GET"}}
        average = {"type": "AverageValue", "averageValue": "10"}
        of_pods = {"type": "Pods", "pods": {"metric": {"name": "hits", "selector": selector}, "target": average}}
        described = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "front"}
        of_object = {
            "type": "Object",
            "object": {
                "describedObject": described,
                "metric": {"name": "hits"},
                "target": {"type": "Value", "value": "10"},
            },
        }
        outside = {
            "type": "External",
            "external": {"metric": {"name": "queue", "selector": selector}, "target": average},
        }
        await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(of_pods, of_object, outside))
        await asyncio.sleep(16)
        assert (await condition(client, "ScalingActive"))[1:] == (
            "FailedGetPodsMetric",
            "the HPA was unable to compute the replica count: unable to get metric hits: unable to fetch metrics from "
            "custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered",
        )

        found = {
            "pods/*/hits": [value("20", pod)],
            "ingresses.networking.k8s.io/front/hits": [value("25")],
        }
        custom = Metrics("custom.metrics.k8s.io", "v1beta2", found).served_by(cluster)
        queue = {"queue": [value("30"), value("20500m")]}
        external = Metrics("external.metrics.k8s.io", "v1beta1", queue).served_by(cluster)
        assert await replicas(client, 16) == 4
        words = (
            "external metric queue(&LabelSelector{MatchLabels:map[string]string{verb: GET,},"
            "MatchExpressions:[]LabelSelectorRequirement{},})"
        )
        assert ("SuccessfulRescale", f"New size: 4; reason: {words} above target") in await events(client)
        seen = (await status(client))["currentMetrics"]
        assert [each["type"] for each in seen] == ["Pods", "Object", "External"]
        assert seen[0]["pods"] == {
            "metric": {"name": "hits", "selector": selector},
            "current": {"averageValue": "20"},
        }
        assert seen[1]["object"] == {
            "describedObject": described,
            "metric": {"name": "hits"},
            "current": {"value": "25"},
        }
        assert seen[2]["external"]["current"] == {"averageValue": "50500m"}
        assert ("pods/*/hits", {"labelSelector": "app=web", "metricLabelSelector": "verb=GET"}) in custom.asked
        assert external.asked[0] == ("queue", {"labelSelector": "verb=GET"})

    in_a_cluster(play)


def test_while_a_metric_is_missing_a_target_may_grow_but_not_shrink() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        await client.create(DEPLOYMENTS, workload(2, cpu_usage="10m"))
        await asyncio.sleep(SETTLED_S)
        target = {"type": "AverageValue", "averageValue": "1"}
        missing = {"type": "External", "external": {"metric": {"name": "queue"}, "target": target}}
        soon = {"scaleDown": {"stabilizationWindowSeconds": 0}}
        await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(cpu(50), missing, behavior=soon))

        assert await replicas(client, 60) == 2
        assert (await condition(client, "ScalingActive"))[1] == "FailedGetExternalMetric"
        words = (
            "invalid metrics (1 invalid out of 2), first error is: failed to get queue external metric value: failed "
            "to get queue external metric: unable to get external metric default/queue/nil: unable to fetch metrics "
            "from external metrics API: the server could not find the requested resource "
            "(get queue.external.metrics.k8s.io)"
        )
        assert ("FailedComputeMetricsReplicas", words) in await events(client)
        seen = (await status(client))["currentMetrics"]
        assert [each["type"] for each in seen] == ["Resource", ""]
        old = await client.get(HORIZONTAL_POD_AUTOSCALERS_V1, "web", "default")
        assert old["status"]["currentCPUUtilizationPercentage"] == 10

        await load(client, "100m")
        assert await replicas(client, 60) > 2

    in_a_cluster(play)


def test_two_autoscalers_of_the_same_pods_do_nothing() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        await client.create(DEPLOYMENTS, workload(1, cpu_usage="100m"))
        other = workload(1, name="other")
        other["spec"]["template"]["metadata"]["labels"] = {"app": "other", "tier": "front"}
        await client.create(DEPLOYMENTS, other)
        await asyncio.sleep(SETTLED_S)
        await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(cpu(500)))
        await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(cpu(50), name="second"))
        await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(cpu(500), name="third", target="other"))

        assert await replicas(client, 35) == 1
        words = "pods by selector app=web are controlled by multiple HPAs: [default/second default/web]"
        for name in ("web", "second"):
            assert await condition(client, "ScalingActive", name) == ("False", "AmbiguousSelector", words)
        assert (await condition(client, "ScalingActive", "third"))[1] == "ValidMetricFound"

        await client.delete(HORIZONTAL_POD_AUTOSCALERS, "web", "default")
        assert await replicas(client, 16) > 1

    in_a_cluster(play)


def test_a_custom_resource_with_a_scale_is_scaled_like_any_other() -> None:
    shirts = Resource("stable.example.com", "v1", "shirts", "Shirt", True)
    count = {"type": "integer"}
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {"replicas": count}},
            "status": {"type": "object", "properties": {"replicas": count, "selector": {"type": "string"}}},
        },
    }
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    version["subresources"] = {"status": {}, "scale": scale}
    definition = {
        "metadata": {"name": "shirts.stable.example.com"},
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": {"plural": "shirts", "singular": "shirt", "kind": "Shirt", "listKind": "ShirtList"},
            "versions": [version],
        },
    }

    async def play(cluster: EmbeddedCluster) -> None:
        client = cluster.client
        await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(cpu(50), kind="Shirt"))
        await asyncio.sleep(16)
        assert (await condition(client, "AbleToScale"))[2].endswith(
            'no matches for kind "Shirt" in group "stable.example.com"'
        )
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
        await client.create(DEPLOYMENTS, workload(1, cpu_usage="150m"))
        await asyncio.sleep(SETTLED_S)
        shirt = {"apiVersion": "stable.example.com/v1", "kind": "Shirt", "spec": {"replicas": 1}}
        shirt["metadata"] = {"name": "web", "namespace": "default"}
        await client.create(shirts, shirt)
        assert await replicas(client, 16, shirts) == 1
        assert await condition(client, "ScalingActive") == (
            "False",
            "InvalidSelector",
            "the HPA target's scale is missing a selector",
        )
        told = {"status": {"replicas": 1, "selector": "app=web"}}
        await client.patch(shirts, "web", "default", told, subresource="status")
        assert await replicas(client, 16, shirts) == 3

    in_a_cluster(play)


def test_the_controller_may_do_no_more_than_its_role_says() -> None:
    async def play(cluster: EmbeddedCluster) -> None:
        account = User(
            "system:serviceaccount:kube-system:horizontal-pod-autoscaler",
            ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"),
        )
        its = cluster.client_as(account)
        await cluster.client.create(DEPLOYMENTS, workload(1))
        metrics = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", True)
        assert (await its.list(metrics, "default")).items == []
        shown = await its.get(DEPLOYMENTS, "web", "default", "scale")
        await its.update(DEPLOYMENTS, {**shown, "spec": {"replicas": 2}}, subresource="scale")
        for forbidden in (
            its.get(DEPLOYMENTS, "web", "default"),
            its.delete(PODS, "x", "default"),
            its.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler(cpu(1))),
        ):
            with pytest.raises(StatusError) as refused:
                await forbidden
            assert refused.value.code == 403

    in_a_cluster(play)
