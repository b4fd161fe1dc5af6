"""What a CustomResourceDefinition defines is served while the server runs, after a restart, and on every server over
the same store; it changes with the definition, and goes with it."""

from __future__ import annotations

import gc
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import orjson
import pytest

from navarch.api.meta import Obj
from navarch.api.schema import SchemaNode
from navarch.apiserver.crd import finalizing
from navarch.apiserver.server import ApiServer
from navarch.cluster import pki
from navarch.cluster.config import ClusterConfig
from navarch.store.base import Put, Store
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld
from tests.apiserver.conftest import Api
from tests.apiserver.crd.definitions import (
    CRDS,
    GADGETS,
    NAME,
    answers,
    conditions,
    definition,
    established,
    eventually,
    gadget,
    has_condition,
    replaced,
    schema,
    version,
    with_schema,
)
from tests.apiserver.test_served import events

TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@asynccontextmanager
async def serving(store: Store, seed: int = 1) -> AsyncIterator[Api]:
    server = ApiServer(store, world=RealWorld(seed))
    await server.start()
    try:
        yield Api(server)
    finally:
        await server.stop()


# What a definition becomes


async def test_a_scope_that_changes_before_the_status_says_that_it_is_served_is_the_scope(
    api: Api, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_yet(*_: Obj) -> None:
        pass

    with monkeypatch.context() as patch:
        patch.setattr(server._definitions, "_write", not_yet)
        made = await api.ok("POST", CRDS, definition())
        await answers(api, "GET", GADGETS, 200)
        made["spec"]["scope"] = "Cluster"
        await api.ok("PUT", f"{CRDS}/{NAME}", made)
        await answers(api, "GET", GADGETS, 404)
        await answers(api, "GET", "/apis/example.com/v1/gadgets", 200)


async def test_names_that_are_not_given_follow_from_the_kind(api: Api) -> None:
    crd = await established(api, definition())

    names = {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"}
    assert crd["spec"]["names"] == names
    assert crd["status"]["acceptedNames"] == names
    assert crd["status"]["storedVersions"] == ["v1"]
    assert conditions(crd) == {
        "NamesAccepted": ("True", "NoConflicts"),
        "Established": ("True", "InitialNamesAccepted"),
    }


async def test_who_reads_that_it_is_established_can_use_it(api: Api) -> None:
    await established(api, definition())

    made = await api.ok("POST", GADGETS, gadget(size=1))
    listed = await api.ok("GET", GADGETS)

    assert made["metadata"]["generation"] == 1
    assert (listed["kind"], [item["spec"] for item in listed["items"]]) == ("GadgetList", [{"size": 1}])


async def test_it_is_discovered_in_all_ways(api: Api) -> None:
    await established(api, definition(version(subresources={"status": {}}), shortNames=["gd"], categories=["all"]))

    plain = await api.ok("GET", "/apis/example.com/v1")
    aggregated = await api.ok("GET", "/apis", accept=DISCOVERY)
    groups = await api.ok("GET", "/apis")

    found = {each["name"]: each for each in plain["resources"]}
    assert sorted(found) == ["gadgets", "gadgets/status"]
    assert (found["gadgets"]["shortNames"], found["gadgets"]["categories"]) == (["gd"], ["all"])
    assert sorted(found["gadgets"]["verbs"]) == [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ]
    [group] = [each for each in aggregated["items"] if each["metadata"]["name"] == "example.com"]
    assert [each["resource"] for each in group["versions"][0]["resources"]] == ["gadgets"]
    assert [each["preferredVersion"]["version"] for each in groups["groups"] if each["name"] == "example.com"] == ["v1"]


async def test_openapi_describes_it_with_its_group_version_and_kind(api: Api) -> None:
    note: Obj = {"type": "string", "description": "What to say of it.", "nullable": True}
    await established(api, with_schema(note=note))

    third = await api.ok("GET", "/openapi/v3/apis/example.com/v1")
    second = await api.ok("GET", "/openapi/v2")

    name = "com.example.v1.Gadget"
    kind = [{"group": "example.com", "version": "v1", "kind": "Gadget"}]
    described = third["components"]["schemas"][name]
    assert described["x-kubernetes-group-version-kind"] == kind
    assert described["properties"]["spec"]["properties"]["note"] == note
    # Version 2 knows no nullable values: it says nothing of such a field but that it is there.
    assert second["definitions"][name]["properties"]["spec"]["properties"]["note"] == {
        "description": "What to say of it."
    }
    assert "/apis/example.com/v1/namespaces/{namespace}/gadgets" in second["paths"]


async def test_tables_have_the_columns_that_the_definition_names(api: Api) -> None:
    column = {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 0}
    await established(api, definition(version(additionalPrinterColumns=[column])))
    await api.ok("POST", GADGETS, gadget(size=3))

    table = await api.ok("GET", GADGETS, accept=TABLE)

    assert [each["name"] for each in table["columnDefinitions"]] == ["Name", "Size"]
    assert table["rows"][0]["cells"] == ["a", 3]


async def test_a_column_that_cannot_be_read_is_left_out_with_those_after_it(api: Api) -> None:
    columns = [
        {"name": name, "type": "integer", "jsonPath": path}
        for name, path in (("One", ".spec.size"), ("Two", ".spec[*"), ("Three", ".spec.size"))
    ]
    await established(api, definition(version(additionalPrinterColumns=columns)))
    await api.ok("POST", GADGETS, gadget(size=3))

    table = await api.ok("GET", GADGETS, accept=TABLE)

    assert [each["name"] for each in table["columnDefinitions"]] == ["Name", "One"]
    assert table["rows"][0]["cells"] == ["a", 3]


async def test_fields_can_be_selected_that_the_definition_names(api: Api) -> None:
    await established(api, definition(version(selectableFields=[{"jsonPath": ".spec.size"}])))
    for name, size in (("a", 1), ("b", 2)):
        await api.ok("POST", GADGETS, gadget(name, size=size))

    found = await api.ok("GET", f"{GADGETS}?fieldSelector=spec.size=2")
    status, answer = await api("GET", f"{GADGETS}?fieldSelector=spec.color=red")

    assert [item["metadata"]["name"] for item in found["items"]] == ["b"]
    assert (status, answer["message"]) == (400, "field label not supported: spec.color")


async def test_a_deprecated_version_warns_whoever_asks_for_it(api: Api) -> None:
    await established(api, definition(version(deprecated=True)))

    response = await api.send("GET", GADGETS)

    assert response.headers["Warning"] == '299 - "example.com/v1 Gadget is deprecated"'


async def test_its_scale_is_where_the_definition_says(api: Api) -> None:
    scale = {
        "specReplicasPath": ".spec.size",
        "statusReplicasPath": ".status.size",
        "labelSelectorPath": ".status.chosen",
    }
    whole = schema(size={"type": "integer"})
    whole["properties"]["status"] = {
        "type": "object",
        "properties": {"size": {"type": "integer"}, "chosen": {"type": "string"}},
    }
    await established(
        api, definition(version(schema={"openAPIV3Schema": whole}, subresources={"status": {}, "scale": scale}))
    )
    made = await api.ok("POST", GADGETS, gadget(size=3))
    made["status"] = {"size": 2, "chosen": "app=a"}
    await api.ok("PUT", f"{GADGETS}/a/status", made)

    shown = await api.ok("GET", f"{GADGETS}/a/scale")
    await api.patch(f"{GADGETS}/a/scale", {"spec": {"replicas": 5}})

    assert (shown["apiVersion"], shown["kind"]) == ("autoscaling/v1", "Scale")
    assert (shown["spec"], shown["status"]) == ({"replicas": 3}, {"replicas": 2, "selector": "app=a"})
    assert (await api.ok("GET", f"{GADGETS}/a"))["spec"]["size"] == 5


async def test_a_scale_that_has_no_place_in_the_object_is_refused_with_the_reason(api: Api) -> None:
    scale = {
        "specReplicasPath": ".spec.size",
        "statusReplicasPath": ".status.size",
        "labelSelectorPath": ".spec.chosen",
    }
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    await established(api, definition(version(schema={"openAPIV3Schema": free}, subresources={"scale": scale})))
    await api.ok("POST", GADGETS, {**gadget(), "spec": None})
    await api.ok("POST", GADGETS, gadget("b", size=1))

    wanted = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 2}}
    status, answer = await api("PUT", f"{GADGETS}/a/scale", wanted)
    shown = await api.ok("GET", f"{GADGETS}/b/scale")

    assert status == 500
    assert "value cannot be set because .spec is not a map[string]interface {}" in answer["message"]
    assert "selector" not in shown["status"]


async def test_status_is_a_field_like_any_other_without_the_subresource(api: Api) -> None:
    whole = schema(size={"type": "integer"})
    whole["properties"]["status"] = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    await established(api, definition(version(schema={"openAPIV3Schema": whole})))

    made = await api.ok("POST", GADGETS, {**gadget(size=1), "status": {"ready": True}})

    assert made["status"] == {"ready": True}
    assert (await api("GET", f"{GADGETS}/a/status"))[0] == 404


async def test_groups_of_custom_kinds_come_last_and_their_versions_by_age(api: Api) -> None:
    await established(api, definition(version("v1"), version("v1alpha1", stored=False)))
    await established(api, definition(version("v2"), version("v10beta1", stored=False), plural="others", kind="Other"))
    first = definition()
    first["metadata"]["name"], first["spec"]["group"] = "gadgets.a.example", "a.example"
    await established(api, first)

    plain = (await api.ok("GET", "/apis"))["groups"]
    aggregated = (await api.ok("GET", "/apis", accept=DISCOVERY))["items"]

    versions = ["v2", "v1", "v10beta1", "v1alpha1"]
    assert [group["name"] for group in plain][-2:] == ["a.example", "example.com"]
    assert [each["version"] for each in plain[-1]["versions"]] == versions
    assert plain[-1]["preferredVersion"]["version"] == "v2"
    assert [each["version"] for each in aggregated[-1]["versions"]] == versions


# Changes


async def test_a_version_that_is_added_is_served_and_shows_the_same_objects(api: Api) -> None:
    await established(api, definition())
    await api.ok("POST", GADGETS, gadget(size=1))

    await replaced(api, definition(version(), version("v2", stored=False)))
    shown = await answers(api, "GET", "/apis/example.com/v2/namespaces/default/gadgets/a", 200)

    assert (shown["apiVersion"], shown["spec"]) == ("example.com/v2", {"size": 1})


async def test_a_version_that_is_served_no_more_is_not_found(api: Api) -> None:
    await established(api, definition(version(), version("v2", stored=False)))
    await api.ok("GET", "/apis/example.com/v2/namespaces/default/gadgets")

    await replaced(api, definition(version(), version("v2", stored=False, served=False)))

    await answers(api, "GET", "/apis/example.com/v2/namespaces/default/gadgets", 404)
    assert (await api("GET", GADGETS))[0] == 200


async def test_stored_objects_are_read_as_the_schema_is_now(api: Api) -> None:
    await established(api, with_schema(size={"type": "integer"}, color={"type": "string"}))
    await api.ok("POST", GADGETS, gadget(size=1, color="red"))
    before = await api.ok("GET", f"{GADGETS}/a")

    await replaced(api, with_schema(size={"type": "integer"}, weight={"type": "integer", "default": 7}))

    async def settled() -> Obj | None:
        shown = await api.ok("GET", f"{GADGETS}/a")
        return shown if shown["spec"] == {"size": 1, "weight": 7} else None

    shown = await eventually(settled)
    assert shown["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    listed = await api.ok("GET", GADGETS)
    assert [item["spec"] for item in listed["items"]] == [{"size": 1, "weight": 7}]
    [event] = await events(await api.send("GET", f"{GADGETS}?watch=1"), 1)
    assert (event["type"], event["object"]["spec"]) == ("ADDED", {"size": 1, "weight": 7})


async def test_the_version_that_is_stored_is_noted_for_good(api: Api) -> None:
    await established(api, definition(version(), version("v2", stored=False)))

    crd = await replaced(api, definition(version(stored=False), version("v2")))

    assert crd["status"]["storedVersions"] == ["v1", "v2"]


async def test_whatever_somebody_writes_into_the_status_the_server_says_its_own_again(api: Api) -> None:
    await established(api, definition())

    await api.patch(
        f"{CRDS}/{NAME}/status", [{"op": "add", "path": "/status/conditions", "value": [{"message": "x"}]}], "json"
    )

    crd = await has_condition(api, "Established", "True")
    assert conditions(crd)["NamesAccepted"] == ("True", "NoConflicts")
    assert [each.get("message") for each in crd["status"]["conditions"] if not each.get("type")] == ["x"]
    assert (await api("GET", GADGETS))[0] == 200


# Names


async def test_a_name_that_another_has_is_not_accepted_until_it_is_free(api: Api) -> None:
    await established(api, definition(shortNames=["gd"]))
    await api.ok("POST", CRDS, definition(plural="godets", kind="Godet", shortNames=["gd"]))

    refused = await has_condition(api, "NamesAccepted", "False", "godets.example.com")
    assert conditions(refused) == {
        "NamesAccepted": ("False", "ShortNamesConflict"),
        "Established": ("False", "NotAccepted"),
    }
    assert (await api("GET", "/apis/example.com/v1/godets"))[0] == 404

    await api.ok("DELETE", f"{CRDS}/{NAME}")
    await has_condition(api, "Established", "True", "godets.example.com")
    await api.ok("GET", "/apis/example.com/v1/godets")


def converted(bundle: str) -> Obj:
    crd = definition()
    service = {"name": "converter", "namespace": "default"}
    client = {"service": service, "caBundle": bundle}
    crd["spec"]["conversion"] = {
        "strategy": "Webhook",
        "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client},
    }
    return crd


async def test_what_awaits_the_certificates_of_its_webhook_is_not_served_until_it_has_them(
    api: Api, tmp_path: Path
) -> None:
    await api.ok("POST", CRDS, converted("Cg=="))
    crd = await has_condition(api, "NamesAccepted", "True")
    assert conditions(crd)["Established"] == ("False", "InvalidCABundle")
    status, _ = await api("GET", "/apis/example.com/v1")
    assert status == 404

    config = ClusterConfig("test", str(tmp_path))
    pki.ensure(config)
    bundle = b64encode((config.pki / "ca.crt").read_bytes()).decode()
    await api.ok("PUT", f"{CRDS}/{NAME}", {**crd, "spec": converted(bundle)["spec"]})

    await has_condition(api, "Established", "True")
    await api.ok("POST", GADGETS, gadget(size=1))
    status, refused = await api.patch(f"{CRDS}/{NAME}", {"spec": converted("Cg==")["spec"]})
    assert status == 422
    assert "unable to parse bytes as PEM block" in refused["message"]


async def test_a_name_of_kubernetes_own_needs_an_approval(api: Api) -> None:
    crd = definition()
    crd["metadata"]["name"] = "gadgets.example.k8s.io"
    crd["spec"]["group"] = "example.k8s.io"

    status, answer = await api("POST", CRDS, crd)
    crd["metadata"]["annotations"] = {"api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/1"}
    approved = await established(api, crd)

    assert status == 422
    assert "protected groups must have approval annotation" in answer["message"]
    assert conditions(approved)["KubernetesAPIApprovalPolicyConformant"] == ("True", "ApprovedAnnotation")


async def test_what_kubernetes_has_itself_stays_what_it_is(api: Api) -> None:
    crd = definition(plural="leases", kind="Lease")
    crd["metadata"] = {
        "name": "leases.coordination.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/1"},
    }
    crd["spec"]["group"] = "coordination.k8s.io"
    await established(api, crd)

    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    lease = {"metadata": {"name": "a"}, "spec": {"holderIdentity": "me", "size": 1}}
    assert (await api.ok("POST", leases, lease))["spec"] == {"holderIdentity": "me"}
    await api.ok("DELETE", f"{CRDS}/leases.coordination.k8s.io")
    await answers(api, "GET", f"{CRDS}/leases.coordination.k8s.io", 404)
    assert (await api.ok("GET", f"{leases}/a"))["spec"] == {"holderIdentity": "me"}


# The end


async def test_objects_go_with_their_definition_and_nothing_is_left_for_the_next(api: Api) -> None:
    await established(api, definition())
    for name in ("a", "b", "c"):
        await api.ok("POST", GADGETS, gadget(name, size=1))

    gone = await api.ok("DELETE", f"{CRDS}/{NAME}")
    assert gone["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    await answers(api, "GET", f"{CRDS}/{NAME}", 404)
    await answers(api, "GET", GADGETS, 404)
    assert all(group["name"] != "example.com" for group in (await api.ok("GET", "/apis"))["groups"])

    await established(api, definition())
    assert (await api.ok("GET", GADGETS))["items"] == []


async def test_who_deletes_a_definition_and_then_its_object_finds_the_object(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than the test may take: the definition goes because its last object went.
    monkeypatch.setattr(finalizing, "COURTESY_S", 600.0)
    await established(api, definition())
    await api.ok("POST", GADGETS, gadget(size=1))

    await api.ok("DELETE", f"{CRDS}/{NAME}")
    await has_condition(api, "Terminating", "True")
    await api.ok("DELETE", f"{GADGETS}/a")

    await answers(api, "GET", f"{CRDS}/{NAME}", 404)


async def test_an_object_with_a_finalizer_keeps_its_definition(api: Api) -> None:
    await established(api, definition())
    held = gadget(size=1)
    held["metadata"]["finalizers"] = ["example.com/held"]
    await api.ok("POST", GADGETS, held)
    await api.ok("POST", GADGETS, gadget("b", size=1))

    await api.ok("DELETE", f"{CRDS}/{NAME}")

    async def one_is_left() -> bool:
        items = (await api.ok("GET", GADGETS))["items"]
        return [item["metadata"]["name"] for item in items] == ["a"]

    await eventually(one_is_left)
    crd = await has_condition(api, "Terminating", "True")
    assert conditions(crd)["Terminating"] == ("True", "InstanceDeletionInProgress")
    status, answer = await api("POST", GADGETS, gadget("c", size=1))
    assert status == 405
    assert answer["message"] == "create not allowed while custom resource definition is terminating"

    await api.patch(f"{GADGETS}/a", {"metadata": {"finalizers": None}})
    await answers(api, "GET", f"{CRDS}/{NAME}", 404)


async def test_what_is_applied_while_a_definition_goes_goes_with_it(api: Api) -> None:
    await established(api, definition())
    held = gadget(size=1)
    held["metadata"]["finalizers"] = ["example.com/held"]
    await api.ok("POST", GADGETS, held)
    await api.ok("DELETE", f"{CRDS}/{NAME}")

    async def was_told_to_go() -> bool:
        return "deletionTimestamp" in (await api.ok("GET", f"{GADGETS}/a"))["metadata"]

    await eventually(was_told_to_go)
    status, _ = await api.patch(f"{GADGETS}/late?fieldManager=somebody", gadget("late", size=1), "apply")
    await api.patch(f"{GADGETS}/a", {"metadata": {"finalizers": None}})

    assert status == 201
    await answers(api, "GET", f"{CRDS}/{NAME}", 404)


async def test_nothing_remains_of_the_schemas_of_definitions_that_are_gone(api: Api) -> None:
    def nodes() -> int:
        gc.collect()
        return sum(type(each) is SchemaNode for each in gc.get_objects())

    async def come_and_go() -> None:
        await established(api, with_schema(**{f"field{index}": {"type": "string"} for index in range(50)}))
        await api.ok("POST", GADGETS, gadget(field1="a"))
        await api.ok("DELETE", f"{CRDS}/{NAME}")
        await answers(api, "GET", f"{CRDS}/{NAME}", 404)

    await come_and_go()
    before = nodes()
    for _ in range(4):
        await come_and_go()

    assert nodes() < before + 100


# Restarts, and several servers


async def test_what_is_defined_is_served_by_the_first_request_after_a_restart() -> None:
    store = MemoryStore()
    async with serving(store) as api:
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
        await established(api, with_schema(size={"type": "integer"}, color={"type": "string", "default": "blue"}))
        await api.ok("POST", GADGETS, gadget(size=1))

    async with serving(store, 2) as api:
        assert (await api.ok("GET", f"{GADGETS}/a"))["spec"] == {"size": 1, "color": "blue"}
        assert "example.com" in [group["name"] for group in (await api.ok("GET", "/apis"))["groups"]]


async def test_a_deletion_that_was_begun_is_finished_after_a_restart() -> None:
    store = MemoryStore()
    async with serving(store) as api:
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
        await established(api, definition())
        held = gadget(size=1)
        held["metadata"]["finalizers"] = ["example.com/held"]
        await api.ok("POST", GADGETS, held)
        await api.ok("DELETE", f"{CRDS}/{NAME}")

    async with serving(store, 2) as api:
        assert (await api("GET", f"{CRDS}/{NAME}"))[0] == 200
        await api.patch(f"{GADGETS}/a", {"metadata": {"finalizers": None}})
        await answers(api, "GET", f"{CRDS}/{NAME}", 404)


async def test_every_server_over_a_store_serves_what_one_was_told_of() -> None:
    store = MemoryStore()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(serving(store, 1))
        other = await stack.enter_async_context(serving(store, 2))
        await one.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
        await established(one, definition())
        await answers(other, "GET", GADGETS, 200)
        await other.ok("POST", GADGETS, gadget(size=1))
        await answers(one, "GET", f"{GADGETS}/a", 200)

        await replaced(other, definition(version(), version("v2", stored=False)))
        for api in (one, other):
            await answers(api, "GET", "/apis/example.com/v2/namespaces/default/gadgets/a", 200)

        await one.ok("DELETE", f"{CRDS}/{NAME}")
        for api in (one, other):
            await answers(api, "GET", f"{CRDS}/{NAME}", 404)
            await answers(api, "GET", GADGETS, 404)


async def test_a_definition_that_cannot_be_read_costs_the_others_nothing() -> None:
    store = MemoryStore()
    async with serving(store) as api:
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
        crd = await established(api, definition())
    broken = {**crd, "metadata": {**crd["metadata"], "name": "odd.example.com"}, "spec": {"versions": "none"}}
    await store.commit(
        (Put("/registry/apiextensions.k8s.io/customresourcedefinitions/odd.example.com", orjson.dumps(broken)),)
    )

    async with serving(store, 2) as api:
        assert (await api("GET", GADGETS))[0] == 200
