"""Which flow schema a request belongs to."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.flowcontrol.matching import first, schemas_of
from navarch.apiserver.flowcontrol.objects import defaults
from navarch.apiserver.user import ANONYMOUS, User
from navarch.kinds.resources import FLOW_SCHEMAS

EVERYBODY = "system:authenticated"
PODS = RequestAttributes("list", "", "v1", "pods", namespace="default")
LEASE = RequestAttributes("update", "coordination.k8s.io", "v1", "leases", namespace="kube-system", name="x")
NODE_STATUS = RequestAttributes("patch", "", "v1", "nodes", "status", name="n")


@pytest.mark.parametrize(
    ("user", "asked", "schema"),
    [
        (User("root", ("system:masters", EVERYBODY)), PODS, "exempt"),
        (ANONYMOUS, RequestAttributes("get", path="/healthz"), "probes"),
        (ANONYMOUS, RequestAttributes("get", path="/healthz/etcd"), "global-default"),
        (User("system:kube-scheduler", (EVERYBODY,)), LEASE, "system-leader-election"),
        (User("system:kube-scheduler", (EVERYBODY,)), PODS, "kube-scheduler"),
        (User("system:serviceaccount:kube-system:x", ("system:serviceaccounts", EVERYBODY)), LEASE._replace(verb="get"),
         "system-leader-election"),
        (User("system:serviceaccount:kube-system:x", ("system:serviceaccounts", EVERYBODY)), PODS,
         "kube-system-service-accounts"),
        (User("system:serviceaccount:kube-systemic:x", ("system:serviceaccounts", EVERYBODY)), PODS,
         "service-accounts"),
        (User("system:node:n", ("system:nodes", EVERYBODY)), NODE_STATUS, "system-node-high"),
        (User("system:node:n", ("system:nodes", EVERYBODY)), PODS, "system-nodes"),
        (User("jane", (EVERYBODY,)), PODS, "global-default"),
        (User("nobody"), PODS, "catch-all"),
    ],
)  # fmt: skip
def test_kubernetes_own_schemas_take_whom_they_take_there(user: User, asked: RequestAttributes, schema: str) -> None:
    stored = [each.obj for each in defaults() if each.resource == FLOW_SCHEMAS]

    assert first(schemas_of(stored), user, asked).name == schema


def made(name: str, precedence: int = 500, by: str = "", **rule: Any) -> dict[str, Any]:
    subjects = [{"kind": "User", "user": {"name": "*"}}]
    spec = {
        "matchingPrecedence": precedence,
        "priorityLevelConfiguration": {"name": "fast"},
        "rules": [{"subjects": subjects, **rule}],
        **({"distinguisherMethod": {"type": by}} if by else {}),
    }
    return {"metadata": {"name": name, "uid": name}, "spec": spec}


def resources(**rule: Any) -> dict[str, Any]:
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}
    return {"resourceRules": [{**everything, **rule}]}


@pytest.mark.parametrize(
    ("rule", "asked", "matches"),
    [
        (resources(namespaces=["a"]), PODS._replace(namespace="a"), True),
        (resources(namespaces=["a"]), PODS, False),
        (resources(), NODE_STATUS, False),
        (resources(clusterScope=True), NODE_STATUS, True),
        (resources(clusterScope=True, resources=["nodes"]), NODE_STATUS, False),
        (resources(clusterScope=True, resources=["nodes/status"]), NODE_STATUS, True),
        (resources(verbs=["get"]), PODS, False),
        (resources(apiGroups=["apps"]), PODS, False),
        ({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/debug/*"]}]},
         RequestAttributes("get", path="/debug/x"), True),
        ({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/debug"]}]},
         RequestAttributes("get", path="/debug/x"), False),
        ({"nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}, PODS, False),
    ],
)  # fmt: skip
def test_rules_match(rule: dict[str, Any], asked: RequestAttributes, matches: bool) -> None:
    found = first(schemas_of([made("own", **rule)]), User("jane"), asked)

    assert found.name == ("own" if matches else "catch-all")


def test_the_lowest_precedence_comes_first_and_then_the_name() -> None:
    schemas = schemas_of([made("b", 700, **resources()), made("a", 700, **resources()), made("z", 600, **resources())])

    assert [schema.name for schema in schemas] == ["exempt", "z", "a", "b", "catch-all"]


@pytest.mark.parametrize(("by", "flow"), [("ByUser", "jane"), ("ByNamespace", "default"), ("", "")])
def test_flows_are_told_apart_as_the_schema_says(by: str, flow: str) -> None:
    schema = schemas_of([made("own", by=by, **resources())])[1]

    assert schema.flow(User("jane"), PODS) == flow
