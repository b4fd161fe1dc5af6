"""Two clusters on one machine: neither notices the other, and one goes without a trace."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Cluster, _running
from .podnet import NODE, TCP, UDP, PodNet, eventually
from .test_network_services import HTTP, labelled, vip

pytestmark = [pytest.mark.e2e, pytest.mark.containers]


def ranges() -> tuple[str, ...]:
    """Both IP families, where the machine has both; nobody else's here."""
    off = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    if not off.exists() or off.read_text().strip() != "0":
        return ()
    return "--pod-cidr", "10.118.0.0/16,fd76:42::/56", "--service-cidr", "10.119.0.0/16,fd76:43::/112"


@pytest.fixture
def other(containers: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A second cluster with containers."""
    archive = containers.home / "busybox.tar"
    name = f"other-{os.getpid()}"
    for cluster in _running(name, tmp_path_factory.mktemp("oth"), "--runtime", "containerd", *ranges()):
        cluster.navarch("image", "load", "--name", name, str(archive))
        yield cluster


def traces(name: str, home: Path) -> list[str]:
    """What of a cluster is on the machine."""

    def lines(*command: str) -> list[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()

    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(home / name) in line]
    tables = [line for line in lines("nft", "list", "tables") if f"navarch-{name}_" in line]
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").rglob(f"navarch-{name}_*")]
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(home / name) in command:
                processes.append(command)
    return [*mounts, *tables, *cgroups, *processes, *map(str, home.glob(name))]


def machine() -> dict[str, set[str]]:
    """Devices, routes and namespaces, whoever's they are."""
    devices = set(os.listdir("/sys/class/net"))
    routes = set(Path("/proc/net/route").read_text().splitlines()[1:])
    spaces = set(os.listdir("/run/netns")) if Path("/run/netns").exists() else set()
    return {"devices": devices, "routes": {line.split()[0] + line.split()[1] for line in routes}, "netns": spaces}


def web(cluster: Cluster) -> tuple[PodNet, str]:
    net = PodNet(cluster)
    cluster.kubectl("create", "namespace", net.namespace)
    net.start(labelled("a"), labelled("client"))
    net.serve("a", 8080)
    return net, vip(net.service("web", selector={"app": "a"}, ports=HTTP))


def serves_both_families(net: PodNet) -> None:
    """Pods, services of either policy, node ports and names, by both kinds of address."""
    for kind in (TCP, UDP):
        net.serve("a", 8080, kind, "::")
    net.serve("a", 8080, UDP)
    (four, six), mine = ([one["ip"] for one in net.get("pod", name)["status"]["podIPs"]] for name in ("a", "client"))
    for kind in (TCP, UDP):
        for place, address in ((four, mine[0]), (six, mine[1])):
            assert net.ask("client", place, 8080, kind) == ("a", address)
            assert net.ask(NODE, place, 8080, kind)[0] == "a"
    ports = [HTTP[0], {**HTTP[0], "name": "datagrams", "protocol": "UDP"}]
    both = net.service("both", selector={"app": "a"}, ports=ports, type="NodePort", ipFamilyPolicy="RequireDualStack")
    alone = net.service("alone", selector={"app": "a"}, ports=ports, ipFamilies=["IPv6"])
    assert [":" in ip for ip in both["spec"]["clusterIPs"]] == [False, True]
    assert [":" in ip for ip in alone["spec"]["clusterIPs"]] == [True]
    for ip in (*both["spec"]["clusterIPs"], vip(alone)):
        for kind in (TCP, UDP):
            eventually(lambda ip=ip, kind=kind: net.ask("client", ip, 80, kind), ("a", mine[":" in ip]))
            assert net.ask(NODE, ip, 80, kind)[0] == "a"
    node = net.cluster.get("nodes")["items"][0]
    number = both["spec"]["ports"][0]["nodePort"]
    for address in (one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"):
        assert net.ask("client", address, number)[0] == "a"
    assert net.ask(NODE, "127.0.0.1", number)[0] == "a"
    # The kernel has no way from there; whoever tries is told at once.
    assert net.refused(NODE, "::1", number)
    name = f"both.{net.namespace}.svc.cluster.local."
    said = net.exec("client", f"nslookup -type=aaaa {name} && nslookup -type=a {name}")
    assert set(both["spec"]["clusterIPs"]) <= set(said.split())
    # Who stops wanting the second family gives its address back.
    net.kubectl("patch", "service", "both", "-p", '{"spec":{"ipFamilyPolicy":"SingleStack","ipFamilies":["IPv4"]}}')
    assert net.get("service", "both")["spec"]["clusterIPs"] == [vip(both)]


def test_two_clusters_live_side_by_side(containers: Cluster, other: Cluster) -> None:
    mine, my_ip = web(containers)
    before = machine()
    theirs, their_ip = web(other)
    try:
        assert my_ip != their_ip
        for net, ip in ((mine, my_ip), (theirs, their_ip)):
            eventually(lambda net=net, ip=ip: net.ask("client", ip, 80)[0], "a")
            assert net.ask(NODE, ip, 80)[0] == "a"
        if ranges():
            serves_both_families(theirs)
        own = machine()["devices"] - before["devices"]
        assert own
        assert traces(other.name, other.home)

        connection = mine.open("client")
        connection.connect((my_ip, 80))
        theirs.close()
        other.navarch("down", "--name", other.name, "--purge")

        assert mine.ask("client", my_ip, 80)[0] == "a"
        connection.send(b"?")
        assert connection.recv(100).startswith(b"a ")
        assert traces(other.name, other.home) == []
        assert not own & machine()["devices"]
        assert traces(containers.name, containers.home)
    finally:
        mine.close()
        containers.kubectl("delete", "namespace", mine.namespace, "--wait=false")
