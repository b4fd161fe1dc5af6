"""Policies in a kernel: pods on the bridge of one node, a pod behind another link, real packets."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from navarch.client.resources import NAMESPACES, NETWORK_POLICIES, PODS, SERVICE_ACCOUNTS
from navarch.node.names import HostNames
from navarch.node.network import PodNetwork, Ranges
from navarch.node.policy import PolicyConfig, PolicyEnforcer, cleanup
from navarch.node.proxy.nftables import listed
from navarch.testing.embedded import EmbeddedCluster
from tests.node.routing.hosts import Hosts

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]

NAMES = HostNames("t", "one")
RANGES = ("10.42.1.0/24", "fd42:0:0:1::/64")
PODS_HERE = {"web": 5, "client": 6, "other": 7}
OUTSIDE = "192.168.1.9"


def addresses(name: str) -> tuple[str, str]:
    return f"10.42.1.{PODS_HERE[name]}", f"fd42:0:0:1::{PODS_HERE[name]}"


def pod(name: str, namespace: str = "default") -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "nodeName": "one",
            "serviceAccountName": "default",
            "automountServiceAccountToken": False,
            "containers": [{"name": "c", "image": "i", "ports": ports}],
        },
    }


def policy(name: str, pods: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"podSelector": pods, **spec},
    }


WEB = {"matchLabels": {"app": "web"}}
DENY = policy("deny", WEB, policyTypes=["Ingress"])


class Guarded:
    """A node `one` with pods, and the enforcer that follows an API server."""

    def __init__(self, hosts: Hosts, state: Path) -> None:
        self.hosts = hosts
        self._loop = hosts.loop("one")
        self._network = PodNetwork(NAMES, state, node_ip="192.168.1.1")
        self._loop.do(self._start())
        for name in PODS_HERE:
            four, six = addresses(name)
            hosts.pod(name, "one", self._network.bridge, [f"{four}/24", f"{six}/64"], 1450)
            for port in (8080, 8081):
                for address in (four, six):
                    hosts.serve(name, address, port)
            self._loop.do(self._add(name))
        self._loop.do(self.enforcer.settled())

    async def _start(self) -> None:
        await self._network.setup(Ranges(RANGES, ("10.42.0.0/16", "fd42::/48")))
        self.api = await EmbeddedCluster(controllers=False).__aenter__()
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await self.api.client.create(SERVICE_ACCOUNTS, account, namespace="default")
        await self._follow()

    async def _follow(self) -> None:
        self.enforcer = PolicyEnforcer(self.api.client, PolicyConfig(NAMES, "one", (4, 6)))
        self._running = asyncio.create_task(self.enforcer.run())

    async def _add(self, name: str) -> None:
        made = await self.api.client.create(PODS, pod(name))
        four, six = addresses(name)
        status = {"phase": "Running", "podIP": four, "podIPs": [{"ip": four}, {"ip": six}]}
        await self.api.client.patch(PODS, name, "default", {"status": status}, subresource="status")
        await self.enforcer.admit(made, addresses(name))

    def put(self, *policies: dict[str, Any]) -> None:
        self._loop.do(self._put(policies))

    async def _put(self, policies: tuple[dict[str, Any], ...]) -> None:
        revision = ""
        for each in policies:
            made = await self.api.client.create(NETWORK_POLICIES, each)
            revision = made["metadata"]["resourceVersion"]
        await self._until(revision)

    def change(self, resource: Any, name: str, patch: dict[str, Any], namespace: str = "default") -> None:
        async def do() -> None:
            answer = await self.api.client.patch(resource, name, namespace, patch)
            await self._until(answer["metadata"]["resourceVersion"])

        self._loop.do(do())

    def delete(self, name: str) -> None:
        async def do() -> None:
            await self.api.client.delete(NETWORK_POLICIES, name, "default")
            while any(each["metadata"]["name"] == name for each in self.enforcer.policies()):
                await asyncio.sleep(0.01)
            await self.enforcer.settled()

        self._loop.do(do())

    async def _until(self, revision: str) -> None:
        """What was changed at this revision is in the kernel."""
        while not self.enforcer.has_seen(int(revision)):
            await asyncio.sleep(0.01)
        await self.enforcer.settled()

    def reaches(self, source: str, target: str, port: int = 8080) -> bool:
        """Over both families."""
        return all(self.hosts.reaches(source, address, port) for address in addresses(target))

    def barred(self, source: str, target: str, port: int = 8080) -> bool:
        """Over both families."""
        return all(self.hosts.barred(source, address, port) for address in addresses(target))

    def restart(self) -> None:
        self._loop.do(self._stop_following())
        self._loop.do(self._follow())

    async def _stop_following(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    def tables(self) -> list[str]:
        found = self._loop.do(listed("tables"))
        return [entry["table"]["name"] for entry in found if "table" in entry]

    def remove(self) -> None:
        self._loop.do(cleanup(NAMES))

    def close(self) -> None:
        self._loop.do(self._stop_following())
        self._loop.do(self.api.__aexit__(None, None, None))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Guarded]:
    hosts = Hosts()
    try:
        hosts.link("wire")
        hosts.plug("one", "wire", "192.168.1.1/24")
        hosts.plug("outside", "wire", f"{OUTSIDE}/24")
        hosts.gateway("outside", "192.168.1.1")
        made = Guarded(hosts, tmp_path)
        try:
            yield made
        finally:
            made.close()
    finally:
        hosts.close()


def test_without_policies_everybody_speaks_and_there_is_no_table(node: Guarded) -> None:
    assert node.reaches("client", "web")
    assert NAMES.policy_table not in node.tables()


def test_who_is_denied_is_reached_by_nobody_but_its_node_and_itself(node: Guarded) -> None:
    node.put(DENY)

    assert node.barred("client", "web")
    assert node.hosts.barred("outside", addresses("web")[0], 8080)
    assert node.reaches("one", "web"), "the node's probes"
    assert node.reaches("web", "web")
    assert node.reaches("web", "client"), "answers to what it begins come in"
    assert node.reaches("client", "other"), "only selected pods are isolated"
    node.delete("deny")
    assert node.reaches("client", "web")
    assert NAMES.policy_table not in node.tables(), "the last policy leaves nothing"
    node.put(DENY)
    assert node.barred("client", "web")


def test_policies_add_up_and_name_peers_ports_and_ranges(node: Guarded) -> None:
    clients = {"podSelector": {"matchLabels": {"app": "client"}}}
    node.put(
        DENY,
        policy("clients", WEB, ingress=[{"from": [clients], "ports": [{"port": "http"}]}]),
        policy("range", WEB, ingress=[{"from": [{"ipBlock": {"cidr": "192.168.1.0/24"}}], "ports": [{"port": 8081}]}]),
    )

    assert node.reaches("client", "web", 8080)
    assert node.barred("client", "web", 8081)
    assert node.barred("other", "web", 8080)
    web = addresses("web")[0]
    assert node.hosts.reaches("outside", web, 8081)
    assert node.hosts.barred("outside", web, 8080)

    excepted = [{"from": [{"ipBlock": {"cidr": "192.168.1.0/24", "except": [f"{OUTSIDE}/32"]}}]}]
    node.change(NETWORK_POLICIES, "range", {"spec": {"ingress": excepted}})
    assert node.hosts.barred("outside", web, 8081)


def test_peers_follow_labels_of_pods_and_namespaces(node: Guarded) -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"role": "peer"}}}]
    node.put(policy("peers", WEB, ingress=[{"from": peers, "ports": [{"port": 8000, "endPort": 8090}]}]))
    assert node.barred("client", "web")

    node.change(PODS, "client", {"metadata": {"labels": {"role": "peer"}}})
    assert node.barred("client", "web")
    node.change(NAMESPACES, "default", {"metadata": {"labels": {"team": "a"}}}, namespace="")

    assert node.reaches("client", "web")
    assert node.barred("other", "web")


def test_egress_is_held_to_what_is_allowed(node: Guarded) -> None:
    client = {"matchLabels": {"app": "client"}}
    allowed = [{"to": [{"podSelector": WEB}], "ports": [{"port": "http", "protocol": "TCP"}]}]
    node.put(policy("out", client, policyTypes=["Egress"], egress=allowed))
    node.hosts.serve("outside", OUTSIDE, 8080)

    assert node.reaches("client", "web", 8080)
    assert node.barred("client", "web", 8081)
    assert node.barred("client", "other")
    assert node.hosts.barred("client", OUTSIDE, 8080)
    assert node.reaches("other", "client"), "who is asked may answer"


def test_a_connection_that_there_is_goes_on(node: Guarded) -> None:
    connection = node.hosts.connect("client", addresses("web")[0], 8080)

    node.put(DENY)

    assert node.barred("client", "web")
    assert connection() == addresses("client")[0]


def test_a_restarted_agent_leaves_no_gap_and_takes_what_changed_meanwhile(node: Guarded) -> None:
    node.put(DENY)

    node.restart()

    assert node.barred("client", "web")
    node.delete("deny")
    assert node.reaches("client", "web")
    node.remove()
    assert NAMES.policy_table not in node.tables()


def test_a_pod_is_under_its_policies_when_admit_returns(node: Guarded) -> None:
    """Before its address is in the API."""
    node.put(policy("all", {}, policyTypes=["Ingress"]))
    PODS_HERE["late"] = 8
    try:
        four, six = addresses("late")
        node.hosts.pod("late", "one", NAMES.bridge, [f"{four}/24", f"{six}/64"], 1450)
        for address in (four, six):
            node.hosts.serve("late", address, 8080)
        assert node.reaches("one", "late")
        made = {**pod("late"), "metadata": {**pod("late")["metadata"], "uid": "late", "resourceVersion": "1"}}

        node.hosts.loop("one").do(node.enforcer.admit(made, (four, six)))

        assert node.barred("client", "late")
    finally:
        del PODS_HERE["late"]
