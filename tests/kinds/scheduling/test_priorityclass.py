"""PriorityClass."""

from __future__ import annotations

from tests.kinds.writing import created, refused, row, updated

GROUP, KIND = "scheduling.k8s.io", "PriorityClass"


def test_defaults_and_table() -> None:
    obj, errors = created(GROUP, KIND, {"value": 100})
    obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert errors == []
    assert row(GROUP, KIND, obj) == ["web", 100, False, "24h", "PreemptLowerPriority"]


def test_system_names_and_values_are_reserved() -> None:
    (error,) = refused(GROUP, KIND, {"metadata": {"name": "system-mine"}, "value": 1})
    assert error.startswith("metadata.name: Forbidden: priority class names with 'system-' prefix are reserved")
    assert refused(GROUP, KIND, {"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}) == []
    assert refused(GROUP, KIND, {"value": 1_000_000_001}) == [
        "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"
    ]


def test_value_and_policy_are_fixed() -> None:
    old = created(GROUP, KIND, {"value": 1})[0]
    assert updated(GROUP, KIND, old, {**old, "value": 2, "preemptionPolicy": "Never"})[1] == [
        "value: Forbidden: may not be changed in an update.",
        'preemptionPolicy: Invalid value: "Never": field is immutable',
    ]
