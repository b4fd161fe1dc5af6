"""What a CustomResourceDefinition comes to: a `CustomResource`, whose kinds a server can serve.

In: the stored bytes of a definition, and what converts its objects.  Out: the resource with its versions, the preferred
one first. The schemas stay in those bytes until somebody needs them: a cluster has hundreds of definitions, of many of
which there is no object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import orjson

from navarch.api.jsonpath import PathError, compile_path
from navarch.api.meta import Obj
from navarch.api.schema import SchemaSet
from navarch.api.structural import SchemaSource
from navarch.kinds.apiextensions.conditions import is_true
from navarch.kinds.base import Column, Converter, Kind, ScaleSubresource
from navarch.kinds.custom import CustomResource, CustomVersion, kinds_of
from navarch.kinds.versions import age
from navarch.records import frozen, mutable

# Makes what converts the objects of a definition, from `spec.conversion`; None where versions differ in name only.
ConverterOf = Callable[[Obj], Converter | None]


@mutable
class Stored:
    """The bytes of a definition. The cache has the same: who holds these can be told to hold the cache's."""

    data: bytes


@frozen
class Definition:
    """A definition as far as it is served; two with the same `signature` are served alike."""

    name: str
    uid: str
    resource: CustomResource
    signature: bytes
    stored: Stored
    # Its objects are going: no more of them may come.
    terminating: bool = False
    # It is going itself, which it may be when all of its objects have gone.
    deleted: bool = False

    def may_become(self, other: Definition) -> bool:
        """Whether what is served stays, and changes. Of another one of the same name nothing does, and a scope may be
        another as long as the definition's status does not say that it is established."""
        return self.uid == other.uid and self.resource.namespaced == other.resource.namespaced

    def kinds(self, builtin: SchemaSet) -> list[Kind]:
        made = kinds_of(self.resource, builtin)
        return [replace(kind, ending=True) for kind in made] if self.terminating else made


def definition_of(data: bytes, converter_of: ConverterOf, names: Obj | None = None) -> Definition:
    """What the bytes of a definition say, by the names that it has been given (those in its status, unless stated)."""
    crd: Obj = orjson.loads(data)
    spec, status = crd["spec"], crd.get("status") or {}
    given: Obj = names if names is not None else status.get("acceptedNames") or {}
    stored = Stored(data)
    prunes, terminating = not spec.get("preserveUnknownFields"), is_true(crd, "Terminating")
    versions = [_version(version, stored, spec["group"], given, prunes=prunes) for version in spec["versions"]]
    versions.sort(key=lambda version: age(version.name))
    said = {
        **{name: value for name, value in spec.items() if name != "versions"},
        "names": given,
        "terminating": terminating,
        "versions": [
            {name: value for name, value in version.items() if name != "schema"} for version in spec["versions"]
        ],
    }
    digest = hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS))
    for version in versions:
        assert isinstance(version.schema, SchemaSource)
        digest.update(version.schema.digest)
    resource = CustomResource(
        spec["group"],
        given.get("plural", ""),
        given.get("kind", ""),
        versions,
        namespaced=spec.get("scope") == "Namespaced",
        singular=given.get("singular", ""),
        list_kind=given.get("listKind", ""),
        short_names=tuple(given.get("shortNames") or ()),
        categories=tuple(given.get("categories") or ()),
        converter=converter_of(crd),
    )
    metadata = crd["metadata"]
    deleted = "deletionTimestamp" in metadata
    uid = metadata.get("uid", "")
    return Definition(metadata["name"], uid, resource, digest.digest(), stored, terminating, deleted)


def _version(version: Obj, stored: Stored, group: str, names: Obj, *, prunes: bool) -> CustomVersion:
    name, subresources = version["name"], version.get("subresources") or {}

    def load() -> Obj:
        return _schema_in(stored.data, name)

    deprecation = ""
    if version.get("deprecated"):
        deprecation = version.get("deprecationWarning") or f"{group}/{name} {names.get('kind', '')} is deprecated"
    return CustomVersion(
        name,
        SchemaSource.at(load, _schema_of(version)),
        served=bool(version.get("served")),
        stored=bool(version.get("storage")),
        has_status=subresources.get("status") is not None,
        scale=_scale(subresources.get("scale")),
        columns=_columns(version.get("additionalPrinterColumns") or ()),
        selectable=tuple(each["jsonPath"].removeprefix(".") for each in version.get("selectableFields") or ()),
        deprecation=deprecation,
        prunes=prunes,
    )


def _schema_of(version: Obj) -> Obj:
    schema: Obj | None = (version.get("schema") or {}).get("openAPIV3Schema")
    return schema if schema is not None else {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _schema_in(data: bytes, name: str) -> Obj:
    versions = orjson.loads(data)["spec"]["versions"]
    return next(_schema_of(version) for version in versions if version["name"] == name)


def _scale(scale: Obj | None) -> ScaleSubresource | None:
    if scale is None:
        return None
    selector = scale.get("labelSelectorPath") or ""
    return ScaleSubresource(
        scale["specReplicasPath"].removeprefix("."),
        scale["statusReplicasPath"].removeprefix("."),
        selector.removeprefix("."),
    )


def _columns(columns: Sequence[Obj]) -> tuple[Column, ...]:
    """The columns up to the first whose path cannot be read, as in Kubernetes."""
    found = []
    for column in columns:
        path = column["jsonPath"]
        try:
            compile_path(path)
        except PathError:
            break
        found.append(
            Column(
                column["name"],
                path,
                type=column["type"],
                format=column.get("format", ""),
                wide=bool(column.get("priority")),
                description=column.get("description")
                or f"Custom resource definition column (in JSONPath format): {path}",
                typed=True,
            )
        )
    return tuple(found)
