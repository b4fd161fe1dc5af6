"""The pod network: every pod and node reaches every pod and node as what it is; host ports; the API from within."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from .conftest import Cluster
from .objects import BUSYBOX
from .podnet import NODE, UDP, PodNet, eventually
from .test_network_dns import look
from .test_network_services import HTTP, labelled

pytestmark = [pytest.mark.e2e, pytest.mark.containers]


@pytest.fixture(scope="module")
def net(containers: Cluster) -> Iterator[PodNet]:
    """Pods a and b; a has two containers."""
    net = PodNet(containers)
    containers.kubectl("create", "namespace", net.namespace)
    try:
        a = labelled("a", "sh", "-c", "mkdir /w; echo from-main > /w/index.html; exec httpd -f -p 8000 -h /w")
        a["spec"]["containers"].append({"name": "side", "image": BUSYBOX, "command": ["sleep", "1000"]})
        net.start(a, labelled("b"))
        net.addresses["dns"] = containers.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
        for name in ("a", "b"):
            net.serve(name, 8080)
            net.serve(name, 8080, UDP)
        yield net
    finally:
        net.close()
        containers.kubectl("delete", "namespace", net.namespace, "--wait=false")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, UDP])
def test_pods_reach_pods_as_what_they_are(net: PodNet, kind: int) -> None:
    assert net.ask("a", net.addresses["b"], 8080, kind) == ("b", net.addresses["a"])
    assert net.ask("b", net.addresses["a"], 8080, kind) == ("a", net.addresses["b"])
    assert net.ask("a", net.addresses["a"], 8080, kind) == ("a", net.addresses["a"])


def test_the_node_reaches_pods(net: PodNet) -> None:
    for kind in (socket.SOCK_STREAM, UDP):
        assert net.ask(NODE, net.addresses["a"], 8080, kind)[0] == "a"


def test_pods_reach_the_node_as_what_they_are(net: PodNet) -> None:
    net.serve(NODE, 28181, address=net.addresses[NODE])

    assert net.ask("a", net.addresses[NODE], 28181) == (NODE, net.addresses["a"])


def test_containers_of_a_pod_share_localhost(net: PodNet) -> None:
    said = net.kubectl("exec", "a", "-c", "side", "--", "wget", "-q", "-O-", "http://127.0.0.1:8000/")

    assert said.strip() == "from-main"


def test_host_ports_differ_by_address_and_protocol(net: PodNet) -> None:
    def with_port(name: str, protocol: str, host_ip: str = "") -> dict[str, object]:
        obj = labelled(name)
        port = {"containerPort": 8080, "hostPort": 28282, "protocol": protocol}
        obj["spec"]["containers"][0]["ports"] = [{**port, **({"hostIP": host_ip} if host_ip else {})}]
        return obj

    there = net.addresses[NODE]
    net.start(
        with_port("loop", "TCP", "127.0.0.1"), with_port("outer", "TCP", there), with_port("outer-udp", "UDP", there)
    )
    for name, kind in (("loop", socket.SOCK_STREAM), ("outer", socket.SOCK_STREAM), ("outer-udp", UDP)):
        net.serve(name, 8080, kind)

    eventually(lambda: net.ask(NODE, "127.0.0.1", 28282)[0], "loop")
    eventually(lambda: net.ask(NODE, there, 28282)[0], "outer")
    eventually(lambda: net.ask("a", there, 28282), ("outer", net.addresses["a"]))
    eventually(lambda: net.ask("a", there, 28282, UDP)[0], "outer-udp")
    eventually(lambda: net.ask("outer", there, 28282)[0], "outer")
    net.kubectl("delete", "pod", "outer", "loop", "outer-udp")
    eventually(lambda: net.refused("a", there, 28282), True)


def test_services_are_in_the_environment(net: PodNet) -> None:
    service = net.service("earlier-one", selector={"app": "a"}, ports=HTTP)
    net.start(labelled("env"))
    variables = dict(line.split("=", 1) for line in net.exec("env", "env").splitlines() if "=" in line)

    ip = service["spec"]["clusterIP"]
    assert variables["EARLIER_ONE_SERVICE_HOST"] == ip
    assert variables["EARLIER_ONE_SERVICE_PORT"] == "80"
    assert variables["EARLIER_ONE_SERVICE_PORT_HTTP"] == "80"
    assert variables["EARLIER_ONE_PORT_80_TCP"] == f"tcp://{ip}:80"
    assert variables["KUBERNETES_SERVICE_HOST"]


def test_the_api_is_reached_by_name_with_the_pods_own_token(net: PodNet) -> None:
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    token = net.exec("b", f"cat {where}/token")
    tls = ssl.create_default_context(cadata=net.exec("b", f"cat {where}/ca.crt"))
    address = look(net, "kubernetes.default.svc.cluster.local.", place="b").pop()

    def get(path: str) -> str:
        with contextlib.closing(net.open("b", timeout_s=5)) as plain:
            plain.connect((address, 443))
            with tls.wrap_socket(plain, server_hostname="kubernetes.default.svc") as connection:
                head = f"GET {path} HTTP/1.1\r\nHost: kubernetes.default.svc\r\nConnection: close\r\n"
                connection.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
                return connection.recv(65536).decode()

    assert get("/version").startswith("HTTP/1.1 200")
    refused = get(f"/api/v1/namespaces/{net.namespace}/pods")
    assert refused.startswith("HTTP/1.1 403")
    net.kubectl("create", "rolebinding", "see", "--clusterrole=view", f"--serviceaccount={net.namespace}:default")
    eventually(lambda: get(f"/api/v1/namespaces/{net.namespace}/pods")[:12], "HTTP/1.1 200")


def test_kubernetes_endpoints_name_the_api_server(net: PodNet) -> None:
    subset = net.cluster.get("endpoints", "kubernetes", "-n", "default")["subsets"][0]
    piece = net.cluster.get("endpointslice", "kubernetes", "-n", "default")

    assert subset["addresses"][0]["ip"] == piece["endpoints"][0]["addresses"][0]
    assert subset["ports"][0]["port"] == piece["ports"][0]["port"]
