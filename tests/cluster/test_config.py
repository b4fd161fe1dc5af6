"""A cluster's settings: names that are safe, networks that do not overlap, files that come back as they were."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from navarch.cluster import config as settings
from navarch.cluster import ranges
from navarch.cluster.config import ClusterConfig, ConfigError, disabled_parts, further_names
from navarch.cluster.planning import plan
from navarch.cluster.run_node import agent_config


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["", "Upper", "../up", "a/b", "-a", "a" * 33, "a b", "a\n"])
def test_names_that_could_not_be_a_file_or_a_device_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="invalid cluster name"):
        settings.check_name(name)


def test_clusters_on_one_machine_get_different_networks_and_ports(home: Path) -> None:
    first, is_new = plan("one", None, {"runtime": "simulated"})
    first.save()
    second, _ = plan("two", None, {"runtime": "simulated"})

    assert is_new
    assert first.port != second.port
    networks = [ip_network(c) for c in (first.pod_cidr, first.service_cidr, second.pod_cidr, second.service_cidr)]
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)
    assert ip_address(second.cluster_dns) in ip_network(second.service_cidr)


def test_a_saved_configuration_is_read_back(home: Path) -> None:
    config, _ = plan("one", None, {"runtime": "simulated", "nodes": 7})
    config.save()

    assert ClusterConfig.load(config.root) == config
    assert [found.name for found in settings.known_clusters()] == ["one"]


def test_an_existing_cluster_keeps_what_cannot_change(home: Path) -> None:
    config, _ = plan("one", None, {"runtime": "simulated", "store": "sqlite"})
    config.save()

    with pytest.raises(ConfigError, match="exists with --store sqlite"):
        plan("one", None, {"store": "memory"})
    assert plan("one", None, {"nodes": 5}) == (replace(config, nodes=5), False)


def test_a_broken_file_is_reported_with_its_path(home: Path) -> None:
    folder = home / "one"
    folder.mkdir()
    (folder / "cluster.json").write_text("{")

    with pytest.raises(ConfigError, match=r"cluster\.json"):
        ClusterConfig.load(folder)


def test_many_simulated_nodes_get_a_range_each() -> None:
    config, _ = plan("big", None, {"runtime": "simulated", "nodes": 100_000})

    assert 2 ** (config.node_cidr_mask - ip_network(config.pod_cidr).prefixlen) >= 100_000


def test_a_node_is_of_the_version_that_its_cluster_serves(tmp_path: Path) -> None:
    config = ClusterConfig("old", str(tmp_path), kubernetes_version="1.33", node_name="n")

    assert agent_config(config).kubelet().kubernetes_version == "1.33"


def test_parts_are_left_out_by_name_and_unknown_names_are_refused() -> None:
    config = ClusterConfig("x", "/x", disable=disabled_parts(["load-balancer", "load-balancer"]))

    assert not config.has("load-balancer")
    assert ClusterConfig("x", "/x").has("load-balancer")
    with pytest.raises(ConfigError, match="--disable 'balancer': there is"):
        disabled_parts(["balancer"])


def test_of_several_names_that_cannot_be_the_first_is_told() -> None:
    with pytest.raises(ConfigError, match=r"--tls-san 'a\.\.': neither"):
        further_names([f"{letter}.." for letter in "zyxwvutsrqponmlkjihgfedcba"])


DUAL = {"pod_cidr": "10.42.0.0/16,fd00:42::/48", "service_cidr": "10.43.0.0/16, fd00:43::/112"}


def test_a_cluster_may_have_a_range_of_each_ip_family() -> None:
    config, _ = plan("dual", None, {"runtime": "simulated", **DUAL})

    assert config.service_cidr == "10.43.0.0/16,fd00:43::/112"
    assert config.cluster_dns == "10.43.0.10"
    config.save()
    as_lists = {"pod_cidr": ["10.42.0.0/16", "fd00:42::/48"], "service_cidr": ["10.43.0.0/16", "fd00:43::/112"]}
    assert plan("dual", None, as_lists) == (config, False)
    with pytest.raises(ConfigError, match="exists with --pod-cidr"):
        plan("dual", None, {"pod_cidr": "10.42.0.0/16"})


def test_the_first_range_of_services_may_be_ipv6() -> None:
    turned = {key: ",".join(reversed(text.replace(" ", "").split(","))) for key, text in DUAL.items()}
    config, _ = plan("six", None, {"runtime": "simulated", **turned})

    assert config.cluster_dns == "fd00:43::a"
    assert ip_address(config.advertise_address).version == 6


@pytest.mark.parametrize(
    ("pods", "services", "words"),
    [
        ("10.42.0.0/16,10.44.0.0/16", "10.43.0.0/16", "both IPv4"),
        ("10.42.0.0/16,fd00::/48,fd01::/48", "10.43.0.0/16", "3 ranges"),
        ("10.42.0.1/16", "10.43.0.0/16", "itself is 10.42.0.0/16"),
        ("10.42.0.0", "10.43.0.0/16", "length of its prefix"),
        ("ten/16", "10.43.0.0/16", "no range of addresses"),
        ("10.42.0.0/25", "10.43.0.0/16", "too small"),
        ("10.42.0.0/16,fd00::/121", "10.43.0.0/16", "too small"),
        ("10.42.0.0/16", "10.43.0.0/29", "too small"),
        ("10.42.0.0/16", "10.43.0.0/16,fd00:43::/112", "pods have addresses of that family"),
        ("10.42.0.0/16", "10.42.8.0/24", "overlap"),
    ],
)
def test_ranges_that_cannot_be_are_refused(pods: str, services: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan("no", None, {"runtime": "simulated", "pod_cidr": pods, "service_cidr": services})


def test_real_nodes_need_a_machine_that_has_the_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ranges.has_ipv6(tmp_path)
    monkeypatch.setattr(ranges, "has_ipv6", lambda: False)

    with pytest.raises(ConfigError, match="this machine has no IPv6"):
        plan("real", None, {"runtime": "containerd", **DUAL})


@pytest.mark.parametrize(
    ("pods", "mask"), [("10.0.0.0/8", 64), ("fd00::/48", 64), ("fd00::/60", 76), ("fd00::/112", 120)]
)
def test_nodes_ipv6_ranges_are_as_large_as_the_clusters_allows(pods: str, mask: int) -> None:
    assert ranges.node_mask_ipv6(pods) == mask
