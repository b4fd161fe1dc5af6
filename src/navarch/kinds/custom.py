"""Kinds that are no part of Kubernetes: made at run time from names, versions and structural schemas.

In: a `CustomResource`, which is what a CustomResourceDefinition says.  Out: a `Kind` per version, like those of the
registry: one compiler and one pipeline serve both. Versions share their objects, which are stored in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from navarch.api.errors import FieldError
from navarch.api.meta import Obj, Resource
from navarch.api.schema import SchemaSet
from navarch.api.structural import Structural, StructuralSchemas
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Converter, Kind, ScaleSubresource, Strategy


@dataclass(frozen=True, slots=True)
class CustomVersion:
    """One version: `columns` as printer columns are, by JSONPath; `selectable` by dotted paths. One version is
    `stored`; one that is not `served` can still be what objects are stored in."""

    name: str
    schema: Obj
    served: bool = True
    stored: bool = False
    has_status: bool = False
    scale: ScaleSubresource | None = None
    columns: Sequence[Column] = ()
    selectable: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
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
        # Per version, where those of built-in kinds are per class.
        self.columns = (NAME, *(version.columns or (AGE,)))  # type: ignore[misc]
        self.selectable = tuple(version.selectable)  # type: ignore[misc]

    def defaults(self, obj: Obj) -> None:
        self._compiled.default(obj)

    def prepare_create(self, obj: Obj) -> None:
        if self._has_status:
            super().prepare_create(obj)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        # Without the subresource a status is a field like any other.
        if self._has_status:
            super().prepare_update(obj, old)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        return self._compiled.errors(obj)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return self._compiled.errors(obj)


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
    schemas = StructuralSchemas(builtin, definition, f"{package}.{list_kind}", version.schema)
    compiled = schemas.compile(definition)
    assert isinstance(compiled, Structural)
    return Kind(
        resource=resource,
        singular=custom.singular or custom.kind.lower(),
        strategy=CustomStrategy(version, compiled),
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
    )
