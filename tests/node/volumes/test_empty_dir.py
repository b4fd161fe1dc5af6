"""How big a directory in memory may become."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.node.volumes.empty_dir import memory_size

MI = 1 << 20


def container(limit: str = "") -> dict[str, Any]:
    return {"name": "c", "resources": {"limits": {"memory": limit}} if limit else {}}


@pytest.mark.parametrize(
    ("stated", "limits", "most"),
    [
        ({}, [""], 1000 * MI),
        ({"sizeLimit": "20Mi"}, [""], 20 * MI),
        ({"sizeLimit": "2Gi"}, [""], 1000 * MI),
        ({}, ["64Mi"], 64 * MI),
        ({}, ["64Mi", "32Mi"], 96 * MI),
        ({}, ["64Mi", ""], 1000 * MI),
        ({"sizeLimit": "100Mi"}, ["64Mi"], 64 * MI),
        ({"sizeLimit": "20Mi"}, ["64Mi"], 20 * MI),
        ({"sizeLimit": "0"}, ["64Mi"], 64 * MI),
    ],
)
def test_memory_is_bounded_by_the_volume_the_pod_and_the_node(stated: Any, limits: list[str], most: int) -> None:
    pod = {"spec": {"containers": [container(limit) for limit in limits]}}

    assert memory_size(stated, pod, 1000 * MI) == most


def test_a_node_that_does_not_say_what_it_has_bounds_nothing() -> None:
    assert memory_size({}, {"spec": {"containers": [container()]}}, 0) == 0
