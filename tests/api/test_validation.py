"""Metadata: what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import validation
from navarch.api.metadata_validation import validate_object_meta, validate_object_meta_update


def problems(metadata: dict[str, Any], *, namespaced: bool = True, name_rule: str = "subdomain") -> list[str]:
    return [str(e) for e in validate_object_meta({"metadata": metadata}, namespaced=namespaced, name_rule=name_rule)]


def named(**more: Any) -> dict[str, Any]:
    return {"name": "web", "namespace": "default", **more}


def test_good_metadata_passes() -> None:
    metadata = named(
        labels={"app.kubernetes.io/name": "web", "empty": ""},
        annotations={"Example.com/x": "anything goes\n"},
        finalizers=["example.com/guard", "foregroundDeletion"],
        ownerReferences=[{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": True}],
        managedFields=[{"manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1"}],
    )
    assert problems(metadata) == []


def test_a_name_is_needed() -> None:
    assert problems({"namespace": "default"}) == ["metadata.name: Required value: name or generateName is required"]


def test_a_bad_name_is_told_what_a_name_is() -> None:
    assert problems({**named(), "name": "Web_1"}) == [
        'metadata.name: Invalid value: "Web_1": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
        "characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
        "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    ]
    assert problems({**named(), "name": "a" * 64}, name_rule="label") == [
        f'metadata.name: Invalid value: "{"a" * 64}": must be no more than 63 characters'
    ]
    assert problems({**named(), "name": "system:a/b"}, name_rule="path") == [
        "metadata.name: Invalid value: \"system:a/b\": may not contain '/'"
    ]


def test_a_generate_name_may_end_in_a_dash_but_a_name_may_not() -> None:
    assert problems(named(generateName="web-")) == []
    assert problems({**named(), "name": "web-"}) != []


def test_namespaces_go_with_the_scope() -> None:
    assert problems({"name": "n"}) == ["metadata.namespace: Required value"]
    assert problems(named(), namespaced=False) == ["metadata.namespace: Forbidden: not allowed on this type"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a/b/c": ""}, "a valid label key must consist of"),
        ({"/x": ""}, "prefix part must be non-empty"),
        ({"x/": ""}, "name part must be non-empty"),
        ({"a": "-"}, "a valid label must be an empty string or consist of"),
        ({"a": "x" * 64}, "must be no more than 63 bytes"),
    ],
)
def test_bad_labels_are_refused(labels: dict[str, str], message: str) -> None:
    found = problems(named(labels=labels))
    assert found
    assert found[0].startswith("metadata.labels: Invalid value: ")
    assert message in found[0]


def test_annotations_have_a_size_limit_in_bytes() -> None:
    assert problems(named(annotations={"a": "x" * (256 * 1024 - 1)})) == []
    too_long = "metadata.annotations: Too long: may not be more than 262144 bytes"
    assert problems(named(annotations={"a": "x" * 256 * 1024})) == [too_long]
    assert problems(named(annotations={"a": "é" * 128 * 1024})) == [too_long]


def test_an_object_has_one_controller() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": True}
    found = problems(named(ownerReferences=[owner, {**owner, "name": "s"}]))
    assert len(found) == 1
    assert 'Found "true" in references for ReplicaSet/r and ReplicaSet/s' in found[0]
    assert len(problems(named(ownerReferences=[{}]))) == 4


def update_problems(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    return [str(e) for e in validate_object_meta_update({"metadata": new}, {"metadata": old})]


def test_identity_does_not_change() -> None:
    old = named(uid="u", resourceVersion="1", creationTimestamp="2024-01-01T00:00:00Z", generation=2)
    assert update_problems(old, old) == []
    assert update_problems({**old, "uid": "v"}, old) == ['metadata.uid: Invalid value: "v": field is immutable']
    assert update_problems({**old, "generation": 1}, old) == [
        "metadata.generation: Invalid value: 1: must not be decremented"
    ]
    assert update_problems({**old, "resourceVersion": ""}, old) == [
        'metadata.resourceVersion: Invalid value: "": must be specified for an update'
    ]


def test_a_dying_object_gets_no_new_finalizers() -> None:
    old = named(resourceVersion="1", deletionTimestamp="2024-01-01T00:00:00Z", finalizers=["a/b"])
    assert update_problems({**old, "finalizers": []}, old) == []
    assert update_problems({**old, "finalizers": ["a/b", "c/d"]}, old) == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
        'found new finalizers []string{"c/d"}'
    ]


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True))
def test_every_label_is_a_subdomain_and_a_label_value(name: str) -> None:
    assert validation.dns_label_problems(name) == ()
    assert validation.dns_subdomain_problems(name) == ()
    assert validation.label_value_problems(name) == ()
    assert validation.qualified_name_problems(f"example.com/{name}") == ()
