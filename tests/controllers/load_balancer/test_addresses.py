"""Which addresses Services get: from Services, Nodes and what is taken. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.controllers.load_balancer.addresses import CLASS, Claim, Port, choose, is_ours, own_ports


def node(name: str, *addresses: str, ready: str = "True", **metadata: Any) -> Obj:
    listed = [{"type": "InternalIP", "address": address} for address in addresses]
    status = {"conditions": [{"type": "Ready", "status": ready}], "addresses": listed,
              "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}  # fmt: skip
    return {"metadata": {"name": name, **metadata}, "spec": {}, "status": status}


def service(*ports: int, **spec: Any) -> Obj:
    body = {"type": "LoadBalancer", "ports": [{"port": port, "protocol": "TCP"} for port in ports], **spec}
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": body}


@pytest.mark.parametrize(
    ("spec", "ours"),
    [({}, True), ({"loadBalancerClass": CLASS}, True), ({"loadBalancerClass": "example.com/other"}, False),
     ({"type": "NodePort"}, False)],
)  # fmt: skip
def test_a_service_without_a_class_or_with_this_one_is_served(spec: Obj, ours: bool) -> None:
    assert is_ours(service(80, **spec)) is ours


def test_every_node_that_may_serve_gives_its_address() -> None:
    excluded = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}
    nodes = [node("b", "10.0.0.2"), node("a", "10.0.0.1"), node("down", "10.0.0.3", ready="Unknown"),
             node("out", "10.0.0.4", labels=excluded)]  # fmt: skip
    tainted = node("going", "10.0.0.5")
    tainted["spec"]["taints"] = [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]

    assert choose(service(80), [*nodes, tainted], {}).addresses == ["10.0.0.1", "10.0.0.2"]


def test_an_address_outside_is_preferred_and_families_come_in_their_order() -> None:
    made = node("a", "10.0.0.1", "fd00::1")
    made["status"]["addresses"].append({"type": "ExternalIP", "address": "203.0.113.9"})

    assert choose(service(80), [made], {}).addresses == ["203.0.113.9"]
    assert choose(service(80, ipFamilies=["IPv6", "IPv4"]), [node("a", "10.0.0.1", "fd00::1")], {}).addresses == [
        "fd00::1",
        "10.0.0.1",
    ]


def test_a_port_that_somebody_has_is_not_given_twice() -> None:
    taken = {Claim("10.0.0.1", Port("TCP", 443)): "the service default/first"}
    nodes = [node("a", "10.0.0.1"), node("b", "10.0.0.2")]

    assert choose(service(80, 443), nodes, taken).addresses == ["10.0.0.2"]
    only = choose(service(80, 443), nodes[:1], taken)
    assert only.addresses == []
    assert only.conflict == "port 443/TCP of 10.0.0.1 belongs to the service default/first"
    assert choose(service(80), nodes[:1], taken).addresses == ["10.0.0.1"]


def test_ports_of_kubelets_and_of_the_api_server_are_their_own() -> None:
    api = {"endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 6443}]}
    nodes = [node("a", "10.0.0.1"), node("b", "10.0.0.2")]
    taken = own_ports(nodes, [api])

    assert choose(service(6443), nodes, taken).addresses == ["10.0.0.2"]
    assert choose(service(10250), nodes, taken).conflict == "port 10250/TCP of 10.0.0.1 belongs to the kubelet of a"


def test_where_traffic_stays_local_only_nodes_with_a_pod_serve() -> None:
    nodes = [node("a", "10.0.0.1"), node("b", "10.0.0.2")]

    assert choose(service(80), nodes, {}, with_endpoints={"b"}).addresses == ["10.0.0.2"]
