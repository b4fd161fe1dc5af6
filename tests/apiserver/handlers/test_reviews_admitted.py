"""Reviews go through admission like objects that are made, and say what they could not find out."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.apiserver.admission.base import Attributes, Plugin
from navarch.apiserver.admission.chain import Chain
from navarch.apiserver.auth.authorizer import ClusterAuthorizer
from navarch.apiserver.auth.base import Decision, RequestAttributes
from navarch.apiserver.auth.node import NodeAuthorizer
from navarch.apiserver.auth.node_graph import NodeGraph
from navarch.apiserver.auth.rbac import RBACAuthorizer
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from tests.apiserver.conftest import Api

AUTHORIZATION = "/apis/authorization.k8s.io/v1"
AUTHENTICATION = "/apis/authentication.k8s.io/v1"
ASKED = {"resourceAttributes": {"verb": "get", "resource": "pods"}}
REVIEWS: list[tuple[str, dict[str, Any]]] = [
    (f"{AUTHORIZATION}/subjectaccessreviews", {"spec": {**ASKED, "user": "jane"}}),
    (f"{AUTHORIZATION}/selfsubjectaccessreviews", {"spec": ASKED}),
    (
        f"{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews",
        {"spec": {"resourceAttributes": {**ASKED["resourceAttributes"], "namespace": "default"}, "user": "jane"}},
    ),
    (f"{AUTHORIZATION}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}}),
    (f"{AUTHENTICATION}/selfsubjectreviews", {}),
    (f"{AUTHENTICATION}/tokenreviews", {"spec": {"token": "t"}}),
]


class Guard(Plugin):
    """Remembers what came; refuses it if it shall."""

    name = "Guard"

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.refuses = False

    async def mutate(self, attributes: Attributes) -> None:
        self.seen.append(("mutate", attributes.kind.resource.plural))
        assert attributes.obj is not None
        if attributes.kind.resource.plural == "subjectaccessreviews":
            attributes.obj["spec"]["user"] = "changed"

    async def validate(self, attributes: Attributes) -> None:
        self.seen.append(("validate", attributes.kind.resource.plural))
        if self.refuses:
            raise attributes.refused("not today")


@pytest.mark.parametrize(("path", "review"), REVIEWS)
async def test_reviews_are_admitted_and_can_be_refused(
    server: ApiServer, api: Api, path: str, review: dict[str, Any]
) -> None:
    guard = Guard()
    server.use(admission=Chain([guard]))
    allowed, answer = await api("POST", path, review)
    guard.refuses = True
    refused, why = await api("POST", path, review)

    plural = path.rpartition("/")[2]
    assert (allowed, refused) == (201, 403)
    assert guard.seen == [("mutate", plural), ("validate", plural)] * 2
    assert why["message"].endswith("is forbidden: not today")
    if plural == "subjectaccessreviews":
        assert answer["spec"]["user"] == "changed"


@pytest.mark.parametrize(
    ("path", "review", "code"),
    [
        (f"{AUTHORIZATION}/selfsubjectaccessreviews", {"spec": {}}, 422),
        (f"{AUTHORIZATION}/selfsubjectrulesreviews", {"spec": {}}, 400),
        (f"{AUTHENTICATION}/tokenreviews", {"spec": {}}, 400),
    ],
)
async def test_what_makes_no_sense_is_refused_before_it_is_validated(
    server: ApiServer, api: Api, path: str, review: dict[str, Any], code: int
) -> None:
    guard = Guard()
    guard.refuses = True
    server.use(admission=Chain([guard]))

    assert (await api("POST", path, review))[0] == code


async def rules_of(server: ApiServer, user: User) -> Any:
    path = f"{AUTHORIZATION}/selfsubjectrulesreviews"
    return (await Api(server, user).ok("POST", path, {"spec": {"namespace": "default"}}))["status"]


@pytest.fixture
def cluster(server: ApiServer) -> ApiServer:
    """A server that decides by nodes and roles, and in which everybody may ask."""
    authorizer = ClusterAuthorizer(RBACAuthorizer(server.reader), NodeAuthorizer(NodeGraph(server.core.caches)))
    everybody = Decision(True)
    authorizer.authorize = lambda user, asked: everybody  # type: ignore[method-assign]
    server.use(authorizer=authorizer)
    return server


async def test_rules_of_people_are_complete(cluster: ApiServer) -> None:
    status = await rules_of(cluster, User("jane"))

    assert status["incomplete"] is False
    assert "evaluationError" not in status


async def test_rules_of_nodes_are_not(cluster: ApiServer) -> None:
    status = await rules_of(cluster, User("system:node:n", ("system:nodes",)))

    assert status["incomplete"] is True
    assert status["evaluationError"] == "node authorizer does not support user rule resolution"


async def test_roles_that_are_missing_are_named(cluster: ApiServer, api: Api) -> None:
    binding = {
        "metadata": {"name": "b"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "none", "apiGroup": "rbac.authorization.k8s.io"},
    }
    await api.ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)

    status = await rules_of(cluster, User("jane"))

    assert status["incomplete"] is False
    assert status["evaluationError"] == 'clusterroles.rbac.authorization.k8s.io "none" not found'


async def test_where_a_webhook_decides_rules_are_incomplete(cluster: ApiServer) -> None:
    async def decide(user: User, asked: RequestAttributes) -> Decision:
        return Decision(True)

    cluster.core.deciding = decide

    status = await rules_of(cluster, User("jane"))

    assert status["incomplete"] is True
    assert status["evaluationError"] == "webhook authorizer does not support user rule resolution"


async def test_a_server_that_is_about_to_end_says_so_and_serves(server: ApiServer, api: Api) -> None:
    server.announce_end()

    assert [(await api("GET", path))[0] for path in ("/readyz", "/livez", "/api/v1/namespaces")] == [500, 200, 200]
