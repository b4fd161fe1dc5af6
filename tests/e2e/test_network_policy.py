"""NetworkPolicies as users write them: pods on real containers, kubectl, real packets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Cluster
from .podnet import NODE, PodNet, eventually
from .test_network_services import labelled

pytestmark = [pytest.mark.e2e, pytest.mark.containers]


def policy(name: str, pods: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": pods}, **spec},
    }


@pytest.fixture(scope="module")
def net(containers: Cluster) -> Iterator[PodNet]:
    net = PodNet(containers)
    containers.kubectl("create", "namespace", net.namespace)
    try:
        net.start(labelled("server"), labelled("friend"), labelled("stranger"))
        for name in ("server", "friend", "stranger"):
            net.serve(name, 8080)
        yield net
    finally:
        net.close()
        containers.kubectl("delete", "namespace", net.namespace, "--wait=false")


def barred(net: PodNet, source: str, address: str) -> bool:
    try:
        net.ask(source, address, 8080)
    except TimeoutError:
        return True
    return False


def test_a_policy_lets_in_whom_it_names_through_a_service_too(net: PodNet) -> None:
    server = net.addresses["server"]
    service = net.service("server", selector={"app": "server"}, ports=[{"port": 8080}])["spec"]["clusterIP"]
    eventually(lambda: net.ask("stranger", service, 8080)[0], "server")

    friends = [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]
    net.start(policy("friends", {"app": "server"}, ingress=friends))

    for address in (server, service):
        eventually(lambda address=address: barred(net, "stranger", address), True)  # type: ignore[misc]
        assert net.ask("friend", address, 8080)[0] == "server"
    assert net.ask(NODE, server, 8080)[0] == "server"
    net.kubectl("label", "pod", "stranger", "app=friend", "--overwrite")
    eventually(lambda: net.ask("stranger", server, 8080)[0], "server")


def test_a_pod_is_under_its_policies_before_its_first_container_runs(net: PodNet) -> None:
    """What it says at once is not heard, and what a pod like it says that no policy selects is."""
    net.start(policy("no-way-out", {"app": "locked"}, policyTypes=["Egress"]))
    script = f"echo x | nc -w 1 {net.addresses['friend']} 8080 2>/dev/null; echo done; sleep 1000"

    net.start(labelled("locked", "sh", "-c", script), labelled("open", "sh", "-c", script))

    eventually(lambda: net.kubectl("logs", "locked").split(), ["done"])
    eventually(lambda: net.kubectl("logs", "open").split()[0], "friend")
