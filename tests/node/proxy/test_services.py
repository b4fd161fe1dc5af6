"""Reading Services and EndpointSlices, and choosing endpoints."""

from __future__ import annotations

from typing import Any

from navarch.node.proxy.base import Endpoint, PortName
from navarch.node.proxy.services import Place, choose, endpoints_of, service_ports
from tests.node.proxy.objects import endpoint, endpoint_slice, service

HTTP = PortName("http", "TCP")
HERE = Place("here", zone="a")


def test_services_without_a_virtual_ip_have_no_ports() -> None:
    assert service_ports(service(ip="None")) == ()
    assert service_ports(service(ip="", type="ExternalName", externalName="x.y")) == ()
    labelled = service()
    labelled["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "other"}
    assert service_ports(labelled) == ()


def test_affinity_has_its_default_timeout() -> None:
    (port,) = service_ports(service(sessionAffinity="ClientIP"))

    assert port.affinity_s == 10800


def test_a_balancers_address_in_proxy_mode_is_not_short_cut() -> None:
    ingress = [{"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "Proxy"}]
    (port,) = service_ports(service(type="LoadBalancer", status={"loadBalancer": {"ingress": ingress}}))

    assert port.load_balancer_ips == ("198.51.100.1",)


def test_overlapping_slices_count_an_endpoint_once() -> None:
    slices = [
        endpoint_slice(endpoint("10.42.0.5", ready=False, serving=False)),
        endpoint_slice(endpoint("10.42.0.5"), suffix="b"),
    ]

    assert endpoints_of(slices, HERE)[HTTP] == (Endpoint("10.42.0.5", 8080, local=True),)


def test_conditions_that_are_not_set_mean_ready() -> None:
    bare = {"addresses": ["10.42.0.5"]}

    assert endpoints_of([endpoint_slice(bare)], HERE)[HTTP][0].ready


def test_draining_endpoints_serve_only_where_nothing_is_ready() -> None:
    draining = Endpoint("10.42.0.5", 80, ready=False, serving=True, terminating=True)
    dead = Endpoint("10.42.0.6", 80, ready=False, serving=False, terminating=True)
    ready = Endpoint("10.42.0.7", 80)

    assert choose([draining, dead, ready]).cluster == (ready,)
    assert choose([draining, dead]).cluster == (draining,)
    assert not choose([dead]).any_known


def hinted(address: str, *, zone: str = "", node: str = "") -> dict[str, Any]:
    hints = {"forZones": [{"name": zone}] if zone else [], "forNodes": [{"name": node}] if node else []}
    return {**endpoint(address), "hints": {kind: names for kind, names in hints.items() if names}}


def chosen(*endpoints: dict[str, Any]) -> list[str]:
    return [each.address for each in choose(endpoints_of([endpoint_slice(*endpoints)], HERE)[HTTP]).cluster]


def test_hints_are_followed_while_they_leave_something() -> None:
    far, near = hinted("10.42.0.5", zone="b"), hinted("10.42.0.6", zone="a")

    assert chosen(far, near) == ["10.42.0.6"]
    assert chosen(far) == ["10.42.0.5"]


def test_an_endpoint_without_hints_has_all_of_them_ignored() -> None:
    assert chosen(hinted("10.42.0.6", zone="a"), endpoint("10.42.0.7")) == ["10.42.0.6", "10.42.0.7"]


def test_who_wants_the_same_node_gets_the_same_zone_where_the_node_has_nothing() -> None:
    here, near = hinted("10.42.0.5", zone="a", node="here"), hinted("10.42.0.6", zone="a", node="next")
    far = hinted("10.42.0.7", zone="b", node="far")

    assert chosen(here, near, far) == ["10.42.0.5"]
    assert chosen(near, far) == ["10.42.0.6"]
    assert chosen(far) == ["10.42.0.7"]
