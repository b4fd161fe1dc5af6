"""Which pods a kubelet refuses, and in which words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from navarch.api.features import parse
from navarch.node.engine.admission import Host, refusal
from navarch.node.engine.taken import Taken
from tests.node.objects import Obj
from tests.node.objects import pod as bare

NODE = {"metadata": {"name": "n1", "labels": {"disk": "ssd", "kubernetes.io/os": "linux"}}, "spec": {}}
HOST = Host(NODE, {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "10Gi", "pods": "3", "x/gpu": "1"}, [], Taken())


def pod(*, requests: Obj | None = None, ports: list[Obj] | None = None, **spec: Any) -> Obj:
    container = {"name": "c", "resources": {"requests": requests or {}}, "ports": ports or []}
    return bare(container, nodeName="n1", **spec)


def port(number: int, **fields: Any) -> Obj:
    return {"containerPort": 80, "hostPort": number, "protocol": "TCP", **fields}


def affinity(operator: str, *values: str) -> Obj:
    expression = {"key": "disk", "operator": operator, "values": list(values)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


@pytest.mark.parametrize(
    ("asked", "reason", "message"),
    [
        (
            pod(requests={"cpu": "1500m"}),
            "OutOfcpu",
            "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000",
        ),
        (
            pod(requests={"memory": "2Gi"}),
            "OutOfmemory",
            "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824",
        ),
        (
            pod(requests={"ephemeral-storage": "11Gi"}),
            "OutOfephemeral-storage",
            "Node didn't have enough resource: ephemeral-storage, "
            "requested: 11811160064, used: 0, capacity: 10737418240",
        ),
        (
            pod(requests={"x/gpu": "2"}),
            "OutOfx/gpu",
            "Node didn't have enough resource: x/gpu, requested: 2, used: 0, capacity: 1",
        ),
        (
            pod(nodeSelector={"disk": "hdd"}),
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            pod(affinity=affinity("NotIn", "ssd")),
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            pod(ports=[port(8080)]),
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ),
        (
            pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
            "SysctlForbidden",
            'forbidden sysctl: "kernel.msgmax" not allowlisted',
        ),
        (
            pod(os={"name": "windows"}),
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        ),
    ],
)
def test_a_pod_that_does_not_fit_is_refused_in_kubernetes_words(asked: Obj, reason: str, message: str) -> None:
    host = replace(HOST, taken=Taken([pod(requests={"cpu": "1"}, ports=[port(8080)])]))

    assert refusal(asked, host) == (reason, message)


@pytest.mark.parametrize(
    "asked",
    [
        pod(requests={"cpu": "1", "memory": "1Gi"}),
        pod(nodeSelector={"disk": "ssd"}, affinity=affinity("In", "ssd")),
        pod(ports=[port(8081)]),
        pod(ports=[port(8080, protocol="UDP")]),
        pod(ports=[port(8080, hostIP="10.0.0.2")]),
        pod(requests={"x/gone": "1"}),
    ],
)
def test_a_pod_that_fits_is_taken(asked: Obj) -> None:
    host = replace(HOST, taken=Taken([pod(requests={"cpu": "1"}, ports=[port(8080, hostIP="10.0.0.1")])]))

    assert refusal(asked, host) is None


def test_a_port_on_every_address_collides_with_one_on_any() -> None:
    host = replace(HOST, taken=Taken([pod(hostNetwork=True, ports=[{"containerPort": 8080}])]))

    refused = refusal(pod(ports=[port(8080, hostIP="10.0.0.1")]), host)

    assert refused is not None
    assert refused.reason == "NodePorts"


def test_a_full_node_takes_no_more_pods() -> None:
    host = replace(HOST, taken=Taken([pod(), pod(), pod()]))

    assert refusal(pod(), host) == (
        "OutOfpods",
        "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3",
    )


def test_a_taint_that_would_have_the_pod_leave_again_keeps_it_out_but_not_a_static_one() -> None:
    taint = {"key": "dedicated", "value": "db", "effect": "NoExecute"}
    host = replace(HOST, node={**NODE, "spec": {"taints": [taint]}})

    refused = refusal(pod(), host)

    assert refused is not None
    assert refused.reason == "TaintToleration"
    assert refused.told.startswith("Pod was rejected: Predicate TaintToleration failed: node(s) had taints")
    assert refusal(pod(), host, static=True) is None
    assert refusal(pod(tolerations=[{"key": "dedicated", "operator": "Exists"}]), host) is None


def test_under_pressure_only_what_asked_for_memory_or_matters_is_taken() -> None:
    short_of_memory = replace(HOST, pressures=["MemoryPressure"])
    short_of_disk = replace(HOST, pressures=["DiskPressure"])
    asking = pod(requests={"memory": "1Mi"})

    assert refusal(pod(), short_of_memory) == ("Evicted", "The node had condition: [MemoryPressure]. ")
    assert refusal(asking, short_of_memory) is None
    assert refusal(asking, short_of_disk) == ("Evicted", "The node had condition: [DiskPressure]. ")
    assert refusal(pod(priority=2_000_000_000), short_of_disk) is None


def test_a_pod_that_needs_what_the_node_does_not_declare_is_refused() -> None:
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [1]}}
    needs = bare({"name": "c", "restartPolicy": "Never", "restartPolicyRules": [rule]}, nodeName="n1")
    without = parse(["RestartAllContainersOnContainerExits=false"], "1.36")

    assert refusal(needs, replace(HOST, features=without)) == (
        "PodFeatureUnsupported",
        "Pod requires node features that are not available: RestartAllContainersOnContainerExits",
    )
    assert refusal(pod(), replace(HOST, features=without)) is None
    assert refusal(needs, replace(HOST, features=parse([], "1.36"))) is None
    assert refusal(needs, replace(HOST, features=parse([], "1.35"))) is None
