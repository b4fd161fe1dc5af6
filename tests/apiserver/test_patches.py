"""Patches and server-side apply through the API: what clients read of them when something is wrong, who owns what
afterwards, and what is not written because nothing changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from navarch.apiserver.patching import MERGE_PATCH, patched
from tests.apiserver.conftest import CONFIG_MAPS, DEPLOYMENTS, PODS, Api, config_map, deployment, pod

NOT = "json: cannot unmarshal"


def owners(obj: Any) -> list[tuple[str, str, str]]:
    entries = obj["metadata"].get("managedFields", [])
    return [(entry["manager"], entry["operation"], entry.get("subresource", "")) for entry in entries]


async def test_applying_what_is_there_takes_a_share_without_a_time_and_then_writes_nothing(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a", k="1"))

    _, shared = await api.patch(f"{CONFIG_MAPS}/a?fieldManager=two", config_map("a", k="1"), "apply")
    _, again = await api.patch(f"{CONFIG_MAPS}/a?fieldManager=two", config_map("a", k="1"), "apply")

    assert owners(shared) == [("two", "Apply", ""), ("test", "Update", "")]
    assert "time" not in shared["metadata"]["managedFields"][0]
    assert again == shared


async def test_a_configuration_of_other_types_is_an_error_without_a_reason(api: Api) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": ["x"]}

    status, answer = await api.patch(f"{CONFIG_MAPS}/a?fieldManager=one", body, "apply")

    assert (status, answer["code"]) == (500, 500)
    assert "reason" not in answer
    assert answer["message"] == (
        "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .data: expected map, got &{[x]}"
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"metadata": {"name": "a"}}, 400, "invalid object type: /, Kind="),
        ({"apiVersion": "v1", "kind": "Secret"}, 400, "invalid object type: /v1, Kind=Secret"),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}},
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap"},
            400,
            "the name of the object (a based on URL) was undeterminable: name must be provided",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": []}},
            400,
            "metadata.managedFields must be nil",
        ),
        (
            ["x"],
            400,
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go "
            "value of type map[string]interface {}",
        ),
    ],
)
async def test_a_configuration_of_something_else_is_refused(api: Api, body: Any, status: int, message: str) -> None:
    answered, answer = await api.patch(f"{CONFIG_MAPS}/a?fieldManager=one", body, "apply")
    assert (answered, answer["message"]) == (status, message)


async def test_what_the_decoder_refuses_of_a_configuration_that_has_the_types(api: Api) -> None:
    body = deployment("d")
    body["spec"]["replicas"] = 1.5

    status, answer = await api.patch(f"{DEPLOYMENTS}/d?fieldManager=one", body, "apply")

    assert status == 500
    assert answer["message"] == (
        "failed to convert new object (/d; apps/v1, Kind=Deployment) to proper version: "
        "unable to convert unstructured object to apps/v1, Kind=Deployment: cannot convert float64 to int32"
    )


async def test_null_in_a_configuration_leaves_the_default(api: Api) -> None:
    body = deployment("d", 3)
    await api.patch(f"{DEPLOYMENTS}/d?fieldManager=one", body, "apply")
    body["spec"]["replicas"] = None

    _, applied = await api.patch(f"{DEPLOYMENTS}/d?fieldManager=one", body, "apply")

    assert applied["spec"]["replicas"] == 1
    assert applied["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:replicas"] == {}


async def test_the_same_said_in_another_spelling_writes_nothing(api: Api) -> None:
    body = pod("p")
    body["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "0.5"}}
    _, first = await api.patch(f"{PODS}/p?fieldManager=one", body, "apply")

    _, again = await api.patch(f"{PODS}/p?fieldManager=one", body, "apply")

    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_keys_given_twice_are_told_or_refused(api: Api) -> None:
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: x, k: z}\n"
    path, kind = f"{CONFIG_MAPS}/a?fieldManager=one", "application/apply-patch+yaml"

    warned = await api.send("PATCH", path, text, content_type=kind)
    status, answer = await api("PATCH", f"{path}&fieldValidation=Strict", text, content_type=kind)

    assert warned.headers["Warning"] == '299 - "line 4: key \\"k\\" already set in map"'
    assert (status, answer["message"]) == (
        400,
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n"
        '  line 4: key "k" already set in map',
    )


async def test_an_apply_of_a_scale_conflicts_with_who_applied_the_replicas(api: Api) -> None:
    await api.patch(f"{DEPLOYMENTS}/d?fieldManager=one", deployment("d", 1), "apply")
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 3}}

    status, answer = await api.patch(f"{DEPLOYMENTS}/d/scale?fieldManager=hpa", scale, "apply")
    _, forced = await api.patch(f"{DEPLOYMENTS}/d/scale?fieldManager=hpa&force=true", scale, "apply")

    assert (status, answer["message"]) == (
        409,
        'Apply failed with 1 conflict: conflict with "one": .spec.replicas',
    )
    assert forced["spec"] == {"replicas": 3}
    scaled = await api.ok("GET", f"{DEPLOYMENTS}/d")
    assert owners(scaled) == [("hpa", "Apply", "scale"), ("one", "Apply", "")]
    assert scaled["metadata"]["managedFields"][0]["fieldsV1"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in scaled["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"]


async def test_a_patch_whose_outcome_is_no_object_of_its_kind_repeats_it(api: Api) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("a", k="1"))
    metadata = {key: made["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
    shown = {"apiVersion": "v1", "data": ["x"], "kind": "ConfigMap", "metadata": metadata}

    status, answer = await api.patch(f"{CONFIG_MAPS}/a", {"data": ["x"]})

    (cause,) = answer["details"]["causes"]
    assert (status, answer["reason"], cause["field"]) == (422, "Invalid", "patch")
    begun, why = (
        'Invalid value: "',
        "json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string",
    )
    assert cause["message"].startswith(begun + json.dumps(json.dumps(shown, separators=(",", ":"))[:-2])[1:-1])
    assert cause["message"].endswith(f'": {why}')


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"spec": {"replicas": "x"}}, '"map[spec:map[replicas:x]]": unrecognized type: int32'),
        ({"spec": {"paused": 1}}, '"map[spec:map[paused:1]]": unrecognized type: bool'),
        ({"spec": {"strategy": {"type": 1}}}, '"map[spec:map[strategy:map[type:1]]]": cannot convert int64 to string'),
        ({"metadata": {"labels": "x"}}, '"map[metadata:map[labels:x]]": cannot restore map from string'),
        ({"spec": {"template": []}}, '"map[spec:map[template:[]]]": cannot restore struct from: slice'),
    ],
)
async def test_a_strategic_patch_with_wrong_types_repeats_itself(api: Api, patch: Any, message: str) -> None:
    await api.ok("POST", DEPLOYMENTS, deployment("d"))
    status, answer = await api.patch(f"{DEPLOYMENTS}/d", patch, "strategic")
    assert (status, answer["message"]) == (422, f' "" is invalid: patch: Invalid value: {message}')


@pytest.mark.parametrize(
    ("kind", "patch", "message"),
    [
        ("json", {}, f"error decoding patch: {NOT} object into Go value of type []handlers.jsonPatchOp"),
        ("json", [{"op": 1}], f"error decoding patch: {NOT} number into Go struct field jsonPatchOp.op of type string"),
        ("merge", [], f"error decoding patch: {NOT} array into Go value of type map[string]interface {{}}"),
        ("strategic", [], f"{NOT} array into Go value of type map[string]interface {{}}"),
        ("strategic", b"{", "unexpected end of JSON input"),
    ],
)  # fmt: skip
async def test_what_is_no_patch_is_a_bad_request(api: Api, kind: str, patch: Any, message: str) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a", k="1"))
    status, answer = await api.patch(f"{CONFIG_MAPS}/a", patch, kind)
    assert (status, answer["message"]) == (400, message)


async def test_a_strategic_patch_cannot_change_the_kind_and_a_merge_patch_is_told_so(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a", k="1"))

    ignored, _ = await api.patch(f"{CONFIG_MAPS}/a", {"kind": "Pod"}, "strategic")
    refused, answer = await api.patch(f"{CONFIG_MAPS}/a", {"kind": "Nope"})

    assert (ignored, refused) == (200, 422)
    assert answer["message"].endswith('": no kind "Nope" is registered for version "v1" in scheme '
                                      '"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"')  # fmt: skip


async def test_what_a_patch_says_twice_or_to_nobody_is_told(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a", k="1"))
    twice = b'{"data": {"k": "2", "k": "3"}, "bogus": 1}'

    warned = await api.send("PATCH", f"{CONFIG_MAPS}/a", twice, content_type="application/merge-patch+json")

    assert warned.headers["Warning"] == '299 - "duplicate field \\"data.k\\"", 299 - "unknown field \\"bogus\\""'


async def test_an_item_without_its_merge_key_is_kubernetes_own_mistake(api: Api) -> None:
    await api.ok("POST", DEPLOYMENTS, deployment("d"))
    patch = {"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}}

    status, answer = await api.patch(f"{DEPLOYMENTS}/d", patch, "strategic")

    assert (status, answer.get("reason"), answer["message"]) == (
        500,
        None,
        "map: map[image:x] does not contain declared merge key: name",
    )


async def test_annotations_of_a_deployment_are_another_generation_unless_its_status_says_them(api: Api) -> None:
    await api.ok("POST", DEPLOYMENTS, deployment("d"))

    _, by_status = await api.patch(f"{DEPLOYMENTS}/d/status", {"metadata": {"annotations": {"a": "1"}}})
    _, by_itself = await api.patch(f"{DEPLOYMENTS}/d", {"metadata": {"annotations": {"b": "2"}}})

    assert by_itself["metadata"]["annotations"] == {"a": "1", "b": "2"}
    assert (by_status["metadata"]["generation"], by_itself["metadata"]["generation"]) == (1, 2)


def test_what_a_patch_touches_is_looked_at_in_the_objects_order() -> None:
    fields = [f"field{number}" for number in range(20)]
    old = dict.fromkeys(fields, "old")

    _, touched = patched(old, {**dict.fromkeys(reversed(fields), "new"), "another": "new"}, MERGE_PATCH, None)

    assert list(touched) == [*fields, "another"]


async def test_an_update_that_does_not_say_who_owns_what_leaves_it_as_it_is(api: Api) -> None:
    made = await api.ok("POST", f"{DEPLOYMENTS}?fieldManager=maker", deployment("web"))
    await api.ok("PUT", f"{DEPLOYMENTS}/web/status?fieldManager=reporter", {**made, "status": {"replicas": 1}})
    there = await api.ok("GET", f"{DEPLOYMENTS}/web")
    silent = {**there, "metadata": {key: value for key, value in there["metadata"].items() if key != "managedFields"}}

    same = await api.ok("PUT", f"{DEPLOYMENTS}/web?fieldManager=scaler", silent)
    told = await api.ok("PUT", f"{DEPLOYMENTS}/web/status?fieldManager=reporter", silent)
    larger = {**silent, "spec": {**there["spec"], "replicas": 3}}
    scaled = await api.ok("PUT", f"{DEPLOYMENTS}/web?fieldManager=scaler", larger)

    assert same == told == there
    assert owners(there) == [("maker", "Update", ""), ("reporter", "Update", "status")]
    assert sorted(owners(scaled)) == [*owners(there), ("scaler", "Update", "")]
    spent = {**scaled, "metadata": silent["metadata"] | {"resourceVersion": scaled["metadata"]["resourceVersion"]}}
    after = await api.ok("PUT", f"{DEPLOYMENTS}/web/status?fieldManager=reporter", {**spent, "status": {"replicas": 3}})
    assert sorted(owners(after)) == sorted(owners(scaled))


def _first_status(uid: str) -> Any:
    """As a kubelet says it."""
    kinds, now = ("Initialized", "Ready", "PodScheduled"), "2026-01-02T03:04:05Z"
    return {
        "metadata": {"uid": uid},
        "status": {
            "$setElementOrder/conditions": [{"type": kind} for kind in kinds],
            "conditions": [
                {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": now} for kind in kinds
            ],
            "containerStatuses": [
                {"name": "main", "image": "i", "imageID": "", "ready": True, "restartCount": 0, "lastState": {}}
            ],
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
        },
    }


async def test_a_kubelet_owns_what_its_first_status_says_and_nothing_that_it_says_again(api: Api) -> None:
    made = await api.ok("POST", PODS, pod("p"))
    uid, path = made["metadata"]["uid"], f"{PODS}/p/status?fieldManager=kubelet"
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}
    bound = {"status": {"conditions": [scheduled]}}
    await api.patch(f"{PODS}/p/status?fieldManager=scheduler", bound, "strategic")

    _, first = await api.patch(path, _first_status(uid), "strategic")
    _, again = await api.patch(path, _first_status(uid), "strategic")

    owned = {entry["manager"]: entry["fieldsV1"] for entry in first["metadata"]["managedFields"]}
    of_condition = {".": {}, **{f"f:{name}": {} for name in ("lastProbeTime", "lastTransitionTime", "status", "type")}}
    assert json.dumps(owned["kubelet"], sort_keys=True) == json.dumps(
        {
            "f:status": {
                "f:conditions": {f'k:{{"type":"{kind}"}}': of_condition for kind in ("Initialized", "Ready")},
                "f:containerStatuses": {},
                "f:phase": {},
                "f:podIP": {},
                "f:podIPs": {".": {}, 'k:{"ip":"10.0.0.1"}': {".": {}, "f:ip": {}}},
            }
        },
        sort_keys=True,
    )
    assert "f:status" in owned["scheduler"]
    conditions = first["status"]["conditions"]
    assert [condition["type"] for condition in conditions] == ["Initialized", "Ready", "PodScheduled"]
    assert first["spec"] == made["spec"]
    assert again == first


async def test_a_status_patch_that_is_refused_leaves_the_pod_as_it_was(api: Api) -> None:
    made = await api.ok("POST", PODS, pod("p"))
    patch = _first_status(made["metadata"]["uid"])
    patch["status"]["conditions"][1]["status"] = 1

    status, answer = await api.patch(f"{PODS}/p/status", patch, "strategic")

    assert (status, answer["reason"]) == (422, "Invalid")
    assert await api.ok("GET", f"{PODS}/p") == made


async def test_pods_of_a_template_that_report_alike_are_each_told_and_owned_as_the_first(api: Api) -> None:
    told = []
    for number in range(1, 6):
        name, address, container = f"p-{number}", f"10.244.0.{number}", f"containerd://{number:064x}"
        await api.ok("POST", PODS, pod(name, "node-1"))
        at = f"2026-11-26T05:00:{number:02d}Z"
        state = {"running": {"startedAt": at}}
        status = {
            "phase": "Running",
            "startTime": at,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}],
            "containerStatuses": [
                {"name": "c", "image": "i", "imageID": "i", "containerID": container, "lastState": {}, "state": state}
            ],
            "podIP": address,
        }
        answered, reported = await api.patch(f"{PODS}/{name}/status", {"status": status}, "strategic")
        assert answered == 200
        wrong = {"status": {"podIP": "300.0.0.1"}}
        assert (await api.patch(f"{PODS}/{name}/status", wrong, "strategic"))[0] == 422
        text = json.dumps([reported["status"], reported["metadata"]["managedFields"]])
        written = reported["metadata"]["managedFields"][-1]["time"]
        for own, first in ((at, "AT"), (written, "WRITTEN"), (address, "ADDRESS"), (container, "CONTAINER")):
            text = text.replace(own, first)
        told.append(text.replace(reported["metadata"]["managedFields"][0]["time"], "WRITTEN"))
        assert await api.ok("GET", f"{PODS}/{name}") == reported

    assert set(told) == {told[0]}
    assert 'k:{\\\\\\"ip\\\\\\":\\\\\\"ADDRESS\\\\\\"}' in json.dumps(told[0])


@pytest.mark.parametrize("kind", ["merge", "strategic"])
async def test_a_default_that_a_patch_removes_comes_back(api: Api, kind: str) -> None:
    path, named = "/apis/storage.k8s.io/v1/storageclasses", {"metadata": {"name": "fast"}, "provisioner": "p"}
    await api.ok("POST", path, named | {"volumeBindingMode": "Immediate"})

    patch = {"volumeBindingMode": None, "metadata": {"labels": {"a": "b"}}}
    status, answer = await api.patch(f"{path}/fast", patch, kind)

    assert (status, answer["volumeBindingMode"], answer["metadata"]["labels"]) == (200, "Immediate", {"a": "b"})


@pytest.mark.parametrize("kind", ["merge", "strategic"])
async def test_of_the_metadata_what_a_patch_names_is_looked_at_and_the_rest_stays(api: Api, kind: str) -> None:
    before = await api.ok("POST", PODS, pod("web", app="web"))

    status, answer = await api.patch(f"{PODS}/web", {"metadata": {"annotations": {"a": None, "b": "c"}}}, kind)
    assert (status, answer["metadata"]["annotations"]) == (200, {"b": "c"})
    kept = {"name", "namespace", "uid", "labels", "creationTimestamp", "generation"} & before["metadata"].keys()
    assert {name: answer["metadata"][name] for name in kept} == {name: before["metadata"][name] for name in kept}

    status, answer = await api.patch(f"{PODS}/web", {"metadata": {"labels": {"a": 1}}}, kind)
    assert (status, "labels" in answer["message"]) == (422, True)

    status, answer = await api.patch(f"{PODS}/web", {"metadata": {"labels": None, "annotations": {}}}, kind)
    assert (status, answer["metadata"].get("labels"), answer["metadata"]["annotations"]) == (200, None, {"b": "c"})
