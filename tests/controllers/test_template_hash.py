"""Hashes that name what a template makes, against those that Kubernetes 1.36 gave."""

from __future__ import annotations

from typing import Any

from navarch.api.go_dump import dump
from navarch.controllers.hash import template_hash

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "x"}},
    "spec": {
        "containers": [
            {
                "name": "c",
                "image": "i",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "Always",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "none",
    },
}


def container(**fields: Any) -> str:
    """What is written of a template whose container has these fields, too."""
    [first] = TEMPLATE["spec"]["containers"]
    return dump(
        {**TEMPLATE, "spec": {**TEMPLATE["spec"], "containers": [{**first, **fields}]}}, "core/v1.PodTemplateSpec"
    )


def test_a_template_has_the_hash_that_kubernetes_gives_it() -> None:
    assert template_hash(TEMPLATE) == "796d9d457c"


def test_the_order_of_keys_and_empty_maps_change_nothing() -> None:
    spec = dict(reversed(TEMPLATE["spec"].items()))
    assert template_hash({"spec": spec, "metadata": {"annotations": {}, **TEMPLATE["metadata"]}}) == "796d9d457c"


def test_a_collision_gives_another_hash() -> None:
    assert len({template_hash(TEMPLATE, collisions) for collisions in (None, 0, 1, 2)}) == 4


def test_quantities_are_written_with_their_parts() -> None:
    text = container(resources={"limits": {"cpu": "100m", "memory": "1Gi"}, "requests": {"storage": "5G"}})
    nothing = "d:(resource.infDecAmount){Dec:(*inf.Dec)<nil>}"
    amount = "{i:(resource.int64Amount){value:(int64)%d scale:(resource.Scale)%d} %s "
    amount += "s:(string)%s Format:(resource.Format)%s}"
    cpu = amount % (100, -3, nothing, "100m", "DecimalSI")
    memory = amount % (1 << 30, 0, nothing, "1Gi", "BinarySI")
    storage = amount % (5, 9, nothing, "5G", "DecimalSI")
    assert f"Limits:(v1.ResourceList)map[cpu:{cpu} memory:{memory}]" in text
    assert f"Requests:(v1.ResourceList)map[storage:{storage}]" in text


def test_what_is_embedded_and_what_is_a_pointer_is_written_as_go_has_it() -> None:
    text = container(
        livenessProbe={"httpGet": {"port": 80}}, env=[{"name": "A", "valueFrom": {"resourceFieldRef": {}}}]
    )
    port = "Port:(intstr.IntOrString){Type:(intstr.Type)0 IntVal:(int32)80 StrVal:(string)}"
    assert "LivenessProbe:(*v1.Probe){ProbeHandler:(v1.ProbeHandler){Exec:(*v1.ExecAction)<nil>" in text
    assert f"HTTPGet:(*v1.HTTPGetAction){{Path:(string) {port} Host:(string) Scheme:(v1.URIScheme)" in text
    assert "ResourceFieldRef:(*v1.ResourceFieldSelector){" in text
