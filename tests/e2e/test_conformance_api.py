"""What Kubernetes' conformance requirements ask of the API server itself: discovery, lists in chunks, watches,
namespaces, accounts and their tokens, reviews, certificate requests, field validation."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest

from .conftest import Cluster
from .objects import deployment, pod, service
from .rest import APPLY, JSON_PATCH, MERGE, STRATEGIC, Rest
from .samples import SAMPLES

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@pytest.fixture(scope="module")
def rest(simulated: Cluster) -> Rest:
    return Rest(simulated)


def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels or {}}, "data": data}


# Discovery


def test_every_group_prefers_one_of_its_versions(rest: Rest) -> None:
    groups = rest.ok("GET", "/apis")["groups"]
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= {group["name"] for group in groups}
    for group in groups:
        assert group["preferredVersion"] in group["versions"]
        assert group["preferredVersion"]["groupVersion"] == f"{group['name']}/{group['preferredVersion']['version']}"
        assert rest.ok("GET", f"/apis/{group['name']}")["preferredVersion"] == group["preferredVersion"]


@pytest.mark.parametrize("root", ["/api", "/apis"])
def test_aggregated_discovery_tells_of_every_kind(rest: Rest, root: str) -> None:
    document = rest.ok("GET", root, accept=f"{AGGREGATED},application/json")
    told = {
        (group["metadata"].get("name", ""), version["version"], resource["resource"])
        for group in document["items"]
        for version in group["versions"]
        for resource in version["resources"]
    }

    assert (document["kind"], document["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    wanted = {(s.group, s.version, s.plural) for s in SAMPLES if bool(s.group) == (root == "/apis")}
    assert wanted <= told


def test_unaggregated_discovery_remains(rest: Rest) -> None:
    assert rest.ok("GET", "/api")["kind"] == "APIVersions"
    assert rest.ok("GET", "/apis")["kind"] == "APIGroupList"


@pytest.mark.parametrize(
    ("path", "subresource"),
    [
        ("/apis/certificates.k8s.io/v1", "certificatesigningrequests/approval"),
        ("/apis/flowcontrol.apiserver.k8s.io/v1", "flowschemas/status"),
        ("/apis/networking.k8s.io/v1", "ingresses/status"),
        ("/apis/apps/v1", "deployments/scale"),
        ("/api/v1", "pods/eviction"),
        ("/api/v1", "pods/resize"),
    ],
)
def test_subresources_are_discovered(rest: Rest, path: str, subresource: str) -> None:
    names = {resource["name"] for resource in rest.ok("GET", path)["resources"]}
    assert subresource in names


# Lists and watches


def test_chunks_are_of_one_revision_and_count_what_remains(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/podtemplates"
    template = {"metadata": {}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    for index in range(13):
        rest.ok("POST", path, {"metadata": {"name": f"t-{index:02}"}, "template": template})

    seen: list[str] = []
    token, revision = "", ""
    while True:
        chunk = rest.ok("GET", path, limit=5, **({"continue": token} if token else {}))
        assert len(chunk["items"]) <= 5
        assert revision in ("", chunk["metadata"]["resourceVersion"])
        revision = chunk["metadata"]["resourceVersion"]
        seen += [item["metadata"]["name"] for item in chunk["items"]]
        assert chunk["metadata"].get("remainingItemCount", 0) == 13 - len(seen)
        if len(seen) == 5:
            rest.ok("POST", path, {"metadata": {"name": "t-00-late"}, "template": template})
            rest.ok("DELETE", f"{path}/t-12")
        token = chunk["metadata"].get("continue", "")
        if not token:
            break

    assert seen == [f"t-{index:02}" for index in range(13)]
    assert len(rest.ok("GET", path)["items"]) == 13


def test_an_expired_chunk_offers_an_inconsistent_continuation(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for name in ("a", "b", "c"):
        rest.ok("POST", path, config_map(name))
    first = rest.ok("GET", path, limit=1)["metadata"]["continue"]
    token = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    # Nothing older than the first revision can still be there.
    old = base64.urlsafe_b64encode(json.dumps({**token, "rv": 1}).encode()).rstrip(b"=").decode()

    status, answer = rest.send("GET", path, limit=1, **{"continue": old})

    if status == 410:
        assert answer["reason"] == "Expired"
        again = rest.ok("GET", path, limit=1, **{"continue": answer["metadata"]["continue"]})
        assert [item["metadata"]["name"] for item in again["items"]] == ["b"]
        assert again["metadata"]["continue"]
    else:
        assert (status, answer["items"]) == (200, [])


def test_a_watch_goes_on_from_any_revision(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    created = rest.ok("POST", path, config_map("a"))
    revisions = [created["metadata"]["resourceVersion"]]
    for value in ("1", "2", "3"):
        changed = rest.ok("PATCH", f"{path}/a", {"data": {"v": value}}, content_type=MERGE)
        revisions.append(changed["metadata"]["resourceVersion"])
    rest.ok("DELETE", f"{path}/a")

    for start in range(len(revisions)):
        seen = []
        query = {"resourceVersion": revisions[start], "fieldSelector": "metadata.name=a"}
        for event in rest.watch(path, **query):
            seen.append((event["type"], event["object"]["metadata"]["resourceVersion"]))
            if event["type"] == "DELETED":
                break
        assert seen[:-1] == [("MODIFIED", revision) for revision in revisions[start + 1 :]]
        assert int(seen[-1][1]) > int(revisions[-1])


def test_an_object_that_leaves_a_selector_is_deleted_from_the_watch(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    start = rest.ok("GET", path)["metadata"]["resourceVersion"]
    rest.ok("POST", path, config_map("a", {"watch": "this"}))
    for labels in ({"watch": "that"}, {"other": "x"}, {"watch": "this"}):
        rest.ok("PATCH", f"{path}/a", {"metadata": {"labels": labels}}, content_type=MERGE)
    rest.ok("DELETE", f"{path}/a")

    seen = []
    for event in rest.watch(path, resourceVersion=start, labelSelector="watch=this"):
        seen.append(event["type"])
        if seen.count("DELETED") == 2:
            break

    assert seen == ["ADDED", "DELETED", "ADDED", "DELETED"]


def test_a_watch_begins_with_what_is_there_and_says_where_that_ends(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    rest.ok("POST", path, config_map("a", {"w": "1"}))
    query = {
        "labelSelector": "w=1",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }

    events = rest.watch(path, **query)
    first, second = next(events), next(events)

    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "a")
    assert second["type"] == "BOOKMARK"
    assert second["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


# Field validation and dry runs


@pytest.mark.parametrize("unknown", [{"metadata": {"name": "web", "nonsense": 1}}, {"spec": {"nonsense": 1}}])
def test_unknown_fields_are_refused_strictly(rest: Rest, namespace: str, unknown: Any) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    wanted = deployment("web")
    for part, value in unknown.items():
        wanted[part] = {**wanted[part], **value}

    answer = rest.refused(400, "POST", path, wanted, fieldValidation="Strict")

    assert "strict decoding error: unknown field" in answer["message"]
    rest.ok("POST", path, wanted, fieldValidation="Ignore")


def test_duplicate_fields_are_refused_strictly(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    body = b'{"metadata":{"name":"a"},"data":{"x":"1"},"data":{"x":"2"}}'

    answer = rest.refused(400, "POST", path, body, fieldValidation="Strict")

    assert 'duplicate field "data"' in answer["message"]
    assert rest.ok("POST", path, body)["data"] == {"x": "2"}


def test_a_dry_run_changes_nothing(rest: Rest, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    rest.ok("POST", path, deployment("web", 0))
    web = f"{path}/web"
    before = rest.ok("GET", web)["metadata"]["generation"]
    bigger = {"spec": {"replicas": 7}}

    for content_type in (MERGE, STRATEGIC):
        assert rest.ok("PATCH", web, bigger, content_type=content_type, dryRun="All")["spec"]["replicas"] == 7
    operations = [{"op": "replace", "path": "/spec/replicas", "value": 7}]
    assert rest.ok("PATCH", web, operations, content_type=JSON_PATCH, dryRun="All")["spec"]["replicas"] == 7
    config = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, **bigger}
    rest.ok("PATCH", web, config, content_type=APPLY, dryRun="All", fieldManager="m", force="true")
    assert rest.ok("PATCH", f"{web}/scale", bigger, content_type=MERGE, dryRun="All")["spec"]["replicas"] == 7
    rest.ok("DELETE", web, dryRun="All")

    after = rest.ok("GET", web)
    assert (after["spec"]["replicas"], after["metadata"]["generation"]) == (0, before)
    assert "deletionTimestamp" not in after["metadata"]


# Namespaces


def test_a_namespaces_finalizers_come_and_go_through_finalize(rest: Rest, simulated: Cluster) -> None:
    name = f"final-{uuid.uuid4().hex[:6]}"
    path = f"/api/v1/namespaces/{name}"
    rest.ok("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    current = rest.ok("GET", path)

    current["spec"]["finalizers"].append("e2e.example.com/fake")
    added = rest.ok("PUT", f"{path}/finalize", current)
    assert added["spec"]["finalizers"] == ["kubernetes", "e2e.example.com/fake"]

    current = rest.ok("GET", path)
    current["spec"]["finalizers"] = ["kubernetes"]
    rest.ok("PUT", f"{path}/finalize", current)
    assert rest.ok("GET", path)["spec"]["finalizers"] == ["kubernetes"]
    rest.ok("DELETE", path)
    simulated.wait_until(lambda: rest.send("GET", path)[0] == 404, 20, "the namespace is still there")


def test_deleting_a_namespace_removes_its_pods_first(rest: Rest, simulated: Cluster) -> None:
    name = f"doomed-{uuid.uuid4().hex[:6]}"
    path = f"/api/v1/namespaces/{name}"
    rest.ok("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    rest.ok("POST", f"{path}/services", service("web"))
    rest.ok("POST", f"{path}/configmaps", config_map("kept"))
    simulated.wait_until(lambda: rest.send("GET", f"{path}/serviceaccounts/default")[0] == 200, 20, "no account")
    held = pod("held")
    held["metadata"]["finalizers"] = ["e2e.example.com/hold"]
    rest.ok("POST", f"{path}/pods", held)

    rest.ok("DELETE", path)

    def held_back() -> bool:
        conditions = rest.ok("GET", path).get("status", {}).get("conditions", [])
        return any(c["type"] == "NamespaceContentRemaining" and c["status"] == "True" for c in conditions)

    simulated.wait_until(held_back, 30, "the namespace does not say what keeps it")
    assert rest.ok("GET", path)["status"]["phase"] == "Terminating"
    assert rest.send("GET", f"{path}/configmaps/kept")[0] == 200
    refused = rest.refused(403, "POST", f"{path}/configmaps", config_map("late"))
    assert "being terminated" in refused["message"]
    rest.ok("PATCH", f"{path}/pods/held", {"metadata": {"finalizers": None}}, content_type=MERGE)
    simulated.wait_until(lambda: rest.send("GET", path)[0] == 404, 40, "the namespace is still there")


def test_the_default_service_has_endpoints(rest: Rest) -> None:
    addresses = rest.ok("GET", "/api/v1/namespaces/default/endpoints/kubernetes")["subsets"][0]["addresses"]
    slices = rest.ok("GET", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices")["items"]
    mine = [s for s in slices if s["metadata"]["labels"].get("kubernetes.io/service-name") == "kubernetes"]

    assert addresses
    assert mine[0]["endpoints"][0]["addresses"] == [addresses[0]["ip"]]
    everywhere = rest.ok("GET", "/api/v1/services")["items"]
    assert ("default", "kubernetes") in [(s["metadata"]["namespace"], s["metadata"]["name"]) for s in everywhere]


# Accounts, tokens, reviews


def test_a_service_account_token_is_issued_and_reviewed(rest: Rest, namespace: str) -> None:
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    rest.ok("POST", accounts, {"metadata": {"name": "robot"}})
    request = {"spec": {"expirationSeconds": 3600}}

    token = rest.ok("POST", f"{accounts}/robot/token", request)["status"]["token"]
    review = {"spec": {"token": token}}
    status = rest.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]

    assert status["authenticated"] is True
    assert status["user"]["username"] == f"system:serviceaccount:{namespace}:robot"
    assert f"system:serviceaccounts:{namespace}" in status["user"]["groups"]
    rest.ok("DELETE", f"{accounts}/robot")
    status = rest.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]
    assert not status.get("authenticated")


def test_tokens_can_be_checked_by_openid_discovery(rest: Rest, namespace: str) -> None:
    document = rest.ok("GET", "/.well-known/openid-configuration")
    keys = rest.ok("GET", "/openid/v1/jwks", accept="*/*")["keys"]
    token = rest.ok("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token", {})["status"]["token"]
    header, claims = (json.loads(base64.urlsafe_b64decode(f"{part}==")) for part in token.split(".")[:2])

    assert claims["iss"] == document["issuer"]
    assert document["jwks_uri"].endswith("/openid/v1/jwks")
    assert header["kid"] in [key["kid"] for key in keys]
    assert header["alg"] in document["id_token_signing_alg_values_supported"]


def test_every_namespace_has_the_root_certificate(rest: Rest, namespace: str, simulated: Cluster) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt"
    simulated.wait_until(lambda: rest.send("GET", path)[0] == 200, 20, "not published")
    rest.ok("DELETE", path)
    simulated.wait_until(lambda: rest.send("GET", path)[0] == 200, 20, "not published again")
    rest.ok("PATCH", path, {"data": {"ca.crt": "changed"}}, content_type=MERGE)
    simulated.wait_until(lambda: "BEGIN" in rest.ok("GET", path)["data"]["ca.crt"], 20, "not set right")


def test_reviews_agree_with_what_is_allowed(rest: Rest, namespace: str, simulated: Cluster) -> None:
    rest.ok("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "reader"}})
    user = f"system:serviceaccount:{namespace}:reader"
    attributes = {"namespace": namespace, "verb": "list", "resource": "configmaps"}
    spec = {"resourceAttributes": attributes, "user": user}
    root = "/apis/authorization.k8s.io/v1"
    local = f"{root}/namespaces/{namespace}/localsubjectaccessreviews"

    def answers() -> tuple[bool, bool, bool]:
        subject = rest.ok("POST", f"{root}/subjectaccessreviews", {"spec": spec})["status"]["allowed"]
        locally = rest.ok("POST", local, {"metadata": {"namespace": namespace}, "spec": spec})["status"]["allowed"]
        done = simulated.try_kubectl("get", "configmaps", "-n", namespace, f"--as={user}")
        return subject, locally, done.returncode == 0

    assert answers() == (False, False, False)
    simulated.kubectl("create", "rolebinding", "r", "-n", namespace, "--clusterrole=view", f"--user={user}")
    assert answers() == (True, True, True)


def test_one_may_ask_who_one_is(rest: Rest) -> None:
    answer = rest.ok("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    assert answer["status"]["userInfo"]["username"]
    assert "system:authenticated" in answer["status"]["userInfo"]["groups"]


def test_a_certificate_request_is_approved_only_through_its_subresource(rest: Rest) -> None:
    sample = next(sample for sample in SAMPLES if sample.plural == "certificatesigningrequests")
    name = f"csr-{uuid.uuid4().hex[:6]}"
    path = f"{sample.collection('')}/{name}"
    rest.ok("POST", sample.collection(""), sample.made(name, {}))
    approved = {"type": "Approved", "status": "True", "reason": "Test", "message": "by a test"}

    rest.ok("PATCH", path, {"status": {"conditions": [approved]}}, content_type=MERGE)
    assert "conditions" not in rest.ok("GET", path).get("status", {})
    rest.send("PATCH", f"{path}/status", {"status": {"conditions": [approved]}}, content_type=MERGE)
    assert not rest.ok("GET", path).get("status", {}).get("conditions")

    done = rest.ok("PATCH", f"{path}/approval", {"status": {"conditions": [approved]}}, content_type=MERGE)
    assert [condition["type"] for condition in done["status"]["conditions"]] == ["Approved"]
    [condition] = done["status"]["conditions"]
    assert condition["lastUpdateTime"] == condition["lastTransitionTime"] > "2020"
    other = {"type": "Other", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}
    done["status"]["conditions"] = [other, condition]
    done = rest.ok("PUT", f"{path}/status", done)
    assert [(c["type"], c["lastTransitionTime"]) for c in done["status"]["conditions"]] == [
        ("Other", other["lastTransitionTime"]),
        ("Approved", condition["lastTransitionTime"]),
    ]
    for told, since in (("True", other["lastTransitionTime"]), ("False", None)):
        # A condition that is told once more has been so since it came about; one that turned, since now.
        done["status"]["conditions"] = [{"type": "Other", "status": told}, condition]
        done = rest.ok("PUT", f"{path}/status", done)
        again = done["status"]["conditions"][0]
        assert again["lastTransitionTime"] == (since or again["lastUpdateTime"])
    current = rest.ok("GET", path)
    current["status"]["certificate"] = base64.b64encode(b"no certificate").decode()
    rest.refused(422, "PUT", f"{path}/status", current)
    rest.ok("DELETE", path)


# Events


def test_both_event_apis_show_the_same_events(rest: Rest, namespace: str) -> None:
    new = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    old = f"/api/v1/namespaces/{namespace}/events"
    event = {
        "metadata": {"name": "e1", "labels": {"trial": "1"}},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.com/c",
        "reportingInstance": "c-1",
        "action": "Do",
        "reason": "Done",
        "type": "Normal",
        "note": "first",
        "regarding": {"kind": "Pod", "name": "x", "namespace": namespace},
    }
    rest.ok("POST", new, event)

    assert rest.ok("GET", f"{old}/e1")["message"] == "first"
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}}
    assert rest.ok("PATCH", f"{new}/e1", series, content_type=MERGE)["series"]["count"] == 2
    assert rest.ok("GET", f"{old}/e1")["series"]["count"] == 2
    rest.refused(422, "PATCH", f"{new}/e1", {"note": "second"}, content_type=MERGE)
    rest.ok("DELETE", new, labelSelector="trial=1")
    assert rest.send("GET", f"{old}/e1")[0] == 404
