"""Webhooks that decide on access: asked in their order, remembered, and told of only what their conditions let."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from navarch.apiserver.auth.access_webhook import REQUESTS, AccessWebhook, AccessWebhookSettings, InOrder, Plain
from navarch.apiserver.auth.authorization_config import AuthorizationError, parse
from navarch.apiserver.auth.base import Decision, RequestAttributes
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.client.config import Target
from navarch.world import RealWorld
from tests.apiserver.conftest import CONFIG_MAPS, Api

JANE = User("jane", ("developers",), "1", {"k": ("v",)})
PODS = RequestAttributes("get", "", "v1", "pods", "log", "default", "web")
HEALTH = RequestAttributes("get", path="/healthz")


class Reviewer:
    """A webhook that answers as a test says, and remembers what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Any] = []
        self.status: Any = {"allowed": True, "reason": "because"}

    async def answer(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.asked.append(review["spec"])
        return web.json_response({"status": self.status})

    def webhook(self, **changes: Any) -> AccessWebhook:
        settings = AccessWebhookSettings("w", Target(f"{self.url}/authorize", None, None), **changes)
        return AccessWebhook(settings, RealWorld(1))


@pytest.fixture
async def reviewer(served: tuple[str, list[Any]]) -> Reviewer:
    made = Reviewer(served[0])
    served[1].append(made.answer)
    return made


async def test_a_webhook_is_asked_once_about_the_same(reviewer: Reviewer) -> None:
    webhook = reviewer.webhook()

    decisions = [await webhook.decide(JANE, PODS) for _ in range(3)]
    await webhook.decide(JANE, HEALTH)

    assert decisions == [Decision(True, "because")] * 3
    assert reviewer.asked == [
        {
            "resourceAttributes": {
                "namespace": "default",
                "verb": "get",
                "version": "v1",
                "resource": "pods",
                "subresource": "log",
                "name": "web",
            },
            "user": "jane",
            "groups": ["developers"],
            "extra": {"k": ["v"]},
            "uid": "1",
        },
        {
            "nonResourceAttributes": {"path": "/healthz", "verb": "get"},
            "user": "jane",
            "groups": ["developers"],
            "extra": {"k": ["v"]},
            "uid": "1",
        },
    ]


@pytest.mark.parametrize(
    ("status", "decision"),
    [
        ({"allowed": False, "reason": "no idea"}, Decision(False, "no idea")),
        ({"allowed": False, "denied": True, "reason": "never"}, Decision(False, "never", denied=True)),
        ("nonsense", Decision(False)),
    ],
)
async def test_what_a_webhook_may_say(reviewer: Reviewer, status: Any, decision: Decision) -> None:
    reviewer.status = status

    assert await reviewer.webhook().decide(JANE, PODS) == decision


async def test_it_is_asked_only_where_its_conditions_hold(reviewer: Reviewer) -> None:
    condition = REQUESTS.compile("has(request.resourceAttributes) && request.resourceAttributes.resource == 'pods'")
    webhook = reviewer.webhook(conditions=[condition])

    await webhook.decide(JANE, HEALTH)
    await webhook.decide(JANE, PODS)

    assert len(reviewer.asked) == 1


@pytest.mark.parametrize("denies", [True, False])
async def test_one_that_cannot_be_asked_forbids_or_has_no_opinion(denies: bool) -> None:
    settings = AccessWebhookSettings("w", Target("http://127.0.0.1:1/", None, None), denies=denies)

    assert await AccessWebhook(settings, RealWorld(1)).decide(JANE, PODS) == Decision(False, denied=denies)


async def test_the_first_with_an_opinion_decides(reviewer: Reviewer) -> None:
    reviewer.status = {"denied": True, "reason": "never"}
    allows = Plain(lambda user, asked: Decision(True, "roles"))
    unsure = Plain(lambda user, asked: Decision(False, "roles do not say"))

    assert (await InOrder([reviewer.webhook(), allows])(JANE, PODS)).denied
    assert (await InOrder([allows, reviewer.webhook()])(JANE, PODS)).allowed
    assert await InOrder([unsure, unsure])(JANE, PODS) == Decision(False, "roles do not say\nroles do not say")
    assert (await InOrder([reviewer.webhook()])(User("root", ("system:masters",)), PODS)).allowed


async def test_requests_and_reviews_are_decided_so(server: ApiServer, api: Api, reviewer: Reviewer) -> None:
    server.core.deciding = InOrder([reviewer.webhook()])
    jane = Api(server, JANE)
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "secrets"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

    allowed = await jane.ok("GET", CONFIG_MAPS)
    asked = await jane.ok("POST", path, review)
    reviewer.status = {"allowed": False, "reason": "not today"}
    status, refused = await Api(server, User("joe")).__call__("GET", CONFIG_MAPS)

    assert allowed["kind"] == "ConfigMapList"
    assert asked["status"] == {"allowed": True, "reason": "because"}
    assert (status, refused["message"].endswith(": not today")) == (403, True)


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: w
clusters: [{name: w, cluster: {server: "http://127.0.0.1:1/authorize"}}]
users: [{name: w, user: {}}]
contexts: [{name: w, context: {cluster: w, user: w}}]
"""
WEBHOOK: dict[str, Any] = {
    "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "w.kubeconfig"},
    "subjectAccessReviewVersion": "v1",
    "failurePolicy": "Deny",
    "authorizedTTL": "1m",
    "timeout": "3s",
    "matchConditionSubjectAccessReviewVersion": "v1",
    "matchConditions": [{"expression": "request.user != 'admin'"}],
}


def webhook(**changes: Any) -> dict[str, Any]:
    return {"type": "Webhook", "name": "w", "webhook": {**WEBHOOK, **changes}}


def configuration(*authorizers: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthorizationConfiguration",
        "authorizers": list(authorizers),
    }


def test_a_configuration_says_the_order(tmp_path: Path) -> None:
    (tmp_path / "w.kubeconfig").write_text(KUBECONFIG)
    document = configuration(
        {"type": "Node", "name": "node"},
        {"type": "Webhook", "name": "w", "webhook": WEBHOOK},
        {"type": "RBAC", "name": "r"},
    )

    node, webhook, rbac = parse(document, tmp_path)

    assert (node, rbac) == ("Node", "RBAC")
    assert isinstance(webhook, AccessWebhookSettings)
    assert (webhook.target.server, webhook.denies, webhook.authorized_s) == ("http://127.0.0.1:1/authorize", True, 60.0)


@pytest.mark.parametrize(
    ("authorizers", "message"),
    [
        ([], "at least one authorization mode must be defined"),
        ([{"type": "RBAC"}], r"authorizers\[0\].name: Required value"),
        (
            [{"type": "RBAC", "name": "a"}, {"type": "Node", "name": "a"}],
            r'authorizers\[1\].name: Duplicate value: "a"',
        ),
        ([{"type": "Magic", "name": "a"}], r'authorizers\[0\].type: Unsupported value: "Magic"'),
        ([{"type": "Webhook", "name": "a"}], "webhook: Required value"),
        ([{"type": "Webhook", "name": "a", "webhook": {**WEBHOOK, "failurePolicy": ""}}], "failurePolicy: Unsupported"),
        ([{"type": "Webhook", "name": "a", "webhook": WEBHOOK}], "cannot read kubeconfig"),
        (
            [{"type": "RBAC", "name": "a"}, {"type": "RBAC", "name": "b"}],
            r"authorizers\[1\].type: Duplicate value",
        ),
        ([{"type": "RBAC", "name": "a", "webhook": WEBHOOK}], "may only be specified when type=Webhook"),
        ([4], r"authorizers\[0\]: must be an object"),
        ([{"type": "RBAC", "nane": "a"}], r'unknown field "authorizers\[0\].nane"'),
        ([webhook(timeout="1m")], "timeout: Invalid value"),
        ([webhook(timeout="soon")], "timeout: Invalid value"),
        ([webhook(timeout=3)], "timeout: must be a string"),
        ([webhook(matchConditionSubjectAccessReviewVersion="")], "SubjectAccessReviewVersion: Unsupported value"),
        ([webhook(matchConditions=[{"expression": "request.user"}])], "must evaluate to bool"),
        ([webhook(matchConditions=[{"expression": "true"}] * 2)], r"matchConditions\[1\].expression: Duplicate value"),
        ([webhook(matchConditions=[{"expression": "true"}] * 65)], "must have at most 64 items"),
        ([webhook(matchConditions="true")], "matchConditions: must be a list"),
    ],
)
def test_configurations_that_cannot_be_are_refused(
    tmp_path: Path, authorizers: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(AuthorizationError, match=message):
        parse(configuration(*authorizers), tmp_path)
