"""Which API objects a pod or a volume refers to: what its node may therefore read, and what a mirror pod must not name.

In: a Pod or a PersistentVolume.  Out: what it names, every kind of reference that its schema has. Pure. Whoever adds a
field to pods that names an object adds it here; a test walks the schema for fields that look like it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from navarch.api.meta import Obj

SECRETS: Final = "secrets"
CONFIG_MAPS: Final = "configmaps"
CLAIMS: Final = "persistentvolumeclaims"
ACCOUNTS: Final = "serviceaccounts"
RESOURCE_CLAIMS: Final = "resourceclaims"


class Reference(NamedTuple):
    """An object by its resource (plural), namespace and name."""

    resource: str
    namespace: str
    name: str


# Volume sources whose secret is named by `secretRef.name`.
_WITH_SECRET_REF: Final = ("cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos")
# Of a CSI volume, the secrets that the node itself needs; those of the controller are none of its business.
_CSI_NODE_SECRETS: Final = ("nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef")
_CONTAINERS: Final = ("initContainers", "containers", "ephemeralContainers")
# Sources of a pod's volumes that name an object of a kind which is not in the node's graph, or name it by more than a
# name: forbidden in mirror pods all the same.
_OTHER_SOURCES: Final = {
    "csi": "csidrivers",
    "ephemeral": CLAIMS,
    "persistentVolumeClaim": CLAIMS,
}
_OTHER_PROJECTIONS: Final = {
    "clusterTrustBundle": "clustertrustbundles",
    "serviceAccountToken": ACCOUNTS,
    "podCertificate": "podcertificaterequests",
}


def of_pod(pod: Obj) -> Iterator[Reference]:
    """What a pod's node may read for its sake, all in the pod's own namespace."""
    spec = pod.get("spec") or {}
    namespace = pod["metadata"].get("namespace") or ""
    if spec.get("serviceAccountName"):
        yield Reference(ACCOUNTS, namespace, spec["serviceAccountName"])
    for resource, name in _named_in(spec):
        if name:
            yield Reference(resource, namespace, name)
    for volume in spec.get("volumes") or ():
        claim = volume.get("persistentVolumeClaim")
        if claim is not None and claim.get("claimName"):
            yield Reference(CLAIMS, namespace, claim["claimName"])
        elif volume.get("ephemeral") is not None:
            yield Reference(CLAIMS, namespace, f"{pod['metadata']['name']}-{volume['name']}")
    for name in resource_claims_of(pod):
        yield Reference(RESOURCE_CLAIMS, namespace, name)


def first_of_mirror(pod: Obj) -> str:
    """The resource of the first API object that a pod refers to; empty for one that could run without an API server."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    if spec.get("serviceAccountName") or spec.get("serviceAccount"):
        return ACCOUNTS
    named = [resource for resource, _ in _named_in(spec)]
    for resource in (SECRETS, CONFIG_MAPS):
        if resource in named:
            return resource
    if spec.get("resourceClaims") or status.get("resourceClaimStatuses") or status.get("extendedResourceClaimStatus"):
        return RESOURCE_CLAIMS
    for volume in spec.get("volumes") or ():
        for source, resource in _OTHER_SOURCES.items():
            if volume.get(source) is not None:
                return resource
        if (volume.get("glusterfs") or {}).get("endpoints"):
            return "endpoints"
        for projection in (volume.get("projected") or {}).get("sources") or ():
            for source, resource in _OTHER_PROJECTIONS.items():
                if projection.get(source) is not None:
                    return resource
    return ""


def _named_in(spec: Obj) -> Iterator[tuple[str, str]]:
    """The secrets and config maps of a pod's specification; the name may be empty where the field is there."""
    for secret in spec.get("imagePullSecrets") or ():
        yield SECRETS, secret.get("name") or ""
    for part in _CONTAINERS:
        for container in spec.get(part) or ():
            yield from _of_environment(container)
    for volume in spec.get("volumes") or ():
        yield from _of_volume(volume)


def _of_environment(container: Obj) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom") or ():
        if source.get("configMapRef") is not None:
            yield CONFIG_MAPS, source["configMapRef"].get("name") or ""
        if source.get("secretRef") is not None:
            yield SECRETS, source["secretRef"].get("name") or ""
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        if source.get("configMapKeyRef") is not None:
            yield CONFIG_MAPS, source["configMapKeyRef"].get("name") or ""
        if source.get("secretKeyRef") is not None:
            yield SECRETS, source["secretKeyRef"].get("name") or ""


def _of_volume(volume: Obj) -> Iterator[tuple[str, str]]:
    if volume.get("configMap") is not None:
        yield CONFIG_MAPS, volume["configMap"].get("name") or ""
    if volume.get("secret") is not None:
        yield SECRETS, volume["secret"].get("secretName") or ""
    if (volume.get("azureFile") or {}).get("secretName"):
        yield SECRETS, volume["azureFile"]["secretName"]
    for source in _WITH_SECRET_REF:
        if (volume.get(source) or {}).get("secretRef") is not None:
            yield SECRETS, volume[source]["secretRef"].get("name") or ""
    if (volume.get("csi") or {}).get("nodePublishSecretRef") is not None:
        yield SECRETS, volume["csi"]["nodePublishSecretRef"].get("name") or ""
    for projection in (volume.get("projected") or {}).get("sources") or ():
        if projection.get("configMap") is not None:
            yield CONFIG_MAPS, projection["configMap"].get("name") or ""
        if projection.get("secret") is not None:
            yield SECRETS, projection["secret"].get("name") or ""


def resource_claims_of(pod: Obj) -> Iterator[str]:
    """Claims of devices by name: stated, or made for the pod from a template, which its status tells."""
    status = pod.get("status") or {}
    made = {each.get("name"): each.get("resourceClaimName") for each in status.get("resourceClaimStatuses") or ()}
    for claim in (pod.get("spec") or {}).get("resourceClaims") or ():
        name = claim.get("resourceClaimName") or (
            claim.get("resourceClaimTemplateName") and made.get(claim.get("name"))
        )
        if name:
            yield str(name)
    extended = (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName")
    if extended:
        yield str(extended)


def secrets_of_volume(volume: Obj) -> Iterator[Reference]:
    """The secrets with which a node mounts a PersistentVolume."""
    spec = volume.get("spec") or {}
    claimed_in = (spec.get("claimRef") or {}).get("namespace") or ""
    azure = spec.get("azureFile") or {}
    if azure.get("secretName"):
        yield Reference(SECRETS, azure.get("secretNamespace") or claimed_in, azure["secretName"])
    for source in _WITH_SECRET_REF:
        secret = (spec.get(source) or {}).get("secretRef") or {}
        if secret.get("name"):
            yield Reference(SECRETS, secret.get("namespace") or claimed_in, secret["name"])
    for field in _CSI_NODE_SECRETS:
        secret = (spec.get("csi") or {}).get(field) or {}
        if secret.get("name"):
            yield Reference(SECRETS, secret.get("namespace") or "", secret["name"])
