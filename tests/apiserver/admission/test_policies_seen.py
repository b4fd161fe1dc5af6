"""What is seen of admission policies from outside: the audit log and the metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.apiserver.audit.policy import parse
from navarch.apiserver.audit.trail import Auditing
from navarch.client.resources import CONFIG_MAPS
from navarch.testing.embedded import EmbeddedCluster

POLICIES = "/apis/admissionregistration.k8s.io/v1"
EVERYTHING = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}


class Kept:
    """A log in memory."""

    def __init__(self) -> None:
        self.events: list[Obj] = []

    def write(self, event: Obj) -> None:
        self.events.append(event)

    async def close(self) -> None: ...

    def annotations(self) -> Obj:
        """Of the last request's end."""
        found: Obj = self.events[-1].get("annotations") or {}
        return found


@pytest.fixture
def log() -> Kept:
    return Kept()


@pytest.fixture
async def cluster(log: Kept) -> AsyncIterator[EmbeddedCluster]:
    async with EmbeddedCluster(controllers=False) as cluster:
        server = cluster.server
        server.use(auditing=Auditing(parse(EVERYTHING, "f"), log, server.core.world))
        yield cluster


async def make(cluster: EmbeddedCluster, kind: str, binding: Obj, **spec: Any) -> None:
    """A policy `p` for ConfigMaps with a binding `b`."""
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]
    policy = {"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": rules}, **spec}}
    await cluster.client.request("POST", f"{POLICIES}/{kind}admissionpolicies", body=policy)
    bound = {"metadata": {"name": "b"}, "spec": {"policyName": "p", **binding}}
    await cluster.client.request("POST", f"{POLICIES}/{kind}admissionpolicybindings", body=bound)


async def create(cluster: EmbeddedCluster, name: str, **data: str) -> None:
    await cluster.client.create(CONFIG_MAPS, {"metadata": {"name": name, "namespace": "default"}, "data": data})


async def counted(cluster: EmbeddedCluster, family: str) -> dict[str, int]:
    """What is counted of a family, by its labels."""
    shown = (await cluster.client.request("GET", "/metrics")).decode()
    lines = [line.removeprefix(f"{family}{{") for line in shown.splitlines() if line.startswith(f"{family}{{")]
    return {labels: int(count) for labels, _, count in (line.partition("} ") for line in lines)}


async def test_failures_and_annotations_are_in_the_audit_log(cluster: EmbeddedCluster, log: Kept) -> None:
    await make(
        cluster,
        "validating",
        {"validationActions": ["Audit"]},
        validations=[{"expression": "true"}, {"expression": "object.data.a == 'yes'", "message": "say yes"}],
        auditAnnotations=[
            {"key": "said", "valueExpression": "'it said ' + object.data.a"},
            {"key": "none", "valueExpression": "null"},
        ],
    )

    await create(cluster, "good", a="yes")
    good = dict(log.annotations())
    await create(cluster, "bad", a="no")
    bad = dict(log.annotations())

    assert good["p/said"] == "it said yes"
    assert bad["p/said"] == "it said no"
    assert "p/none" not in bad
    failure = "validation.policy.admission.k8s.io/validation_failure"
    assert failure not in good
    assert orjson.loads(bad[failure]) == [
        {
            "message": "say yes",
            "policy": "p",
            "binding": "b",
            "expressionIndex": 1,
            "validationActions": ["Audit"],
        }
    ]


async def test_what_validating_policies_do_is_counted_by_action_and_error(cluster: EmbeddedCluster) -> None:
    await make(
        cluster,
        "validating",
        {"validationActions": ["Deny", "Audit"]},
        validations=[{"expression": "object.data.a == 'yes'"}],
    )

    await create(cluster, "good", a="yes")
    for data in ({"a": "no"}, {"b": "no"}):
        with pytest.raises(StatusError):
            await create(cluster, "bad", **data)

    def labels(action: str, error: str) -> str:
        return f'enforcement_action="{action}",error_type="{error}",policy="p",policy_binding="b"'

    assert await counted(cluster, "apiserver_validating_admission_policy_check_total") == {
        labels(action, error): 1 for error in ("no_error", "invalid_error") for action in ("deny", "audit")
    }


async def test_errors_that_are_ignored_are_counted_as_allowed(cluster: EmbeddedCluster) -> None:
    await make(
        cluster,
        "validating",
        {"validationActions": ["Deny"]},
        failurePolicy="Ignore",
        validations=[{"expression": "object.data.a == 'yes'"}],
    )

    await create(cluster, "odd", b="no")

    assert await counted(cluster, "apiserver_validating_admission_policy_check_total") == {
        'enforcement_action="allow",error_type="invalid_error",policy="p",policy_binding="b"': 1
    }


async def test_mutations_are_counted(cluster: EmbeddedCluster) -> None:
    patch = "[JSONPatch{op: 'add', path: '/data/c', value: object.data.a}]"
    await make(
        cluster,
        "mutating",
        {},
        failurePolicy="Ignore",
        reinvocationPolicy="Never",
        mutations=[{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    )

    await create(cluster, "good", a="yes")
    await create(cluster, "better", a="yes")
    await create(cluster, "odd", b="no")

    assert await counted(cluster, "apiserver_mutating_admission_policy_check_total") == {
        'error_type="no_error",policy="p",policy_binding="b"': 2,
        'error_type="invalid_error",policy="p",policy_binding="b"': 1,
    }
    assert (await counted(cluster, "apiserver_mutating_admission_policy_check_duration_seconds_bucket"))[
        'error_type="no_error",policy="p",policy_binding="b",le="+Inf"'
    ] == 2
