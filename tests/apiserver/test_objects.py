"""The life of an object through the API: create, update, patch, apply, status, scale, delete."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.apiserver.conftest import CONFIG_MAPS, DEPLOYMENTS, PODS, Api, config_map, deployment, pod


async def test_a_created_object_has_its_identity(api: Api) -> None:
    status, made = await api("POST", CONFIG_MAPS, config_map("a", k="v"))

    metadata = made["metadata"]
    assert status == 201
    assert metadata["namespace"] == "default"
    assert metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert int(metadata["resourceVersion"]) > 0
    assert await api.ok("GET", f"{CONFIG_MAPS}/a") == made


async def test_creating_twice_is_refused(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))

    status, answer = await api("POST", CONFIG_MAPS, config_map("a"))

    assert (status, answer["reason"]) == (409, "AlreadyExists")
    assert answer["message"] == 'configmaps "a" already exists'
    assert answer["details"] == {"name": "a", "kind": "configmaps"}


async def test_generate_name_makes_a_new_name_each_time(api: Api) -> None:
    body = {"metadata": {"generateName": "run-"}}
    names = {(await api.ok("POST", CONFIG_MAPS, body))["metadata"]["name"] for _ in range(5)}

    assert len(names) == 5
    assert all(name.startswith("run-") and len(name) == 9 for name in names)


async def test_a_name_is_required(api: Api) -> None:
    status, answer = await api("POST", CONFIG_MAPS, {"metadata": {}})

    assert status == 422
    assert "metadata.name: Required value: name or generateName is required" in answer["message"]


async def test_the_namespace_must_match_the_path(api: Api) -> None:
    status, answer = await api("POST", CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "other"}})

    assert status == 400
    assert answer["message"] == (
        "the namespace of the provided object does not match the namespace sent on the request"
    )


async def test_another_kind_than_the_paths_is_refused(api: Api) -> None:
    status, answer = await api("POST", CONFIG_MAPS, pod("a"))
    assert status == 400
    assert answer["message"].startswith('Pod in version "v1" cannot be handled as a ConfigMap')

    status, answer = await api("POST", CONFIG_MAPS, {**config_map("a"), "apiVersion": "v2"})
    assert status == 400
    assert answer["message"].startswith(
        'ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "v2"'
    )


@pytest.mark.parametrize(
    ("path", "stated", "message"),
    [
        (
            CONFIG_MAPS,
            ("apps/v1", "Deployment"),
            'Deployment in version "v1" cannot be handled as a ConfigMap: converting (v1.Deployment) to '
            "(core.ConfigMap): unknown conversion",
        ),
        (
            "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
            ("autoscaling/v2", "HorizontalPodAutoscaler"),
            "the API version in the data (autoscaling/v2) does not match the expected API version (autoscaling/v1)",
        ),
        (
            "/api/v1/namespaces/default/events",
            ("events.k8s.io/v1", "Event"),
            "the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)",
        ),
    ],
)
async def test_an_object_of_another_kind_that_there_is(api: Api, path: str, stated: Any, message: str) -> None:
    version, kind = stated

    status, answer = await api("POST", path, {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}})

    assert (status, answer["message"]) == (400, message)


async def test_unknown_fields_warn_by_default_and_fail_when_strict(api: Api) -> None:
    body = {**config_map("a"), "colour": "red"}

    status, answer = await api("POST", f"{CONFIG_MAPS}?fieldValidation=Strict", body)
    assert status == 400
    assert answer["message"] == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "colour"'
    )

    response = await api.send("POST", CONFIG_MAPS, body)
    assert response.status == 201
    assert response.headers["Warning"] == '299 - "unknown field \\"colour\\""'
    assert "colour" not in await api.ok("GET", f"{CONFIG_MAPS}/a")


async def test_a_stale_update_conflicts(api: Api) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("a", k="1"))
    await api.ok("PUT", f"{CONFIG_MAPS}/a", {**made, "data": {"k": "2"}})

    status, answer = await api("PUT", f"{CONFIG_MAPS}/a", {**made, "data": {"k": "3"}})

    assert (status, answer["reason"]) == (409, "Conflict")
    assert answer["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to '
        "the latest version and try again"
    )


async def test_an_update_without_a_version_overwrites(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a", k="1"))

    updated = await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a", k="2"))

    assert updated["data"] == {"k": "2"}


async def test_an_update_that_changes_nothing_writes_nothing(api: Api) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("a", k="1"))

    again = await api.ok("PUT", f"{CONFIG_MAPS}/a", made)

    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_an_update_cannot_change_identity(api: Api) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("a"))
    made["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z"

    updated = await api.ok("PUT", f"{CONFIG_MAPS}/a", made)
    assert updated["metadata"]["creationTimestamp"] != "2001-01-01T00:00:00Z"

    made["metadata"]["uid"] = "other"
    status, answer = await api("PUT", f"{CONFIG_MAPS}/a", made)
    assert status == 409
    assert "Precondition failed: UID in precondition: other" in answer["message"]


async def test_updating_what_is_missing_is_not_found(api: Api) -> None:
    status, answer = await api("PUT", f"{CONFIG_MAPS}/a", config_map("a"))

    assert (status, answer["message"]) == (404, 'configmaps "a" not found')


async def test_each_kind_of_patch(api: Api) -> None:
    await api.ok("POST", DEPLOYMENTS, deployment("web"))
    path = f"{DEPLOYMENTS}/web"

    status, merged = await api.patch(path, {"metadata": {"labels": {"a": "1"}}})
    assert (status, merged["metadata"]["labels"]) == (200, {"a": "1"})

    operation = {"op": "replace", "path": "/spec/replicas", "value": 4}
    status, changed = await api.patch(path, [operation], "json")
    assert (status, changed["spec"]["replicas"]) == (200, 4)
    assert changed["metadata"]["generation"] == merged["metadata"]["generation"] + 1

    container = {"name": "c", "image": "nginx"}
    status, changed = await api.patch(path, {"spec": {"template": {"spec": {"containers": [container]}}}}, "strategic")
    assert status == 200
    assert changed["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx"


async def test_concurrent_patches_all_take_effect(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))

    await asyncio.gather(*(api.patch(f"{CONFIG_MAPS}/a", {"data": {f"k{i}": "v"}}) for i in range(20)))

    assert len((await api.ok("GET", f"{CONFIG_MAPS}/a"))["data"]) == 20


async def test_a_patch_with_a_stale_version_conflicts(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))

    status, _ = await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"resourceVersion": "1"}, "data": {"k": "v"}})

    assert status == 409


async def test_server_side_apply_creates_then_conflicts_with_others(api: Api) -> None:
    path = f"{CONFIG_MAPS}/a"
    status, made = await api.patch(f"{path}?fieldManager=one", config_map("a", k="1"), "apply")
    assert status == 201
    assert [entry["operation"] for entry in made["metadata"]["managedFields"]] == ["Apply"]

    status, answer = await api.patch(f"{path}?fieldManager=two", config_map("a", k="2"), "apply")
    assert (status, answer["reason"]) == (409, "Conflict")
    assert answer["details"]["causes"][0]["field"] == ".data.k"

    status, forced = await api.patch(f"{path}?fieldManager=two&force=true", config_map("a", k="2"), "apply")
    assert (status, forced["data"]) == (200, {"k": "2"})


async def test_apply_needs_a_field_manager(api: Api) -> None:
    status, answer = await api.patch(f"{CONFIG_MAPS}/a", config_map("a"), "apply")

    assert status == 422
    assert "fieldManager: Required value" in answer["message"]


async def test_status_and_spec_are_written_apart(api: Api) -> None:
    made = await api.ok("POST", DEPLOYMENTS, {**deployment("web"), "status": {"replicas": 7}})
    assert made.get("status", {}).get("replicas") is None

    made["status"] = {"replicas": 3, "observedGeneration": 1}
    made["spec"]["replicas"] = 9
    updated = await api.ok("PUT", f"{DEPLOYMENTS}/web/status", made)

    assert updated["status"]["replicas"] == 3
    assert updated["spec"]["replicas"] == 1
    assert updated["metadata"]["generation"] == 1


async def test_a_csi_driver_counts_its_changes_alone(api: Api) -> None:
    drivers = "/apis/storage.k8s.io/v1/csidrivers"
    made = await api.ok("POST", drivers, {"metadata": {"name": "a.example.com"}, "spec": {}})
    assert "generation" not in made["metadata"]

    changed = await api.ok(
        "PUT", f"{drivers}/a.example.com", {**made, "spec": {**made["spec"], "storageCapacity": True}}
    )

    assert changed["metadata"]["generation"] == 1


async def test_scale_reads_and_writes_the_replicas(api: Api) -> None:
    await api.ok("POST", DEPLOYMENTS, deployment("web", replicas=2))

    scale = await api.ok("GET", f"{DEPLOYMENTS}/web/scale")
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == ("Scale", {"replicas": 2}, "app=web")

    scale["spec"]["replicas"] = 5
    assert (await api.ok("PUT", f"{DEPLOYMENTS}/web/scale", scale))["spec"] == {"replicas": 5}
    assert (await api.ok("GET", f"{DEPLOYMENTS}/web"))["spec"]["replicas"] == 5

    status, _ = await api("PUT", f"{DEPLOYMENTS}/web/scale", scale)
    assert status == 409


async def test_dry_run_answers_and_stores_nothing(api: Api) -> None:
    status, made = await api("POST", f"{CONFIG_MAPS}?dryRun=All", config_map("a"))
    assert (status, bool(made["metadata"]["uid"])) == (201, True)
    assert (await api("GET", f"{CONFIG_MAPS}/a"))[0] == 404

    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    await api.ok("DELETE", f"{CONFIG_MAPS}/a?dryRun=All")
    assert (await api("GET", f"{CONFIG_MAPS}/a"))[0] == 200


async def test_a_delete_says_what_it_deleted(api: Api) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("a"))

    status, answer = await api("DELETE", f"{CONFIG_MAPS}/a")

    assert (status, answer["status"]) == (200, "Success")
    assert answer["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert (await api("GET", f"{CONFIG_MAPS}/a"))[0] == 404


async def test_delete_preconditions(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))

    status, answer = await api("DELETE", f"{CONFIG_MAPS}/a", {"preconditions": {"uid": "other"}})

    assert status == 409
    assert "the UID in the precondition (other) does not match the UID in record" in answer["message"]


async def test_finalizers_hold_an_object_until_the_last_is_gone(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": "a", "finalizers": ["x.io/one", "x.io/two"]}})

    held = await api.ok("DELETE", f"{CONFIG_MAPS}/a")
    assert held["metadata"]["deletionTimestamp"]

    status, answer = await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"finalizers": ["x.io/one", "x.io/new"]}})
    assert status == 422
    assert "no new finalizers can be added if the object is being deleted" in answer["message"]

    await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"finalizers": ["x.io/one"]}})
    assert (await api("GET", f"{CONFIG_MAPS}/a"))[0] == 200
    await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"finalizers": None}})
    assert (await api("GET", f"{CONFIG_MAPS}/a"))[0] == 404


async def test_the_last_finalizer_may_go_by_a_change_of_the_status(api: Api) -> None:
    """As service controllers of clouds do it."""
    services = "/api/v1/namespaces/default/services"
    spec = {"ports": [{"port": 80}], "type": "LoadBalancer"}
    await api.ok("POST", services, {"metadata": {"name": "web", "finalizers": ["x.io/one"]}, "spec": spec})
    await api.ok("DELETE", f"{services}/web")

    await api.patch(f"{services}/web/status", {"metadata": {"finalizers": None}})

    assert (await api("GET", f"{services}/web"))[0] == 404


async def test_propagation_policies_become_finalizers(api: Api) -> None:
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        await api.ok("POST", CONFIG_MAPS, config_map("a"))
        _, held = await api("DELETE", f"{CONFIG_MAPS}/a", {"propagationPolicy": policy})
        assert held["metadata"]["finalizers"] == [finalizer]
        await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"finalizers": None}})

    status, _ = await api("DELETE", f"{CONFIG_MAPS}/a", {"propagationPolicy": "Sideways"})
    assert status == 422


async def test_a_bound_pod_is_deleted_gracefully_and_grace_can_only_shrink(api: Api) -> None:
    await api.ok("POST", PODS, pod("a", node="n1"))

    marked = await api.ok("DELETE", f"{PODS}/a")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    longer = await api.ok("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 60})
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 30
    shorter = await api.ok("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 5})
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    assert shorter["metadata"]["deletionTimestamp"] < marked["metadata"]["deletionTimestamp"]

    await api.ok("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0})
    assert (await api("GET", f"{PODS}/a"))[0] == 404


async def test_an_unbound_pod_goes_at_once(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))

    deleted = await api.ok("DELETE", f"{PODS}/a")

    assert deleted["kind"] == "Pod"
    assert (await api("GET", f"{PODS}/a"))[0] == 404


async def test_a_namespace_goes_when_it_is_finalized(api: Api) -> None:
    path = "/api/v1/namespaces/extra"
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "extra"}})

    marked = await api.ok("DELETE", path)
    assert marked["status"]["phase"] == "Terminating"
    assert (await api.ok("GET", path))["metadata"]["deletionTimestamp"]

    marked["spec"]["finalizers"] = []
    await api.ok("PUT", f"{path}/finalize", marked)
    assert (await api("GET", path))[0] == 404


async def test_delete_collection_deletes_what_is_selected(api: Api) -> None:
    for name in ("a", "b", "c"):
        labels = {"keep": "yes"} if name == "b" else {}
        await api.ok("POST", CONFIG_MAPS, {"metadata": {"name": name, "labels": labels}})

    answer = await api.ok("DELETE", f"{CONFIG_MAPS}?labelSelector=!keep")

    assert sorted(item["metadata"]["name"] for item in answer["items"]) == ["a", "c"]
    assert [item["metadata"]["name"] for item in (await api.ok("GET", CONFIG_MAPS))["items"]] == ["b"]


async def test_a_kind_is_served_in_two_versions(api: Api) -> None:
    v1, v2 = (f"/apis/autoscaling/{v}/namespaces/default/horizontalpodautoscalers" for v in ("v1", "v2"))
    target = {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}
    spec = {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}

    made = await api.ok("POST", v1, {"metadata": {"name": "web"}, "spec": spec})
    as_v2 = await api.ok("GET", f"{v2}/web")
    listed = await api.ok("GET", v1)

    assert made["apiVersion"] == "autoscaling/v1"
    assert as_v2["apiVersion"] == "autoscaling/v2"
    assert as_v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
    assert listed["items"][0]["spec"]["targetCPUUtilizationPercentage"] == 50


async def test_nor_does_one_that_says_the_same_in_another_order(api: Api) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("a", k="1"))
    turned = {name: made[name] for name in reversed(made)}
    turned["metadata"] = {name: made["metadata"][name] for name in reversed(made["metadata"])}

    again = await api.ok("PUT", f"{CONFIG_MAPS}/a", turned)

    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
