"""Whatever is done to a manifest, the server answers in words: accepted or refused for a reason, no internal error.

A manifest of a well-known product is taken, some of its values are replaced by others that somebody may write there,
and it is created, then written again, then its status is patched.  `make explore` tries new ones each time.
"""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from navarch.api.meta import Obj
from navarch.client.transport import Request
from navarch.testing.embedded import ADMIN, EmbeddedCluster
from tests.kinds.test_products import _MANIFESTS, _collection

_VALUES = st.sampled_from(
    [
        None,
        "",
        0,
        -1,
        2**31,
        2**63,
        1.5,
        True,
        [],
        {},
        [None],
        [{}],
        {"": ""},
        "a b",
        "x" * 300,
        "-1",
        "1e400",
        "0x1",
        "é\0",
    ]
)
_STATUSES = st.dictionaries(
    st.sampled_from(
        ["replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "currentReplicas", "observedGeneration",
         "conditions", "phase", "active", "succeeded", "failed", "desiredHealthy", "capacity", "collisionCount",
         "numberReady", "desiredNumberScheduled", "loadBalancer", "currentMetrics", "podIPs", "containerStatuses"]
    ),
    _VALUES,
    max_size=4,
)  # fmt: skip


class _Api:
    """One embedded API server for all examples, asked from outside of its loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._cluster = EmbeddedCluster(nodes=0)
        self._runner.run(self._cluster.__aenter__())

    def close(self) -> None:
        self._runner.run(self._cluster.__aexit__(None, None, None))
        self._runner.close()

    def ask(self, method: str, path: str, body: Any, content_type: str = "application/json") -> int:
        headers = {"content-type": content_type, "user-agent": "fuzz"}
        request = Request(method, path, (), headers, orjson.dumps(body, default=str))
        return self._runner.run(self._cluster.server.handle(request, ADMIN)).status


@pytest.fixture(scope="module")
def api() -> Iterator[_Api]:
    made = _Api()
    yield made
    made.close()


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place below `spec` and in `metadata`'s maps that a value can be put in."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if path or key not in ("apiVersion", "kind"):
            yield (*path, key)
            yield from _places(child, (*path, key))


def _put(node: Any, path: tuple[Any, ...], value: Any) -> None:
    for step in path[:-1]:
        if not isinstance(node, dict | list):
            return
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(node, dict) or (isinstance(node, list) and isinstance(path[-1], int) and path[-1] < len(node)):
        node[path[-1]] = value


_CARRIED = st.recursive(
    _VALUES | st.sampled_from(["Pods", "Resource", "cpu", "5"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(["type", "pods", "resource", "object", "target", "metricName", "metricSelector", "name",
                         "targetAverageValue", "scaleUp", "policies", "status"]),
        inner,
        max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip
_HPA = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"


@given(st.sampled_from(["metrics", "current-metrics", "conditions", "behavior"]), _CARRIED)
@example("metrics", [{"type": "Pods", "pods": 5}])
@example("current-metrics", [{"type": ["Pods"]}])
@example("metrics", [{"type": "External", "external": {"metricName": "m", "metricSelector": 5}}])
@example("behavior", {"scaleUp": 5})
def test_no_annotation_of_an_autoscaler_is_an_internal_error(api: _Api, name: str, carried: Any) -> None:
    text = orjson.dumps(carried, default=str).decode()
    metadata = {"name": "fuzzed", "annotations": {f"autoscaling.alpha.kubernetes.io/{name}": text}}
    spec = {"maxReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}

    answers = {
        "created": api.ask("POST", _HPA, {"metadata": metadata, "spec": spec}),
        "read": api.ask("GET", f"{_HPA}/fuzzed", None),
        "deleted": api.ask("DELETE", f"{_HPA}/fuzzed", {}),
    }

    assert {what: code for what, code in answers.items() if code >= 500} == {}


@st.composite
def _mutated(draw: st.DrawFn) -> Obj:
    manifest: Obj = copy.deepcopy(draw(st.sampled_from(_MANIFESTS)))
    places = list(_places(manifest))
    for _ in range(draw(st.integers(1, 3))):
        _put(manifest, draw(st.sampled_from(places)), draw(_VALUES))
    return manifest


@given(_mutated(), _STATUSES)
@example(_MANIFESTS[2], {"availableReplicas": -1, "readyReplicas": -2})
def test_no_manifest_is_an_internal_error(api: _Api, manifest: Obj, status: Obj) -> None:
    original = next(one for one in _MANIFESTS if one["kind"] == manifest["kind"])
    collection = _collection(original)
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None

    answers = {"created": api.ask("POST", collection, manifest)}
    if isinstance(name, str) and re.fullmatch("[a-z0-9-]+", name):
        path = f"{collection}/{name}"
        answers["updated"] = api.ask("PUT", path, manifest)
        answers["patched"] = api.ask("PATCH", f"{path}/status", {"status": status}, "application/merge-patch+json")
        answers["applied"] = api.ask("PATCH", f"{path}?x", manifest, "application/apply-patch+yaml")
        answers["deleted"] = api.ask("DELETE", path, {})

    assert {what: code for what, code in answers.items() if code >= 500} == {}
