"""Everything that an API server serves, as one immutable snapshot.

In: kinds (the built-in ones, and those that are added at run time).  Out: a `Served`, in which each kind is a
`ServedKind`: the kind with what the server holds for it, its cache, its compiled schema, the paths that it has. A
change of what is served makes another `Served`, which replaces the one before as a whole; a request works with the kind
that it found when it began, so that what it sees never changes under it.

Invariant: nothing here is shared between servers but schemas of a Kubernetes version, which never change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, fields

from navarch.api import protobuf
from navarch.api.alike import Templates
from navarch.api.errors import PathNotFound, StatusError, internal, not_found, unknown_path
from navarch.api.go_structs import present
from navarch.api.meta import Obj, Resource
from navarch.api.schema import Compiled, SchemaSet
from navarch.apiserver.caches import Caches
from navarch.apiserver.codec import Codec, head_of
from navarch.apiserver.routes import Methods, Route, methods_of
from navarch.apiserver.watchcache import WatchCache
from navarch.kinds.base import Kind
from navarch.kinds.registry import Registry
from navarch.records import frozen

_NO_CODEC = Codec(Resource("", "", "", "", False))
_ZEROS = {"integer": 0, "boolean": False}


class _Compiling:
    """What of a kind is worked out at first use."""

    __slots__ = ("compiled", "first_status", "templates")

    compiled: Compiled
    first_status: Obj | None
    templates: Templates | None


@frozen(eq=False)
class ServedKind(Kind):
    """A kind as one server serves it; equal to nothing but itself."""

    schemas: SchemaSet | None = None
    # Encodes objects in its own version, which canonical bytes begin with as `head` says.
    codec: Codec = field(default=_NO_CODEC)
    head: bytes = b""
    # All kinds whose objects are stored with its own, by apiVersion.
    versions: Mapping[str, ServedKind] = field(default_factory=dict)
    # Where its objects are; None for one that is answered rather than stored.
    watch_cache: WatchCache | None = None
    methods: Methods = field(default_factory=dict)
    _lazy: _Compiling = field(default_factory=_Compiling)

    @property
    def cache(self) -> WatchCache:
        """The cache of its objects; all versions of a resource share it."""
        cache = self.watch_cache
        assert cache is not None
        return cache

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @property
    def is_storage(self) -> bool:
        """Whether its objects are stored in its own version."""
        return self.storage is None

    @property
    def storage_kind(self) -> ServedKind:
        """The kind in whose version its objects are stored."""
        return self if self.storage is None else self.versions[self.storage.api_version]

    @property
    def pipeline_kind(self) -> ServedKind:
        """The kind whose hooks its writes go through: where functions convert, those of the stored version."""
        return self if self.to_storage is None else self.storage_kind

    @property
    def has_messages(self) -> bool:
        """Whether its objects have a form in protobuf."""
        return self.own_schemas is None and protobuf.is_kind(self.resource.api_version, self.resource.kind)

    @property
    def compiled(self) -> Compiled | None:
        """Its schema; None for a kind without."""
        try:
            return self._lazy.compiled
        except AttributeError:
            if self.definition is None or self.schemas is None:
                return None
            compiled = self._lazy.compiled = self.schemas.compile(self.definition)
            return compiled

    @property
    def templates(self) -> Templates | None:
        """What is known of new objects that are alike; None for a kind whose objects are each completed."""
        try:
            return self._lazy.templates
        except AttributeError:
            alike = self.strategy.defaults_ignore_name and self.own_schemas is None and self.to_storage is None
            templates = self._lazy.templates = Templates() if alike and self.compiled is not None else None
            return templates

    def absent(self, namespace: str, name: str) -> StatusError:
        """Why there is no such object to read or to change: 404, or 500 where there is one that cannot be decoded."""
        if why := self.cache.why_unreadable(namespace, name):
            return internal(why)
        return not_found(self.resource.plural, self.resource.group, name)

    def first_status(self) -> Obj | None:
        """The status of a new object that nobody has reported on: empty but for its required numbers, which are zero
        (clients count on the field being there). None for a kind without, or that has none until somebody reports one;
        the caller's own copy."""
        try:
            status = self._lazy.first_status
        except AttributeError:
            status = self._lazy.first_status = self._make_first_status()
        return None if status is None else dict(status)

    def _make_first_status(self) -> Obj | None:
        if not self.has_status or self.definition is None or self.schemas is None:
            return None
        stated = self.schemas.definition(self.definition).get("properties", {}).get("status", {})
        if "$ref" not in stated:
            return None
        definition = self.schemas.definition(stated["$ref"])
        properties = definition.get("properties", {})
        required = definition.get("required") or ()
        zeros = {name: _ZEROS[type_] for name in required if (type_ := properties[name].get("type")) in _ZEROS}
        # Where a type has no status until somebody reports one, zeros would be a report.
        return None if zeros and "status" not in present(self.definition) else zeros


class Served:
    """The snapshot. Look-ups are on every request's path."""

    __slots__ = ("_all", "_builtin_groups", "_by_kind", "_by_path", "everything", "registry", "schemas")

    def __init__(self, registry: Registry, schemas: SchemaSet, caches: Mapping[tuple[str, str], WatchCache]) -> None:
        """`caches` by group and plural of the resources that objects are stored as."""
        self.schemas = schemas
        given = registry.kinds()
        # A resource that has not changed keeps what was worked out for it, and the forms that were made of its objects.
        changed = {_stored_name(kind) for kind in given if not isinstance(kind, ServedKind)}
        families: dict[tuple[str, str], dict[str, ServedKind]] = {}
        kinds = [
            kind
            if isinstance(kind, ServedKind) and _stored_name(kind) not in changed
            else _served(kind, schemas, caches, families)
            for kind in given
        ]
        # Also those that nobody can ask for, but that objects may be stored as.
        self._all = kinds
        self.everything = Registry(kinds)
        kinds = [kind for kind in kinds if kind.served]
        self.registry = Registry(kinds)
        self._by_path = {(kind.resource.group, kind.resource.version, kind.resource.plural): kind for kind in kinds}
        self._by_kind = {(kind.resource.group, kind.resource.version, kind.resource.kind): kind for kind in kinds}
        self._builtin_groups = {kind.resource.group for kind in kinds if kind.own_schemas is None} - {""}

    def kinds(self) -> Iterable[ServedKind]:
        return self._all

    def of_resource(self, group: str, plural: str) -> list[ServedKind]:
        """A resource in all its versions."""
        return [kind for kind in self._all if (kind.resource.group, kind.resource.plural) == (group, plural)]

    def by_path(self, group: str, version: str, plural: str) -> ServedKind | None:
        return self._by_path.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> ServedKind | None:
        return self._by_kind.get((group, version, kind))

    def versions(self, group: str) -> Sequence[str]:
        """Those of a group, the preferred one first."""
        return self.registry.versions().get(group, ())

    def missing(self, path: str, group: str) -> StatusError:
        """404 for a path that leads nowhere: in an API's words below its own groups, else as of any web server."""
        if path.startswith("/api/") or group in self._builtin_groups:
            return unknown_path()
        return PathNotFound()

    def of_route(self, route: Route) -> ServedKind | None:
        """The kind that a path is one of; None where the path leads nowhere."""
        kind = self._by_path.get(route.key)
        return None if kind is None or route.odd or route.shape not in kind.methods else kind

    def of(self, resource: Resource) -> ServedKind:
        """Raises LookupError where it is not served."""
        kind = self.by_path(resource.group, resource.version, resource.plural)
        if kind is None:
            raise LookupError(f"{resource.group_resource} is not served")
        return kind


def _stored_name(kind: Kind) -> tuple[str, str]:
    stored = kind.stored_resource
    return (stored.group, stored.plural)


def _served(
    kind: Kind,
    schemas: SchemaSet,
    caches: Mapping[tuple[str, str], WatchCache],
    families: dict[tuple[str, str], dict[str, ServedKind]],
) -> ServedKind:
    name = _stored_name(kind)
    same = {each.name: getattr(kind, each.name) for each in fields(Kind)}
    # One dictionary for all versions of a resource, which is complete before anybody sees the snapshot.
    versions = families.setdefault(name, {})
    made = ServedKind(
        **same,
        schemas=kind.own_schemas or schemas,
        codec=Codec(kind.resource),
        head=head_of(kind.resource),
        versions=versions,
        watch_cache=None if kind.virtual else caches[name],
        methods=methods_of(kind),
    )
    versions[kind.resource.api_version] = made
    return made


def served_by(caches: Caches, registry: Registry, schemas: SchemaSet) -> Served:
    """What is served with these caches."""
    return Served(registry, schemas, caches.by_resource())
