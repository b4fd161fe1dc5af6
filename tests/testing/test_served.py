"""The cluster for code that blocks: what it serves, and that nothing of it is left."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from kubernetes import client, config

from navarch.client.resources import CONFIG_MAPS, NODES
from navarch.testing import ServedCluster


def core(cluster: ServedCluster) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig)))


def test_two_serve_side_by_side_and_share_nothing() -> None:
    with ServedCluster(nodes=2, controllers=True) as one, ServedCluster(controllers=False) as other:
        core(one).create_namespaced_config_map("default", {"metadata": {"name": "settings"}})

        assert len(core(one).list_node().items) == 2
        assert [item.metadata.name for item in core(other).list_namespaced_config_map("default").items] == []
        assert len(one.call(lambda cluster: cluster.client.list(NODES)).items) == 2
        assert one.call(lambda cluster: cluster.config.nodes) == 2
        assert one.call(lambda cluster: cluster.client.list(CONFIG_MAPS, "default")).items
        folder = one.kubeconfig.parent.parent

    assert not folder.exists()
    assert "navarch cluster" not in [thread.name for thread in threading.enumerate()]


def test_what_keeps_it_from_starting_is_raised_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(Exception, match=r"9\.9"), ServedCluster(kubernetes_version="9.9"):
        pass

    assert list(tmp_path.iterdir()) == []
    assert "navarch cluster" not in [thread.name for thread in threading.enumerate()]


def test_the_tests_own_error_is_what_the_block_raises() -> None:
    with pytest.raises(AssertionError, match="mine"), ServedCluster(controllers=False):
        raise AssertionError("mine")
