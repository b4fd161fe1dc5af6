"""Definitions as large as those of software that embeds whole pods, made from the schemas of the built-in kinds.

In: Kubernetes' definitions.  Out: structural schemas in the form that controller-gen gives them: references replaced
by what they name, quantities and ports as int-or-string with a pattern, merge keys as list maps, structs as atomic
maps.
"""

from __future__ import annotations

import copy
import json
import lzma
from functools import cache
from importlib import resources
from typing import Any

from navarch.api.version import DEFAULT_VERSION

Schema = dict[str, Any]
_QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
_EITHER: Schema = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
_KEPT = ("description", "type", "format", "required", "default", "enum")


@cache
def _definitions() -> dict[str, Schema]:
    packed = resources.files("navarch.api").joinpath("_schemas", f"v{DEFAULT_VERSION}.json.xz").read_bytes()
    loaded: dict[str, Schema] = json.loads(lzma.decompress(packed))
    return loaded


def structural(name: str) -> Schema:
    """The definition `name` (`io.k8s.api.core.v1.PodSpec`) as controller-gen writes it into another one."""
    if name.endswith(".Quantity"):
        return {**copy.deepcopy(_EITHER), "pattern": _QUANTITY}
    if name.endswith(".IntOrString"):
        return copy.deepcopy(_EITHER)
    if name.endswith((".Time", ".MicroTime")):
        return {"type": "string", "format": "date-time"}
    if name.endswith(".ObjectMeta"):
        return {"type": "object"}
    if name.endswith(".FieldsV1"):
        return {"type": "object"}
    return _of(_definitions()[name])


def _of(node: Schema) -> Schema:
    if reference := node.get("$ref"):
        made = structural(reference.rpartition("/")[2])
    elif len(parts := node.get("allOf", ())) == 1:
        made = _of(parts[0])
    else:
        made = {key: copy.deepcopy(node[key]) for key in _KEPT if key in node}
        if "properties" in node:
            made["properties"] = {name: _of(each) for name, each in sorted(node["properties"].items())}
        if "items" in node:
            made["items"] = _of(node["items"])
        if isinstance(node.get("additionalProperties"), dict):
            made["additionalProperties"] = _of(node["additionalProperties"])
        made.setdefault("type", "object")
    for extension in ("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"):
        if extension in node:
            made[extension] = node[extension]
    for key in node.get("x-kubernetes-list-map-keys", ()):
        # What tells items apart has to be there.
        if key not in made["items"].get("required", ()):
            made["items"]["properties"][key].setdefault("default", "TCP" if key == "protocol" else "")
    if "description" in node:
        made["description"] = node["description"]
    return made


def definition(group: str, plural: str, kind: str, spec: Schema) -> Schema:
    status: Schema = {
        "type": "object",
        "properties": {
            "conditions": {
                **_of({"type": "array"}),
                "items": structural("io.k8s.apimachinery.pkg.apis.meta.v1.Condition"),
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
            "replicas": {"type": "integer", "format": "int32"},
            "selector": {"type": "string"},
        },
    }
    schema = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"controller-gen.kubebuilder.io/version": "v0.19.0"},
        },
        "spec": {
            "group": group,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                }
            ],
        },
    }


def workflow() -> Schema:
    """As workflows and monitoring are: whole pods, and containers of their own, in two places; 750 kB in JSON."""
    pod = structural("io.k8s.api.core.v1.PodSpec")
    step = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "container": pod["properties"]["containers"]["items"], "pod": pod},
    }
    steps = {"type": "array", "items": step, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    spec = {"type": "object", "properties": {"steps": steps, "onExit": copy.deepcopy(steps)}}
    return definition("flows.example.com", "flows", "Flow", spec)
