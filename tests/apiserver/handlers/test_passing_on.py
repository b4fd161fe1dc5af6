"""Requests that go on to pods and kubelets: where they may go, and what of a client's credentials goes along."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.apiserver.auth.authenticator import ClusterAuthenticator
from navarch.apiserver.auth.base import Decision, EveryoneIsAdmin, RequestAttributes
from navarch.apiserver.handlers.targets import Target, kubelet_of, pod_target
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
