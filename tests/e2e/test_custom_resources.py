"""Custom resources with kubectl: a definition, its objects shown, explained, patched and scaled, and all of it gone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Cluster


def definition(group: str) -> dict[str, Any]:
    spec = {
        "type": "object",
        "description": "What the crontab shall do.",
        "required": ["schedule"],
        "properties": {
            "schedule": {"type": "string", "description": "When it runs.", "pattern": "^(\\S+ ){4}\\S+$"},
            "replicas": {"type": "integer", "minimum": 0, "maximum": 10, "default": 1},
            "image": {"type": "string"},
        },
        "x-kubernetes-validations": [
            {"rule": "!has(self.image) || self.image != 'latest'", "message": "an image needs a version"}
        ],
    }
    status = {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}}
    schema = {"type": "object", "properties": {"spec": spec, "status": status}}
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"crontabs.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, "scale": scale},
                    "additionalPrinterColumns": [
                        {"name": "Schedule", "type": "string", "jsonPath": ".spec.schedule"},
                        {"name": "Image", "type": "string", "jsonPath": ".spec.image", "priority": 1},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                }
            ],
        },
    }


def crontab(group: str, name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{group}/v1",
        "kind": "CronTab",
        "metadata": {"name": name},
        "spec": {"schedule": "* * * * */5", **spec},
    }


@pytest.fixture
def group(simulated: Cluster) -> Iterator[str]:
    """A group with crontabs."""
    group = f"g{uuid.uuid4().hex[:8]}.example.com"
    made = simulated.kubectl("create", "-f", "-", stdin=json.dumps(definition(group)))
    assert made == f"customresourcedefinition.apiextensions.k8s.io/crontabs.{group} created\n"
    simulated.kubectl("wait", "--for=condition=Established", f"crd/crontabs.{group}", "--timeout=30s")
    yield group
    simulated.kubectl("delete", "crd", f"crontabs.{group}", "--ignore-not-found")


def test_objects_are_created_shown_explained_and_patched(simulated: Cluster, namespace: str, group: str) -> None:
    within = ("-n", namespace)
    made = simulated.kubectl("create", "-f", "-", *within, stdin=json.dumps(crontab(group, "a", image="cron:1")))
    assert made == f"crontab.{group}/a created\n"

    shown = [line.split() for line in simulated.kubectl("get", f"ct.{group}", *within).splitlines()]
    wide = simulated.kubectl("get", f"crontabs.{group}", *within, "-o", "wide").splitlines()[0].split()
    assert shown[0] == ["NAME", "SCHEDULE", "AGE"]
    assert shown[1][:6] == ["a", "*", "*", "*", "*", "*/5"]
    assert wide == ["NAME", "SCHEDULE", "IMAGE", "AGE"]

    explained = simulated.kubectl("explain", f"crontabs.{group}.spec")
    assert "What the crontab shall do." in explained
    assert "schedule\t<string> -required-" in explained
    assert "When it runs." in explained

    patch = ("patch", f"crontab.{group}", "a", *within, "--type", "merge", "-p")
    patched = simulated.kubectl(*patch, json.dumps({"spec": {"replicas": 2}}))
    assert patched == f"crontab.{group}/a patched\n"
    assert simulated.get(f"crontab.{group}", "a", *within)["spec"]["replicas"] == 2
    refused = simulated.try_kubectl(*patch, json.dumps({"spec": {"replicas": 11}}))
    assert (
        "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10" in refused.stderr
    )


def test_apply_refuses_what_the_schema_and_its_rules_do_not_allow(
    simulated: Cluster, namespace: str, group: str
) -> None:
    apply = ("apply", "-n", namespace, "-f", "-")

    def applied(body: dict[str, Any], *flags: str) -> tuple[str, str]:
        done = simulated.try_kubectl(*apply, *flags, stdin=json.dumps(body))
        return done.stdout, done.stderr

    assert applied(crontab(group, "a")) == (f"crontab.{group}/a created\n", "")
    assert applied(crontab(group, "a")) == (f"crontab.{group}/a unchanged\n", "")
    assert applied(crontab(group, "a", replicas=3), "--server-side", "--force-conflicts") == (
        f"crontab.{group}/a serverside-applied\n",
        "",
    )
    assert "an image needs a version" in applied(crontab(group, "a", image="latest"))[1]
    assert 'unknown field "spec.imge"' in applied(crontab(group, "a", imge="cron:1"))[1]
    assert "spec.schedule in body should match" in applied(crontab(group, "b", schedule="never"))[1]


def test_an_object_is_scaled_where_its_definition_says(simulated: Cluster, namespace: str, group: str) -> None:
    simulated.apply(crontab(group, "a"), namespace=namespace)

    simulated.kubectl("scale", f"crontab.{group}/a", "--replicas=4", "-n", namespace)

    assert simulated.get(f"crontab.{group}", "a", "-n", namespace)["spec"]["replicas"] == 4


def test_the_objects_go_with_their_definition(simulated: Cluster, namespace: str, group: str) -> None:
    simulated.apply(crontab(group, "a"), crontab(group, "b"), namespace=namespace)

    deleted = simulated.kubectl("delete", "crd", f"crontabs.{group}", "--timeout=60s")

    assert deleted.startswith(f'customresourcedefinition.apiextensions.k8s.io "crontabs.{group}" deleted')
    gone = simulated.try_kubectl("get", f"crontabs.{group}", "-n", namespace)
    assert 'the server doesn\'t have a resource type "crontabs"' in gone.stderr or "NotFound" in gone.stderr


def test_a_namespace_takes_its_custom_objects_along(simulated: Cluster, group: str) -> None:
    name = f"t-{uuid.uuid4().hex[:8]}"
    simulated.kubectl("create", "namespace", name)
    held = crontab(group, "a")
    held["metadata"]["finalizers"] = [f"{group}/held"]
    simulated.apply(held, crontab(group, "b"), namespace=name)

    simulated.kubectl("delete", "namespace", name, "--wait=false")
    simulated.wait_until(
        lambda: [each["metadata"]["name"] for each in simulated.get(f"crontabs.{group}", "-n", name)["items"]] == ["a"],
        what="only the object with a finalizer is left",
    )
    simulated.kubectl(
        "patch", f"crontab.{group}", "a", "-n", name, "--type", "merge", "-p", '{"metadata":{"finalizers":null}}'
    )
    simulated.kubectl("wait", "--for=delete", f"namespace/{name}", "--timeout=60s")
