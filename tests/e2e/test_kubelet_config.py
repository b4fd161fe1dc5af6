"""A node whose kubelet is configured by a file of Kubernetes' form, as kubectl and Prometheus see it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from navarch.node.containerd import why_unavailable

from .conftest import Cluster, _running

pytestmark = pytest.mark.e2e

# A machine that swaps, or whose disk is nearly full, is good enough here.
CONFIG = """
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 17
failSwapOn: false
kubeReserved: {cpu: 100m}
evictionHard: {memory.available: 1Mi}
allowedUnsafeSysctls: [kernel.msgmax]
"""


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    why = why_unavailable()
    if why:
        pytest.skip(why)
    home = tmp_path_factory.mktemp("kube")
    file = home / "kubelet.yaml"
    file.write_text(CONFIG)
    yield from _running(f"kubelet-{os.getpid()}", home, "--runtime", "containerd", "--kubelet-config", str(file))


def test_the_node_is_as_its_kubelets_file_says(configured: Cluster) -> None:
    node = configured.get("nodes")["items"][0]
    name = node["metadata"]["name"]
    status = node["status"]

    assert (status["capacity"]["pods"], status["allocatable"]["pods"]) == ("17", "17")
    assert status["allocatable"]["cpu"] == f"{int(status['capacity']['cpu']) * 1000 - 100}m"
    proxy = f"/api/v1/nodes/{name}/proxy"
    told = json.loads(configured.kubectl("get", "--raw", f"{proxy}/configz"))["kubeletconfig"]
    assert (told["maxPods"], told["evictionHard"]) == (17, {"memory.available": "1Mi"})
    assert told["nodeStatusReportFrequency"] == "5m0s"
    counters = configured.kubectl("get", "--raw", f"{proxy}/metrics/cadvisor")
    assert 'container_cpu_usage_seconds_total{container="",cpu="total",id="/"' in counters


def test_a_file_that_cannot_be_used_stops_the_start_with_kubernetes_words(configured: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "kubelet.yaml"
    file.write_text(CONFIG.replace("maxPods: 17", "maxPods: -1"))

    done = configured.navarch(
        "up", "--name", "kubelet-wrong", "--runtime", "containerd", "--kubelet-config", str(file), check=False
    )

    assert done.returncode == 2
    assert "invalid configuration: maxPods (--max-pods) -1 must not be a negative number" in done.stderr
