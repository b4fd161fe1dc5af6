"""Whose name servers pods and nodes ask for what is not the cluster's."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch.node import agent
from navarch.node.agent import AgentConfig
from navarch.node.spec import dns
from navarch.node.spec.dns import on_loopback_alone, reached_from_elsewhere


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("nameserver 127.0.0.53\noptions edns0", "behind"),
        ("nameserver ::1\nnameserver 127.0.0.1", "behind"),
        ("nameserver 127.0.0.53\nnameserver 192.0.2.1", "own"),
        ("nameserver 192.0.2.1", "own"),
        ("search example.com", "own"),
    ],
)
def test_a_resolver_on_loopback_is_passed_over(tmp_path: Path, lines: str, found: str) -> None:
    (tmp_path / "own").write_text(lines)
    (tmp_path / "behind").write_text("nameserver 192.0.2.2")

    assert reached_from_elsewhere(tmp_path / "own", tmp_path / "behind").name == found


def test_where_nothing_is_behind_it_the_machines_own_file_is_left(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("nameserver 127.0.0.1")

    assert reached_from_elsewhere(tmp_path / "own", tmp_path / "behind").name == "own"
    assert on_loopback_alone(tmp_path / "own")


def test_a_node_asks_whom_it_reaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine itself its own resolver, a node with a network of its own those behind it; both whom a file names."""
    monkeypatch.setattr(agent, "reached_from_elsewhere", lambda: tmp_path / "behind")
    plain = AgentConfig("c", "n", tmp_path, tmp_path)
    worker = AgentConfig("c", "n", tmp_path, tmp_path, own_network=True)
    (tmp_path / "kubelet.yaml").write_text(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nresolvConf: /srv/resolv.conf\n"
    )
    told = AgentConfig("c", "n", tmp_path, tmp_path, kubelet_config=tmp_path / "kubelet.yaml")

    assert plain.networking().resolv_conf == dns.RESOLV_CONF
    assert plain.kubelet().host_resolv_conf == worker.kubelet().host_resolv_conf == tmp_path / "behind"
    assert worker.networking().resolv_conf == tmp_path / "behind"
    assert told.networking().resolv_conf == Path("/srv/resolv.conf")
