"""Audit policies: which rule a request falls under, and what is no policy."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.apiserver.audit.policy import NONE, PolicyError, parse
from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.user import User

JANE = User("jane", ("developers", "system:authenticated"))
PODS = RequestAttributes("get", "", "v1", "pods", "", "default", "web")
LOGS = PODS._replace(subresource="log")
HEALTH = RequestAttributes("get", path="/healthz/ping")


def policy(*rules: dict[str, Any], **more: Any) -> Any:
    return parse({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more}, "f")


@pytest.mark.parametrize(
    ("rule", "asked", "matches"),
    [
        ({}, PODS, True),
        ({"users": ["jane"]}, PODS, True),
        ({"users": ["joe"]}, PODS, False),
        ({"userGroups": ["developers", "x"]}, PODS, True),
        ({"userGroups": ["x"]}, PODS, False),
        ({"verbs": ["get"]}, PODS, True),
        ({"verbs": ["list"]}, PODS, False),
        ({"namespaces": ["default"]}, PODS, True),
        ({"namespaces": ["other"]}, PODS, False),
        ({"namespaces": ["default"]}, HEALTH, False),
        ({"resources": [{"group": ""}]}, PODS, True),
        ({"resources": [{"group": "apps"}]}, PODS, False),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, PODS, True),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, LOGS, False),
        ({"resources": [{"group": "", "resources": ["pods/log"]}]}, LOGS, True),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, LOGS, True),
        ({"resources": [{"group": "", "resources": ["*/log"]}]}, LOGS, True),
        ({"resources": [{"group": "", "resources": ["*"]}]}, LOGS, True),
        ({"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["web"]}]}, PODS, True),
        ({"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["db"]}]}, PODS, False),
        ({"nonResourceURLs": ["/healthz*"]}, HEALTH, True),
        ({"nonResourceURLs": ["/healthz"]}, HEALTH, False),
        ({"nonResourceURLs": ["*"]}, HEALTH, True),
        ({"nonResourceURLs": ["*"]}, PODS, False),
    ],
)
def test_a_rule_matches_what_all_of_it_matches(rule: dict[str, Any], asked: RequestAttributes, matches: bool) -> None:
    found = policy({"level": "Metadata", **rule}).rule_for(JANE, asked)

    assert found.level == ("Metadata" if matches else NONE)


def test_the_first_rule_that_matches_decides() -> None:
    found = policy({"level": "None", "verbs": ["get"]}, {"level": "Request"})

    assert found.rule_for(JANE, PODS).level == "None"
    assert found.rule_for(JANE, PODS._replace(verb="delete")).level == "Request"


def test_stages_and_managed_fields_are_left_out_by_rule_or_for_all() -> None:
    found = policy(
        {"level": "Metadata", "verbs": ["get"], "omitStages": ["RequestReceived"], "omitManagedFields": False},
        {"level": "Metadata"},
        omitStages=["Panic"],
        omitManagedFields=True,
    )

    first, second = found.rules
    assert first.omitted == {"RequestReceived", "Panic"}
    assert (first.omit_managed_fields, second.omit_managed_fields) == (False, True)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "holds no object"),
        ({"kind": "Policy", "apiVersion": "audit.k8s.io/v9", "rules": [{}]}, "unknown group version field"),
        ({"kind": "Policy", "apiVersion": "audit.k8s.io/v1"}, "loaded illegal policy with 0 rules from file f"),
    ],
)
def test_what_is_no_policy_is_refused(document: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse(document, "f")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"level": "Everything"}, r'rules\[0\].level: Unsupported value: "Everything"'),
        ({}, r"rules\[0\].level: Required value"),
        ({"level": "None", "nonResourceURLs": ["healthz"]}, "must begin with a '/' character"),
        ({"level": "None", "nonResourceURLs": ["/a*b"]}, "must be the final character of the rule"),
        ({"level": "None", "nonResourceURLs": ["/a"], "namespaces": ["a"]}, "cannot apply to both"),
        ({"level": "None", "resources": [{"resourceNames": ["a"]}]}, "requires at least one resource"),
        ({"level": "None", "omitStages": ["Later"]}, "allowed stages are RequestReceived"),
    ],
)
def test_rules_that_cannot_be_are_refused(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        policy(rule)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rules": {"level": "None"}}, "rules: must be a list"),
        ({"rules": ["None"]}, r"rules\[0\]: must be an object"),
        ({"rules": [{"level": 1}]}, r"rules\[0\].level: must be a string"),
        ({"rules": [{"level": "None", "users": "jane"}]}, r"rules\[0\].users: must be a list"),
        ({"rules": [{"level": "None", "resources": ["pods"]}]}, r"resources\[0\]: must be an object"),
        ({"rules": [{"level": "None"}], "omitStages": "Panic"}, "omitStages: must be a list"),
        ({"rules": [{"level": "None", "omitManagedFields": "yes"}]}, "omitManagedFields: must be a boolean"),
    ],
)
def test_policies_of_another_form_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", **changes}, "f")


def test_unknown_fields_are_told_of_and_passed_over_as_by_kubernetes(caplog: pytest.LogCaptureFixture) -> None:
    policy = parse(
        {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata", "lvel": "None"}]}, "f"
    )

    assert [rule.level for rule in policy.rules] == ["Metadata"]
    assert "unknown fields: rules[0].lvel" in caplog.text
