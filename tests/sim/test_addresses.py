"""Addresses of simulated pods."""

from __future__ import annotations

from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from navarch.sim.addresses import PODS, PodAddresses


@given(st.lists(st.booleans(), max_size=60))
def test_no_address_is_held_twice(takes: list[bool]) -> None:
    addresses = PodAddresses()
    held: list[str] = []
    for take in takes:
        if take:
            address = addresses.take("10.0.0.0/28")
            assert address not in held
            held.append(address)
        elif held:
            addresses.give_back("10.0.0.0/28", held.pop(0))


def test_reserved_addresses_are_passed_over() -> None:
    addresses = PodAddresses()
    addresses.reserve("10.0.0.2")

    assert addresses.take("10.0.0.0/29") == "10.0.0.3"


def test_when_a_pod_network_is_full_the_shared_one_helps_out() -> None:
    addresses = PodAddresses()
    taken = [addresses.take("10.0.0.0/29") for _ in range(6)]

    assert IPv4Network("10.0.0.0/29").supernet_of(IPv4Network(f"{taken[4]}/32"))
    assert PODS.supernet_of(IPv4Network(f"{taken[5]}/32"))


def test_an_address_given_back_is_used_again() -> None:
    addresses = PodAddresses()
    taken = [addresses.take("10.0.0.0/29") for _ in range(5)]
    addresses.give_back("10.0.0.0/29", taken[1])

    assert addresses.take("10.0.0.0/29") == taken[1]


def test_ipv6_networks_have_addresses_too() -> None:
    addresses = PodAddresses()

    assert [addresses.take("fd00:42::/64"), addresses.take("fd00:42::/64")] == ["fd00:42::2", "fd00:42::3"]
    addresses.give_back("fd00:42::/64", "fd00:42::2")
    assert addresses.take("fd00:42::/125") == "fd00:42::2"
