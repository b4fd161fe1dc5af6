"""Names on the host: short enough, and no two nodes of any two clusters share one."""

from __future__ import annotations

from itertools import product

import pytest

from navarch.node.names import HostNames

CLUSTERS = ["default", "demo", "a", "a-b", "a" * 32, "a" * 31 + "b", "e2e-1234"]
NODES = ["n", "b-c", "c", "c-net", "host.example.com", "x" * 60, "x" * 61, "x" * 62, "y" * 200]
EVERY = [HostNames(cluster, node) for cluster, node in product(CLUSTERS, NODES)]


@pytest.mark.parametrize("kind", ["bridge", "whole", "services_table", "network_table", "cgroup_root", "cni_network"])
def test_no_two_nodes_share_a_name(kind: str) -> None:
    assert len({getattr(names, kind) for names in EVERY}) == len(EVERY)


def test_no_name_of_one_sort_is_one_of_another_sort() -> None:
    assert not {names.services_table for names in EVERY} & {names.network_table for names in EVERY}


def test_names_fit_where_they_are_used() -> None:
    for names in EVERY:
        assert len(names.bridge) <= 15
        assert len(names.network_table) < 256
        # libcni calls a file `<network>-<container>-<interface>`.
        assert len(f"{names.cni_network}-{'0' * 64}-eth0") < 256


@pytest.mark.parametrize(
    ("cluster", "node"), [("", "n"), ("a_b", "n"), ("a", ""), ("a", "n m"), ("a", "n;flush"), ("a", "../n")]
)
def test_names_that_could_be_something_else_are_refused(cluster: str, node: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        HostNames(cluster, node)
