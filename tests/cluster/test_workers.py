"""Further nodes on the cluster's machine: what each is called, where it lives, which processes it has."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from navarch.cluster import pki, ranges, strays, workers
from navarch.cluster.config import ClusterConfig, ConfigError
from navarch.cluster.identities import NODE_COMPONENTS
from navarch.cluster.planning import plan
from navarch.cluster.processes import specs
from navarch.cluster.run_node import agent_config
from navarch.controllers import approval
from navarch.node.certificates import API_CLIENT, CertificateSpec, KeyPair, client_of_node, serving_of_node
from navarch.node.names import HostNames, bridge_of


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterConfig:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    made, _ = plan("web", None, {"runtime": "containerd", "workers": 2, "node_name": "machine"})
    return made


def test_each_has_a_name_a_folder_and_an_address_of_its_own(config: ClusterConfig) -> None:
    nodes = [config, *(workers.config_of(config, name) for name in workers.names(config))]

    assert [node.node_name for node in nodes] == ["machine", "web-worker-1", "web-worker-2"]
    assert len({node.root for node in nodes}) == len({node.run for node in nodes}) == 3
    addresses = [ip_address(node.node_ip) for node in nodes]
    assert addresses == list(ip_network(config.node_network).hosts())[:3]
    others = (config.pod_cidr, config.service_cidr)
    assert not any(ip_network(config.node_network).overlaps(ip_network(one)) for one in others)


def test_each_has_an_ipv6_address_where_pods_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    monkeypatch.setattr(ranges, "has_ipv6", lambda: True)
    stated = {"runtime": "containerd", "workers": 2, "node_name": "machine", "pod_cidr": "10.42.0.0/16,fd00:42::/48"}
    config, _ = plan("web", None, stated)

    nodes = [config, *(workers.config_of(config, name) for name in workers.names(config))]
    own = [agent_config(node).kubelet() for node in nodes]
    assert [ip_address(node.other_ip) for node in own] == [ip_network(config.node_network_ipv6)[at] for at in (1, 2, 3)]
    assert [ip_address(node.node_ip) for node in own] == list(ip_network(config.node_network).hosts())[:3]


def test_the_api_server_listens_where_they_reach_it_and_nowhere_else(config: ClusterConfig) -> None:
    worker = workers.config_of(config, "web-worker-1")

    assert config.listen_addresses == ["127.0.0.1", config.node_gateway]
    assert worker.server_url == f"https://{config.node_gateway}:{config.port}"


def test_their_names_on_the_machine_are_their_own(config: ClusterConfig) -> None:
    names = [HostNames("web", node) for node in ("machine", *workers.names(config))]

    links = [*(one.uplink for one in names), *(one.bridge for one in names), bridge_of("web")]
    assert len(set(links)) == len(links)
    assert all(len(link) <= 15 for link in links)


def test_they_are_processes_of_the_cluster(config: ClusterConfig) -> None:
    found = [spec.name for spec in specs(config)]

    assert found == [
        *("apiserver", "controllers", "containerd", "node"),
        *("containerd@web-worker-1", "node@web-worker-1", "containerd@web-worker-2", "node@web-worker-2"),
    ]


def test_a_containerd_is_told_from_the_others_by_its_configuration() -> None:
    def name(path: str) -> str:
        return strays._name_of(["/usr/bin/containerd", "--config", path], {"/data/web"})

    assert name("/data/web/node/containerd.toml") == "containerd"
    assert name("/data/web/workers/web-worker-2/node/containerd.toml") == "containerd@web-worker-2"
    assert name("/data/other/node/containerd.toml") == ""


def test_their_keys_are_made_with_the_clusters(config: ClusterConfig) -> None:
    pki.ensure(config)

    names = list(workers.names(config))
    assert names
    for name in names:
        own = workers.config_of(config, name)
        client = KeyPair(own.pki, "kubelet").read()
        serving = KeyPair(own.pki, "kubelet-serving").read()
        assert client is not None
        assert serving is not None
        assert client_of_node(name).is_met_by(client)
        assert serving_of_node(name, [own.node_ip]).is_met_by(serving)
        assert agent_config(own).client_ca == own.pki / "ca.crt"
        for component, user in NODE_COMPONENTS.items():
            mine = KeyPair(own.pki, component).read()
            assert mine is not None
            assert CertificateSpec(API_CLIENT, user).is_met_by(mine)


def test_what_a_nodes_parts_ask_for_is_approved() -> None:
    assert set(NODE_COMPONENTS.values()) == set(approval.NODE_COMPONENTS)


def test_they_come_and_go_while_the_cluster_is_stopped(config: ClusterConfig) -> None:
    config.save()
    alone, _ = plan("web", None, {"runtime": "containerd", "workers": 0})
    again, _ = plan("web", None, {"runtime": "containerd", "workers": 3})

    assert alone.on_pod_network
    assert alone.node_ip == alone.advertise_address
    assert again.node_ip == again.advertise_address == again.node_gateway


def test_simulated_clusters_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))

    with pytest.raises(ConfigError, match="--workers are real nodes"):
        plan("web", None, {"runtime": "simulated", "workers": 1})


def test_whoever_joined_under_such_a_name_is_none_of_them(config: ClusterConfig) -> None:
    assert workers.number_of(config, "web-worker-7") == 7
    assert workers.number_of(config, "web-worker-x") == 0
    assert workers.number_of(replace(config, name="other"), "web-worker-7") == 0
