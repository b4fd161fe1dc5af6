"""Who owns the replicas, as their object and its Scale tell it."""

from __future__ import annotations

from typing import Any

from navarch.api.scale_fields import of_object, of_scale

PATHS = {"apps/v1": "spec.replicas"}
REPLICAS = {"f:spec": {"f:replicas": {}}}


def entry(manager: str, operation: str, owned: Any, version: str = "apps/v1", **more: Any) -> Any:
    return {
        "manager": manager,
        "operation": operation,
        "apiVersion": version,
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": owned,
        **more,
    }


APPLIER = entry("one", "Apply", {"f:spec": {"f:replicas": {}, "f:paused": {}}})
OTHER = entry("two", "Update", {"f:metadata": {"f:labels": {"f:a": {}}}})


def test_a_scale_has_the_entries_of_those_who_own_the_replicas() -> None:
    assert of_scale([APPLIER, OTHER], PATHS) == [entry("one", "Apply", REPLICAS, "autoscaling/v1")]


def test_who_keeps_the_replicas_keeps_its_entry() -> None:
    assert of_object([APPLIER, OTHER], of_scale([APPLIER, OTHER], PATHS), "apps/v1", PATHS) == [APPLIER, OTHER]


def test_who_takes_the_replicas_over_has_them_without_a_time() -> None:
    taken = [entry("hpa", "Update", REPLICAS, "autoscaling/v1", subresource="scale")]
    after = of_object([APPLIER, OTHER], taken, "apps/v1", PATHS)
    expected = entry("hpa", "Update", REPLICAS, subresource="scale")
    del expected["time"]
    assert after == [entry("one", "Apply", {"f:spec": {"f:paused": {}}}), expected, OTHER]


def test_entries_in_a_version_that_there_is_no_longer_go() -> None:
    assert of_object([entry("old", "Update", REPLICAS, "extensions/v1beta1"), OTHER], [], "apps/v1", PATHS) == [OTHER]
