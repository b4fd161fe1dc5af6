"""Whether a configuration has the types of its kind, in the words that Kubernetes has for it."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api import schema
from navarch.api.typed import problems

POD = schema.load().compile("io.k8s.api.core.v1.Pod").root

VALUE = "&value.valueUnstructured{Value"


def container(**said: Any) -> Any:
    return {"spec": {"containers": [{"name": "c", **said}]}}


@pytest.mark.parametrize(
    "config",
    [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["a/b"]}},
        container(image="x", ports=[{"containerPort": 80}], resources={"limits": {"cpu": 1, "memory": "1Gi"}}),
        container(livenessProbe={"httpGet": {"port": "web"}, "initialDelaySeconds": 1.5}, tty=True),
        container(image=None, ports=None),
        {"metadata": {"creationTimestamp": None}, "spec": None},
    ],
)
def test_what_has_the_types_of_its_kind(config: Any) -> None:
    assert problems(config, POD) == ""


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"bogus": 1}, ".bogus: field not declared in schema"),
        ({"spec": []}, ".spec: expected map, got &{[]}"),
        ({"metadata": {"labels": ["x", 1]}}, ".metadata.labels: expected map, got &{[x 1]}"),
        (
            {"metadata": {"labels": {"a": 1}}},
            ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            {"metadata": {"labels": {"a": {"b": [True]}}}},
            f".metadata.labels.a: expected string, got {VALUE}:"
            'map[string]interface {}{"b":[]interface {}{true}}}',
        ),
        ({"spec": {"priority": "x"}}, ".spec.priority: expected numeric (int or float), got string"),
        ({"spec": {"priority": {}}}, ".spec.priority: expected numeric (int or float), got map[string]interface {}"),
        ({"spec": {"hostNetwork": "yes"}}, ".spec.hostNetwork: expected boolean, got &{yes}"),
        (
            {"metadata": {"creationTimestamp": ["now"]}},
            ".metadata.creationTimestamp: expected any scalar, got &{[now]}",
        ),
        ({"spec": {"containers": "x"}}, ".spec.containers: expected list, got &{x}"),
        (
            container(args=["a", 2]),
            '.spec.containers[name="c"].args[1]: expected string, got &value.valueUnstructured{Value:2}',
        ),
        (
            {"spec": {"containers": [{"image": "x"}]}},
            '.spec.containers: element 0: associative list with keys has an element that omits key field "name" '
            "(and doesn't have default value)",
        ),
        (
            {"spec": {"containers": [None]}},
            ".spec.containers: element 0: associative list with keys may not have a null element",
        ),
        (
            {"spec": {"containers": ["x"]}},
            ".spec.containers: element 0: associative list with keys may not have non-map elements",
        ),
        ({"metadata": {"finalizers": ["a", "a"]}}, '.metadata.finalizers: duplicate entries for key [="a"]'),
        (
            container(ports=[{"containerPort": 80}, {"containerPort": 80, "protocol": "TCP"}]),
            '.spec.containers[name="c"].ports: duplicate entries for key [containerPort=80,protocol="TCP"]',
        ),
        (
            {"spec": {"priority": "x", "hostname": 5}},
            "errors:\n  .spec.priority: expected numeric (int or float), got string\n"
            f"  .spec.hostname: expected string, got {VALUE}:5}}",
        ),
    ],
)
def test_what_has_not(config: Any, said: str) -> None:
    assert problems(config, POD) == said
