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


_APPS = "/apis/apps/v1/namespaces/default"
_SELECTOR = {"matchLabels": {"app": "web"}}
_TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [_CONTAINER]}}
_NODE = "/api/v1/nodes"


@pytest.mark.parametrize(
    ("path", "body", "status", "at", "value"),
    [
        (
            f"{_APPS}/replicasets",
            {"spec": {"replicas": 0, "selector": _SELECTOR, "template": _TEMPLATE}},
            {"conditions": [{}]},
            "status",
            {"replicas": 0, "conditions": [{"type": "", "status": "", "lastTransitionTime": None}]},
        ),
        (_NODE, {}, {"addresses": [{}]}, "status.addresses", [{"type": "", "address": ""}]),
        (_NODE, {}, {"volumesAttached": [{}]}, "status.volumesAttached", [{"name": "", "devicePath": ""}]),
        (
            f"{_V1}/pods",
            {"spec": {"containers": [_CONTAINER]}},
            {"containerStatuses": [{"name": "c", "state": {"running": {}}, "lastState": {"terminated": {}}}]},
            "status.containerStatuses[0]",
            {
                "name": "c",
                "state": {"running": {"startedAt": None}},
                "lastState": {"terminated": {"exitCode": 0, "startedAt": None, "finishedAt": None}},
                "ready": False,
                "restartCount": 0,
                "image": "",
                "imageID": "",
            },
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            {"spec": {"attacher": "a.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}},
            {"attachError": {"message": "no"}},
            "status",
            {"attached": False, "attachError": {"time": None, "message": "no"}},
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            {},
            {"observedGeneration": 1},
            "status",
            {
                "observedGeneration": 1,
                "disruptionsAllowed": 0,
                "currentHealthy": 0,
                "desiredHealthy": 0,
                "expectedPods": 0,
            },
        ),
        (
            "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            {"spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "ReplicationController", "name": "web"}}},
            {"currentMetrics": [{"type": "Pods", "pods": {}}]},
            "status",
            {
                "desiredReplicas": 0,
                "currentMetrics": [{"type": "Pods", "pods": {"metric": {"name": ""}, "current": {}}}],
            },
        ),
    ],
    ids=["condition", "address", "attached", "container", "error", "counts", "metric"],
)
async def test_a_status_has_what_go_writes_though_nobody_said_it(
    cluster: EmbeddedCluster, path: str, body: Obj, status: Obj, at: str, value: Any, request: Any
) -> None:
    name = request.node.callspec.id
    made = orjson.loads(await cluster.client.request("POST", path, body={"metadata": {"name": name}, **body}))

    query = [("dryRun", "All")]
    place = f"{path}/{name}/status"
    found = orjson.loads(await cluster.client.request("PUT", place, query=query, body={**made, "status": status}))

    assert get_path(found, at.removesuffix("[0]")) == ([value] if at.endswith("[0]") else value)


@pytest.mark.parametrize(
    ("volume", "shown"),
    [
        ({"projected": {}}, {"projected": {"sources": None, "defaultMode": 420}}),
        (
            {"iscsi": {"targetPortal": "p", "iqn": "iqn.2001-04.com.example:a"}},
            {"iscsi": {"targetPortal": "p", "iqn": "iqn.2001-04.com.example:a", "lun": 0, "iscsiInterface": "default"}},
        ),
    ],
    ids=["projected", "iscsi"],
)
async def test_a_volume_has_what_go_writes_though_nobody_said_it(
    cluster: EmbeddedCluster, volume: Obj, shown: Obj, request: Any
) -> None:
    spec = {"containers": [_CONTAINER], "volumes": [{"name": "v", **volume}]}

    found = await _stored(cluster, f"{_V1}/pods", {"metadata": {"name": request.node.callspec.id}, "spec": spec})

    assert found["spec"]["volumes"][0] == {"name": "v", **shown}


async def test_headers_parameters_and_waits_are_empty_rather_than_left_out(cluster: EmbeddedCluster) -> None:
    probe = {"httpGet": {"port": 80, "httpHeaders": [{"name": "X-A"}]}}
    container = {**_CONTAINER, "livenessProbe": probe, "lifecycle": {"preStop": {"sleep": {}}}}
    spec = {"containers": [container], "securityContext": {"sysctls": [{"name": "net.core.somaxconn"}]}}

    found = (await _stored(cluster, f"{_V1}/pods", {"metadata": {"name": "web"}, "spec": spec}))["spec"]

    assert found["containers"][0]["livenessProbe"]["httpGet"]["httpHeaders"] == [{"name": "X-A", "value": ""}]
    assert found["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 0}}}
    assert found["securityContext"] == {"sysctls": [{"name": "net.core.somaxconn", "value": ""}]}
