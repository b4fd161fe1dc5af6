"""A cluster whose data are damaged does not start as an older or an empty one; it says so, and how to go on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..ports import free_port
from .conftest import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster("lost", tmp_path)
    port = str(free_port())
    cluster.navarch("up", "--name", "lost", "-d", "--runtime", "simulated", "--wait", "90s", "--port", port)
    yield cluster
    cluster.navarch("down", "--name", "lost", "--purge", "--grace", "1s")


def revision(cluster: Cluster) -> int:
    return int(json.loads(cluster.kubectl("get", "--raw", "/api/v1/configmaps"))["metadata"]["resourceVersion"])


def test_a_missing_database_is_refused_at_once_and_accepted_on_demand(cluster: Cluster) -> None:
    before = revision(cluster)
    cluster.kubectl("create", "configmap", "kept")
    cluster.navarch("down", "--name", "lost", "--grace", "1s")
    saved = {path: path.read_bytes() for path in cluster.config.root.glob("state.db*")}
    for path in saved:
        path.unlink()

    refused = cluster.navarch("up", "--name", "lost", "-d", "--wait", "60s", check=False)
    assert refused.returncode == 1
    assert "state.db is missing, and had come to revision" in refused.stderr
    assert "--accept-loss" in refused.stderr

    told = cluster.navarch("status", "--name", "lost", check=False)
    assert told.returncode == 1
    assert re.search(r"apiserver +failed", told.stdout)
    assert "state.db is missing, and had come to revision" in told.stderr
    assert "not tried again before `navarch up --name lost`" in told.stderr
    assert "refused" in cluster.try_kubectl("get", "namespaces").stderr

    # From a backup it goes on as if nothing had been.
    for path, data in saved.items():
        path.write_bytes(data)
    cluster.navarch("up", "--name", "lost", "-d", "--wait", "90s")
    assert cluster.get("configmap", "kept")
    cluster.navarch("down", "--name", "lost", "--grace", "1s")

    # Without one it begins anew, on demand, with revisions that were never given out.
    for path in cluster.config.root.glob("state.db*"):
        path.unlink()
    accepted = cluster.navarch("up", "--name", "lost", "-d", "--wait", "90s", "--accept-loss")
    assert "Kept: 0 objects" in accepted.stderr
    assert "kept" not in json.dumps(cluster.get("configmaps"))
    assert revision(cluster) > before + 100_000

    running = cluster.navarch("up", "--name", "lost", "-d", "--accept-loss", check=False)
    assert running.returncode != 0
    assert "stop the cluster first" in running.stderr
