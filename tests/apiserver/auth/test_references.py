"""What a pod refers to: every field of its schema that names another object counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from navarch.api import schema
from navarch.kinds.core.references import Reference, first_of_mirror, of_pod, secrets_of_volume

SCHEMAS = schema.load("1.37")
# Definitions that are a reference as such, and what a value of them looks like.
_REFERRING = {
    "io.k8s.api.core.v1.LocalObjectReference",
    "io.k8s.api.core.v1.SecretReference",
    "io.k8s.api.core.v1.SecretKeySelector",
    "io.k8s.api.core.v1.ConfigMapKeySelector",
    "io.k8s.api.core.v1.SecretEnvSource",
    "io.k8s.api.core.v1.ConfigMapEnvSource",
    "io.k8s.api.core.v1.SecretProjection",
    "io.k8s.api.core.v1.ConfigMapProjection",
    "io.k8s.api.core.v1.ConfigMapVolumeSource",
    "io.k8s.api.core.v1.ServiceAccountTokenProjection",
    "io.k8s.api.core.v1.ClusterTrustBundleProjection",
    "io.k8s.api.core.v1.PodCertificateProjection",
    "io.k8s.api.core.v1.EphemeralVolumeSource",
    "io.k8s.api.core.v1.CSIVolumeSource",
    "io.k8s.api.core.v1.PodResourceClaim",
}
_NAMING = {"secretName", "claimName", "serviceAccountName", "serviceAccount", "endpoints"}


def referring_pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """A pod per field of the schema that names an object, with a value at that field alone."""
    for path, value in _walk("io.k8s.api.core.v1.PodSpec", ("io.k8s.api.core.v1.PodSpec",)):
        yield path, {"metadata": {"name": "p", "namespace": "ns"}, "spec": value}


def _walk(definition: str, seen: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, stated in (SCHEMAS.definition(definition).get("properties") or {}).items():
        items = stated.get("items")
        target = (items or stated).get("$ref") or next(
            (each["$ref"] for each in (items or stated).get("allOf") or () if "$ref" in each), ""
        )
        target = target.rpartition("/")[2]
        if name in _NAMING and (items or stated).get("type") == "string":
            yield name, {name: "named"}
        elif target in _REFERRING:
            value: Any = {"name": "named"}
            if target.endswith("PodResourceClaim"):
                value = {"name": "c", "resourceClaimName": "named"}
            yield name, {name: [value] if items else value}
        elif target and target not in seen:
            for path, inner in _walk(target, (*seen, target)):
                value = {"name": "v", **inner} if items else inner
                yield f"{name}.{path}", {name: [value] if items else value}


PODS = dict(referring_pods())


def test_the_schema_has_the_fields_that_are_known_to_name_objects() -> None:
    assert {
        "serviceAccountName",
        "imagePullSecrets",
        "containers.env.valueFrom.secretKeyRef",
        "initContainers.envFrom.secretRef",
        "ephemeralContainers.env.valueFrom.configMapKeyRef",
        "volumes.secret.secretName",
        "volumes.projected.sources.secret",
        "volumes.projected.sources.serviceAccountToken",
        "volumes.persistentVolumeClaim.claimName",
        "volumes.ephemeral",
        "volumes.azureFile.secretName",
        "volumes.rbd.secretRef",
        "resourceClaims",
    } <= PODS.keys()


@pytest.mark.parametrize("path", sorted(PODS))
def test_a_mirror_pod_that_names_an_object_is_recognised(path: str) -> None:
    assert first_of_mirror(PODS[path])


@pytest.mark.parametrize("path", sorted(path for path in PODS if "secret" in path.lower() or "config" in path.lower()))
def test_secrets_and_config_maps_are_what_the_node_may_read(path: str) -> None:
    resource = "configmaps" if "config" in path.lower() else "secrets"

    assert list(of_pod(PODS[path])) == [Reference(resource, "ns", "named")]


def test_a_pod_that_names_nothing_refers_to_nothing() -> None:
    volumes = [{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/x"}}]
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}], "volumes": volumes}}

    assert first_of_mirror(pod) == ""
    assert list(of_pod(pod)) == []


def test_a_node_reads_the_secrets_that_it_mounts_a_volume_with_and_not_the_controllers() -> None:
    csi = {
        "driver": "d",
        "nodeStageSecretRef": {"name": "stage", "namespace": "a"},
        "nodePublishSecretRef": {"name": "publish", "namespace": "a"},
        "nodeExpandSecretRef": {"name": "expand", "namespace": "a"},
        "controllerPublishSecretRef": {"name": "attach", "namespace": "a"},
        "controllerExpandSecretRef": {"name": "grow", "namespace": "a"},
    }

    assert {each.name for each in secrets_of_volume({"spec": {"csi": csi}})} == {"stage", "publish", "expand"}


def test_a_volumes_secret_without_a_namespace_is_in_its_claims() -> None:
    spec = {"claimRef": {"namespace": "ns", "name": "c"}, "iscsi": {"secretRef": {"name": "chap"}}}

    assert list(secrets_of_volume({"spec": spec})) == [Reference("secrets", "ns", "chap")]
