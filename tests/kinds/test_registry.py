"""The registry and the documents made from it: what kubectl and client libraries look up."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
import pytest

from navarch.api import schema
from navarch.api.meta import Resource
from navarch.kinds import discovery_docs, openapi, resources
from navarch.kinds.base import Kind, Strategy
from navarch.kinds.enablement import EVERYTHING
from navarch.kinds.registry import Registry, builtin
from navarch.kinds.strategies import lookup, strategy


@pytest.fixture(scope="module")
def registry() -> Registry:
    return builtin()


def test_every_resource_constant_is_served_where_everything_is_on(registry: Registry) -> None:
    constants = {getattr(resources, name) for name in resources.__all__}
    assert constants <= {kind.resource for kind in builtin(config=EVERYTHING).kinds()}
    for kind in registry.kinds():
        group, version, plural, name, _ = kind.resource
        assert registry.by_path(group, version, plural) is kind
        assert registry.by_kind(group, version, name) is kind


def test_every_kind_has_its_definition_and_every_stored_one_its_list(registry: Registry) -> None:
    schemas = schema.load()
    for kind in registry.kinds():
        assert kind.definition is not None
        assert kind.definition in schemas
        if not kind.virtual:
            assert f"{kind.definition.rpartition('.')[0]}.{kind.list_kind}" in schemas


def test_every_served_version_of_the_issue_is_there(registry: Registry) -> None:
    assert list(registry.versions()) == [
        "",
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "storage.k8s.io",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "scheduling.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
        "discovery.k8s.io",
        "resource.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "storagemigration.k8s.io",
    ]
    assert registry.versions()["autoscaling"] == ["v2", "v1"]


def test_an_older_version_serves_only_what_it_knew() -> None:
    older = builtin(schema.load("1.30"))
    assert older.by_path("certificates.k8s.io", "v1", "clustertrustbundles") is None
    assert older.by_path("", "v1", "pods") is not None
    assert b"deployments" in (openapi.openapi_v3_group(older, schema.load("1.30"), "apis/apps/v1") or b"")


def test_a_kind_can_be_added_and_removed(registry: Registry) -> None:
    crontab = Resource("stable.example.com", "v1", "crontabs", "CronTab", True)
    grown = registry.replaced([Kind(crontab, "crontab", Strategy())])

    assert grown.by_path("stable.example.com", "v1", "crontabs") is not None
    assert registry.by_path("stable.example.com", "v1", "crontabs") is None
    assert grown.without("stable.example.com", "crontabs").by_kind("stable.example.com", "v1", "CronTab") is None


def test_a_kind_without_strategy_gets_the_plain_one() -> None:
    @strategy("test.example.com", "Odd")
    class OddStrategy(Strategy):
        pass

    assert type(lookup("test.example.com", "Odd")) is OddStrategy
    assert type(lookup("test.example.com", "Even")) is Strategy


def test_client_resources_import_nothing_heavy() -> None:
    code = (
        "import sys, navarch.client.resources\n"
        "print([m for m in sys.modules if m in ('aiohttp', 'orjson', 'numpy', 'navarch.kinds.registry')])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def entries(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in document["resources"]}


def test_pods_are_discovered_with_all_their_subresources(registry: Registry) -> None:
    document = discovery_docs.api_resource_list(registry, "", "v1")
    assert document is not None
    listed = entries(document)
    assert listed["pods"] == {
        "name": "pods",
        "singularName": "pod",
        "namespaced": True,
        "kind": "Pod",
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "shortNames": ["po"],
        "categories": ["all"],
        "storageVersionHash": "xPOwRZ+Yhw8=",
    }
    names = "attach binding ephemeralcontainers eviction exec log portforward proxy resize status"
    assert [name for name in listed if name.startswith("pods/")] == [f"pods/{name}" for name in names.split()]
    assert listed["pods/eviction"] == {
        "name": "pods/eviction",
        "singularName": "",
        "namespaced": True,
        "kind": "Eviction",
        "verbs": ["create"],
        "group": "policy",
        "version": "v1",
    }
    assert listed["namespaces"]["verbs"] == ["create", "delete", "get", "list", "patch", "update", "watch"]
    assert "storageVersionHash" not in listed["bindings"]


def test_groups_name_their_preferred_version(registry: Registry) -> None:
    autoscaling = discovery_docs.api_group(registry, "autoscaling")
    assert autoscaling is not None
    assert autoscaling["preferredVersion"] == {"groupVersion": "autoscaling/v2", "version": "v2"}
    assert [group["name"] for group in discovery_docs.api_group_list(registry)["groups"]][:2] == [
        "apiregistration.k8s.io",
        "apps",
    ]
    assert discovery_docs.api_group(registry, "nothing.example.com") is None
    assert discovery_docs.api_resource_list(registry, "apps", "v9") is None


def test_aggregated_discovery_says_the_same_as_the_old_form(registry: Registry) -> None:
    for core in (True, False):
        for group in discovery_docs.aggregated(registry, core=core)["items"]:
            for version in group["versions"]:
                names = set()
                for resource in version["resources"]:
                    names.add(resource["resource"])
                    names |= {
                        f"{resource['resource']}/{sub['subresource']}" for sub in resource.get("subresources", ())
                    }
                old = discovery_docs.api_resource_list(registry, group["metadata"].get("name", ""), version["version"])
                assert old is not None
                assert names == set(entries(old))


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(item) for item in node))
    return set()


@pytest.mark.parametrize(("group", "version"), [("", "v1"), ("apps", "v1"), ("autoscaling", "v1")])
def test_an_openapi_v3_document_is_whole(registry: Registry, group: str, version: str) -> None:
    document = orjson.loads(
        openapi.openapi_v3_group(registry, schema.load(), f"apis/{group}/{version}" if group else f"api/{version}")
        or b""
    )
    definitions = document["components"]["schemas"]
    # What a watch sends is described although no operation refers to it.
    watch_event = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent"
    assert references(document) | {watch_event} == {f"#/components/schemas/{name}" for name in definitions}


def test_the_openapi_v2_document_is_whole(registry: Registry) -> None:
    document = orjson.loads(openapi.openapi_v2(registry, schema.load()))
    assert references(document) <= {f"#/definitions/{name}" for name in document["definitions"]}
    for kind in registry.kinds():
        assert kind.definition in document["definitions"]


def test_writes_say_that_the_server_validates_fields(registry: Registry) -> None:
    document = orjson.loads(openapi.openapi_v3_group(registry, schema.load(), "apis/apps/v1") or b"")
    item = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    for method in ("put", "patch"):
        names = {parameter["name"] for parameter in item[method]["parameters"]}
        assert {"dryRun", "fieldManager", "fieldValidation"} <= names
    assert item["patch"]["x-kubernetes-group-version-kind"] == {"group": "apps", "kind": "Deployment", "version": "v1"}
    assert item["patch"]["operationId"] == "patchAppsV1NamespacedDeployment"
    assert "application/apply-patch+yaml" in item["patch"]["requestBody"]["content"]


def test_operation_ids_are_unique(registry: Registry) -> None:
    document = orjson.loads(openapi.openapi_v2(registry, schema.load()))
    ids = [op["operationId"] for item in document["paths"].values() for key, op in item.items() if key != "parameters"]
    assert len(ids) == len(set(ids))


def test_the_index_hash_follows_what_is_served(registry: Registry) -> None:
    schemas = schema.load()
    grown = registry.replaced([Kind(Resource("apps", "v1", "extras", "Extra", True), "extra", Strategy())])
    before, after = (orjson.loads(openapi.openapi_v3_index(r, schemas))["paths"] for r in (registry, grown))
    assert before["apis/apps/v1"] != after["apis/apps/v1"]
    assert before["api/v1"] == after["api/v1"]


def test_a_kind_that_has_a_strategy_gets_no_second_one() -> None:
    builtin()

    with pytest.raises(ValueError, match=r"has a strategy in navarch\.kinds\.core\.pod already"):

        @strategy("", "Pod")
        class Another(Strategy):
            """Of another module."""
