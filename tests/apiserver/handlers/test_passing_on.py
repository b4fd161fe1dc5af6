"""Requests that go on to pods and kubelets: where they may go, and what of a client's credentials goes along."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.apiserver.auth.authenticator import ClusterAuthenticator
from navarch.apiserver.auth.base import Decision, EveryoneIsAdmin, RequestAttributes
from navarch.apiserver.handlers.targets import Target, kubelet_of, node_target, pod_target, service_target
from navarch.apiserver.tunnel import _headers
from navarch.apiserver.user import User
from navarch.client.transport import Request
from tests.apiserver.conftest import PODS, Api, pod


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "::ffff:127.0.0.1", "224.0.0.1", "evil"],
)
def test_a_pod_does_not_lead_a_proxy_to_the_machine_itself(address: str) -> None:
    with pytest.raises(StatusError, match="address not allowed"):
        pod_target({"metadata": {"name": "a"}, "spec": {}, "status": {"podIP": address}}, "a:80")


def test_a_pods_own_address_is_proxied_to() -> None:
    target = pod_target({"metadata": {"name": "a"}, "spec": {}, "status": {"podIP": "10.42.0.7"}}, "a:8080")

    assert target.base_url == "http://10.42.0.7:8080"


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"])
def test_a_node_does_not_say_that_it_is_where_no_node_can_be(address: str) -> None:
    node = {"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": address}]}}

    with pytest.raises(StatusError, match="address not allowed"):
        kubelet_of(node, None)


@pytest.mark.parametrize("address", ["10.0.0.7", "127.0.0.1", "node.example.com"])
def test_a_node_may_be_anywhere_else(address: str) -> None:
    node = {"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": address}]}}

    assert kubelet_of(node, None).host == address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("n", "https://10.0.0.7:10250"),
        ("http:n:10250", "https://10.0.0.7:10250"),
        ("n:9100", "http://10.0.0.7:9100"),
        ("https:n:9100", "https://10.0.0.7:9100"),
    ],
)
def test_a_port_of_a_node_is_its_kubelet_or_what_else_listens_there(text: str, shown: str) -> None:
    node = {"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.7"}]}}

    assert node_target(node, text, None).base_url == shown


@pytest.mark.parametrize(("address", "text"), [("10.0.0.7", "n:0"), ("10.0.0.7", "n:ssh"), ("127.0.0.1", "n:9100")])
def test_no_other_port_of_a_node_is_one(address: str, text: str) -> None:
    """A kubelet may be on this machine; what else is here is not for all who may ask kubelets."""
    node = {"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": address}]}}

    with pytest.raises(StatusError, match=r"out of range|address not allowed"):
        node_target(node, text, None)


async def test_a_service_is_proxied_to_any_of_its_ready_pods_and_to_nobody_else(api: Api) -> None:
    """Whoever may write endpoints must not have the API server talk to others in its stead."""

    def endpoint(name: str, address: str, *, ready: bool = True, namespace: str = "default") -> dict[str, Any]:
        reference = {"kind": "Pod", "namespace": namespace, "name": name}
        return {"addresses": [address], "conditions": {"ready": ready}, "targetRef": reference}

    for name, address in (("a", "10.42.0.1"), ("b", "10.42.0.2"), ("c", "10.42.0.3")):
        await api.ok("POST", PODS, pod(name, node="n1"))
        status = {"podIP": address, "podIPs": [{"ip": address}]}
        assert (await api.patch(f"{PODS}/{name}/status", {"status": status}))[0] == 200
    ports = [{"name": "http", "port": 80}, {"name": "other", "port": 81}]
    service = {"metadata": {"name": "s"}, "spec": {"ports": ports}}
    await api.ok("POST", "/api/v1/namespaces/default/services", service)
    endpoints = [endpoint("a", "10.42.0.1"), endpoint("b", "10.42.0.2"), endpoint("c", "10.42.0.3", ready=False)]
    # Not the pod's address, another namespace's pod, and nobody's.
    endpoints += [endpoint("a", "10.0.0.9"), endpoint("a", "10.42.0.1", namespace="x"), {"addresses": ["10.0.0.8"]}]
    each = {
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080}],
    }
    await api.ok("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", each)
    caches = api.server.core.caches
    await caches.sync()

    def found(text: str, times: int = 1) -> set[str]:
        dice = Random(1)
        return {service_target(caches, "default", text, dice).base_url for _ in range(times)}

    assert found("s:http", 40) == found("s:80", 40) == {"http://10.42.0.1:8080", "http://10.42.0.2:8080"}
    assert found("https:s:http") <= {"https://10.42.0.1:8080", "https://10.42.0.2:8080"}
    for text in ("s:82", "s:nope", "s:other", "s"):
        with pytest.raises(StatusError, match=r"no service port 82 found|no endpoints available") as refused:
            found(text)
        assert refused.value.code == 503
    with pytest.raises(StatusError, match="invalid service request"):
        found("a:b:c:d")


async def test_a_browsers_token_stays_here() -> None:
    offered = "base64url.bearer.authorization.k8s.io.dG9rZW4, v5.channel.k8s.io"
    request = Request("GET", "/", headers={"sec-websocket-protocol": offered, "impersonate-user": "x", "a": "b"})
    tokens: Any = SimpleNamespace(api_audiences=())
    authenticator = ClusterAuthenticator(tokens, static_tokens={"token": User("jane")})

    user = await authenticator.authenticate(request, None)
    passed_on = list(_headers(request.headers.items(), Target("10.0.0.1", 80)))

    assert user.name == "jane"
    assert passed_on[1:] == ["a: b", "sec-websocket-protocol: v5.channel.k8s.io"]


class _Reader(EveryoneIsAdmin):
    """May get everything and create nothing."""

    def authorize(self, user: User, attributes: RequestAttributes) -> Decision:
        return Decision(attributes.verb == "get")


@pytest.mark.parametrize("subresource", ["exec?command=id", "attach", "portforward"])
async def test_who_may_only_read_cannot_enter_a_container_by_websocket(api: Api, subresource: str) -> None:
    await api.ok("POST", PODS, pod("a", node="n1"))
    path, _, query = f"{PODS}/a/{subresource}".partition("?")
    api.server.use(authorizer=_Reader())

    pairs = [("command", "id")] if query else []
    response = await api.server.handle(Request("GET", path, pairs, {}), User("jane", ("system:authenticated",)))

    assert response.status == 403
    assert b'cannot create resource \\"pods/' in response.body  # type: ignore[operator]


def test_a_kubelet_is_at_the_first_of_its_nodes_addresses() -> None:
    addresses = [{"type": "InternalIP", "address": address} for address in ("10.41.0.2", "fd00::2")]

    target = kubelet_of({"metadata": {"name": "n"}, "status": {"addresses": addresses}}, None)

    assert target.host == "10.41.0.2"
