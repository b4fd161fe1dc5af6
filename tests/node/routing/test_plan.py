"""What a node should have for other nodes."""

from __future__ import annotations

from typing import Any

from navarch.node.routing.plan import Hop, Mode, Peer, Plan, Route, hardware_of, peer_of, plan

CLUSTER = ("10.42.0.0/16", "fd42::/48")
OWN = Peer("one", ("10.42.1.0/24",), ("192.168.1.1",))
TWO = Peer("two", ("10.42.2.0/24",), ("192.168.1.2",))


def planned(*others: Peer, mode: Mode = Mode.AUTO, own: Peer = OWN, **hops: Hop) -> Plan:
    by_address = {address: hops[peer.name] for peer in others for address in peer.addresses}
    return plan(mode, own, others, CLUSTER, by_address.__getitem__)


def test_a_node_is_read_with_its_ranges_and_its_addresses() -> None:
    addresses = [("Hostname", "n"), ("InternalIP", "192.168.9.2"), ("InternalIP", "fd00::2"), ("InternalIP", "none")]
    node: dict[str, Any] = {
        "metadata": {"name": "n"},
        "spec": {"podCIDR": "10.42.7.0/24", "podCIDRs": ["10.42.7.0/24", "fd42:0:0:7::/64"]},
        "status": {"addresses": [{"type": kind, "address": address} for kind, address in addresses]},
    }

    assert peer_of(node) == Peer("n", ("10.42.7.0/24", "fd42:0:0:7::/64"), ("192.168.9.2", "fd00::2"))
    assert peer_of({"metadata": {"name": "n"}}) == Peer("n")


def test_a_neighbour_is_a_router_to_its_pods() -> None:
    made = planned(TWO, two=Hop("eth0"))

    assert made.routes == {Route("10.42.2.0/24", "192.168.1.2")}
    assert not made.ends
    assert made.nodes == {"192.168.1.2"}
    assert dict(made.tunnels) == {4: "192.168.1.1"}, "it may see a router between us"


def test_who_is_behind_a_router_is_reached_by_a_tunnel_and_its_own_address_by_pods_alone() -> None:
    made = planned(TWO, two=Hop("eth0", gateway="192.168.1.254"))

    assert made.routes == {
        Route("10.42.2.0/24", "10.42.2.1", 4, "10.42.1.1"),
        Route("192.168.1.2/32", "10.42.2.1", 4, "10.42.1.1", for_pods=True),
    }
    (end,) = made.ends
    assert (end.hardware, end.remote, end.gateways) == (hardware_of("two"), "192.168.1.2", ("10.42.2.1",))
    assert made.pods == {"10.42.1.0/24"}


def test_without_tunnels_who_is_behind_a_router_is_the_routers_affair() -> None:
    made = planned(TWO, mode=Mode.ROUTES, two=Hop("eth0", gateway="192.168.1.254"))

    assert made == Plan(nodes=frozenset({"192.168.1.2"}))


def test_a_node_alone_listens_to_nobody() -> None:
    assert planned() == Plan()


def test_another_node_in_the_same_kernel_is_left_to_it() -> None:
    assert planned(TWO, two=Hop(here=True)) == Plan()


def test_ranges_that_are_not_the_clusters_lead_nowhere() -> None:
    stray = Peer("two", ("192.0.2.0/24",), ("192.168.1.2",))

    assert planned(stray, two=Hop("eth0")) == Plan()


def test_a_nodes_address_among_pods_is_not_swallowed_by_the_way_to_its_pods() -> None:
    inside = Peer("two", ("10.42.2.0/24",), ("10.42.2.1",))

    made = planned(inside, two=Hop("eth0", gateway="192.168.1.254"))

    assert Route("10.42.2.1/32", "192.168.1.254") in made.routes
