"""PodDisruptionBudget."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kinds.writing import created, refused, row

GROUP, KIND = "policy", "PodDisruptionBudget"


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (
            {"minAvailable": 1, "maxUnavailable": 1},
            'spec: Invalid value: {"MinAvailable":1,"Selector":null,"MaxUnavailable":1,'
            '"UnhealthyPodEvictionPolicy":null}: '
            "minAvailable and maxUnavailable cannot be both set",
        ),
        ({"minAvailable": -1}, "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"),
        ({"maxUnavailable": "120%"}, 'spec.maxUnavailable: Invalid value: "120%": must not be greater than 100%'),
        (
            {"unhealthyPodEvictionPolicy": "No"},
            'spec.unhealthyPodEvictionPolicy: Unsupported value: "No": '
            'supported values: "AlwaysAllow", "IfHealthyBudget"',
        ),
    ],
)
def test_what_is_refused(spec: Any, error: str) -> None:
    assert error in refused(GROUP, KIND, {"spec": spec})


def test_the_table() -> None:
    obj, errors = created(GROUP, KIND, {"spec": {"minAvailable": "50%"}})
    obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert errors == []
    assert row(GROUP, KIND, obj) == ["web", "50%", "N/A", 0, "24h"]
