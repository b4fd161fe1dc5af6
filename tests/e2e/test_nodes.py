"""A cluster of three real nodes on one machine: pods on each reach each other; a node that is cut off, killed, drained
or deleted costs nobody more than it must."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from navarch.cluster import workers
from navarch.cluster.config import ClusterConfig
from navarch.cluster.state import ClusterState, alive
from navarch.node.names import HostNames

from .conftest import BUSYBOX, Cluster
from .load import Load, fetch
from .objects import deployment, pod, service
from .podnet import PodNet, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.containers]

FOREVER = ("sh", "-c", "trap exit TERM; while :; do sleep 0.1; done")
# Names itself; ends at once when it is told to.
SERVER = "mkdir /www; hostname > /www/index.html; trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait"


def nodes_of(cluster: Cluster) -> list[str]:
    """The machine's own first."""
    config = cluster.config
    return [config.node_name, *workers.names(config)]


def condition(cluster: Cluster, node: str) -> str:
    found = cluster.get("node", node)["status"]["conditions"]
    return str(next(one["status"] for one in found if one["type"] == "Ready"))


def taints(cluster: Cluster, node: str) -> set[tuple[str, str]]:
    return {(one["key"], one["effect"]) for one in cluster.get("node", node)["spec"].get("taints") or ()}


@contextlib.contextmanager
def cut_off(config: ClusterConfig, node: str) -> Iterator[None]:
    """The node's link is down."""
    link = HostNames(config.name, node).uplink
    subprocess.run(["ip", "link", "set", link, "down"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "set", link, "up"], check=True)


def settled(cluster: Cluster) -> None:
    """Every node takes pods."""
    cluster.wait_until(lambda: all(not taints(cluster, node) for node in nodes_of(cluster)), 60, "every node is well")


@pytest.fixture
def cluster(three_nodes: Cluster) -> Cluster:
    settled(three_nodes)
    return three_nodes


def test_every_node_has_a_range_an_address_and_a_kubelet_of_its_own(cluster: Cluster) -> None:
    found = {node["metadata"]["name"]: node for node in cluster.get("nodes")["items"]}

    assert sorted(found) == sorted(nodes_of(cluster))
    for what in (lambda n: n["spec"]["podCIDR"], lambda n: n["status"]["addresses"][0]["address"]):
        assert len({what(node) for node in found.values()}) == 3


def test_pods_reach_pods_and_services_across_nodes_as_themselves(cluster: Cluster) -> None:
    net = PodNet(cluster)
    cluster.kubectl("create", "namespace", net.namespace)
    try:
        places = {f"p{number}": node for number, node in enumerate(nodes_of(cluster))}
        net.start(
            *(
                {**pod(name, *FOREVER, nodeName=node), "metadata": {"name": name, "labels": {"app": "all"}}}
                for name, node in places.items()
            )
        )
        hosts = {f"h{number}": node for number, node in enumerate(nodes_of(cluster))}
        net.start(*(pod(name, *FOREVER, nodeName=node, hostNetwork=True) for name, node in hosts.items()))
        for name in places:
            net.serve(name, 8080)

        for asker in places:
            for server in places:
                eventually(
                    lambda asker=asker, server=server: net.ask(asker, net.addresses[server], 8080),
                    (server, net.addresses[asker]),
                )
        spec: dict[str, Any] = {"selector": {"app": "all"}, "ports": [{"port": 80, "targetPort": 8080}]}
        everywhere = net.service("all", type="NodePort", **spec)["spec"]
        near = net.service("near", trafficDistribution="PreferSameNode", **spec)["spec"]["clusterIP"]
        number = everywhere["ports"][0]["nodePort"]
        for asker in (*places, *hosts):
            eventually(lambda asker=asker: net.answering(asker, everywhere["clusterIP"], 80), set(places))
            # Also where a node's port leads back to the node that asks, or on from its loopback to another node.
            for at in (*(net.addresses[host] for host in hosts), *(["127.0.0.1"] if asker in hosts else [])):
                eventually(lambda asker=asker, at=at: net.answering(asker, at, number), set(places))
            eventually(lambda asker=asker: net.answering(asker, near, 80), {f"p{asker[1:]}"})
    finally:
        net.close()
        cluster.kubectl("delete", "namespace", net.namespace, "--wait=false")


def test_commands_and_logs_reach_pods_on_every_node(cluster: Cluster, nodes_namespace: str) -> None:
    for number, node in enumerate(nodes_of(cluster)):
        cluster.apply(pod(f"p{number}", "sh", "-c", f"echo on {node}; {FOREVER[2]}", nodeName=node),
                      namespace=nodes_namespace)  # fmt: skip
    cluster.kubectl("-n", nodes_namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")

    for number, node in enumerate(nodes_of(cluster)):
        assert cluster.kubectl("-n", nodes_namespace, "logs", f"p{number}") == f"on {node}\n"
        assert cluster.kubectl("-n", nodes_namespace, "exec", f"p{number}", "--", "hostname") == f"p{number}\n"


def tolerant(name: str, replicas: int, tolerated_s: int, **spec: Any) -> dict[str, Any]:
    """A deployment whose pods put up with a lost node for that long."""
    made = deployment(name, replicas, BUSYBOX, command=list(FOREVER))
    keys = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
    tolerations = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": tolerated_s} for key in keys
    ]
    made["spec"]["template"]["spec"] |= {"tolerations": tolerations, "terminationGracePeriodSeconds": 1, **spec}
    return made


def test_a_node_that_is_cut_off_is_given_up_and_made_whole(cluster: Cluster, nodes_namespace: str) -> None:
    """Marked, tainted, its pods started elsewhere; back, they end there and the node takes pods again."""
    _, victim, other = nodes_of(cluster)
    only = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [victim, other]}]}
    ]}}}  # fmt: skip
    cluster.kubectl("cordon", other)
    cluster.apply(tolerant("moves", 1, 1, affinity=only), namespace=nodes_namespace)
    cluster.kubectl("-n", nodes_namespace, "rollout", "status", "deployment/moves", "--timeout=60s")
    (first,) = cluster.get("pods", "-n", nodes_namespace)["items"]
    cluster.kubectl("uncordon", other)
    assert first["spec"]["nodeName"] == victim

    with cut_off(cluster.config, victim):
        cluster.wait_until(lambda: condition(cluster, victim) == "Unknown", 60, "marked Unknown")
        unreachable = {("node.kubernetes.io/unreachable", effect) for effect in ("NoExecute", "NoSchedule")}
        cluster.wait_until(lambda: unreachable <= taints(cluster, victim), 30, "tainted")

        def moved() -> bool:
            ready = [one for one in cluster.get("pods", "-n", nodes_namespace)["items"]
                     if one["spec"].get("nodeName") == other and one["status"]["phase"] == "Running"]  # fmt: skip
            return len(ready) == 1

        cluster.wait_until(moved, 60, "started on the other node")
        # Nobody there can say that it has ended.
        still = cluster.get("pod", "-n", nodes_namespace, first["metadata"]["name"])
        assert still["metadata"].get("deletionTimestamp")

    settled(cluster)
    gone = ("-n", nodes_namespace, "get", "pod", first["metadata"]["name"])
    cluster.wait_until(lambda: cluster.try_kubectl(*gone).returncode == 1, 60, "the old pod has ended")


def test_a_killed_agent_comes_back_to_its_pods(cluster: Cluster, nodes_namespace: str) -> None:
    node = nodes_of(cluster)[1]
    cluster.apply(pod("stays", *FOREVER, nodeName=node), namespace=nodes_namespace)
    cluster.kubectl("-n", nodes_namespace, "wait", "--for=condition=Ready", "pod/stays", "--timeout=60s")
    before = cluster.get("pod", "-n", nodes_namespace, "stays")["status"]["containerStatuses"]
    process = f"node@{node}"
    killed = ClusterState.load(cluster.config.run).components[process]

    os.kill(killed.pid, signal.SIGKILL)

    def is_back() -> bool:
        now = ClusterState.load(cluster.config.run).components[process]
        return now.pid != killed.pid and alive(now)

    cluster.wait_until(is_back, 30)
    # It answers, and it is the same container that it answers for.
    cluster.wait_until(lambda: cluster.kubectl("-n", nodes_namespace, "exec", "stays", "--", "hostname"), 60)
    assert cluster.get("pod", "-n", nodes_namespace, "stays")["status"]["containerStatuses"] == before
    assert condition(cluster, node) == "True"


def web(replicas: int) -> list[dict[str, Any]]:
    ready = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    made = deployment(
        "web",
        replicas,
        BUSYBOX,
        command=["sh", "-c", SERVER],
        readinessProbe=ready,
        lifecycle={"preStop": {"sleep": {"seconds": 2}}},
    )
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
              "labelSelector": {"matchLabels": {"app": "web"}}}  # fmt: skip
    made["spec"]["template"]["spec"] |= {"terminationGracePeriodSeconds": 10, "topologySpreadConstraints": [spread]}
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": replicas - 1, "selector": {"matchLabels": {"app": "web"}}},
    }
    return [made, service("web"), budget]


@pytest.mark.alone
def test_nodes_are_drained_one_after_the_other_and_no_request_fails(cluster: Cluster, nodes_namespace: str) -> None:
    cluster.apply(*web(3), namespace=nodes_namespace)
    cluster.kubectl("-n", nodes_namespace, "rollout", "status", "deployment/web", "--timeout=90s")
    ip = cluster.get("service", "web", "-n", nodes_namespace)["spec"]["clusterIP"]
    eventually(lambda: bool(fetch(ip)), True)

    with Load(ip, threads=2, pause_s=0.01) as load:
        for node in nodes_of(cluster):
            cluster.kubectl(
                *("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force"),
                *("--pod-selector=app=web", "--timeout=120s"),
            )
            here = cluster.get("pods", "-n", nodes_namespace, "--field-selector", f"spec.nodeName={node}")["items"]
            assert here == []
            cluster.kubectl("uncordon", node)

    assert [one.why for one in load.outcome.failures] == []
    assert load.outcome.answers


def test_a_deleted_node_stays_away_until_its_agent_starts_again(cluster: Cluster, nodes_namespace: str) -> None:
    node = nodes_of(cluster)[2]
    cluster.apply(pod("goes", *FOREVER, nodeName=node), namespace=nodes_namespace)
    cluster.kubectl("-n", nodes_namespace, "wait", "--for=condition=Ready", "pod/goes", "--timeout=60s")
    before = cluster.get("node", node)["metadata"]["uid"]
    log = cluster.config.logs / f"node@{node}.log"

    cluster.kubectl("delete", "node", node)

    noticed = f"the node {node} was deleted"
    cluster.wait_until(lambda: noticed in log.read_text(), 30, "the agent notices")
    names = [one["metadata"]["name"] for one in cluster.get("nodes")["items"]]
    assert node not in names
    lease = ("get", "lease", "-n", "kube-node-lease", node)
    cluster.wait_until(lambda: cluster.try_kubectl(*lease).returncode == 1, 30, "no lease without a node")
    os.kill(ClusterState.load(cluster.config.run).components[f"node@{node}"].pid, signal.SIGTERM)
    cluster.wait_until(lambda: condition(cluster, node) == "True", 60, "registered again")
    assert cluster.get("node", node)["metadata"]["uid"] != before
