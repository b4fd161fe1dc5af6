"""What tables and metadata-only answers show of an object."""

from __future__ import annotations

from navarch.kinds.registry import builtin
from navarch.kinds.strategies import lookup

builtin()

_GENERATION = "deprecated.daemonset.template.generation"


def test_what_kubernetes_has_as_a_field_is_no_annotation_of_the_metadata_alone() -> None:
    shown = {"metadata": {"name": "d", "annotations": {_GENERATION: "1", "a": "b"}}}
    bare = {"metadata": {"name": "d", "annotations": {_GENERATION: "1"}}}
    strategy = lookup("apps", "DaemonSet")

    assert strategy.metadata_alone(shown) == {"name": "d", "annotations": {"a": "b"}}
    assert strategy.metadata_alone(bare) == {"name": "d"}
    assert lookup("apps", "Deployment").metadata_alone(bare) == bare["metadata"]


def test_rows_of_pods_that_are_over_are_marked() -> None:
    strategy = lookup("", "Pod")

    assert strategy.row_conditions({"status": {"phase": "Running"}}) is None
    for phase in ("Succeeded", "Failed"):
        marked = strategy.row_conditions({"status": {"phase": phase}})
        assert marked is not None
        assert [(each["type"], each["reason"]) for each in marked] == [("Completed", phase)]


def test_a_limit_range_without_a_name_gets_one() -> None:
    obj = {"metadata": {"uid": "8737864e-1377-4016-9d00-9021eda1ad42"}, "spec": {}}

    lookup("", "LimitRange").prepare_create(obj)

    assert len(obj["metadata"]["name"]) == 36
    assert obj["metadata"]["name"] != obj["metadata"]["uid"]
