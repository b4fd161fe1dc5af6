"""What an object looks like when it is read back: what Go writes though nobody said it, and names that are free."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, get_path
from navarch.testing.embedded import EmbeddedCluster

_V1 = "/api/v1/namespaces/default"
_CONTAINER = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "0.1m", "memory": "1Gi"}}}


@pytest.fixture
async def cluster() -> AsyncIterator[EmbeddedCluster]:
    async with EmbeddedCluster(nodes=0) as cluster:
        yield cluster


async def _stored(cluster: EmbeddedCluster, path: str, body: Obj) -> Obj:
    made: Obj = orjson.loads(await cluster.client.request("POST", path, body=body))
    found: Obj = orjson.loads(await cluster.client.request("GET", f"{path}/{made['metadata']['name']}"))
    return found


@pytest.mark.parametrize(
    ("path", "body", "at", "value"),
    [
        (f"{_V1}/events", {"involvedObject": {"namespace": "default"}}, "firstTimestamp", None),
        (f"{_V1}/events", {"involvedObject": {"namespace": "default"}}, "source", {}),
        (f"{_V1}/events", {"involvedObject": {"namespace": "default"}}, "reportingInstance", ""),
        ("/apis/policy/v1/namespaces/default/poddisruptionbudgets", {}, "spec", {}),
        (f"{_V1}/pods", {"spec": {"containers": [_CONTAINER]}}, "spec.containers[0].resources.requests.cpu", "1m"),
        ("/api/v1/nodes", {"status": {"images": [{"sizeBytes": 5}, {"names": []}]}}, "status.images[1].names", None),
    ],
    ids=["no time", "no source", "no instance", "no spec", "cpu below a thousandth", "no names"],
)
async def test_what_is_read_back(
    cluster: EmbeddedCluster, path: str, body: Obj, at: str, value: Any, request: Any
) -> None:
    name = request.node.callspec.id.replace(" ", "-")
    found = await _stored(cluster, path, {"metadata": {"name": name}, **body})

    for part in at.replace("[", ".").replace("]", "").split("."):
        found = found[int(part)] if part.isdigit() else found[part]
    assert found == value


async def test_the_names_of_budgets_and_events_only_have_to_fit_into_a_path(cluster: EmbeddedCluster) -> None:
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"

    assert (await _stored(cluster, budgets, {"metadata": {"name": "Bad_Name!"}}))["metadata"]["name"] == "Bad_Name!"
    with pytest.raises(StatusError, match="may not contain '/'"):
        await cluster.client.request("POST", budgets, body={"metadata": {"name": "a/b"}})


@pytest.mark.parametrize("name", ["nodomain", "Kubernetes"])
async def test_a_finalizer_without_a_domain_is_refused(cluster: EmbeddedCluster, name: str) -> None:
    with pytest.raises(StatusError, match=r"metadata.finalizers\[1\]: Invalid value: .*nor is it fully qualified"):
        await cluster.client.request(
            "POST", f"{_V1}/configmaps", body={"metadata": {"name": "held", "finalizers": ["orphan", name]}}
        )


async def test_a_condition_of_a_pod_says_when_it_was_looked_at(cluster: EmbeddedCluster) -> None:
    await _stored(cluster, f"{_V1}/pods", {"metadata": {"name": "told"}, "spec": {"containers": [_CONTAINER]}})
    patch = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}

    body = await cluster.client.request(
        "PATCH", f"{_V1}/pods/told/status", body=patch, content_type="application/merge-patch+json"
    )

    assert get_path(orjson.loads(body), "status.conditions")[0] == {
        "type": "Ready",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": None,
    }
