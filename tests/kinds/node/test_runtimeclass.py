"""RuntimeClass."""

from __future__ import annotations

from tests.kinds.writing import created, refused, updated

GROUP, KIND = "node.k8s.io", "RuntimeClass"


def test_the_handler_is_a_label_and_fixed() -> None:
    (error,) = refused(GROUP, KIND, {"handler": "No_Label"})
    assert error.startswith('handler: Invalid value: "No_Label": a lowercase RFC 1123 label')
    old = created(GROUP, KIND, {"handler": "runc"})[0]
    assert updated(GROUP, KIND, old, {**old, "handler": "kata"})[1] == [
        'handler: Invalid value: "kata": field is immutable'
    ]


def test_overhead_is_not_negative() -> None:
    assert refused(GROUP, KIND, {"handler": "runc", "overhead": {"podFixed": {"cpu": "-1"}}}) == [
        'overhead.podFixed.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0'
    ]
