"""Binding, eviction, reviews, proxies' refusals: what has a handler of its own."""

from __future__ import annotations

import pytest

from navarch.api.errors import StatusError
from navarch.apiserver.auth.base import Decision, EveryoneIsAdmin, RequestAttributes
from navarch.apiserver.user import User
from navarch.client.transport import Request
from tests.apiserver.conftest import DEPLOYMENTS, PODS, Api, deployment, pod

BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


def binding(node: str, pod_name: str = "a", **metadata: object) -> dict[str, object]:
    target = {"kind": "Node", "name": node}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod_name, **metadata}, "target": target}


async def test_a_pod_is_bound_once(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))

    status, answer = await api("POST", f"{PODS}/a/binding", binding("n1"))
    assert (status, answer["status"]) == (201, "Success")
    bound = await api.ok("GET", f"{PODS}/a")
    assert bound["spec"]["nodeName"] == "n1"
    scheduled = {"type": "PodScheduled", "status": "True"}
    assert [{key: c[key] for key in scheduled} for c in bound["status"]["conditions"]] == [scheduled]

    status, answer = await api("POST", f"{PODS}/a/binding", binding("n2"))
    assert (status, answer["reason"]) == (409, "Conflict")
    assert 'pod a is already assigned to node "n1"' in answer["message"]


async def test_a_binding_can_be_posted_by_itself(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))

    await api.ok("POST", "/api/v1/namespaces/default/bindings", binding("n1"))

    assert (await api.ok("GET", f"{PODS}/a"))["spec"]["nodeName"] == "n1"


async def test_a_binding_may_name_what_is_no_node_and_the_pod_is_unsound_from_then_on(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))

    await api.ok("POST", f"{PODS}/a/binding", binding("Bad_Name"))

    status, answer = await api.patch(f"{PODS}/a", {"metadata": {"labels": {"a": "b"}}})
    assert (status, [cause["field"] for cause in answer["details"]["causes"]]) == (422, ["spec.nodeName"])
    assert (await api.patch(f"{PODS}/a/status", {"status": {"reason": "Lost"}}))[0] == 200
    assert (await api("DELETE", f"{PODS}/a"))[0] == 200


async def test_a_binding_for_another_incarnation_is_refused(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))

    status, answer = await api("POST", f"{PODS}/a/binding", binding("n1", uid="gone"))

    assert (status, answer["details"]) == (409, {"name": "a", "kind": "pods"})
    assert "Key: /registry/pods/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition" in answer["message"]
    status, answer = await api("POST", f"{PODS}/a/binding", binding("n1", resourceVersion="1"))
    assert status == 409
    assert "ResourceVersion in precondition: 1, ResourceVersion in object meta: " in answer["message"]
    # Below the pod alone can it be said which one of its name is meant.
    await api.ok("POST", "/api/v1/namespaces/default/bindings", binding("n1", uid="gone"))


@pytest.mark.parametrize("posted", ["binding", "eviction"])
async def test_what_is_posted_below_a_pod_is_of_its_kind_and_names_the_pod(api: Api, posted: str) -> None:
    await api.ok("POST", PODS, pod("a"))
    kind, version = ("Binding", "v1") if posted == "binding" else ("Eviction", "policy/v1")
    target = {"target": {"name": "n"}} if posted == "binding" else {}
    right = {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, **target}

    async def refused(body: object, query: str = "") -> tuple[int, str]:
        status, answer = await api("POST", f"{PODS}/a/{posted}{query}", body)
        return status, answer["message"]

    wrong_name = (400, f"name in URL does not match name in {kind} object")
    assert await refused({**right, "metadata": {"name": "b"}}) == wrong_name
    assert await refused({**right, "metadata": {}}) == wrong_name
    elsewhere = {"name": "a", "namespace": "other"}
    why = "the namespace of the provided object does not match the namespace sent on the request"
    assert await refused({**right, "metadata": elsewhere}) == (400, why)
    status, message = await refused({**right, "kind": "Nope"})
    assert (status, message.partition(" in scheme")[0]) == (
        400,
        f'Nope in version "{version.split("/")[-1]}" cannot be handled as a {kind}: no kind "Nope" is registered for '
        f'version "{version}"',
    )
    status, message = await refused({**right, "apiVersion": "apps/v1", "kind": "Deployment"})
    assert (status, message) == (
        400,
        f'Deployment in version "v1" cannot be handled as a {kind}: converting (v1.Deployment) to '
        f"({'core' if kind == 'Binding' else 'policy'}.{kind}): unknown conversion",
    )
    status, message = await refused({**right, "nope": 1}, "?fieldValidation=Strict")
    assert (status, message.partition(" as a ")[2]) == (400, f'{kind}: strict decoding error: unknown field "nope"')


async def test_an_eviction_of_the_elder_version_says_the_same(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))

    await api.ok(
        "POST", f"{PODS}/a/eviction", {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "a"}}
    )

    assert (await api("GET", f"{PODS}/a"))[0] == 404


async def running(api: Api, name: str) -> None:
    await api.ok("POST", PODS, pod(name, node="n1", app="web"))
    ready = [{"type": "Ready", "status": "True"}]
    status, _ = await api.patch(f"{PODS}/{name}/status", {"status": {"phase": "Running", "conditions": ready}})
    assert status == 200


async def budget(api: Api, allowed: int) -> None:
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    await api.ok("POST", BUDGETS, {"metadata": {"name": "b"}, "spec": spec})
    status = {
        "observedGeneration": 1,
        "disruptionsAllowed": allowed,
        "currentHealthy": 1 + allowed,
        "desiredHealthy": 1,
        "expectedPods": 1 + allowed,
    }
    assert (await api.patch(f"{BUDGETS}/b/status", {"status": status}))[0] == 200


async def test_eviction_spends_the_disruption_budget(api: Api) -> None:
    await running(api, "a")
    await running(api, "b")
    await budget(api, 1)

    assert (await api("POST", f"{PODS}/a/eviction", {"metadata": {"name": "a"}}))[0] == 201
    assert (await api.ok("GET", f"{PODS}/a"))["metadata"]["deletionTimestamp"]
    assert (await api.ok("GET", f"{BUDGETS}/b"))["status"]["disruptionsAllowed"] == 0

    status, answer = await api("POST", f"{PODS}/b/eviction", {"metadata": {"name": "b"}})
    assert (status, answer["reason"]) == (429, "TooManyRequests")
    assert answer["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    assert answer["details"]["causes"][0]["reason"] == "DisruptionBudget"
    assert "deletionTimestamp" not in (await api.ok("GET", f"{PODS}/b"))["metadata"]


async def test_a_pod_without_budget_is_evicted(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))

    assert (await api("POST", f"{PODS}/a/eviction", {"metadata": {"name": "a"}}))[0] == 201
    assert (await api("GET", f"{PODS}/a"))[0] == 404


async def test_a_subresource_that_a_kind_lacks_is_not_found(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))

    assert (await api("GET", f"{PODS}/a/scale"))[0] == 404
    assert (await api("GET", f"{PODS}/a/binding"))[0] == 405
    assert (await api("DELETE", f"{PODS}/a/status"))[0] == 405


async def test_streams_need_a_pod_with_a_node_and_a_container(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))
    await api.ok(
        "POST",
        PODS,
        {
            **pod("b", node="n1"),
            "spec": {"nodeName": "n1", "containers": [{"name": "x", "image": "i"}, {"name": "y", "image": "i"}]},
        },
    )

    status, answer = await api("POST", f"{PODS}/a/exec?command=ls")
    assert (status, answer["message"]) == (400, "pod a does not have a host assigned")
    status, answer = await api("GET", f"{PODS}/b/log")
    assert (status, answer["message"]) == (
        400,
        "a container name must be specified for pod b, choose one of: [x y]",
    )
    status, answer = await api("GET", f"{PODS}/b/log?container=z")
    assert (status, answer["message"]) == (400, "container z is not valid for pod b")
    assert (await api("GET", f"{PODS}/missing/log"))[0] == 404


@pytest.mark.parametrize(
    ("query", "refused"),
    [
        ("tailLines=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("limitBytes=", 'strconv.ParseInt: parsing "": invalid syntax'),
        ("sinceTime=x", 'parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"'),
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
        (
            "sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z",
            ": Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        ("stream=Stdout", "stream: Forbidden: may not be specified"),
    ],
)
async def test_what_is_asked_of_a_log_must_make_sense(api: Api, query: str, refused: str) -> None:
    status, answer = await api("GET", f"{PODS}/missing/log?{query}")

    invalid = "Invalid value: " in refused or "Forbidden" in refused
    assert status == (422 if invalid else 400)
    assert answer["message"] == (f'PodLogOptions "missing" is invalid: {refused}' if invalid else refused)


async def test_all_containers_are_to_choose_from(api: Api) -> None:
    spec = {
        "initContainers": [{"name": "first", "image": "i"}],
        "containers": [{"name": "x", "image": "i"}, {"name": "y", "image": "i"}],
    }
    metadata = {"name": "a", "annotations": {"kubectl.kubernetes.io/default-container": "x"}}
    await api.ok("POST", PODS, {"metadata": metadata, "spec": spec})

    _, answer = await api("GET", f"{PODS}/a/log")

    assert answer["message"] == "a container name must be specified for pod a, choose one of: [first x y]"


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("a", "address not allowed"),
        ("ftp:a:80", 'invalid pod request "ftp:a:80"'),
        ("http:a:80:1", 'invalid pod request "http:a:80:1"'),
        (":80", 'invalid pod request ":80"'),
    ],
)
async def test_what_cannot_be_proxied(api: Api, name: str, refused: str) -> None:
    await api.ok("POST", PODS, pod("a"))

    status, answer = await api("GET", f"{PODS}/{name}/proxy/")

    assert (status, answer["message"]) == (400, refused)


class OnlyRead(EveryoneIsAdmin):
    """An authorizer that lets `reader` read pods and `boss` do anything."""

    def authorize(self, user: User, attributes: RequestAttributes) -> Decision:
        if user.name == "boss":
            return Decision(True)
        return Decision(attributes.resource == "pods" and attributes.verb in ("get", "list"))


async def test_forbidden_says_who_may_not_do_what(api: Api) -> None:
    api.server.use(authorizer=OnlyRead())
    request = Request("GET", "/api/v1/namespaces/default/secrets", (), {})

    response = await api.server.handle(request, User("jane"))

    assert response.status == 403
    assert isinstance(response.body, bytes)
    assert (
        b'secrets is forbidden: User \\"jane\\" cannot list resource \\"secrets\\" '
        b'in API group \\"\\" in the namespace \\"default\\"' in response.body
    )


async def test_acting_as_somebody_else_needs_the_right_to(api: Api) -> None:
    api.server.use(authorizer=OnlyRead())
    headers = {"impersonate-user": "boss"}
    request = Request("GET", "/api/v1/namespaces/default/secrets", (), headers)

    assert (await api.server.handle(request, User("jane"))).status == 403
    request = Request("GET", "/api/v1/namespaces/default/secrets", (), {"impersonate-user": "jane"})
    assert (await api.server.handle(request, User("boss"))).status == 403
    request = Request("GET", PODS, (), {"impersonate-user": "jane"})
    assert (await api.server.handle(request, User("boss"))).status == 200


async def test_access_reviews_ask_the_authorizer(api: Api) -> None:
    api.server.use(authorizer=OnlyRead())
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    asked = {"verb": "delete", "resource": "pods", "namespace": "default"}
    api.server.use(authorizer=_As(OnlyRead(), "boss"))

    review = await api.ok("POST", path, {"spec": {"user": "jane", "resourceAttributes": asked}})
    assert review["status"] == {"allowed": False}
    review = await api.ok("POST", path, {"spec": {"user": "boss", "resourceAttributes": asked}})
    assert review["status"] == {"allowed": True}
    assert (await api("POST", path, {"spec": {"user": "jane"}}))[0] == 422


class _As(EveryoneIsAdmin):
    """Lets the test's own requests through and answers reviews as another authorizer would."""

    def __init__(self, inner: OnlyRead, boss: str) -> None:
        self._inner = inner

    def authorize(self, user: User, attributes: RequestAttributes) -> Decision:
        if user.name.startswith("system:"):
            return Decision(True)
        return self._inner.authorize(user, attributes)


async def test_who_am_i(api: Api) -> None:
    review = await api.ok("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})

    assert review["status"]["userInfo"]["username"] == "system:apiserver"


async def test_an_unknown_token_is_not_authenticated(api: Api) -> None:
    review = await api.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "x"}})

    assert review["status"].get("authenticated") is None
    assert review["status"]["error"]


async def test_health_version_discovery_and_metrics(api: Api) -> None:
    ready = await api.send("GET", "/readyz")
    assert (ready.status, ready.body) == (200, b"ok")
    verbose = await api.send("GET", "/livez?verbose=")
    assert isinstance(verbose.body, bytes)
    assert b"[+]etcd ok" in verbose.body
    assert (await api.send("GET", "/healthz/nonsense")).status == 404

    assert (await api.ok("GET", "/version"))["gitVersion"].startswith("v1.37.0+navarch")
    groups = await api.ok("GET", "/apis")
    assert "apps" in [group["name"] for group in groups["groups"]]
    resources = await api.ok("GET", "/apis/apps/v1")
    assert "deployments/scale" in [resource["name"] for resource in resources["resources"]]
    aggregated = await api.ok(
        "GET", "/apis", accept="application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    )
    assert aggregated["kind"] == "APIGroupDiscoveryList"

    await api.ok("POST", DEPLOYMENTS, deployment("web"))
    metrics = await api.send("GET", "/metrics")
    assert isinstance(metrics.body, bytes)
    assert b'apiserver_storage_objects{resource="deployments.apps"} 1' in metrics.body


async def test_documents_are_not_sent_twice_to_who_has_them(api: Api) -> None:
    first = await api.send("GET", "/apis")
    api.headers["if-none-match"] = first.headers["ETag"]

    assert (await api.send("GET", "/apis")).status == 304


async def test_tables_yaml_and_metadata_only(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))

    table = await api.ok("GET", PODS, accept="application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
    assert (table["kind"], table["rows"][0]["cells"][0]) == ("Table", "a")
    metadata = await api.ok("GET", f"{PODS}/a", accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
    assert (metadata["kind"], "spec" in metadata) == ("PartialObjectMetadata", False)
    text = await api.send("GET", f"{PODS}/a", accept="application/yaml")
    assert isinstance(text.body, bytes)
    assert text.content_type == "application/yaml"
    assert b"kind: Pod" in text.body


async def test_a_server_without_tokens_issues_none(api: Api) -> None:
    with pytest.raises(StatusError):
        await api.server.core.authenticator.review_token("x", ())
