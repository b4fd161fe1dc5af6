"""Manifests in the shape that charts of well-known products have are accepted, however they are sent."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import yaml

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.testing.embedded import EmbeddedCluster

_PLURALS = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}
_FILES = sorted(Path(__file__).with_name("products").glob("*.yaml"))
_MANIFESTS = [document for file in _FILES for document in yaml.safe_load_all(file.read_text())]
_STRICT = ("fieldValidation", "Strict")


@pytest.fixture
async def cluster() -> AsyncIterator[EmbeddedCluster]:
    async with EmbeddedCluster(nodes=0) as cluster:
        yield cluster


def _collection(manifest: Obj) -> str:
    version, kind = manifest["apiVersion"], manifest["kind"]
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{prefix}/namespaces/default/{_PLURALS.get(kind, kind.lower() + 's')}"


async def _refusals(cluster: EmbeddedCluster, method: str) -> list[str]:
    """What the server says against each manifest, created or applied, checked strictly."""
    refused = []
    for manifest in _MANIFESTS:
        path, body = _collection(manifest), copy.deepcopy(manifest)
        try:
            if method == "POST":
                await cluster.client.request("POST", path, query=[_STRICT], body=body)
            else:
                path = f"{path}/{manifest['metadata']['name']}"
                await cluster.client.request(
                    "PATCH",
                    path,
                    query=[_STRICT, ("fieldManager", "test")],
                    body=body,
                    content_type="application/apply-patch+yaml",
                )
        except StatusError as error:
            refused.append(str(error))
    return refused


async def test_they_can_be_created(cluster: EmbeddedCluster) -> None:
    assert await _refusals(cluster, "POST") == []


async def test_they_can_be_applied_twice_and_the_second_time_changes_nothing(cluster: EmbeddedCluster) -> None:
    assert await _refusals(cluster, "PATCH") == []
    sets = "/apis/apps/v1/namespaces/default/statefulsets"
    first = orjson.loads(await cluster.client.request("GET", sets))["items"]

    assert await _refusals(cluster, "PATCH") == []

    again = orjson.loads(await cluster.client.request("GET", sets))["items"]
    assert [item["metadata"]["generation"] for item in again] == [1] * len(first)


@pytest.mark.parametrize(
    "manifest", [one for one in _MANIFESTS if one["kind"] == "StatefulSet"], ids=lambda m: m["metadata"]["name"]
)
async def test_a_pod_made_from_the_template_of_a_database_is_accepted(cluster: EmbeddedCluster, manifest: Obj) -> None:
    for account in (one for one in _MANIFESTS if one["kind"] == "ServiceAccount"):
        await cluster.client.request("POST", _collection(account), body=account)
    await cluster.client.request("POST", _collection(manifest), body=copy.deepcopy(manifest))
    first = (manifest["spec"].get("ordinals") or {}).get("start", 0)
    name = f"{manifest['metadata']['name']}-{first}"

    claims = {claim["metadata"]["name"] for claim in manifest["spec"]["volumeClaimTemplates"]}
    pod = await _eventually(cluster, f"/api/v1/namespaces/default/pods/{name}")

    mounted = {
        v["name"]: v["persistentVolumeClaim"]["claimName"]
        for v in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    }
    assert mounted == {claim: f"{claim}-{name}" for claim in claims}


async def _eventually(cluster: EmbeddedCluster, path: str) -> Obj:
    async with asyncio.timeout(20):
        while True:
            try:
                found: Obj = orjson.loads(await cluster.client.request("GET", path))
                return found
            except StatusError as error:
                if error.code != 404:
                    raise
            await asyncio.sleep(0.02)


def _with_claim(name: str, *, mount: str) -> Obj:
    labels = {"app": "db"}
    container = {"name": "db", "image": "db", "volumeMounts": [{"name": mount, "mountPath": "/data"}]}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            "volumeClaimTemplates": [{"metadata": {"name": name}, "spec": claim}],
        },
    }


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (_with_claim("data", mount="dat"), 'spec.template.spec.containers[0].volumeMounts[0].name: Not found: "dat"'),
        (_with_claim("Bad", mount="Bad"), 'spec.template.spec.volumes[0].name: Invalid value: "Bad": a lowercase RFC'),
    ],
    ids=["mounts what is not there", "claim with a bad name"],
)
async def test_a_set_whose_volumes_are_wrong_is_refused(cluster: EmbeddedCluster, manifest: Obj, said: str) -> None:
    with pytest.raises(StatusError, match="is invalid") as refused:
        await cluster.client.request("POST", _collection(manifest), body=manifest)

    assert said in str(refused.value)
