"""Pods of several nodes speak to each other: hosts in network namespaces, real packets."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from navarch.node.routing import Mode
from navarch.node.routing.plan import PORT, hardware_of, network_number
from tests.node.routing.hosts import Hosts
from tests.node.routing.site import Site, node

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]

ONE_POD, TWO_POD = "10.42.1.5", "10.42.2.5"
ONE_RANGE, TWO_RANGE = "10.42.1.0/24", "10.42.2.0/24"
# A segment of either takes the whole of what a pod may send.
MUCH = 300_000


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        yield made
    finally:
        made.close()


def eventually(check: Callable[[], object], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.05)


class Pair:
    """Two nodes with a pod on each; every API server knows both."""

    def __init__(self, hosts: Hosts, one: Site, two: Site, addresses: tuple[str, str]) -> None:
        self.hosts = hosts
        self.one, self.two = one, two
        self.nodes = node("one", one.ranges, [addresses[0]]), node("two", two.ranges, [addresses[1]])
        self.before = {name: hosts.trace(name) for name in ("one", "two")}

    def start(self) -> None:
        for site in (self.one, self.two):
            site.start(*self.nodes)
        self.one.pod("pod-one", f"{ONE_POD}/24")
        self.two.pod("pod-two", f"{TWO_POD}/24")


@pytest.fixture
def beside(hosts: Hosts, tmp_path: Path) -> Iterator[Pair]:
    """Two hosts on one link."""
    hosts.link("wire")
    hosts.plug("one", "wire", "192.168.1.1/24")
    hosts.plug("two", "wire", "192.168.1.2/24")
    one = Site(hosts, "one", [ONE_RANGE], tmp_path, node_ip="192.168.1.1")
    two = Site(hosts, "two", [TWO_RANGE], tmp_path, node_ip="192.168.1.2")
    yield from _running(Pair(hosts, one, two, ("192.168.1.1", "192.168.1.2")))


@pytest.fixture
def apart(hosts: Hosts, tmp_path: Path) -> Iterator[Pair]:
    """Two hosts with a router between them, which knows nothing of pods and lets nothing through that it does not
    know."""
    _with_router(hosts, "192.168.1.%d/24", "192.168.2.%d/24")
    one = Site(hosts, "one", [ONE_RANGE], tmp_path, node_ip="192.168.1.1")
    two = Site(hosts, "two", [TWO_RANGE], tmp_path, node_ip="192.168.2.1")
    yield from _running(Pair(hosts, one, two, ("192.168.1.1", "192.168.2.1")))


def _with_router(hosts: Hosts, left: str, right: str) -> None:
    for link, host, addresses in (("left", "one", left), ("right", "two", right)):
        hosts.link(link)
        hosts.plug(host, link, addresses % 1)
        hosts.plug("router", link, addresses % 254, device=link)
        hosts.gateway(host, (addresses % 254).split("/")[0])
    for link in ("left", "right"):
        strict = Path(f"/proc/sys/net/ipv4/conf/{link}/rp_filter")
        hosts.look("router", lambda strict=strict: strict.write_text("1"))  # type: ignore[misc]


def _running(pair: Pair) -> Iterator[Pair]:
    pair.start()
    try:
        yield pair
    finally:
        pair.one.stop()
        pair.two.stop()


def test_nodes_on_one_link_route_to_each_others_pods(beside: Pair) -> None:
    hosts = beside.hosts
    eventually(lambda: hosts.reaches("pod-one", TWO_POD, 8080))

    assert hosts.ask("pod-one", TWO_POD, 8080, size=MUCH) == ONE_POD
    assert hosts.ask("pod-two", ONE_POD, 8080, size=MUCH) == TWO_POD
    assert hosts.ask("one", TWO_POD, 8080) == "192.168.1.1"
    hosts.serve("two", "192.168.1.2", 8080)
    assert hosts.ask("pod-one", "192.168.1.2", 8080) == ONE_POD
    assert hosts.routes("one")[TWO_RANGE] == ("192.168.1.2", "eth0")


def test_nodes_behind_a_router_are_reached_by_a_tunnel(apart: Pair) -> None:
    hosts = apart.hosts
    eventually(lambda: hosts.reaches("pod-one", TWO_POD, 8080) and hosts.reaches("pod-two", ONE_POD, 8080))

    assert hosts.ask("pod-one", TWO_POD, 8080, size=MUCH) == ONE_POD
    assert hosts.ask("pod-two", ONE_POD, 8080, size=MUCH) == TWO_POD
    # The node is seen as what it is among its pods, which is where the answer finds it.
    assert hosts.ask("one", TWO_POD, 8080, size=MUCH) == "10.42.1.1"
    hosts.serve("two", "192.168.2.1", 8080)
    assert hosts.ask("pod-one", "192.168.2.1", 8080, size=MUCH) == ONE_POD
    assert hosts.ask("one", "192.168.2.1", 8080) == "192.168.1.1"
    assert apart.one.network.mtu == 1450


def test_a_tunnel_over_ipv6_leaves_room_for_its_longer_addresses(hosts: Hosts, tmp_path: Path) -> None:
    _with_router(hosts, "fd01::%d/64", "fd02::%d/64")
    one = Site(hosts, "one", [ONE_RANGE], tmp_path, node_ip="fd01::1")
    two = Site(hosts, "two", [TWO_RANGE], tmp_path, node_ip="fd02::1")
    for _ in _running(Pair(hosts, one, two, ("fd01::1", "fd02::1"))):
        eventually(lambda: hosts.reaches("pod-one", TWO_POD, 8080))

        assert hosts.ask("pod-one", TWO_POD, 8080, size=MUCH) == ONE_POD
        assert one.network.mtu == 1430


def test_pods_have_both_families(hosts: Hosts, tmp_path: Path) -> None:
    hosts.link("wire")
    hosts.plug("one", "wire", "192.168.1.1/24", "fd01::1/64")
    hosts.plug("two", "wire", "192.168.1.2/24")
    one = Site(hosts, "one", [ONE_RANGE, "fd42:0:0:1::/64"], tmp_path, node_ip="192.168.1.1")
    two = Site(hosts, "two", [TWO_RANGE, "fd42:0:0:2::/64"], tmp_path, node_ip="192.168.1.2")
    for _ in _running(Pair(hosts, one, two, ("192.168.1.1", "192.168.1.2"))):
        one.pod("pod-six", "10.42.1.6/24", "fd42:0:0:1::6/64")
        two.pod("pod-too", "10.42.2.6/24", "fd42:0:0:2::6/64")
        eventually(lambda: hosts.reaches("pod-six", "fd42:0:0:2::6", 8080))

        assert hosts.ask("pod-six", "fd42:0:0:2::6", 8080, size=MUCH) == "fd42:0:0:1::6"
        assert hosts.ask("pod-too", "fd42:0:0:1::6", 8080, size=MUCH) == "fd42:0:0:2::6"
        assert hosts.ask("pod-six", "10.42.2.6", 8080, size=MUCH) == "10.42.1.6"
        # Other nodes have no address of the second family, so its packets go through a tunnel over the first.
        routes = hosts.routes("one")
        assert routes["fd42:0:0:2::/64"] == ("fd42:0:0:2::1", one.names.tunnel(4))
        assert routes[TWO_RANGE] == ("192.168.1.2", "eth0")


def test_ways_follow_the_nodes(apart: Pair) -> None:
    hosts, one = apart.hosts, apart.one
    eventually(lambda: TWO_RANGE in hosts.routes("one"))

    one.put(node("three", ["10.42.3.0/24"], ["192.168.1.3"]))
    eventually(lambda: hosts.routes("one").get("10.42.3.0/24") == ("192.168.1.3", "eth0"))
    one.address(node("three", ["10.42.3.0/24"], ["192.168.2.3"]))
    eventually(lambda: hosts.routes("one").get("10.42.3.0/24") == ("10.42.3.1", one.names.tunnel(4)))
    assert ("10.42.3.1", hardware_of("three")) in hosts.neighbours("one", one.names.tunnel(4))
    one.delete("three")
    eventually(lambda: "10.42.3.0/24" not in hosts.routes("one"))

    assert hosts.neighbours("one", one.names.tunnel(4)) == {("10.42.2.1", hardware_of("two"))}
    assert hosts.tunnel_ends("one", one.names.tunnel(4)) == {(hardware_of("two"), "192.168.2.1")}


def test_what_an_earlier_run_left_is_put_right(apart: Pair) -> None:
    hosts, one = apart.hosts, apart.one
    one.put(node("three", ["10.42.3.0/24"], ["192.168.2.3"]))
    eventually(lambda: "10.42.3.0/24" in hosts.routes("one"))
    one.kill()
    assert hosts.ask("pod-one", TWO_POD, 8080, size=MUCH) == ONE_POD, "while nobody is there, packets go on"
    one.delete("three")

    one.again()

    eventually(lambda: "10.42.3.0/24" not in hosts.routes("one"))
    assert hosts.neighbours("one", one.names.tunnel(4)) == {("10.42.2.1", hardware_of("two"))}
    assert hosts.ask("pod-one", TWO_POD, 8080, size=MUCH) == ONE_POD


def test_a_link_that_was_down_gets_its_routes_again(beside: Pair) -> None:
    hosts = beside.hosts
    eventually(lambda: TWO_RANGE in hosts.routes("one"))

    hosts.switch_link("one", "eth0", "down")
    assert TWO_RANGE not in hosts.routes("one")
    hosts.switch_link("one", "eth0", "up")

    eventually(lambda: hosts.reaches("pod-one", TWO_POD, 8080))


def test_the_choice_decides(hosts: Hosts, tmp_path: Path) -> None:
    hosts.link("wire")
    hosts.plug("one", "wire", "192.168.1.1/24")
    hosts.plug("two", "wire", "192.168.1.2/24")
    one = Site(hosts, "one", [ONE_RANGE], tmp_path, mode=Mode.VXLAN, node_ip="192.168.1.1")
    two = Site(hosts, "two", [TWO_RANGE], tmp_path, mode=Mode.ROUTES, node_ip="192.168.1.2")
    for _ in _running(Pair(hosts, one, two, ("192.168.1.1", "192.168.1.2"))):
        eventually(lambda: TWO_RANGE in hosts.routes("one") and ONE_RANGE in hosts.routes("two"))

        assert hosts.routes("one")[TWO_RANGE][1] == one.names.tunnel(4)
        assert hosts.routes("two")[ONE_RANGE] == ("192.168.1.1", "eth0")
        assert one.names.tunnel(4) in hosts.trace("one")["links"]
        assert two.names.tunnel(4) not in hosts.trace("two")["links"]
        assert (one.network.mtu, two.network.mtu) == (1450, 1500)


def test_a_stranger_gets_nothing_into_the_tunnel(apart: Pair) -> None:
    """What a machine that is no node sends to the tunnel's port is dropped, whatever it pretends to come from."""
    hosts = apart.hosts
    hosts.plug("stranger", "left", "192.168.1.66/24")
    eventually(lambda: hosts.reaches("pod-one", TWO_POD, 8080))
    got = hosts.datagrams("pod-one", ONE_POD, 9999)

    inner = encapsulated(apart.one.cluster, hardware_of("one"), ("10.42.2.5", ONE_POD), 9999, b"forged")
    hosts.send("stranger", "192.168.1.1", PORT, inner)
    # From a node the same bytes arrive, so it is not the bytes.
    hosts.send("two", "192.168.1.1", PORT, inner.replace(b"forged", b"honest"))

    assert got() == b"honest"


def test_nothing_is_left(apart: Pair) -> None:
    hosts = apart.hosts
    eventually(lambda: TWO_RANGE in hosts.routes("one") and "192.168.2.1/32" in hosts.routes("one"))
    hosts.drop("pod-one", "one")

    apart.one.remove()

    assert hosts.trace("one") == apart.before["one"]
    apart.one.remove()


def encapsulated(cluster: tuple[str, ...], hardware: str, between: tuple[str, str], port: int, payload: bytes) -> bytes:
    """A VXLAN packet without its outer headers, with a datagram in it (no checksum of UDP, as IPv4 allows)."""
    datagram = struct.pack("!HHHH", 5555, port, 8 + len(payload), 0) + payload
    source, destination = (socket.inet_aton(each) for each in between)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, source, destination)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
    frame = bytes.fromhex(hardware.replace(":", "")) + b"\x02\0\0\0\0\x09" + b"\x08\0" + header + datagram
    return struct.pack("!II", 0x08000000, network_number(cluster) << 8) + frame
