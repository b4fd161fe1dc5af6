"""The pod network's devices, rules and routes, made in a network namespace of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from navarch.node.cni import CniConfig
from navarch.node.host_ports import elements_script, host_ports_of
from navarch.node.names import HostNames
from navarch.node.network import PodNetwork, Ranges
from navarch.node.proxy.nftables import apply_script, listed
from navarch.world import MACHINE
from tests.node.proxy.netlab import NetLab

needs_root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft")


@pytest.fixture
def lab() -> Iterator[NetLab]:
    lab = NetLab()
    try:
        lab.add("other", "192.168.9.2", "192.168.9.1")
        yield lab
    finally:
        lab.close()


@pytest.fixture
def with_pods(lab: NetLab) -> NetLab:
    lab.add("pod", "10.42.3.130", "10.42.3.129")
    lab.add("pod-b", "10.42.4.130", "10.42.4.129")
    for name in ("pod", "pod-b"):
        lab.serve(name, 8080)
    return lab


def test_the_configuration_says_what_the_plugins_read(tmp_path: Path) -> None:
    config = CniConfig("navarch-demo", "nv-demo", ("10.42.3.0/24",), tmp_path / "ipam", mtu=1400)

    written = json.loads(config.write(tmp_path).read_text())

    (bridge,) = written["plugins"]
    assert (bridge["type"], bridge["bridge"], bridge["mtu"], bridge["hairpinMode"]) == ("bridge", "nv-demo", 1400, True)
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.42.3.0/24", "gateway": "10.42.3.1"}]]
    assert [path.name for path in tmp_path.iterdir()] == ["10-navarch-demo.conflist"]


def test_a_pod_range_outside_of_the_clusters_is_refused() -> None:
    with pytest.raises(ValueError, match="not within"):
        Ranges(("10.99.0.0/24",), ("10.42.0.0/16",))


@pytest.mark.containers
@needs_root
async def test_set_up_twice_then_removed_without_a_trace(lab: NetLab, tmp_path: Path) -> None:
    network = PodNetwork(HostNames("t-net", "n1"), tmp_path, addresses=("10.42.0.1",))
    before = await MACHINE.in_thread(_state)

    for _ in range(2):
        await network.setup(Ranges(("10.42.3.0/24",), ("10.42.0.0/16",), ("10.43.0.0/16",)))

    links, addresses, routes = await MACHINE.in_thread(_state)
    assert network.bridge in links
    assert {("10.42.3.1", 24), ("10.42.0.1", 32)} <= set(addresses)
    assert "10.43.0.0" in routes
    assert (tmp_path / "cni" / "10-navarch-t-net_n1.conflist").exists()
    with socket.socket() as probe:
        probe.bind(("10.42.3.1", 0))

    await MACHINE.in_thread(network.cleanup, ["10.42.0.0/16"])
    assert await MACHINE.in_thread(_state) == before
    assert not [entry for entry in await listed("tables") if "table" in entry]
    await MACHINE.in_thread(network.cleanup, ["10.42.0.0/16"])


@pytest.mark.containers
@needs_root
async def test_the_pods_gateway_is_the_first_address(lab: NetLab, tmp_path: Path) -> None:
    network = PodNetwork(HostNames("t-net", "n1"), tmp_path, addresses=("10.42.0.1",))
    try:
        for own in ("10.42.0.0/24", "10.42.1.0/24"):
            await network.setup(Ranges((own,), ("10.42.0.0/16",)))

        assert await MACHINE.in_thread(_addresses, network.bridge) == ["10.42.1.1/24", "10.42.0.1/32"]
    finally:
        await MACHINE.in_thread(network.cleanup, ["10.42.0.0/16"])


def pod(name: str, ip: str, port: int, *, created: str = "2026-01-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    ports = [{"containerPort": 8080, "hostPort": port, "protocol": "TCP", **more}]
    return {
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": created},
        "spec": {"containers": [{"ports": ports}]},
        "status": {"podIP": ip, "phase": "Running"},
    }


def test_of_two_pods_with_one_host_port_the_one_that_stays_has_it() -> None:
    leaving = pod("a", "10.42.3.5", 80, created="2026-01-02T00:00:00Z")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    done = pod("c", "10.42.3.7", 80)
    done["status"]["phase"] = "Succeeded"

    wanted = host_ports_of([leaving, pod("b", "10.42.3.6", 80), done])

    assert wanted.anywhere == {"tcp . 80": "10.42.3.6 . 8080"}


@pytest.mark.containers
@needs_root
async def test_host_ports_reach_the_pod_from_outside_the_node_and_itself(with_pods: NetLab, tmp_path: Path) -> None:
    lab = with_pods
    network = PodNetwork(HostNames("t-net", "n1"), tmp_path)
    await apply_script(network.rules(Ranges(("10.42.0.0/16",), ("10.42.0.0/16",))))
    pods = [pod("a", "10.42.3.130", 8088), pod("b", "10.42.4.130", 8088, hostIP="192.168.9.1")]

    await apply_script(elements_script(network.table, host_ports_of(pods)))

    assert lab.ask("other", "192.168.9.1", 8088) == ("pod-b", "192.168.9.2")
    assert lab.ask("node", "127.0.0.1", 8088)[0] == "pod"
    assert lab.ask("pod", "10.42.3.129", 8088)[0] == "pod"
    await apply_script(network.rules(Ranges(("10.42.0.0/16",), ("10.42.0.0/16",))))
    assert lab.ask("node", "127.0.0.1", 8088)[0] == "pod", "a restarted agent does not interrupt"
    await apply_script(elements_script(network.table, host_ports_of([])))
    with pytest.raises(ConnectionRefusedError):
        lab.ask("other", "192.168.9.1", 8088)


def _addresses(link: str) -> list[str]:
    """In the kernel's order."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        found = ip.get_addr(family=socket.AF_INET, index=ip.link_lookup(ifname=link)[0])
        return [f"{one.get_attr('IFA_ADDRESS')}/{one['prefixlen']}" for one in found]


def _state() -> tuple[set[str], set[tuple[str, int]], set[str]]:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        links = {link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
        addresses = {
            (entry.get_attr("IFA_ADDRESS"), entry["prefixlen"]) for entry in ip.get_addr(family=socket.AF_INET)
        }
        routes = {route.get_attr("RTA_DST") for route in ip.get_routes(family=socket.AF_INET, table=254)}
    return links, addresses, routes
