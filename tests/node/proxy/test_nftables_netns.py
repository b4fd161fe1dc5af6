"""Rules in a kernel: clients and servers in network namespaces, through what the proxy wrote."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from navarch.api.meta import Key
from navarch.node.proxy.base import ProxierConfig
from navarch.node.proxy.conntrack import Frontends, forget_stale, pack_address
from navarch.node.proxy.nftables import NftablesProxier, listed
from navarch.node.proxy.rules import OUTSIDE, Shared, structure_of
from navarch.node.proxy.services import Place, endpoints_of, service_ports
from tests.node.proxy.netlab import NetLab, say
from tests.node.proxy.objects import endpoint, endpoint_slice, service

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]

WEB = Key("default", "web")
VIP = "10.43.0.100"
POD_A, POD_B = "10.42.1.2", "10.42.2.2"


@pytest.fixture
def lab() -> Iterator[NetLab]:
    lab = NetLab()
    try:
        lab.add("a", POD_A, "10.42.1.1")
        lab.add("b", POD_B, "10.42.2.1")
        lab.add("client", "192.168.9.2", "192.168.9.1")
        # A host without a default route has no way to the range but the one that the pod network adds.
        lab.route("10.43.0.0/17", through="a")
        for name in ("a", "b"):
            lab.serve(name, 8080)
            lab.serve(name, 5353, socket.SOCK_DGRAM)
        yield lab
    finally:
        lab.close()


class World:
    """What the proxy is told, changed step by step."""

    def __init__(self) -> None:
        table = ProxierConfig(f"navarch-t{uuid.uuid4().hex[:8]}", "10.42.0.0/16", "10.43.0.0/16")
        self.proxier = NftablesProxier(table)
        self.services: dict[Any, Any] = {}
        self.endpoints: dict[Any, Any] = {}

    async def put(self, obj: dict[str, Any], *slices: dict[str, Any], full: bool = False) -> None:
        key = Key(obj["metadata"]["namespace"], obj["metadata"]["name"])
        self.services[key] = service_ports(obj)
        self.endpoints[key] = endpoints_of(slices, Place("here"))
        await self.proxier.sync(self.services, self.endpoints, None if full else {key})

    async def remove(self, key: Key) -> None:
        self.services.pop(key)
        self.endpoints.pop(key)
        await self.proxier.sync(self.services, self.endpoints, {key})


@pytest.fixture
async def world(lab: NetLab) -> World:
    world = World()
    await world.proxier.sync({}, {})
    return world


BOTH = endpoint_slice(endpoint(POD_A), endpoint(POD_B))


async def test_a_virtual_ip_spreads_connections_and_keeps_the_pods_address(lab: NetLab, world: World) -> None:
    await world.put(service(), BOTH)

    answers = Counter(lab.ask("a", VIP, 80) for _ in range(40))

    assert {server for server, _ in answers} == {"a", "b"}
    assert ("b", POD_A) in answers, "pod to pod goes without NAT of the source"


async def test_the_node_itself_reaches_a_virtual_ip(lab: NetLab, world: World) -> None:
    await world.put(service(), BOTH)

    assert {lab.ask("node", VIP, 80)[0] for _ in range(30)} == {"a", "b"}


async def test_a_service_without_endpoints_refuses(lab: NetLab, world: World) -> None:
    await world.put(service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]))

    for address, port in ((VIP, 80), ("192.168.9.1", 30080)):
        with pytest.raises(ConnectionRefusedError):
            lab.ask("client", address, port)


async def test_the_node_is_refused_too(lab: NetLab, world: World) -> None:
    await world.put(service())

    with pytest.raises(ConnectionRefusedError):
        lab.ask("node", VIP, 80)


async def test_an_address_of_the_range_without_a_service_refuses(lab: NetLab, world: World) -> None:
    with pytest.raises(ConnectionRefusedError):
        lab.ask("client", "10.43.200.1", 80)


async def test_a_port_that_the_service_does_not_have_refuses(lab: NetLab, world: World) -> None:
    await world.put(service(), BOTH)

    with pytest.raises(ConnectionRefusedError):
        lab.ask("a", VIP, 81)


async def test_node_ports_answer_on_every_address_of_the_node(lab: NetLab, world: World) -> None:
    await world.put(service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]), BOTH)

    assert {lab.ask("client", "192.168.9.1", 30080)[0] for _ in range(30)} == {"a", "b"}
    assert {lab.ask("node", "127.0.0.1", 30080)[0] for _ in range(30)} == {"a", "b"}
    assert {lab.ask("a", "10.42.1.1", 30080)[0] for _ in range(30)} == {"a", "b"}


async def test_policy_local_keeps_the_clients_address_and_uses_only_this_nodes_endpoints(
    lab: NetLab, world: World
) -> None:
    local = service(
        type="NodePort", externalTrafficPolicy="Local", ports=[{"name": "http", "port": 80, "nodePort": 30080}]
    )
    await world.put(local, endpoint_slice(endpoint(POD_A), endpoint(POD_B, node="elsewhere")))

    assert Counter(lab.ask("client", "192.168.9.1", 30080) for _ in range(20)) == {("a", "192.168.9.2"): 20}
    assert {lab.ask("node", "192.168.9.1", 30080)[0] for _ in range(30)} == {"a", "b"}


async def test_policy_local_without_an_endpoint_here_drops_what_comes_from_outside(lab: NetLab, world: World) -> None:
    local = service(
        type="NodePort", externalTrafficPolicy="Local", ports=[{"name": "http", "port": 80, "nodePort": 30080}]
    )
    await world.put(local, endpoint_slice(endpoint(POD_B, node="elsewhere")))
    outside = lab.open("client")
    outside.settimeout(0.3)

    with pytest.raises(TimeoutError):
        outside.connect(("192.168.9.1", 30080))
    assert lab.ask("a", VIP, 80)[0] == "b"


async def test_external_and_load_balancer_addresses(lab: NetLab, world: World) -> None:
    balanced = service(
        type="LoadBalancer",
        externalIPs=["198.51.100.7"],
        loadBalancerSourceRanges=["192.168.9.0/24"],
        status={"loadBalancer": {"ingress": [{"ip": "198.51.100.8"}]}},
    )
    await world.put(balanced, BOTH)

    assert lab.ask("client", "198.51.100.7", 80)[0] in "ab"
    assert lab.ask("client", "198.51.100.8", 80)[0] in "ab"
    barred = lab.open("a")
    barred.settimeout(0.3)
    with pytest.raises(TimeoutError):
        barred.connect(("198.51.100.8", 80))


async def test_affinity_sends_a_client_to_the_same_endpoint_until_it_goes(lab: NetLab, world: World) -> None:
    sticky = service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 100}})
    await world.put(sticky, BOTH)
    first = lab.ask("client", VIP, 80)[0]

    assert {lab.ask("client", VIP, 80)[0] for _ in range(20)} == {first}

    survivor, other = (POD_B, "b") if first == "a" else (POD_A, "a")
    await world.put(sticky, endpoint_slice(endpoint(survivor)))
    assert lab.ask("client", VIP, 80)[0] == other

    await world.put(service(), BOTH)
    assert {lab.ask("client", VIP, 80)[0] for _ in range(30)} == {"a", "b"}


async def test_the_affinity_timeout_can_be_changed(lab: NetLab, world: World) -> None:
    def sticky(seconds: int) -> dict[str, Any]:
        return service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": seconds}})

    for seconds in (100, 200):
        await world.put(sticky(seconds), BOTH)
        assert len({lab.ask("client", VIP, 80)[0] for _ in range(20)}) == 1

        sets = [entry["set"] for entry in await listed("ruleset") if "set" in entry]
        remembered = [each for one in sets if one["name"].startswith("affinity") for each in one.get("elem", ())]
        assert seconds in {each["elem"]["timeout"] for each in remembered}


async def test_an_affinity_ends_with_its_timeout(lab: NetLab, world: World) -> None:
    config = {"clientIP": {"timeoutSeconds": 1}}
    await world.put(service(sessionAffinity="ClientIP", sessionAffinityConfig=config), BOTH)

    answers = set()
    for _ in range(40):
        answers.add(lab.ask("client", VIP, 80)[0])
        if answers == {"a", "b"}:
            return
        await asyncio.sleep(1.1)
    raise AssertionError(f"only {answers} in 40 seconds")


async def test_who_lost_its_endpoint_stays_with_the_one_it_was_given_then(lab: NetLab, world: World) -> None:
    sticky = service(
        sessionAffinity="ClientIP", type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]
    )
    await world.put(sticky, BOTH)
    where = [(VIP, 80), ("192.168.9.1", 30080)]
    first = {place: lab.ask("client", *place)[0] for place in where}
    for place, lost in first.items():
        gone, left = (POD_A, "b") if lost == "a" else (POD_B, "a")
        kept = POD_B if gone == POD_A else POD_A
        await world.put(sticky, endpoint_slice(endpoint(kept)))
        assert lab.ask("client", *place)[0] == left

        await world.put(sticky, BOTH)

        assert {lab.ask("client", *place)[0] for _ in range(20)} == {left}, "the other one's return moves nobody"


async def test_a_pod_reaches_itself_through_its_service(lab: NetLab, world: World) -> None:
    await world.put(service(), endpoint_slice(endpoint(POD_A)))

    assert lab.ask("a", VIP, 80)[0] == "a"


async def test_established_connections_survive_changes_and_a_full_rewrite(lab: NetLab, world: World) -> None:
    await world.put(service(), endpoint_slice(endpoint(POD_A)))
    connection = lab.connect("client", VIP, 80)
    assert say(connection)[0] == "a"

    await world.put(service(), endpoint_slice(endpoint(POD_B)))
    assert say(connection)[0] == "a"
    await world.proxier.sync(world.services, world.endpoints)

    assert say(connection)[0] == "a"
    assert lab.ask("client", VIP, 80)[0] == "b"


async def test_a_terminating_endpoint_serves_only_while_nothing_is_ready(lab: NetLab, world: World) -> None:
    leaving = endpoint(POD_A, ready=False, serving=True, terminating=True)

    await world.put(service(), endpoint_slice(leaving, endpoint(POD_B)))
    assert {lab.ask("client", VIP, 80)[0] for _ in range(20)} == {"b"}

    await world.put(service(), endpoint_slice(leaving))
    assert lab.ask("client", VIP, 80)[0] == "a"


async def test_endpoints_of_several_slices_with_different_ports(lab: NetLab, world: World) -> None:
    lab.serve("b", 9090)
    other = endpoint_slice(endpoint(POD_B), suffix="b", ports=[{"name": "http", "port": 9090, "protocol": "TCP"}])

    await world.put(service(), endpoint_slice(endpoint(POD_A)), other)

    assert {lab.ask("client", VIP, 80)[0] for _ in range(30)} == {"a", "b"}


async def test_two_protocols_on_one_port_are_apart(lab: NetLab, world: World) -> None:
    tcp, udp = ({"name": name, "port": 80, "protocol": name.upper()} for name in ("tcp", "udp"))
    slices = [
        endpoint_slice(endpoint(POD_A), suffix="t", ports=[{"name": "tcp", "port": 8080, "protocol": "TCP"}]),
        endpoint_slice(endpoint(POD_B), suffix="u", ports=[{"name": "udp", "port": 5353, "protocol": "UDP"}]),
    ]
    await world.put(service(ports=[tcp, udp]), *slices)
    datagrams = lab.open("client", socket.SOCK_DGRAM)
    datagrams.connect((VIP, 80))

    assert (lab.ask("client", VIP, 80)[0], say(datagrams)[0]) == ("a", "b")

    await world.put(service(ports=[udp]), *slices)
    with pytest.raises(ConnectionRefusedError):
        lab.ask("client", VIP, 80)


async def test_udp_flows_to_a_removed_endpoint_are_forgotten(lab: NetLab, world: World) -> None:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    behind = [{"name": "dns", "port": 5353, "protocol": "UDP"}]
    await world.put(service(ports=ports), endpoint_slice(endpoint(POD_A), ports=behind))
    client = lab.open("client", socket.SOCK_DGRAM)
    client.connect((VIP, 53))
    assert say(client)[0] == "a"
    await world.put(service(ports=ports), endpoint_slice(endpoint(POD_B), ports=behind))
    assert say(client)[0] == "a", "the kernel still knows the flow"

    right = Frontends({(pack_address(VIP), 53): {(pack_address(POD_B), 5353)}})
    assert forget_stale({17: right}) == 1

    assert say(client)[0] == "b"


async def test_a_removed_service_leaves_nothing(lab: NetLab, world: World) -> None:
    async def names() -> set[str]:
        found = [*await listed("chains"), *await listed("sets"), *await listed("maps")]
        return {each["name"] for entry in found for each in entry.values() if "name" in each}

    async def elements() -> int:
        everything = [
            each for entry in await listed("ruleset") for kind, each in entry.items() if kind in ("set", "map")
        ]
        return sum(len(each.get("elem", ())) for each in everything)

    shared = set(structure_of(world.proxier.table, Shared("endpoints", OUTSIDE, 2)).chains)
    before = await names()
    barred = service(
        type="LoadBalancer",
        loadBalancerSourceRanges=["192.168.9.0/24"],
        externalIPs=["198.51.100.7"],
        status={"loadBalancer": {"ingress": [{"ip": "198.51.100.8"}]}},
    )
    await world.put(barred, BOTH)
    assert await names() != before
    assert await elements() > 0

    await world.remove(WEB)

    assert await names() - before <= shared, "chains for so many endpoints serve the next service"
    assert await elements() == 0
    await world.proxier.cleanup()
    assert not await world.proxier.intact()


async def test_a_table_that_somebody_removed_is_written_anew(lab: NetLab, world: World) -> None:
    await world.put(service(), BOTH)
    await world.proxier.cleanup()
    world.proxier._trusted = True

    await world.put(service(), endpoint_slice(endpoint(POD_B)))

    assert lab.ask("client", VIP, 80)[0] == "b"


async def test_two_clusters_side_by_side_do_not_disturb_each_other(lab: NetLab, world: World) -> None:
    other = World()
    await other.proxier.sync({}, {})
    await world.put(service(), endpoint_slice(endpoint(POD_A)))
    await other.put(service(ip="10.45.0.7"), endpoint_slice(endpoint(POD_B)))

    assert lab.ask("client", VIP, 80)[0] == "a"
    assert lab.ask("client", "10.45.0.7", 80)[0] == "b"

    await other.proxier.cleanup()
    assert lab.ask("client", VIP, 80)[0] == "a"
