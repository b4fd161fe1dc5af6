"""Kinds that are no part of Kubernetes: made at run time from names, versions and structural schemas.

In: a `CustomResource`, which is what a CustomResourceDefinition says.  Out: a `Kind` per version, like those of the
registry: one compiler and one pipeline serve both. Versions share their objects, which are stored in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from navarch.api.errors import FieldError, invalid_value
from navarch.api.go_text import go_text
from navarch.api.meta import Obj, Resource
from navarch.api.schema import SchemaSet
from navarch.api.structural import SchemaSource, Structural, StructuralSchemas
from navarch.api.validation import qualified_name_problems
from navarch.kinds.base import NAME, SETTABLE_METADATA, Column, Converter, Kind, ScaleSubresource, Strategy
from navarch.records import frozen

_AGE: Final = Column(
    "Age",
    ".metadata.creationTimestamp",
    type="date",
    typed=True,
    description="The time at which the object was created, as the server's clock had it.",
)
# Finalizers that need no domain.
_STANDARD_FINALIZERS: Final = frozenset({"orphan", "foregroundDeletion", "kubernetes"})
_INT32_MAX: Final = (1 << 31) - 1


@frozen
class CustomVersion:
    """One version: `columns` as printer columns are, by JSONPath; `selectable` by dotted paths. One version is
    `stored`; one that is not `served` can still be what objects are stored in."""

    name: str
    schema: Obj | SchemaSource
    served: bool = True
    stored: bool = False
    has_status: bool = False
    scale: ScaleSubresource | None = None
    columns: Sequence[Column] = ()
    selectable: Sequence[str] = ()
    # What everybody who asks for this version is warned of; empty for none.
    deprecation: str = ""
    # Whether what the schema does not know is dropped.
    prunes: bool = True


@frozen
class CustomResource:
    """A resource in all its versions, the preferred one first."""

    group: str
    plural: str
    kind: str
    versions: Sequence[CustomVersion]
    namespaced: bool = True
    singular: str = ""
    list_kind: str = ""
    short_names: Sequence[str] = ()
    categories: Sequence[str] = ()
    converter: Converter | None = field(default=None, compare=False)

    def resource(self, version: str) -> Resource:
        return Resource(self.group, version, self.plural, self.kind, self.namespaced)


class CustomStrategy(Strategy):
    """A custom kind has no behaviour but what its definition states."""

    finalizers_have_domains = False

    has_generation = True
    allow_unconditional_update = False
    returns_deleted = False
    status_keeps = SETTABLE_METADATA

    def __init__(self, version: CustomVersion, compiled: Structural) -> None:
        self._compiled = compiled
        self._has_status = version.has_status
        self._scale = version.scale
        # Per version, where those of built-in kinds are per class.
        self.columns = (NAME, *(version.columns or (_AGE,)))  # type: ignore[misc]
        self.selectable = tuple(version.selectable)  # type: ignore[misc]

    def selector_fields(self, resource: Resource) -> Mapping[str, str]:
        fields = dict(super().selector_fields(resource))
        if not resource.namespaced:
            fields.pop("metadata.namespace", None)
        return fields

    def unknown_field(self, resource: Resource, field: str) -> str:
        return f"field label not supported: {field}"

    def prepare_create(self, obj: Obj) -> None:
        if self._has_status:
            super().prepare_create(obj)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        # Without the subresource a status is a field like any other.
        if self._has_status:
            super().prepare_update(obj, old)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        scaled = [] if self._scale is None else list(_scale_errors(obj, self._scale, spec=True))
        yield from self._compiled.errors(obj, old, scaled)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        scaled = [] if self._scale is None else list(_scale_errors(obj, self._scale, spec=False))
        yield from self._compiled.status_errors(obj, old, scaled)

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        known = frozenset((old or {}).get("metadata", {}).get("finalizers") or ())
        for name in sorted(set(obj["metadata"].get("finalizers") or ()) - known):
            for problem in qualified_name_problems(name):
                yield f'metadata.finalizers: "{name}": {problem}'
            if "/" not in name and name not in _STANDARD_FINALIZERS:
                path = " including a path (/)" if "." in name else ""
                yield (
                    f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name{path} to avoid '
                    "accidental conflicts with other finalizer writers"
                )
        if old is not None:
            yield from self._compiled.warnings(obj, old)


def _scale_errors(obj: Obj, scale: ScaleSubresource, *, spec: bool) -> Iterator[FieldError]:
    """What is wrong with what `/scale` shows: two numbers and a selector's text."""
    for path in (scale.replicas, scale.status_replicas) if spec else (scale.status_replicas,):
        value, problem = _at(obj, path, int)
        if problem:
            yield invalid_value(f".{path}", 0, problem)
        elif (value or 0) < 0:
            yield invalid_value(f".{path}", value, "should be a non-negative integer")
        elif (value or 0) > _INT32_MAX:
            yield invalid_value(f".{path}", value, f"should be less than or equal to {_INT32_MAX}")
    if scale.selector:
        _, problem = _at(obj, scale.selector, str)
        if problem:
            yield invalid_value(f".{scale.selector}", "", problem)


_GO_TYPES: Final = {
    str: "string",
    bool: "bool",
    int: "int64",
    float: "float64",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}


def _at(obj: Obj, path: str, wanted: type) -> tuple[Any, str]:
    """What is there, None where nothing is; and why it is not what is wanted."""
    value: Any = obj
    passed = ""
    for step in path.split("."):
        passed = f"{passed}.{step}"
        if value is None:
            return None, ""
        if type(value) is not dict:
            return None, _not_of(value, passed, "map[string]interface{}")
        if step not in value:
            return None, ""
        value = value[step]
    return (value, "") if type(value) is wanted else (None, _not_of(value, passed, _GO_TYPES[wanted]))


def _not_of(value: Any, path: str, wanted: str) -> str:
    go = _GO_TYPES.get(type(value), "<nil>")
    return f"{path} accessor error: {go_text(value)} is of the type {go}, expected {wanted}"


def kinds_of(custom: CustomResource, builtin: SchemaSet) -> list[Kind]:
    """A kind per version; `builtin` has the definitions that all objects share.  Raises ValueError where not exactly
    one version is stored."""
    stored = [version for version in custom.versions if version.stored]
    if len(stored) != 1:
        raise ValueError(f"{custom.plural}.{custom.group}: one version must be stored, not {len(stored)}")
    return [_kind(custom, version, custom.resource(stored[0].name), builtin) for version in custom.versions]


def _kind(custom: CustomResource, version: CustomVersion, storage: Resource, builtin: SchemaSet) -> Kind:
    resource = custom.resource(version.name)
    list_kind = custom.list_kind or f"{custom.kind}List"
    package = ".".join([*reversed(custom.group.split(".")), version.name])
    definition = f"{package}.{custom.kind}"
    source = version.schema if isinstance(version.schema, SchemaSource) else SchemaSource.of(version.schema)
    schemas = StructuralSchemas(builtin, definition, f"{package}.{list_kind}", source, prunes=version.prunes)
    return Kind(
        resource=resource,
        singular=custom.singular or custom.kind.lower(),
        strategy=CustomStrategy(version, schemas.structural),
        short_names=tuple(custom.short_names),
        categories=tuple(custom.categories),
        has_status=version.has_status,
        scale=version.scale,
        definition=definition,
        list_kind=list_kind,
        storage=None if version.stored else storage,
        converter=custom.converter,
        own_schemas=schemas,
        served=version.served,
        deprecation=version.deprecation,
    )
