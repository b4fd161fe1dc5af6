"""What is particular to nftables: what the table holds, and what becomes of it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from navarch.node.proxy.conntrack import Frontends, forget_stale, pack_address
from navarch.node.proxy.nftables import NftablesProxier, listed
from navarch.node.proxy.rules import OUTSIDE, Shared, structure_of
from tests.node.proxy.netlab import NetLab, say
from tests.node.proxy.objects import endpoint, endpoint_slice, service
from tests.node.proxy.proxied import BOTH, POD_A, POD_B, VIP, WEB, Proxied, make_lab

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]


@pytest.fixture
def lab() -> Iterator[NetLab]:
    lab = make_lab()
    yield lab
    lab.close()


@pytest.fixture
async def world(lab: NetLab) -> Proxied:
    world = Proxied(lab, NftablesProxier)
    await world.rewrite()
    return world


async def test_the_affinity_timeout_can_be_changed(lab: NetLab, world: Proxied) -> None:
    def sticky(seconds: int) -> dict[str, Any]:
        return service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": seconds}})

    for seconds in (100, 200):
        await world.put(sticky(seconds), BOTH)
        assert len({lab.ask("client", VIP, 80)[0] for _ in range(20)}) == 1

        sets = [entry["set"] for entry in await listed("ruleset") if "set" in entry]
        remembered = [each for one in sets if one["name"].startswith("affinity") for each in one.get("elem", ())]
        assert seconds in {each["elem"]["timeout"] for each in remembered}


async def test_udp_flows_to_a_removed_endpoint_are_forgotten(lab: NetLab, world: Proxied) -> None:
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


async def test_a_removed_service_leaves_nothing(lab: NetLab, world: Proxied) -> None:
    async def names() -> set[str]:
        found = [*await listed("chains"), *await listed("sets"), *await listed("maps")]
        return {each["name"] for entry in found for each in entry.values() if "name" in each}

    async def elements() -> int:
        everything = [
            each for entry in await listed("ruleset") for kind, each in entry.items() if kind in ("set", "map")
        ]
        return sum(len(each.get("elem", ())) for each in everything)

    shared = set(structure_of(world.config, Shared("endpoints", OUTSIDE, 2)).chains)
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


async def test_a_table_that_somebody_removed_is_written_anew(lab: NetLab, world: Proxied) -> None:
    await world.put(service(), BOTH)
    await world.proxier.cleanup()

    await world.put(service(), endpoint_slice(endpoint(POD_B)))

    assert lab.ask("client", VIP, 80)[0] == "b"


async def test_an_address_of_the_range_without_a_service_refuses(lab: NetLab, world: Proxied) -> None:
    with pytest.raises(ConnectionRefusedError):
        lab.ask("client", "10.43.200.1", 80)
