"""Discovery documents: what the server serves, in the old form (one document per group and version) and aggregated.

In: the registry.  Out: JSON objects, the same for the same registry, so that the caller can cache them and send a hash
as ETag.  Groups and versions come in the registry's order, preferred version first; resources by name.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

from navarch.api.meta import Obj, Resource
from navarch.kinds.base import Kind
from navarch.kinds.registry import Registry

_AGGREGATED_VERSIONS = ("v2", "v2beta1")
# The first version of Kubernetes that has the aggregated form in its stable version alone.
_ONLY_V2 = (1, 36)
_STATUS_VERBS = ("get", "patch", "update")
# Of what Kubernetes still stores in an older version, which tells clients nothing but its hash.
_HASHED_AS: Final[Mapping[tuple[str, str], str]] = {
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): "v1beta1",
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): "v1beta1",
    ("apiextensions.k8s.io", "CustomResourceDefinition"): "v1beta1",
}


def aggregated_versions(kubernetes: str) -> tuple[str, ...]:
    """In which versions a Kubernetes gives the aggregated form, the preferred one first."""
    major, _, minor = kubernetes.partition(".")
    return _AGGREGATED_VERSIONS[:1] if (int(major), int(minor)) >= _ONLY_V2 else _AGGREGATED_VERSIONS


def api_versions(server_address: str) -> Obj:
    """`/api`: the versions of the core group."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }


def api_group_list(registry: Registry) -> Obj:
    """`/apis`: every group but the core one."""
    groups = [_group(group, versions) for group, versions in registry.versions().items() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(registry: Registry, group: str) -> Obj | None:
    """`/apis/<group>`; None for a group that is not served."""
    versions = registry.versions().get(group)
    if versions is None or not group:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)}


def _group(group: str, versions: list[str]) -> Obj:
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def api_resource_list(registry: Registry, group: str, version: str) -> Obj | None:
    """`/api/v1` and `/apis/<group>/<version>`; None for a version that is not served."""
    kinds = registry.of_version(group, version)
    if not kinds:
        return None
    resources = []
    for kind in kinds:
        resources.append(_api_resource(kind))
        resources.extend(_api_subresource(kind, *entry) for entry in subresources_of(kind))
    found: Obj = {"kind": "APIResourceList"}
    if group:
        found["apiVersion"] = "v1"
    return {**found, "groupVersion": kinds[0].resource.api_version, "resources": resources}


def subresources_of(kind: Kind) -> Iterator[tuple[str, tuple[str, str, str], tuple[str, ...]]]:
    """Each subresource by name: the group, version and kind of what it reads and writes, and its verbs."""
    entries = dict(kind.subresources)
    if kind.has_status:
        entries["status"] = (kind.resource.kind, _STATUS_VERBS)
    if kind.scale is not None:
        entries["scale"] = ("autoscaling/v1/Scale", _STATUS_VERBS)
    for name, (response, verbs) in sorted(entries.items()):
        *group_version, response_kind = response.split("/")
        group, version = group_version or (kind.resource.group, kind.resource.version)
        yield name, (group, version, response_kind), verbs


def _api_resource(kind: Kind) -> Obj:
    resource = kind.resource
    entry: Obj = {
        "name": resource.plural,
        "singularName": kind.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(kind.shown_verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    if not kind.virtual:
        entry["storageVersionHash"] = storage_version_hash(kind.stored_resource)
    return entry


def _api_subresource(kind: Kind, name: str, response: tuple[str, str, str], verbs: tuple[str, ...]) -> Obj:
    resource = kind.resource
    entry: Obj = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": response[2],
        "verbs": list(verbs),
    }
    if response[:2] != (resource.group, resource.version):
        entry["group"], entry["version"] = response[:2]
    return entry


def storage_version_hash(stored: Resource) -> str:
    """What tells a client that objects are now stored in another version."""
    version = _HASHED_AS.get((stored.group, stored.kind), stored.version)
    digest = hashlib.sha256(f"{stored.group}/{version}/{stored.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def aggregated(registry: Registry, *, core: bool, api_version: str = "v2") -> Obj:
    """All groups (or the core group, for `/api`) with all their resources, in one `apidiscovery.k8s.io` document."""
    groups = [
        _aggregated_group(registry, group, versions)
        for group, versions in registry.versions().items()
        if (group == "") is core
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{api_version}",
        "metadata": {},
        "items": groups,
    }


def _aggregated_group(registry: Registry, group: str, versions: list[str]) -> Obj:
    return {
        "metadata": {"name": group} if group else {},
        "versions": [
            {
                "version": version,
                "resources": [_aggregated_resource(kind) for kind in registry.of_version(group, version)],
                "freshness": "Current",
            }
            for version in versions
        ],
    }


def _response_kind(resource: Resource, group: str, version: str, kind: str) -> Obj:
    """Group and version are said only where they are not those of the list, as Kubernetes does."""
    if (group, version) == (resource.group, resource.version):
        group = version = ""
    return {"group": group, "version": version, "kind": kind}


def _aggregated_resource(kind: Kind) -> Obj:
    resource = kind.resource
    entry: Obj = {
        "resource": resource.plural,
        "responseKind": _response_kind(resource, resource.group, resource.version, resource.kind),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.shown_verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    subresources = [
        {"subresource": name, "responseKind": _response_kind(resource, *response), "verbs": list(verbs)}
        for name, response, verbs in subresources_of(kind)
    ]
    if subresources:
        entry["subresources"] = subresources
    return entry
