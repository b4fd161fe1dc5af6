"""What a question about access must say."""

from __future__ import annotations

from navarch.api.meta import Obj
from navarch.kinds.strategies import lookup

GROUP = "authorization.k8s.io"


def refused(group: str, kind: str, obj: Obj) -> list[str]:
    return [str(error) for error in lookup(group, kind).validate(obj, None)]


def test_a_review_is_about_one_thing_and_somebody() -> None:
    assert refused(GROUP, "SubjectAccessReview", {"spec": {}}) == [
        "spec.resourceAttributes: Invalid value: null: "
        "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        'spec.user: Invalid value: "": at least one of user or group must be specified',
    ]
    assert refused(GROUP, "SelfSubjectAccessReview", {"spec": {"resourceAttributes": {"verb": "get"}}}) == []


def test_a_local_review_is_about_its_own_namespace() -> None:
    spec = {"user": "ann", "resourceAttributes": {"namespace": "other"}}
    assert refused(GROUP, "LocalSubjectAccessReview", {"spec": spec}) == [
        'spec.resourceAttributes.namespace: Invalid value: "other": must match metadata.namespace'
    ]
