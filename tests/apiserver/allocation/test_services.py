"""Allocation of service addresses and node ports."""

from __future__ import annotations

import asyncio
import random
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.apiserver.allocation.keys import NODE_PORTS
from navarch.apiserver.allocation.ranges import AddressRange, PortRange
from navarch.kinds import resources as r
from tests.apiserver.admission.cluster import Cluster, service


async def test_a_service_gets_an_address_from_the_upper_band() -> None:
    cluster = Cluster()
    spec = (await cluster.create(r.SERVICES, service()))["spec"]
    assert ip_address(spec["clusterIP"]) in ip_network("10.43.0.0/16")
    assert ip_address(spec["clusterIP"]) > ip_address("10.43.1.0")
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")


@pytest.mark.parametrize("families", [{}, {"ipFamilies": ["IPv4"]}])
async def test_who_wants_one_family_only_from_now_on_gives_the_others_address_back(families: Obj) -> None:
    cluster = Cluster(service_cidr="10.43.0.0/16,fd43::/112")
    both = await cluster.create(r.SERVICES, service(ipFamilyPolicy="RequireDualStack"))
    four, six = both["spec"]["clusterIPs"]

    alone = await cluster.update_as(
        r.SERVICES, {**both, "spec": {**both["spec"], "ipFamilyPolicy": "SingleStack", **families}}
    )

    assert (alone["spec"]["clusterIPs"], alone["spec"]["ipFamilies"]) == ([four], ["IPv4"])
    other = service("other", clusterIP=six, clusterIPs=[six], ipFamilies=["IPv6"])
    assert (await cluster.create(r.SERVICES, other))["spec"]["clusterIP"] == six


async def test_the_api_servers_own_service_and_dns_have_fixed_addresses() -> None:
    cluster = Cluster()
    kubernetes = await cluster.create(r.SERVICES, service("kubernetes"))
    assert kubernetes["spec"]["clusterIP"] == "10.43.0.1"
    await cluster.put(r.NAMESPACES, {"metadata": {"name": "kube-system"}, "status": {"phase": "Active"}})
    dns = service("kube-dns")
    dns["metadata"]["namespace"] = "kube-system"
    assert (await cluster.create(r.SERVICES, dns))["spec"]["clusterIP"] == "10.43.0.10"


async def test_an_address_is_given_once() -> None:
    cluster = Cluster()
    await cluster.create(r.SERVICES, service("a", clusterIP="10.43.0.20"))
    with pytest.raises(StatusError) as refused:
        await cluster.create(r.SERVICES, service("b", clusterIP="10.43.0.20"))
    assert refused.value.code == 422
    assert refused.value.message == (
        'Service "b" is invalid: spec.clusterIPs: Invalid value: ["10.43.0.20"]: '
        "failed to allocate IP 10.43.0.20: provided IP is already allocated"
    )


async def test_an_address_from_elsewhere_is_refused() -> None:
    with pytest.raises(StatusError, match=r"IP 192\.0\.2\.1: the provided network does not match the current range"):
        await Cluster().create(r.SERVICES, service(clusterIP="192.0.2.1"))
    with pytest.raises(StatusError, match=r"not in the valid range\. The range of valid IPs is 10\.43\.0\.0/16"):
        await Cluster().create(r.SERVICES, service(clusterIP="10.43.255.255"))


async def test_a_deleted_services_address_can_be_had_again() -> None:
    cluster = Cluster()
    await cluster.create(r.SERVICES, service("a", clusterIP="10.43.0.20"))
    await cluster.delete(r.SERVICES, "a", "default")

    again = await cluster.create(r.SERVICES, service("b", clusterIP="10.43.0.20"))

    assert again["spec"]["clusterIP"] == "10.43.0.20"


async def test_a_service_that_left_unnoticed_blocks_nothing() -> None:
    cluster = Cluster()
    await cluster.create(r.SERVICES, service("a", clusterIP="10.43.0.20"))
    await cluster.lose(r.SERVICES, "default", "a")

    again = await cluster.create(r.SERVICES, service("b", clusterIP="10.43.0.20"))

    assert again["spec"]["clusterIP"] == "10.43.0.20"


async def test_a_refused_write_gives_back_what_it_took() -> None:
    cluster = Cluster()
    await cluster.create(r.SERVICES, service("a", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    with pytest.raises(StatusError, match="provided port is already allocated"):
        await cluster.create(
            r.SERVICES,
            service("b", type="NodePort", clusterIP="10.43.0.30", ports=[{"port": 80, "nodePort": 30080}]),
        )
    await cluster.create(r.SERVICES, service("c", clusterIP="10.43.0.30"))


async def test_a_dry_run_takes_nothing() -> None:
    cluster = Cluster()
    await cluster.create(r.SERVICES, service("a", clusterIP="10.43.0.20"), dry_run=True)

    stored = await cluster.create(r.SERVICES, service("b", clusterIP="10.43.0.20"))

    assert stored["spec"]["clusterIP"] == "10.43.0.20"


async def test_headless_and_external_name_services_have_no_address() -> None:
    cluster = Cluster()
    headless = await cluster.create(r.SERVICES, service("a", clusterIP="None", selector={"a": "b"}))
    assert headless["spec"]["clusterIPs"] == ["None"]
    assert headless["spec"]["ipFamilies"] == ["IPv4"]
    external = await cluster.create(r.SERVICES, service("b", type="ExternalName", externalName="example.com"))
    assert "clusterIP" not in external["spec"]
    assert "ipFamilies" not in external["spec"]


async def test_node_ports_are_drawn_and_shared_over_protocols() -> None:
    cluster = Cluster()
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
        await Cluster().create(r.SERVICES, service(type="NodePort", ports=[{"port": 80, "nodePort": 80}]))
    assert refused.value.message == (
        'Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 80: '
        "provided port is not in the valid range. The range of valid ports is 30000-32767"
    )


async def test_a_change_of_type_allocates_and_releases() -> None:
    cluster = Cluster()
    made = await cluster.create(r.SERVICES, service())
    made["spec"]["type"] = "NodePort"
    made = await cluster.update_as(r.SERVICES, made)
    port = made["spec"]["ports"][0]["nodePort"]
    made["spec"]["type"] = "ClusterIP"
    made = await cluster.update_as(r.SERVICES, made)
    assert "nodePort" not in made["spec"]["ports"][0]
    await cluster.create(r.SERVICES, service("b", type="NodePort", ports=[{"port": 80, "nodePort": port}]))


async def test_becoming_external_frees_the_address_and_coming_back_gets_one() -> None:
    cluster = Cluster()
    made = await cluster.create(r.SERVICES, service(clusterIP="10.43.0.40"))
    made["spec"].update(type="ExternalName", externalName="example.com")
    made = await cluster.update_as(r.SERVICES, made)
    await cluster.create(r.SERVICES, service("b", clusterIP="10.43.0.40"))
    made["spec"]["type"] = "ClusterIP"
    made = await cluster.update_as(r.SERVICES, made)
    assert made["spec"]["clusterIP"] not in ("", "10.43.0.40")


async def test_a_local_load_balancer_gets_a_health_check_port() -> None:
    made = await Cluster().create(r.SERVICES, service(type="LoadBalancer", externalTrafficPolicy="Local"))
    assert made["spec"]["healthCheckNodePort"] in range(30000, 32768)
    assert made["spec"]["healthCheckNodePort"] != made["spec"]["ports"][0]["nodePort"]


async def test_what_was_stored_before_there_were_keys_is_taken() -> None:
    before = Cluster()
    await before.put(r.SERVICES, service("old", clusterIP="10.43.0.50", clusterIPs=["10.43.0.50"]))

    cluster = await Cluster(beside=before).start()

    with pytest.raises(StatusError, match="already allocated"):
        await cluster.create(r.SERVICES, service("new", clusterIP="10.43.0.50"))
    held = cluster.get(r.IP_ADDRESSES, "", "10.43.0.50")
    assert held is not None
    assert held["spec"]["parentRef"]["name"] == "old"


async def test_two_stacks() -> None:
    cluster = Cluster(service_cidr="10.43.0.0/16,fd00:43::/108")
    made = await cluster.create(r.SERVICES, service(ipFamilyPolicy="PreferDualStack"))
    assert made["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert ip_address(made["spec"]["clusterIPs"][1]) in ip_network("fd00:43::/108")
    with pytest.raises(StatusError, match="this cluster is not configured for dual-stack services"):
        await Cluster().create(r.SERVICES, service(ipFamilyPolicy="RequireDualStack"))


async def test_a_service_may_have_many_node_ports() -> None:
    ports = [{"name": f"p{number}", "port": number} for number in range(1, 401)]
    made = await Cluster().create(r.SERVICES, service(type="NodePort", ports=ports))
    assert len({port["nodePort"] for port in made["spec"]["ports"]}) == 400


async def test_a_service_of_more_ports_than_there_are_is_refused_before_any_is_drawn() -> None:
    cluster = Cluster(node_ports=range(30000, 30010))
    ports = [{"name": f"p{number}", "port": number} for number in range(1, 12)]
    with pytest.raises(StatusError, match="failed to allocate a nodePort: range is full"):
        await cluster.create(r.SERVICES, service(type="NodePort", ports=ports))
    assert node_ports(cluster) == {}
    assert (await cluster.create(r.SERVICES, service(type="NodePort", ports=ports[:10])))["spec"]["ports"]


async def test_a_full_range_says_so() -> None:
    cluster = Cluster(node_ports=range(30000, 30002))
    for name in ("a", "b"):
        await cluster.create(r.SERVICES, service(name, type="NodePort"))
    with pytest.raises(StatusError, match="failed to allocate a nodePort: range is full") as refused:
        await cluster.create(r.SERVICES, service("c", type="NodePort"))
    assert refused.value.code == 500


def addresses(cluster: Cluster) -> dict[str, str]:
    """Who has each address, by the objects that hold them."""
    return {obj["metadata"]["name"]: obj["spec"]["parentRef"]["name"] for obj in cluster.list(r.IP_ADDRESSES)}


def node_ports(cluster: Cluster) -> dict[int, str]:
    return {int(obj["metadata"]["name"]): obj["spec"]["parentRef"]["name"] for obj in cluster.list(NODE_PORTS)}


async def test_an_address_is_held_by_an_object_as_in_kubernetes() -> None:
    cluster = Cluster()
    await cluster.create(r.SERVICES, service("s", clusterIP="10.43.77.77"))
    held = await cluster.client().get(r.IP_ADDRESSES, "10.43.77.77")
    assert held["spec"] == {"parentRef": {"resource": "services", "namespace": "default", "name": "s"}}
    assert held["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    (entry,) = held["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("kube-apiserver", "Update")
    await cluster.delete(r.SERVICES, "s", "default")
    assert addresses(cluster) == {}


async def test_what_somebody_else_holds_is_not_given_out() -> None:
    cluster = Cluster()
    await cluster.start()
    gateway = {"metadata": {"name": "10.43.0.60"}, "spec": {"parentRef": {"resource": "gateways", "name": "g"}}}
    await cluster.create(r.IP_ADDRESSES, gateway)
    with pytest.raises(StatusError, match="provided IP is already allocated"):
        await cluster.create(r.SERVICES, service(clusterIP="10.43.0.60"))


async def test_a_node_port_that_is_no_longer_wanted_is_given_back() -> None:
    cluster = Cluster()
    made = await cluster.create(r.SERVICES, service(type="LoadBalancer", externalTrafficPolicy="Local"))
    assert set(node_ports(cluster)) == {made["spec"]["ports"][0]["nodePort"], made["spec"]["healthCheckNodePort"]}
    made["spec"]["type"] = "ClusterIP"
    await cluster.update_as(r.SERVICES, made)
    assert node_ports(cluster) == {}
    assert list(addresses(cluster)) == made["spec"]["clusterIPs"]


async def test_repair_deletes_what_leaked_and_writes_what_is_missing() -> None:
    cluster = Cluster()
    made = await cluster.create(r.SERVICES, service("kept", type="NodePort"))
    await cluster.create(r.SERVICES, service("lost", type="NodePort", clusterIP="10.43.0.70"))
    (address,) = made["spec"]["clusterIPs"]
    await cluster.lose(r.SERVICES, "default", "lost")
    await cluster.lose(r.IP_ADDRESSES, "", address)

    again = await Cluster(beside=cluster).start()

    assert addresses(again) == {address: "kept"}
    assert node_ports(again) == {made["spec"]["ports"][0]["nodePort"]: "kept"}


async def test_another_service_cidr_is_given_out_from_when_the_first_is_full() -> None:
    cluster = Cluster(service_cidr="10.43.0.0/30")
    for name in ("a", "b"):
        await cluster.create(r.SERVICES, service(name))
    with pytest.raises(StatusError, match="range is full"):
        await cluster.create(r.SERVICES, service("c"))

    await cluster.create(r.SERVICE_CIDRS, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.99.0.0/24"]}})
    made = await cluster.create(r.SERVICES, service("c"))
    assert ip_address(made["spec"]["clusterIP"]) in ip_network("10.99.0.0/24")
    await cluster.create(r.SERVICES, service("d", clusterIP="10.99.0.7"))

    await cluster.client().patch(
        r.SERVICE_CIDRS,
        "more",
        "",
        {
            "status": {
                "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
            }
        },
        subresource="status",
    )
    with pytest.raises(StatusError, match="the provided network does not match the current range"):
        await cluster.create(r.SERVICES, service("e", clusterIP="10.99.0.8"))


async def test_two_servers_over_one_store_give_nothing_out_twice() -> None:
    one = Cluster()
    both = [one, Cluster(beside=one)]
    for each in both:
        await each.start()

    async def make(server: Cluster, name: str) -> Obj:
        return await server.create(r.SERVICES, service(name, type="NodePort"))

    made: list[Obj] = []
    for start in range(0, 2000, 100):
        names = [f"s{number}" for number in range(start, start + 100)]
        made += await asyncio.gather(*(make(both[index % 2], name) for index, name in enumerate(names)))

    ports = [each["spec"]["ports"][0]["nodePort"] for each in made]
    given = [each["spec"]["clusterIP"] for each in made]
    assert len(set(ports)) == len(set(given)) == 2000
    for server in both:
        await server.server.core.caches.sync()
        stored = {obj["metadata"]["name"]: obj["spec"] for obj in server.list(r.SERVICES)}
        assert len(stored) == 2000
        assert addresses(server) == {spec["clusterIP"]: name for name, spec in stored.items()}
        assert node_ports(server) == {spec["ports"][0]["nodePort"]: name for name, spec in stored.items()}


async def test_of_two_servers_one_gives_a_certain_port_and_the_other_refuses_it() -> None:
    one = Cluster()
    both = [one, Cluster(beside=one)]
    for each in both:
        await each.start()
    ports = [{"port": 80, "nodePort": 30999}]

    answers = await asyncio.gather(
        *(
            server.create(r.SERVICES, service(f"s{index}", type="NodePort", ports=ports))
            for index, server in enumerate(both * 4)
        ),
        return_exceptions=True,
    )

    refused = [answer for answer in answers if isinstance(answer, StatusError)]
    assert len(refused) == 7
    assert all(
        "spec.ports[0].nodePort: Invalid value: 30999: provided port is already allocated" in str(e) for e in refused
    )
    await one.server.core.caches.sync()
    assert len(list(one.list(r.SERVICES))) == 1


@given(st.integers(min_value=24, max_value=30), st.integers())
def test_every_address_of_a_range_is_given_once_and_then_none(prefix: int, seed: int) -> None:
    network = ip_network(f"10.0.0.0/{prefix}")
    addresses, source = AddressRange(network), random.Random(seed)
    given_out: set[str] = set()
    while (found := addresses.draw(source, given_out.__contains__)) is not None:
        given_out.add(found)
    assert sorted(map(ip_address, given_out)) == list(network.hosts())


@given(st.sets(st.integers(min_value=30000, max_value=30199)), st.integers())
def test_a_free_port_is_found_whatever_is_taken(taken: set[int], seed: int) -> None:
    found = PortRange(range(30000, 30200)).draw(random.Random(seed), taken.__contains__)
    assert (found is None) == (len(taken) == 200)
    assert found not in taken
