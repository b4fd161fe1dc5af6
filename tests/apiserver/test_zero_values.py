"""Lists that Go writes although they are empty are stored as Go writes them: null, and owned by nobody."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.conftest import Api

RBAC = "/apis/rbac.authorization.k8s.io/v1"
CSI_NODES = "/apis/storage.k8s.io/v1/csinodes"
LIMIT_RANGES = "/api/v1/namespaces/default/limitranges"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


@pytest.mark.parametrize(
    ("path", "body", "stored"),
    [
        (CSI_NODES, {}, {"spec": {"drivers": None}}),
        (CSI_NODES, {"spec": {}}, {"spec": {"drivers": None}}),
        (CSI_NODES, {"spec": {"drivers": []}}, {"spec": {"drivers": None}}),
        (LIMIT_RANGES, {}, {"spec": {"limits": None}}),
        (LIMIT_RANGES, {"spec": {"limits": []}}, {"spec": {"limits": None}}),
        (f"{RBAC}/clusterroles", {}, {"rules": None}),
        (f"{RBAC}/namespaces/default/roles", {"rules": []}, {"rules": None}),
        (SLICES, {"addressType": "IPv4"}, {"endpoints": None, "ports": None}),
        (
            CSI_NODES,
            {"spec": {"drivers": [{"name": "a.b", "nodeID": "n"}]}},
            {"spec": {"drivers": [{"name": "a.b", "nodeID": "n", "topologyKeys": None}]}},
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            {"spec": {"defaultBackend": {"resource": {"kind": "A", "name": "a"}}}},
            {"spec": {"defaultBackend": {"resource": {"apiGroup": None, "kind": "A", "name": "a"}}}},
        ),
    ],
)
async def test_what_is_missing_is_null(api: Api, path: str, body: Any, stored: Any) -> None:
    made = await api.ok("POST", path, {"metadata": {"name": "x"}, **body})
    assert {name: made[name] for name in stored} == stored
    assert (await api.ok("GET", f"{path}/x"))["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]

    # What was read can be written back: nothing has changed.
    written = await api.ok("PUT", f"{path}/x", made)
    assert written["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    status, labelled = await api.patch(f"{path}/x", {"metadata": {"labels": {"a": "b"}}})
    assert status == 200
    assert {name: labelled[name] for name in stored} == stored
    assert labelled["metadata"].get("generation") == made["metadata"].get("generation")


async def test_numbers_that_are_missing_are_zero(api: Api) -> None:
    revisions = "/apis/apps/v1/namespaces/default/controllerrevisions"
    made = await api.ok("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "x"}})
    assert made["value"] == 0
    assert (await api.ok("POST", revisions, {"metadata": {"name": "x"}, "data": {}}))["revision"] == 0
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template, "ordinals": {}}
    sets = "/apis/apps/v1/namespaces/default/statefulsets"
    assert (await api.ok("POST", sets, {"metadata": {"name": "x"}, "spec": spec}))["spec"]["ordinals"] == {"start": 0}


async def test_inside_of_what_is_there_a_missing_pointer_is_null(api: Api) -> None:
    volume = {"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"]}
    volume["azureFile"] = {"secretName": "s", "shareName": "x"}
    made = await api.ok("POST", "/api/v1/persistentvolumes", {"metadata": {"name": "x"}, "spec": volume})
    assert made["spec"]["azureFile"] == {"secretName": "s", "shareName": "x", "secretNamespace": None}
    rule = {"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"], "clusterScope": True}
    who = [{"kind": "User", "user": {"name": "joe"}}]
    spec = {"priorityLevelConfiguration": {"name": "exempt"}, "rules": [{"subjects": who, "resourceRules": [rule]}]}
    schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
    made = await api.ok("POST", schemas, {"metadata": {"name": "x"}, "spec": spec})
    assert made["spec"]["rules"][0]["resourceRules"] == [{**rule, "namespaces": None}]


async def test_nobody_owns_a_null_and_anybody_can_fill_it(api: Api) -> None:
    made = await api.ok("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "x"}})
    assert "managedFields" not in made["metadata"]

    rule = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
    for kind, patch in (
        ("merge", {"rules": [rule]}),
        ("strategic", {"rules": [rule, rule]}),
        ("json", [{"op": "replace", "path": "/rules", "value": [rule]}]),
    ):
        status, patched = await api.patch(f"{RBAC}/clusterroles/x", patch, kind)
        assert (status, patched["rules"][0]) == (200, rule)
        await api.ok("PUT", f"{RBAC}/clusterroles/x", {"metadata": {"name": "x"}})
    applied = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "x"},
        "rules": [rule],
    }
    status, patched = await api.patch(f"{RBAC}/clusterroles/x?fieldManager=m&force=1", applied, "apply")
    assert (status, patched["rules"]) == (200, [rule])
