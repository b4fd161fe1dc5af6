"""Services with real pods: every type and setting, from a pod, from the node, and while they change."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Cluster
from .objects import pod
from .podnet import NODE, TCP, UDP, PodNet, eventually, talk

pytestmark = [pytest.mark.e2e, pytest.mark.containers]

WEB = {"role": "web"}
ALL = {"a", "b", "c"}


def labelled(name: str, *command: str, role: str = "", **spec: Any) -> dict[str, Any]:
    obj = pod(name, *(command or ("sleep", "1000")), **{"terminationGracePeriodSeconds": 0, **spec})
    obj["metadata"]["labels"] = {"app": name, **({"role": role} if role else {})}
    return obj


@pytest.fixture(scope="module")
def net(containers: Cluster) -> Iterator[PodNet]:
    """Pods a, b and c of role web, and a client; TCP and UDP on 8080 of each, TCP on 8081 of a."""
    net = PodNet(containers)
    containers.kubectl("create", "namespace", net.namespace)
    try:
        unready = {"exec": {"command": ["false"]}}
        late = labelled("late", role="late")
        late["spec"]["containers"][0]["readinessProbe"] = unready
        net.start(*(labelled(name, role="web") for name in ALL), labelled("client"), late)
        for name in (*ALL, "late"):
            net.serve(name, 8080)
            net.serve(name, 8080, UDP)
        net.serve("a", 8081)
        net.serve(NODE, 28080, address=net.addresses[NODE])
        yield net
    finally:
        net.close()
        containers.kubectl("delete", "namespace", net.namespace, "--wait=false")


def ports(*entries: tuple[str, int, int, str]) -> list[dict[str, Any]]:
    return [{"name": n, "port": p, "targetPort": t, "protocol": proto} for n, p, t, proto in entries]


HTTP = ports(("http", 80, 8080, "TCP"))


def vip(service: dict[str, Any]) -> str:
    return str(service["spec"]["clusterIP"])


def node_port(service: dict[str, Any]) -> int:
    return int(service["spec"]["ports"][0]["nodePort"])


def test_a_cluster_ip_reaches_every_pod_from_pods_and_from_the_node(net: PodNet) -> None:
    ip = vip(net.service("plain", selector=WEB, ports=HTTP))

    eventually(lambda: net.answering("client", ip, 80), ALL)
    assert net.answering(NODE, ip, 80) == ALL
    assert net.ask("client", ip, 80)[1] == net.addresses["client"], "the pod's own address is seen"


def test_a_node_port_answers_on_every_address_of_the_node(net: PodNet) -> None:
    service = net.service("by-node", type="NodePort", selector=WEB, ports=HTTP)
    number = node_port(service)

    eventually(lambda: net.answering("client", net.addresses[NODE], number), ALL)
    assert net.answering(NODE, net.addresses[NODE], number) == ALL
    assert net.answering(NODE, "127.0.0.1", number) == ALL
    assert net.answering(NODE, vip(service), 80) == ALL
    gateway = net.exec("client", "ip route | awk '/default/ {print $3}'").strip()
    assert net.answering("client", gateway, number) == ALL


def test_affinity_holds_and_is_switched_on_and_off(net: PodNet) -> None:
    spec: dict[str, Any] = {"type": "NodePort", "selector": WEB, "ports": HTTP}
    service = net.service("sticky", **spec, sessionAffinity="ClientIP")
    places = [
        ("client", vip(service), 80),
        (NODE, vip(service), 80),
        ("client", net.addresses[NODE], node_port(service)),
    ]

    for place in places:
        eventually(lambda place=place: len(net.answering(*place)), 1)
    net.service("sticky", **spec, sessionAffinity="None")
    for place in places:
        eventually(lambda place=place: net.answering(*place), ALL)
    net.service("sticky", **spec, sessionAffinity="ClientIP")
    for place in places:
        eventually(lambda place=place: len(net.answering(*place)), 1)


def test_affinity_ends_after_its_timeout(net: PodNet) -> None:
    config = {"clientIP": {"timeoutSeconds": 1}}
    service = net.service(
        "forgetful", type="NodePort", selector=WEB, ports=HTTP, sessionAffinity="ClientIP", sessionAffinityConfig=config
    )
    sources = [f"127.0.0.{number}" for number in range(2, 32)]

    def ask_all() -> list[str]:
        return [net.ask(NODE, "127.0.0.1", node_port(service), source=source)[0] for source in sources]

    eventually(lambda: ask_all() == ask_all(), True)
    first = ask_all()
    time.sleep(1.5)
    assert ask_all() != first


def test_one_number_for_tcp_and_udp_of_which_each_can_go(net: PodNet) -> None:
    tcp, udp = ports(("tcp", 80, 8080, "TCP"))[0], ports(("udp", 80, 8080, "UDP"))[0]
    ip = vip(net.service("both", selector=WEB, ports=[tcp, udp]))
    eventually(lambda: net.answering("client", ip, 80, UDP), ALL)
    assert net.answering("client", ip, 80, TCP) == ALL

    change = {"spec": {"ports": [tcp]}}
    net.kubectl("patch", "service", "both", "--type=merge", "-p", json.dumps(change))
    eventually(lambda: net.refused("client", ip, 80, UDP), True)
    eventually(lambda: net.answering("client", ip, 80, TCP), ALL)

    net.kubectl("patch", "service", "both", "--type=merge", "-p", json.dumps({"spec": {"ports": [udp]}}))
    eventually(lambda: net.refused("client", ip, 80, TCP), True)
    eventually(lambda: net.answering("client", ip, 80, UDP), ALL)


def test_several_ports_lead_to_several_ports(net: PodNet) -> None:
    two = ports(("one", 80, 8080, "TCP"), ("two", 81, 8081, "TCP"))
    ip = vip(net.service("two-ports", selector={"app": "a"}, ports=two))

    eventually(lambda: net.ask("client", ip, 81)[0], "a")
    assert net.ask("client", ip, 80)[0] == "a"
    assert net.refused("client", ip, 82)


def test_slices_made_by_hand_lead_to_several_addresses_and_ports(net: PodNet) -> None:
    ip = vip(net.service("by-hand", ports=HTTP))

    def piece(name: str, pod: str, port: int) -> dict[str, Any]:
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "by-hand"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [net.addresses[pod]]}],
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        }

    net.start(piece("by-hand-1", "a", 8081), piece("by-hand-2", "b", 8080))

    eventually(lambda: net.answering("client", ip, 80), {"a", "b"})


def test_endpoints_made_by_hand_are_mirrored(net: PodNet) -> None:
    ip = vip(net.service("mirrored", ports=HTTP))

    def endpoints(pod: str) -> dict[str, Any]:
        subset = {"addresses": [{"ip": net.addresses[pod]}], "ports": [{"name": "http", "port": 8080}]}
        return {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "mirrored"}, "subsets": [subset]}

    net.start(endpoints("a"))
    eventually(lambda: net.ask("client", ip, 80)[0], "a")
    net.start(endpoints("b"))
    eventually(lambda: net.answering("client", ip, 80), {"b"})
    net.kubectl("delete", "endpoints", "mirrored")
    eventually(lambda: net.refused("client", ip, 80), True)


def test_the_type_of_a_service_changes(net: PodNet) -> None:
    service = net.service("changing", type="ExternalName", externalName="example.com")
    assert "clusterIP" not in service["spec"]

    patched = {"spec": {"type": "ClusterIP", "externalName": None, "selector": WEB, "ports": HTTP}}
    net.kubectl("patch", "service", "changing", "--type=merge", "-p", json.dumps(patched))
    ip = vip(net.get("service", "changing"))
    eventually(lambda: net.answering("client", ip, 80), ALL)

    net.kubectl("patch", "service", "changing", "-p", '{"spec": {"type": "NodePort"}}')
    number = node_port(net.get("service", "changing"))
    eventually(lambda: net.answering("client", net.addresses[NODE], number), ALL)
    assert net.answering("client", ip, 80) == ALL

    net.kubectl("patch", "service", "changing", "-p", '{"spec": {"type": "ClusterIP"}}')
    eventually(lambda: net.refused(NODE, net.addresses[NODE], number), True)

    back = {"spec": {"type": "ExternalName", "externalName": "example.org", "clusterIP": None, "clusterIPs": None}}
    net.kubectl("patch", "service", "changing", "--type=merge", "-p", json.dumps(back))
    eventually(lambda: net.refused("client", ip, 80), True)
    assert "clusterIP" not in net.get("service", "changing")["spec"]


def test_pods_that_are_not_ready_serve_only_where_that_is_wanted(net: PodNet) -> None:
    ip = vip(net.service("patient", selector={"role": "late"}, ports=HTTP))
    eventually(lambda: net.refused("client", ip, 80), True)
    hasty = vip(net.service("hasty", selector={"role": "late"}, ports=HTTP, publishNotReadyAddresses=True))

    eventually(lambda: net.ask("client", hasty, 80)[0], "late")
    assert net.refused("client", ip, 80)


def test_policy_local(net: PodNet) -> None:
    service = net.service(
        "near", type="NodePort", selector=WEB, ports=HTTP, internalTrafficPolicy="Local", externalTrafficPolicy="Local"
    )

    eventually(lambda: net.answering("client", vip(service), 80), ALL)
    assert net.answering("client", net.addresses[NODE], node_port(service)) == ALL
    assert net.answering(NODE, "127.0.0.1", node_port(service)) == ALL
    # An endpoint elsewhere is out of bounds: refused, or dropped, but never reached.
    ip = vip(net.service("far", ports=HTTP, internalTrafficPolicy="Local"))
    far = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "far", "labels": {"kubernetes.io/service-name": "far"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [net.addresses["a"]], "nodeName": "elsewhere"}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
    net.start(far)
    time.sleep(0.5)
    with pytest.raises(OSError):
        net.ask("client", ip, 80)


def test_external_and_load_balancer_addresses(net: PodNet) -> None:
    net.service(
        "outside", type="LoadBalancer", selector=WEB, ports=HTTP, externalIPs=["198.51.100.7"],
        externalTrafficPolicy="Local", loadBalancerClass="example.com/by-hand",
    )  # fmt: skip
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.8"}]}}}
    net.kubectl("patch", "service", "outside", "--subresource=status", "--type=merge", "-p", json.dumps(status))

    eventually(lambda: net.answering("client", "198.51.100.7", 80), ALL)
    eventually(lambda: net.answering("client", "198.51.100.8", 80), ALL)
    assert net.answering(NODE, "198.51.100.8", 80) == ALL
    health_port = net.get("service", "outside")["spec"]["healthCheckNodePort"]
    with urllib.request.urlopen(f"http://{net.addresses[NODE]}:{health_port}/", timeout=3) as answer:
        assert json.load(answer)["localEndpoints"] == 3


def test_without_endpoints_connections_are_refused(net: PodNet) -> None:
    service = net.service("empty", type="NodePort", selector={"role": "nobody"}, ports=HTTP)

    eventually(lambda: net.refused("client", vip(service), 80), True)
    assert net.refused(NODE, vip(service), 80)
    assert net.refused(NODE, net.addresses[NODE], node_port(service))
    assert net.refused("client", net.addresses[NODE], node_port(service))
    assert net.get("endpointslices", "-l", "kubernetes.io/service-name=empty")["items"][0].get("endpoints") in (
        None,
        [],
    )


def test_a_pod_reaches_itself_through_its_service(net: PodNet) -> None:
    service = net.service("mirror", type="NodePort", selector={"app": "a"}, ports=HTTP)

    eventually(lambda: net.ask("a", vip(service), 80)[0], "a")
    assert net.ask("a", net.addresses[NODE], node_port(service))[0] == "a"


def test_a_udp_client_that_keeps_its_port_follows_the_endpoint(net: PodNet) -> None:
    spec = {"type": "NodePort", "ports": ports(("dns", 53, 8080, "UDP"))}
    service = net.service("udp", selector={"app": "a"}, **spec)
    for place, address, port in (("client", vip(service), 53), (NODE, net.addresses[NODE], node_port(service))):
        net.service("udp", selector={"app": "a"}, **spec)
        eventually(lambda p=place, a=address, n=port: net.ask(p, a, n, UDP)[0], "a")
        client = net.open(place, UDP, timeout_s=0.3)
        client.connect((address, port))
        assert talk(client)[0] == "a"

        net.service("udp", selector={"app": "b"}, **spec)

        eventually(lambda c=client: talk(c)[0], "b")


def test_a_udp_client_that_was_there_before_the_endpoint_reaches_it(net: PodNet) -> None:
    ip = vip(net.service("early", selector={"app": "nobody"}, ports=ports(("dns", 53, 8080, "UDP"))))
    client = net.open("client", UDP, timeout_s=0.3)
    client.connect((ip, 53))
    with pytest.raises(OSError):
        talk(client)

    net.service("early", selector={"app": "a"}, ports=ports(("dns", 53, 8080, "UDP")))

    eventually(lambda: talk(client)[0], "a")


def test_an_established_connection_outlives_its_service(net: PodNet) -> None:
    ip = vip(net.service("fleeting", selector={"app": "a"}, ports=HTTP))
    eventually(lambda: net.ask("client", ip, 80)[0], "a")
    with net.open("client") as connection:
        connection.connect((ip, 80))
        assert talk(connection)[0] == "a"
        net.service("fleeting", selector={"app": "b"}, ports=HTTP)
        eventually(lambda: net.ask("client", ip, 80)[0], "b")
        assert talk(connection)[0] == "a"
        net.kubectl("delete", "service", "fleeting")
        eventually(lambda: net.refused("client", ip, 80), True)
        assert talk(connection)[0] == "a"


def test_the_last_endpoint_serves_while_it_drains(net: PodNet) -> None:
    drain = {"preStop": {"exec": {"command": ["sleep", "3"]}}}
    last = labelled("last", terminationGracePeriodSeconds=5)
    last["spec"]["containers"][0]["lifecycle"] = drain
    net.start(last)
    net.serve("last", 8080)
    ip = vip(net.service("last", selector={"app": "last"}, ports=HTTP))
    eventually(lambda: net.ask("client", ip, 80)[0], "last")

    net.kubectl("delete", "pod", "last", "--wait=false")

    began_s = time.monotonic()
    while time.monotonic() - began_s < 2.0:
        assert net.ask("client", ip, 80)[0] == "last"
        time.sleep(0.05)
    eventually(lambda: net.refused("client", ip, 80), True)


def test_endpoints_follow_the_pods_and_the_api_server_proxies_to_them(net: PodNet) -> None:
    server = ["sh", "-c", "mkdir /w; echo hello > /w/index.html; exec httpd -f -p 8000 -h /w"]
    net.start(labelled("page", *server))
    net.service("page", selector={"app": "page"}, ports=ports(("http", 80, 8000, "TCP")))
    path = f"/api/v1/namespaces/{net.namespace}"

    def through(what: str) -> str:
        done = net.cluster.try_kubectl("get", "--raw", f"{path}/{what}/proxy/")
        return done.stdout.strip()

    eventually(lambda: through("services/page:http"), "hello")
    assert through("pods/page:8000") == "hello"
    assert net.get("endpoints", "page")["subsets"][0]["addresses"][0]["ip"] == net.addresses["page"]
    net.kubectl("delete", "pod", "page")
    eventually(lambda: net.get("endpoints", "page").get("subsets") or [], [])


def test_a_new_service_is_reachable_within_moments(net: PodNet) -> None:
    took = []
    for number in range(10):
        began_s = time.monotonic()
        ip = vip(net.service(f"quick-{number}", selector={"app": "a"}, ports=HTTP))
        eventually(lambda ip=ip: net.ask("client", ip, 80)[0], "a")
        took.append(time.monotonic() - began_s)

    assert sorted(took)[5] < 2.0
