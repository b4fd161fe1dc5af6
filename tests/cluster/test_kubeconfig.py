"""Merging into the user's kubeconfig leaves everything else as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from navarch.cluster import kubeconfig, pki
from navarch.cluster.config import ClusterConfig

OTHER = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "work",
    "clusters": [{"name": "work", "cluster": {"server": "https://work"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "work"}}],
    "users": [{"name": "work", "user": {"token": "t"}}],
}


@pytest.fixture
def config(tmp_path: Path) -> ClusterConfig:
    config = ClusterConfig("test", str(tmp_path / "cluster"), kubeconfig=str(tmp_path / "kube" / "config"))
    pki.ensure(config)
    return config


def test_entries_are_added_and_become_current(config: ClusterConfig) -> None:
    target = Path(config.kubeconfig)
    target.parent.mkdir()
    target.write_text(yaml.safe_dump(OTHER))

    kubeconfig.merge(config)
    kubeconfig.merge(config)

    document = yaml.safe_load(target.read_text())
    assert document["current-context"] == "navarch-test"
    assert [entry["name"] for entry in document["contexts"]] == ["work", "navarch-test"]
    assert document["users"][0] == OTHER["users"][0]


def test_removing_restores_what_was_there(config: ClusterConfig) -> None:
    target = Path(config.kubeconfig)
    target.parent.mkdir()
    target.write_text(yaml.safe_dump(OTHER))
    kubeconfig.merge(config)

    assert kubeconfig.remove(config)

    assert yaml.safe_load(target.read_text()) == OTHER
    assert not kubeconfig.remove(config)


def test_a_file_that_is_no_kubeconfig_is_left_alone(config: ClusterConfig) -> None:
    target = Path(config.kubeconfig)
    target.parent.mkdir()
    target.write_text("- just\n- a list\n")

    with pytest.raises(kubeconfig.KubeconfigError):
        kubeconfig.merge(config)
    assert target.read_text() == "- just\n- a list\n"
    assert not target.with_name("config.lock").exists()


def test_two_clusters_live_side_by_side(config: ClusterConfig) -> None:
    kubeconfig.merge(config)
    second = replace(config, name="two")
    pki.ensure(second)
    kubeconfig.merge(second)
    kubeconfig.remove(second)

    document = yaml.safe_load(Path(config.kubeconfig).read_text())
    assert document["current-context"] == "navarch-test"


def test_what_was_current_before_is_current_again_and_nothing_else(config: ClusterConfig) -> None:
    target = Path(config.kubeconfig)
    target.parent.mkdir()
    staging = {"name": "staging", "context": {"cluster": "work", "user": "work"}}
    contexts = [*OTHER["contexts"], staging]  # type: ignore[misc]
    target.write_text(yaml.safe_dump({**OTHER, "contexts": contexts, "current-context": "staging"}))

    kubeconfig.merge(config)
    kubeconfig.merge(config)
    kubeconfig.remove(config)

    assert yaml.safe_load(target.read_text())["current-context"] == "staging"


def test_a_context_that_is_gone_leaves_none_current(config: ClusterConfig) -> None:
    target = Path(config.kubeconfig)
    target.parent.mkdir()
    target.write_text(yaml.safe_dump({**OTHER, "current-context": "staging"}))
    kubeconfig.merge(config)

    kubeconfig.remove(config)

    assert yaml.safe_load(target.read_text())["current-context"] == ""
