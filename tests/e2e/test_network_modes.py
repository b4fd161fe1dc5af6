"""The proxy's other modes with real pods (nftables is what all other tests have)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from .conftest import Cluster, _running
from .podnet import NODE, UDP, PodNet, eventually
from .test_network_services import labelled, node_port, ports, vip

pytestmark = [pytest.mark.e2e, pytest.mark.containers]

BOTH = ports(("http", 80, 8080, "TCP"), ("dns", 53, 8080, "UDP"))
COMMANDS = {"iptables": "iptables-save", "userspace": "ip"}


@pytest.fixture(params=["iptables", "userspace"])
def cluster(
    request: pytest.FixtureRequest, containers: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Cluster]]:
    """A mode, and a cluster that proxies so, by flag or by file."""
    mode = request.param
    if shutil.which(COMMANDS[mode]) is None:
        pytest.skip(f"there is no {COMMANDS[mode]}")
    home = tmp_path_factory.mktemp("mod")
    file = home / "proxy.yaml"
    file.write_text("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: userspace\n")
    stated = ("--proxy-config", str(file)) if mode == "userspace" else ("--proxy-mode", mode)
    name = f"{mode}-{os.getpid()}"
    for cluster in _running(name, home, "--runtime", "containerd", *stated):
        cluster.navarch("image", "load", "--name", name, str(containers.home / "busybox.tar"))
        yield mode, cluster


def traces(cluster: Cluster) -> set[str]:
    """The modes of which something is on the machine that belongs to the cluster."""

    def said(*command: str) -> str:
        if not shutil.which(command[0]):
            return ""
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    address = str(cluster.get("-n", "kube-system", "service", "kube-dns")["spec"]["clusterIP"])
    tables = [line for line in said("nft", "list", "tables").splitlines() if f" navarch-{cluster.name}_" in line]
    found = {
        "nftables": any(not line.endswith("_net") for line in tables),
        "iptables": address in said("iptables-save"),
        "userspace": address in said("ip", "route", "show", "table", "local"),
    }
    return {mode for mode, there in found.items() if there}


def serves(net: PodNet) -> None:
    """A service with TCP, UDP and a node port, from a pod and from the node."""
    net.start(labelled("a", role="web"), labelled("b", role="web"), labelled("client"))
    for name in "ab":
        net.serve(name, 8080)
        net.serve(name, 8080, UDP)
    service = net.service("web", type="NodePort", selector={"role": "web"}, ports=BOTH)
    eventually(lambda: net.answering("client", vip(service), 80), {"a", "b"})
    eventually(lambda: net.answering("client", vip(service), 53, UDP), {"a", "b"})
    for place in (NODE, "client"):
        assert net.answering(place, net.addresses[NODE], node_port(service)) == {"a", "b"}
    assert "Address" in net.exec("client", f"nslookup web.{net.namespace}.svc.cluster.local")
    net.kubectl("delete", "pod", "a")
    eventually(lambda: net.answering("client", vip(service), 80), {"b"})
    net.service("web", type="NodePort", selector={"role": "nobody"}, ports=BOTH)
    eventually(lambda: net.refused("client", vip(service), 80), True)


def test_a_cluster_serves_in_each_mode(cluster: tuple[str, Cluster]) -> None:
    mode, running = cluster
    net = PodNet(running)
    running.kubectl("create", "namespace", net.namespace)
    try:
        serves(net)
        eventually(lambda: traces(running), {mode})
    finally:
        net.close()
