"""What a proxier does, whatever it does it with: clients and servers in network namespaces, the same for every mode."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from navarch.node.names import HostNames
from navarch.node.proxy.base import Proxier, ProxierConfig
from navarch.node.proxy.conntrack import Frontends, forget_stale, pack_address
from navarch.node.proxy.iptables import IptablesProxier
from navarch.node.proxy.modes import clean_all, clean_others, make, why_not
from navarch.node.proxy.nftables import NftablesProxier
from navarch.node.proxy.services import Place, endpoints_of, service_ports
from navarch.node.proxy.userspace import UserspaceProxier
from tests.node.proxy.netlab import NetLab
from tests.node.proxy.objects import endpoint, endpoint_slice, service
from tests.node.proxy.proxied import BOTH, POD_A, POD_B, VIP, WEB, Proxied, make_lab

pytestmark = [pytest.mark.namespaces, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

MODES: dict[str, tuple[str, Callable[[ProxierConfig], Proxier]]] = {
    "nftables": ("nft", NftablesProxier),
    "iptables-nft": ("iptables-nft-restore", lambda config: IptablesProxier(config, "nft-")),
    "iptables-legacy": ("iptables-legacy-restore", lambda config: IptablesProxier(config, "legacy-")),
    "userspace": ("", UserspaceProxier),
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    needed = MODES[request.param][0]
    if needed and shutil.which(needed) is None:
        pytest.skip(f"there is no {needed}")
    if needed.startswith("iptables"):
        # A kernel may have one kind of iptables and not the other.
        looked = subprocess.run([needed.replace("restore", "save"), "-t", "nat"], capture_output=True, text=True)
        if looked.returncode:
            pytest.skip(f"this kernel has no {request.param}: {looked.stderr.strip()}")
    return str(request.param)


@pytest.fixture
def lab() -> Iterator[NetLab]:
    lab = make_lab()
    yield lab
    lab.close()


@pytest.fixture
async def world(lab: NetLab, mode: str) -> AsyncIterator[Proxied]:
    # Threads are in the network in which they were made.
    threads = ThreadPoolExecutor(8)
    asyncio.get_running_loop().set_default_executor(threads)
    world = Proxied(lab, MODES[mode][1])
    await world.rewrite()
    yield world
    await world.proxier.cleanup()


def keeps_addresses(mode: str) -> bool:
    return mode != "userspace"


async def test_a_virtual_ip_spreads_connections_and_keeps_the_pods_address(world: Proxied, mode: str) -> None:
    await world.put(service(), BOTH)

    answers = {await world.ask("a", VIP, 80) for _ in range(40)}

    assert {server for server, _ in answers} == {"a", "b"}
    if keeps_addresses(mode):
        assert ("b", POD_A) in answers, "pod to pod goes without NAT of the source"


async def test_the_node_itself_reaches_a_virtual_ip(world: Proxied) -> None:
    await world.put(service(), BOTH)

    assert await world.answering("node", VIP, 80, times=30) == {"a", "b"}


async def test_a_service_without_endpoints_refuses(world: Proxied) -> None:
    await world.put(service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]))

    for address, port in ((VIP, 80), ("192.168.9.1", 30080)):
        with pytest.raises(ConnectionRefusedError):
            await world.ask("client", address, port)


async def test_the_node_is_refused_too(world: Proxied) -> None:
    await world.put(service())

    with pytest.raises(ConnectionRefusedError):
        await world.ask("node", VIP, 80)


async def test_a_port_that_the_service_does_not_have_refuses(world: Proxied) -> None:
    await world.put(service(), BOTH)

    with pytest.raises(ConnectionRefusedError):
        await world.ask("a", VIP, 81)


async def test_node_ports_answer_on_every_address_of_the_node(world: Proxied) -> None:
    await world.put(service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]), BOTH)

    assert await world.answering("client", "192.168.9.1", 30080, times=30) == {"a", "b"}
    assert await world.answering("node", "127.0.0.1", 30080, times=30) == {"a", "b"}
    assert await world.answering("a", "10.42.1.1", 30080, times=30) == {"a", "b"}


async def test_policy_local_keeps_the_clients_address_and_uses_only_this_nodes_endpoints(
    world: Proxied, mode: str
) -> None:
    local = service(
        type="NodePort", externalTrafficPolicy="Local", ports=[{"name": "http", "port": 80, "nodePort": 30080}]
    )
    await world.put(local, endpoint_slice(endpoint(POD_A), endpoint(POD_B, node="elsewhere")))

    answers = {await world.ask("client", "192.168.9.1", 30080) for _ in range(20)}
    assert {server for server, _ in answers} == {"a"}
    if keeps_addresses(mode):
        assert answers == {("a", "192.168.9.2")}
    assert await world.answering("node", "192.168.9.1", 30080, times=30) == {"a", "b"}


async def test_to_policy_local_pods_of_other_nodes_come_from_outside(lab: NetLab, mode: str) -> None:
    if mode == "userspace":
        pytest.skip("what is relayed comes back to the relay from wherever it went")
    # Threads are in the network in which they were made.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(8))
    world = Proxied(lab, MODES[mode][1], pods_at="v-a")
    local = service(
        type="NodePort", externalTrafficPolicy="Local", ports=[{"name": "http", "port": 80, "nodePort": 30080}]
    )
    try:
        await world.put(local, endpoint_slice(endpoint(POD_A), endpoint(POD_B, node="elsewhere")))

        assert {await world.ask("b", "10.42.2.1", 30080) for _ in range(20)} == {("a", POD_B)}
        assert await world.answering("a", "10.42.1.1", 30080, times=30) == {"a", "b"}
    finally:
        await world.proxier.cleanup()


async def test_policy_local_without_an_endpoint_here_drops_what_comes_from_outside(world: Proxied) -> None:
    local = service(
        type="NodePort", externalTrafficPolicy="Local", ports=[{"name": "http", "port": 80, "nodePort": 30080}]
    )
    await world.put(local, endpoint_slice(endpoint(POD_B, node="elsewhere")))

    assert await world.unanswered("client", "192.168.9.1", 30080)
    assert (await world.ask("a", VIP, 80))[0] == "b"


async def test_external_and_load_balancer_addresses(world: Proxied) -> None:
    balanced = service(
        type="LoadBalancer",
        externalIPs=["198.51.100.7"],
        loadBalancerSourceRanges=["192.168.9.0/24"],
        status={"loadBalancer": {"ingress": [{"ip": "198.51.100.8"}]}},
    )
    await world.put(balanced, BOTH)

    assert (await world.ask("client", "198.51.100.7", 80))[0] in "ab"
    assert (await world.ask("client", "198.51.100.8", 80))[0] in "ab"
    assert await world.unanswered("a", "198.51.100.8", 80)


async def test_affinity_sends_a_client_to_the_same_endpoint_until_it_goes(world: Proxied) -> None:
    sticky = service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 100}})
    await world.put(sticky, BOTH)
    first = (await world.ask("client", VIP, 80))[0]

    assert await world.answering("client", VIP, 80, times=20) == {first}

    survivor, other = (POD_B, "b") if first == "a" else (POD_A, "a")
    await world.put(sticky, endpoint_slice(endpoint(survivor)))
    assert (await world.ask("client", VIP, 80))[0] == other

    await world.put(service(), BOTH)
    assert await world.answering("client", VIP, 80, times=30) == {"a", "b"}


async def test_an_affinity_ends_with_its_timeout(world: Proxied) -> None:
    config = {"clientIP": {"timeoutSeconds": 1}}
    await world.put(service(sessionAffinity="ClientIP", sessionAffinityConfig=config), BOTH)

    answers = set()
    for _ in range(40):
        answers.add((await world.ask("client", VIP, 80))[0])
        if answers == {"a", "b"}:
            return
        await asyncio.sleep(1.1)
    raise AssertionError(f"only {answers} in 40 seconds")


async def test_who_lost_its_endpoint_stays_with_the_one_it_was_given_then(world: Proxied) -> None:
    sticky = service(
        sessionAffinity="ClientIP", type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]
    )
    await world.put(sticky, BOTH)
    where = [(VIP, 80), ("192.168.9.1", 30080)]
    first = {place: (await world.ask("client", *place))[0] for place in where}
    for place, lost in first.items():
        gone, left = (POD_A, "b") if lost == "a" else (POD_B, "a")
        kept = POD_B if gone == POD_A else POD_A
        await world.put(sticky, endpoint_slice(endpoint(kept)))
        assert (await world.ask("client", *place))[0] == left

        await world.put(sticky, BOTH)

        assert await world.answering("client", *place, times=20) == {left}, "the other one's return moves nobody"


async def test_a_pod_reaches_itself_through_its_service(world: Proxied) -> None:
    await world.put(service(), endpoint_slice(endpoint(POD_A)))

    assert (await world.ask("a", VIP, 80))[0] == "a"


async def test_established_connections_survive_changes_and_a_full_rewrite(world: Proxied) -> None:
    await world.put(service(), endpoint_slice(endpoint(POD_A)))
    connection = await world.connect("client", VIP, 80)
    assert (await world.say(connection))[0] == "a"

    await world.put(service(), endpoint_slice(endpoint(POD_B)))
    assert (await world.say(connection))[0] == "a"
    await world.rewrite()

    assert (await world.say(connection))[0] == "a"
    assert (await world.ask("client", VIP, 80))[0] == "b"


async def test_a_terminating_endpoint_serves_only_while_nothing_is_ready(world: Proxied) -> None:
    leaving = endpoint(POD_A, ready=False, serving=True, terminating=True)

    await world.put(service(), endpoint_slice(leaving, endpoint(POD_B)))
    assert await world.answering("client", VIP, 80, times=20) == {"b"}

    await world.put(service(), endpoint_slice(leaving))
    assert (await world.ask("client", VIP, 80))[0] == "a"


async def test_endpoints_of_several_slices_with_different_ports(world: Proxied, lab: NetLab) -> None:
    lab.serve("b", 9090)
    other = endpoint_slice(endpoint(POD_B), suffix="b", ports=[{"name": "http", "port": 9090, "protocol": "TCP"}])

    await world.put(service(), endpoint_slice(endpoint(POD_A)), other)

    assert await world.answering("client", VIP, 80, times=30) == {"a", "b"}


async def test_two_protocols_on_one_port_are_apart(world: Proxied) -> None:
    tcp, udp = ({"name": name, "port": 80, "protocol": name.upper()} for name in ("tcp", "udp"))
    slices = [
        endpoint_slice(endpoint(POD_A), suffix="t", ports=[{"name": "tcp", "port": 8080, "protocol": "TCP"}]),
        endpoint_slice(endpoint(POD_B), suffix="u", ports=[{"name": "udp", "port": 5353, "protocol": "UDP"}]),
    ]
    await world.put(service(ports=[tcp, udp]), *slices)
    datagrams = await world.connect("client", VIP, 80, socket.SOCK_DGRAM)

    assert ((await world.ask("client", VIP, 80))[0], (await world.say(datagrams))[0]) == ("a", "b")

    await world.put(service(ports=[udp]), *slices)
    with pytest.raises(ConnectionRefusedError):
        await world.ask("client", VIP, 80)


async def test_two_clusters_side_by_side_do_not_disturb_each_other(world: Proxied, lab: NetLab, mode: str) -> None:
    other = Proxied(lab, MODES[mode][1])
    await other.rewrite()
    await world.put(service(), endpoint_slice(endpoint(POD_A)))
    await other.put(service(ip="10.45.0.7"), endpoint_slice(endpoint(POD_B)))

    assert (await world.ask("client", VIP, 80))[0] == "a"
    assert (await world.ask("client", "10.45.0.7", 80))[0] == "b"

    await other.proxier.cleanup()
    assert (await world.ask("client", VIP, 80))[0] == "a"


async def test_of_many_endpoints_each_is_reached(world: Proxied, lab: NetLab) -> None:
    ports = range(9000, 9040)
    for port in ports:
        lab.serve("a", port)
    slices = [
        endpoint_slice(endpoint(POD_A), suffix=str(port), ports=[{"name": "http", "port": port, "protocol": "TCP"}])
        for port in ports
    ]
    await world.put(service(), *slices)
    reached = set()
    for _ in range(60):
        connection = await world.connect("client", VIP, 80)
        reached.add((await world.say(connection))[0])
        connection.close()

    assert reached == {"a"}


async def test_datagrams_of_a_client_follow_the_endpoint(world: Proxied, mode: str) -> None:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}]
    behind = [{"name": "dns", "port": 5353, "protocol": "UDP"}]
    frontends = ((VIP, 53), ("192.168.9.1", 30053))
    await world.put(service(type="NodePort", ports=ports), endpoint_slice(endpoint(POD_A), ports=behind))
    clients = [await world.connect("client", *where, socket.SOCK_DGRAM) for where in frontends]
    assert [(await world.say(client))[0] for client in clients] == ["a", "a"]

    await world.put(service(type="NodePort", ports=ports), endpoint_slice(endpoint(POD_B), ports=behind))
    if mode != "userspace":
        right = {(pack_address(POD_B), 5353)}
        frontend = Frontends({(pack_address(VIP), 53): right}, {30053: right})
        assert forget_stale({socket.IPPROTO_UDP: frontend}) == 2

    assert [(await world.say(client))[0] for client in clients] == ["b", "b"]


async def test_node_ports_can_be_kept_to_some_addresses(world: Proxied, lab: NetLab, mode: str) -> None:
    await world.proxier.cleanup()
    choosy = Proxied(lab, MODES[mode][1], node_port_addresses=("192.168.9.0/24",))
    await choosy.rewrite()
    try:
        await choosy.put(service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]), BOTH)

        assert await choosy.answering("client", "192.168.9.1", 30080) == {"a", "b"}
        assert await choosy.unanswered("a", "10.42.1.1", 30080)
    finally:
        await choosy.proxier.cleanup()


async def test_a_removed_service_is_served_no_more(world: Proxied) -> None:
    ports = [{"name": "http", "port": 80, "nodePort": 30080}]
    await world.put(service(type="NodePort", sessionAffinity="ClientIP", ports=ports), BOTH)
    assert await world.answering("client", "192.168.9.1", 30080, times=3) <= {"a", "b"}

    await world.remove(WEB)

    for address, port in ((VIP, 80), ("192.168.9.1", 30080)):
        with pytest.raises(ConnectionRefusedError):
            await world.ask("client", address, port)


async def test_what_somebody_swept_away_is_noticed_and_written_anew(world: Proxied, mode: str) -> None:
    await world.put(service(), BOTH)
    assert await world.proxier.intact()

    sweeping = MODES[mode][1](world.config)
    await sweeping.cleanup()
    assert not await world.proxier.intact()
    await world.rewrite()

    assert await world.proxier.intact()
    assert await world.answering("client", VIP, 80) == {"a", "b"}


async def test_cleaning_up_leaves_nothing(world: Proxied, lab: NetLab) -> None:
    await world.put(service(type="NodePort", externalIPs=["198.51.100.7"], sessionAffinity="ClientIP"), BOTH)
    connection = await world.connect("client", VIP, 80)
    assert (await world.say(connection))[0] in "ab"

    await world.proxier.cleanup()

    assert not await world.proxier.intact()
    for command in ("nft list ruleset", "iptables-nft-save", "iptables-legacy-save", "ip route show table local"):
        if shutil.which(command.split()[0]):
            output = await asyncio.to_thread(subprocess.run, command.split(), capture_output=True, text=True)
            assert "10.43.0.100" not in output.stdout, command
            assert not re.search("KUBE|navarch", output.stdout), command


async def test_a_change_of_mode_leaves_only_what_the_new_one_has_made(lab: NetLab) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(8))
    names = HostNames("switched", "here")
    config = ProxierConfig(names.services_table, "10.42.0.0/16", "10.43.0.0/16")
    present = [mode for mode in ("userspace", "iptables", "nftables") if not await why_not(mode)]
    proxiers = {mode: make(mode, config) for mode in present}
    services = {WEB: service_ports(service())}
    endpoints = {WEB: endpoints_of([BOTH], Place("here"))}
    for mode, proxier in proxiers.items():
        await proxier.sync(services, endpoints)
        await clean_others(mode, names)

        assert {each for each, other in proxiers.items() if await other.intact()} == {mode}
        assert (await asyncio.to_thread(lab.ask, "client", VIP, 80))[0] in "ab"
    await clean_all(names)
    assert not any([await each.intact() for each in proxiers.values()])
