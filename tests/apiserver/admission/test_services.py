"""Allocation of service addresses and node ports."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.errors import StatusError
from navarch.apiserver.admission.ranges import AddressRange, Books, PortRange, RangeFull
from navarch.kinds import resources as r
from tests.apiserver.admission.fakes import FakeCluster, service


async def test_a_service_gets_an_address_from_the_upper_band() -> None:
    cluster = FakeCluster()
    spec = (await cluster.create(r.SERVICES, service()))["spec"]
    assert ip_address(spec["clusterIP"]) in ip_network("10.43.0.0/16")
    assert ip_address(spec["clusterIP"]) > ip_address("10.43.1.0")
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")


async def test_the_api_servers_own_service_and_dns_have_fixed_addresses() -> None:
    cluster = FakeCluster()
    kubernetes = await cluster.create(r.SERVICES, service("kubernetes"))
    assert kubernetes["spec"]["clusterIP"] == "10.43.0.1"
    cluster.put(r.NAMESPACES, {"metadata": {"name": "kube-system"}, "status": {"phase": "Active"}})
    dns = service("kube-dns")
    dns["metadata"]["namespace"] = "kube-system"
    assert (await cluster.create(r.SERVICES, dns))["spec"]["clusterIP"] == "10.43.0.10"


async def test_an_address_is_given_once() -> None:
    cluster = FakeCluster()
    await cluster.create(r.SERVICES, service("a", clusterIP="10.43.0.20"))
    with pytest.raises(StatusError) as refused:
        await cluster.create(r.SERVICES, service("b", clusterIP="10.43.0.20"))
    assert refused.value.code == 422
    assert refused.value.message == (
        'Service "b" is invalid: spec.clusterIPs: Invalid value: ["10.43.0.20"]: '
        "failed to allocate IP 10.43.0.20: provided IP is already allocated"
    )


async def test_an_address_from_elsewhere_is_refused() -> None:
    with pytest.raises(StatusError, match=r"not in the valid range\. The range of valid IPs is 10\.43\.0\.0/16"):
        await FakeCluster().create(r.SERVICES, service(clusterIP="192.0.2.1"))


async def test_a_deleted_services_address_can_be_had_again() -> None:
    cluster = FakeCluster()
    await cluster.create(r.SERVICES, service("a", clusterIP="10.43.0.20"))
    await cluster.delete(r.SERVICES, "a", "default")
    await cluster.create(r.SERVICES, service("b", clusterIP="10.43.0.20"))


async def test_a_service_that_left_unnoticed_blocks_nothing() -> None:
    cluster = FakeCluster()
    await cluster.create(r.SERVICES, service("a", clusterIP="10.43.0.20"))
    cluster.objects.pop((r.SERVICES, "default", "a"))
    await cluster.create(r.SERVICES, service("b", clusterIP="10.43.0.20"))


async def test_a_refused_write_gives_back_what_it_took() -> None:
    cluster = FakeCluster()
    await cluster.create(r.SERVICES, service("a", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    with pytest.raises(StatusError, match="provided port is already allocated"):
        await cluster.create(
            r.SERVICES,
            service("b", type="NodePort", clusterIP="10.43.0.30", ports=[{"port": 80, "nodePort": 30080}]),
        )
    await cluster.create(r.SERVICES, service("c", clusterIP="10.43.0.30"))


async def test_a_dry_run_takes_nothing() -> None:
    cluster = FakeCluster()
    await cluster.create(r.SERVICES, service("a", clusterIP="10.43.0.20"), dry_run=True)
    await cluster.create(r.SERVICES, service("b", clusterIP="10.43.0.20"))


async def test_headless_and_external_name_services_have_no_address() -> None:
    cluster = FakeCluster()
    headless = await cluster.create(r.SERVICES, service("a", clusterIP="None", selector={"a": "b"}))
    assert headless["spec"]["clusterIPs"] == ["None"]
    assert headless["spec"]["ipFamilies"] == ["IPv4"]
    external = await cluster.create(r.SERVICES, service("b", type="ExternalName", externalName="example.com"))
    assert "clusterIP" not in external["spec"]
    assert "ipFamilies" not in external["spec"]


async def test_node_ports_are_drawn_and_shared_over_protocols() -> None:
    cluster = FakeCluster()
    ports = [
        {"port": 53, "protocol": "UDP", "name": "dns"},
        {"port": 53, "protocol": "TCP", "name": "dns-tcp"},
        {"port": 80, "name": "web"},
    ]
    made = await cluster.create(r.SERVICES, service(type="NodePort", ports=ports))
    udp, tcp, web = (port["nodePort"] for port in made["spec"]["ports"])
    assert udp == tcp
    assert web != udp
    assert all(30086 <= port <= 32767 for port in (udp, web))


async def test_a_node_port_out_of_range_is_refused() -> None:
    with pytest.raises(StatusError) as refused:
        await FakeCluster().create(r.SERVICES, service(type="NodePort", ports=[{"port": 80, "nodePort": 80}]))
    assert refused.value.message == (
        'Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 80: '
        "provided port is not in the valid range. The range of valid ports is 30000-32767"
    )


async def test_a_change_of_type_allocates_and_releases() -> None:
    cluster = FakeCluster()
    made = await cluster.create(r.SERVICES, service())
    made["spec"]["type"] = "NodePort"
    made = await cluster.update_as(r.SERVICES, made)
    port = made["spec"]["ports"][0]["nodePort"]
    made["spec"]["type"] = "ClusterIP"
    made = await cluster.update_as(r.SERVICES, made)
    assert "nodePort" not in made["spec"]["ports"][0]
    await cluster.create(r.SERVICES, service("b", type="NodePort", ports=[{"port": 80, "nodePort": port}]))


async def test_becoming_external_frees_the_address_and_coming_back_gets_one() -> None:
    cluster = FakeCluster()
    made = await cluster.create(r.SERVICES, service(clusterIP="10.43.0.40"))
    made["spec"].update(type="ExternalName", externalName="example.com")
    made = await cluster.update_as(r.SERVICES, made)
    await cluster.create(r.SERVICES, service("b", clusterIP="10.43.0.40"))
    made["spec"]["type"] = "ClusterIP"
    made = await cluster.update_as(r.SERVICES, made)
    assert made["spec"]["clusterIP"] not in ("", "10.43.0.40")


async def test_a_local_load_balancer_gets_a_health_check_port() -> None:
    made = await FakeCluster().create(r.SERVICES, service(type="LoadBalancer", externalTrafficPolicy="Local"))
    assert made["spec"]["healthCheckNodePort"] in range(30000, 32768)
    assert made["spec"]["healthCheckNodePort"] != made["spec"]["ports"][0]["nodePort"]


async def test_what_is_stored_already_is_taken() -> None:
    cluster = FakeCluster()
    cluster.put(r.SERVICES, service("old", clusterIP="10.43.0.50", clusterIPs=["10.43.0.50"]))
    with pytest.raises(StatusError, match="already allocated"):
        await cluster.create(r.SERVICES, service("new", clusterIP="10.43.0.50"))


async def test_two_stacks() -> None:
    cluster = FakeCluster(service_cidr="10.43.0.0/16,fd00:43::/108")
    made = await cluster.create(r.SERVICES, service(ipFamilyPolicy="PreferDualStack"))
    assert made["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert ip_address(made["spec"]["clusterIPs"][1]) in ip_network("fd00:43::/108")
    with pytest.raises(StatusError, match="this cluster is not configured for dual-stack services"):
        await FakeCluster().create(r.SERVICES, service(ipFamilyPolicy="RequireDualStack"))


async def test_a_full_range_says_so() -> None:
    cluster = FakeCluster(node_ports=range(30000, 30002))
    for name in ("a", "b"):
        await cluster.create(r.SERVICES, service(name, type="NodePort"))
    with pytest.raises(StatusError, match="failed to allocate a nodePort: range is full") as refused:
        await cluster.create(r.SERVICES, service("c", type="NodePort"))
    assert refused.value.code == 500


@given(st.integers(min_value=24, max_value=30), st.integers())
def test_every_address_of_a_range_is_given_once_and_then_none(prefix: int, seed: int) -> None:
    network = ip_network(f"10.0.0.0/{prefix}")
    books = Books(lambda holder, thing: True)
    addresses = AddressRange(network, random.Random(seed))
    given_out = [addresses.next_free(books, ("default", str(n))) for n in range(network.num_addresses - 2)]
    assert sorted(map(ip_address, given_out)) == list(network.hosts())
    with pytest.raises(RangeFull):
        addresses.next_free(books, ("default", "more"))


@given(st.sets(st.integers(min_value=0, max_value=199)), st.integers())
def test_a_free_port_is_found_whatever_is_taken(taken: set[int], seed: int) -> None:
    books = Books(lambda holder, thing: True)
    ports = PortRange(range(30000, 30200), random.Random(seed))
    for offset in taken:
        ports.take(books, 30000 + offset, ("default", "x"))
    if len(taken) == 200:
        with pytest.raises(RangeFull):
            ports.next_free(books, ("default", "y"))
    else:
        assert ports.next_free(books, ("default", "y")) - 30000 not in taken
