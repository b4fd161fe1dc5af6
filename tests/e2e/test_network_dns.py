"""Cluster DNS as pods see it: names of services and pods, record types, search paths, policies."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.rdatatype
import dns.resolver
import pytest

from .conftest import Cluster
from .podnet import NODE, TCP, UDP, PodNet, eventually
from .test_network_services import HTTP, labelled, vip

pytestmark = [pytest.mark.e2e, pytest.mark.containers]


@pytest.fixture(scope="module")
def net(containers: Cluster) -> Iterator[PodNet]:
    """Pods behind a headless service `many`, of which `one` has a hostname; a client; pods with other DNS policies."""
    net = PodNet(containers)
    containers.kubectl("create", "namespace", net.namespace)
    try:
        headless = {"selector": {"role": "many"}, "clusterIP": "None", "ports": HTTP}
        net.service("many", **headless)
        net.service("normal", selector={"role": "many"}, ports=HTTP)
        own = {
            "nameservers": ["192.0.2.53"],
            "searches": ["my.example"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        }
        name_itself = ("sh", "-c", "hostname > /name; sleep 1000")
        full_name = labelled("full", *name_itself, hostname="full-name", subdomain="many", setHostnameAsFQDN=True)
        net.start(
            labelled("one", role="many", hostname="uno", subdomain="many"),
            labelled("two", role="many"),
            labelled("client"),
            full_name,
            labelled("own", dnsPolicy="None", dnsConfig=own),
            labelled("host", hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"),
            labelled("plain-host", hostNetwork=True),
            labelled("bare", dnsPolicy="Default"),
        )  # fmt: skip
        net.addresses["dns"] = containers.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
        yield net
    finally:
        net.close()
        containers.kubectl("delete", "namespace", net.namespace, "--wait=false")


def query(net: PodNet, name: str, kind: str = "A", *, by: int = UDP, place: str = "client") -> dns.message.Message:
    message = dns.message.make_query(name, kind)
    with net.open(place, by, timeout_s=3) as connection:
        connection.connect((net.addresses["dns"], 53))
        data = message.to_wire()
        if by == UDP:
            connection.send(data)
            return dns.message.from_wire(connection.recv(65535))
        connection.sendall(struct.pack(">H", len(data)) + data)
        length = struct.unpack(">H", connection.recv(2, socket.MSG_WAITALL))[0]
        return dns.message.from_wire(connection.recv(length, socket.MSG_WAITALL))


def look(net: PodNet, name: str, kind: str = "A", **how: Any) -> set[str]:
    """The data of the answer's records, of whatever type."""
    answer = query(net, name, kind, **how).answer
    return {record.to_text() for rrset in answer for record in rrset}


def full(net: PodNet, name: str) -> str:
    return f"{name}.{net.namespace}.svc.cluster.local."


@pytest.mark.parametrize("by", [UDP, TCP])
def test_services_have_the_address_of_their_virtual_ip(net: PodNet, by: int) -> None:
    ip = vip(net.get("service", "normal"))

    eventually(lambda: look(net, full(net, "normal"), by=by), {ip})
    kubernetes = vip(net.cluster.get("service", "kubernetes", "-n", "default"))
    assert look(net, "kubernetes.default.svc.cluster.local.", by=by) == {kubernetes}
    assert look(net, "kubernetes.default.svc.cluster.local.", by=by, place=NODE) == {kubernetes}


def test_headless_services_have_the_addresses_of_their_pods(net: PodNet) -> None:
    eventually(lambda: look(net, full(net, "many")), {net.addresses["one"], net.addresses["two"]})


def test_pods_with_a_hostname_have_a_name_below_their_service(net: PodNet) -> None:
    eventually(lambda: look(net, full(net, "uno.many")), {net.addresses["one"]})
    assert net.exec("one", "hostname -f").strip() == full(net, "uno.many").rstrip(".")
    assert query(net, full(net, "due.many")).rcode() == 3


def test_pods_have_names_by_their_address(net: PodNet) -> None:
    dashed = net.addresses["two"].replace(".", "-")

    assert look(net, f"{dashed}.{net.namespace}.pod.cluster.local.") == {net.addresses["two"]}


def test_service_records_name_ports_and_targets(net: PodNet) -> None:
    target = full(net, "normal")
    assert look(net, f"_http._tcp.{full(net, 'normal')}", "SRV") == {f"0 100 80 {target}"}
    records = {text.split()[2:4][1]: text.split()[2] for text in look(net, f"_http._tcp.{full(net, 'many')}", "SRV")}
    assert records[full(net, "uno.many")] == "8080"
    assert len(records) == 2
    for target in records:
        assert look(net, target) <= {net.addresses["one"], net.addresses["two"]}


def test_addresses_have_names(net: PodNet) -> None:
    ip = vip(net.get("service", "normal"))
    assert look(net, ip_address(ip).reverse_pointer + ".", "PTR") == {full(net, "normal")}
    assert look(net, ip_address(net.addresses["one"]).reverse_pointer + ".", "PTR") == {full(net, "uno.many")}


def test_external_names_are_aliases_that_can_change(net: PodNet) -> None:
    net.service("away", type="ExternalName", externalName="foo.example.com")
    eventually(lambda: look(net, full(net, "away"), "CNAME"), {"foo.example.com."})

    net.service("away", type="ExternalName", externalName=full(net, "normal").rstrip("."))
    eventually(lambda: look(net, full(net, "away"), "CNAME"), {full(net, "normal")})
    ip = vip(net.get("service", "normal"))
    assert look(net, full(net, "away")) == {full(net, "normal"), ip}

    patch = {"spec": {"type": "ClusterIP", "externalName": None, "ports": HTTP}}
    net.kubectl("patch", "service", "away", "--type=merge", "-p", json.dumps(patch))
    eventually(lambda: look(net, full(net, "away")), {vip(net.get("service", "away"))})


def test_names_may_be_partial(net: PodNet) -> None:
    ip = vip(net.get("service", "normal"))
    kubernetes = vip(net.cluster.get("service", "kubernetes", "-n", "default"))
    names = {
        "normal": ip,
        f"normal.{net.namespace}": ip,
        f"normal.{net.namespace}.svc": ip,
        "kubernetes.default": kubernetes,
        "uno.many": net.addresses["one"],
    }

    # ping says at once whom it asks, and then waits for an answer that virtual IPs do not give.
    asking = " ".join(f"ping {name} > /tmp/{name} 2>&1 &" for name in names)
    said = net.exec("client", f"{asking} sleep 1; killall -INT ping; sleep 0.2; head -n1 /tmp/*")

    for name, address in names.items():
        assert f"PING {name} ({address})" in said


def test_the_resolver_configuration_follows_the_policy(net: PodNet) -> None:
    cluster = [
        f"search {net.namespace}.svc.cluster.local svc.cluster.local cluster.local",
        f"nameserver {net.addresses['dns']}",
        "options ndots:5",
    ]
    machine = Path("/etc/resolv.conf").read_text().split()

    def configuration(pod: str) -> list[str]:
        return net.exec(pod, "cat /etc/resolv.conf").splitlines()

    def common(pod: str) -> list[str]:
        # The machine's own search domains come after the cluster's.
        return [line[: len(cluster[0])] if line.startswith("search") else line for line in configuration(pod)]

    assert sorted(common("client")) == sorted(cluster)
    assert sorted(common("host")) == sorted(cluster)
    assert sorted(configuration("own")) == ["nameserver 192.0.2.53", "options ndots:2 edns0", "search my.example"]
    for pod in ("bare", "plain-host"):
        assert net.addresses["dns"] not in " ".join(configuration(pod))
        assert set(" ".join(configuration(pod)).split()) <= set(machine)


def test_a_pod_may_have_its_full_name_as_hostname(net: PodNet) -> None:
    assert net.exec("full", "cat /name").strip() == full(net, "full-name.many").rstrip(".")


def test_names_that_do_not_exist_are_said_not_to(net: PodNet) -> None:
    assert query(net, full(net, "nowhere")).rcode() == 3
    nothing = query(net, full(net, "normal"), "AAAA")
    assert nothing.rcode() == 0
    assert not nothing.answer


def _machine_resolver() -> str:
    """The loopback address that the machine asks, where a test may answer."""
    for word in dns.resolver.Resolver().nameservers:
        if str(word).startswith("127."):
            return str(word)
    return ""


@pytest.mark.skipif(not _machine_resolver(), reason="the machine's resolver is not on loopback")
def test_other_names_are_asked_upstream(net: PodNet) -> None:
    with contextlib.closing(socket.socket(socket.AF_INET, UDP)) as server:
        try:
            server.bind((_machine_resolver(), 53))
        except OSError:
            pytest.skip("the machine runs a resolver")

        threading.Thread(target=_say, args=(server, "192.0.2.77"), daemon=True).start()

        assert look(net, f"test-{os.getpid()}.example.com.") == {"192.0.2.77"}


def _say(server: socket.socket, address: str) -> None:
    """Answer every query with one address."""
    with contextlib.suppress(OSError, dns.exception.DNSException):
        while True:
            data, peer = server.recvfrom(4096)
            asked = dns.message.from_wire(data)
            response = dns.message.make_response(asked)
            response.answer.append(dns.rrset.from_text(asked.question[0].name, 60, "IN", "A", address))
            server.sendto(response.to_wire(), peer)


def test_a_corefile_says_whom_to_ask_about_a_domain(net: PodNet) -> None:
    for place, address in (("one", "192.0.2.88"), ("two", "192.0.2.99")):
        server = net.open(place, UDP)
        server.settimeout(None)
        server.bind(("0.0.0.0", 53))
        threading.Thread(target=_say, args=(server, address), daemon=True).start()
    net.service("away", type="ExternalName", externalName="b.acme.local")

    def corefile(stub: str, other: str) -> None:
        text = f".:53 {{\n  cache 30\n  forward . {other}\n}}\nacme.local:53 {{\n  forward . {stub}:53\n}}\n"
        settings = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "coredns"},
            "data": {"Corefile": text},
        }
        net.cluster.apply(settings, namespace="kube-system")

    one, two = net.addresses["one"], net.addresses["two"]
    try:
        corefile(one, two)
        eventually(lambda: look(net, "a.Acme.local."), {"192.0.2.88"})
        assert look(net, "www.example.com.") == {"192.0.2.99"}
        assert look(net, full(net, "away")) == {"b.acme.local.", "192.0.2.88"}
        assert look(net, full(net, "normal")) == {vip(net.get("service", "normal"))}
        # What was heard before is not kept for its time to live.
        corefile(two, "/etc/resolv.conf")
        eventually(lambda: look(net, "a.acme.local."), {"192.0.2.99"})
    finally:
        net.cluster.kubectl("delete", "configmap", "coredns", "-n", "kube-system", "--ignore-not-found")
