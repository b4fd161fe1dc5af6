"""Lease."""

from __future__ import annotations

from navarch.kinds.strategies import lookup
from tests.kinds.writing import refused, row

GROUP, KIND = "coordination.k8s.io", "Lease"


def test_durations_are_positive() -> None:
    assert refused(GROUP, KIND, {"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}) == [
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
    ]


def test_a_put_may_create_a_lease() -> None:
    assert lookup(GROUP, KIND).allow_create_on_update


def test_the_table_shows_the_holder() -> None:
    obj = {"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"holderIdentity": "me"}}
    assert row(GROUP, KIND, obj) == ["n", "me", "24h"]
