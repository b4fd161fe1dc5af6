"""Migrations: whose objects, and an end that stays."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kinds.writing import headings, refused, row, updated

GROUP, KIND = "storagemigration.k8s.io", "StorageVersionMigration"
SPEC: dict[str, Any] = {"resource": {"group": "apps", "resource": "deployments"}}


def condition(kind: str, status: str = "True") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def told(new: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    stored: dict[str, Any] = {"metadata": {"name": "m"}, "spec": SPEC, "status": old or {}}
    return updated(GROUP, KIND, stored, {**stored, "status": new}, "status")[1]


@pytest.mark.parametrize(
    ("resource", "field"),
    [
        ({"group": "apps"}, "spec.resource.resource"),
        ({"group": "apps", "resource": "Deployments"}, "spec.resource.resource"),
        ({"group": "Apps", "resource": "deployments"}, "spec.resource.group"),
    ],
)
def test_a_migration_names_a_resource(resource: dict[str, Any], field: str) -> None:
    (problem,) = refused(GROUP, KIND, {"spec": {"resource": resource}})
    assert problem.startswith(f"{field}: ")


def test_a_migration_is_of_one_resource_for_good() -> None:
    stored = {"metadata": {"name": "m"}, "spec": SPEC}
    other = {**stored, "spec": {"resource": {"group": "apps", "resource": "daemonsets"}}}

    (problem,) = updated(GROUP, KIND, stored, other)[1]
    assert problem.endswith("field is immutable")


def test_an_end_excludes_another_and_stays() -> None:
    done = {"resourceVersion": "5", "conditions": [condition("Succeeded")]}
    assert told(done) == []
    assert told({"conditions": [condition("Running")]}) == [
        'status.resourceVersion: Invalid value: "": resource version is empty'
    ]
    (problem,) = told({**done, "conditions": [condition("Succeeded"), condition("Running")]})
    assert "Running condition cannot be true when success condition is true" in problem
    (problem,) = told({**done, "conditions": []}, done)
    assert "Success condition cannot be set to false once it is true" in problem
    (problem,) = told({**done, "resourceVersion": "6"}, done)
    assert problem == 'status.resourceVersion: Invalid value: "6": field is immutable'


def test_a_table_tells_the_resource_and_no_age() -> None:
    assert headings(GROUP, KIND) == (["Name", "Resource"], [])
    assert row(GROUP, KIND, {"metadata": {"name": "m"}, "spec": SPEC}) == ["m", "deployments.apps"]
