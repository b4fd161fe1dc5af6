"""Reading Services and EndpointSlices, and choosing endpoints."""

from __future__ import annotations

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


def test_hints_are_followed_while_they_leave_something() -> None:
    far = {**endpoint("10.42.0.5"), "hints": {"forZones": [{"name": "b"}]}}
    near = {**endpoint("10.42.0.6"), "hints": {"forZones": [{"name": "a"}]}}

    both = choose(endpoints_of([endpoint_slice(far, near)], HERE)[HTTP])
    only_far = choose(endpoints_of([endpoint_slice(far)], HERE)[HTTP])

    assert [each.address for each in both.cluster] == ["10.42.0.6"]
    assert [each.address for each in only_far.cluster] == ["10.42.0.5"]
