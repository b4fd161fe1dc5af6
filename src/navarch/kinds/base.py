"""What is particular to a kind: a `Strategy` per kind, with the same hooks for all of them.

The API server runs every write through these hooks in a fixed order:

    create  defaults → (admission, defaults) → prepare_create → validate(obj) → canonical bytes
    update  defaults → (admission, defaults) → prepare_update(obj, old) → validate(obj, old)
    status  defaults → (admission, defaults) → prepare_status(obj, old) → validate_status(obj, old)

Other subresources of the object's own kind (`resize`, `approval` …) take the place of the last two hooks with those of
their own `Subresource`. An update may be prepared more than once (before its fields' owners are recorded, and again
after admission changed it), so preparing what is prepared changes nothing.

Hooks are pure functions over JSON objects; those that return None change `obj` in place (it is the request's own copy,
never shared); `old` is never changed. What needs the rest of the cluster (quotas, allocation of addresses) is the
business of admission (navarch.apiserver.admission), not of a strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Any, ClassVar, Protocol

from navarch.api.errors import FieldError
from navarch.api.meta import Obj, Resource
from navarch.api.structural import StructuralSchemas
from navarch.records import frozen


@frozen
class Column:
    """A column of kubectl's table.

    `value` is either a JSONPath (`.spec.type`) or a function `(obj, now) -> cell`, whose cell is a JSON value. A
    missing path gives an empty cell, or `<none>` where `none` is set. `wide` columns show with `-o wide`
    (priority 1). `typed` cells are what printer columns of custom kinds are: the first value found, as the column's
    type (a date is an age), null for what is none.
    """

    name: str
    value: str | Callable[[Obj, datetime], Any]
    type: str = "string"
    format: str = ""
    wide: bool = False
    description: str = ""
    none: bool = False
    typed: bool = False


def age_cell(obj: Obj, now: datetime) -> str:
    """The AGE cell: the time since creation as kubectl words it."""
    from navarch.api.time import human_duration, parse_time

    created = obj["metadata"].get("creationTimestamp")
    return human_duration(now - parse_time(created)) if created else "<unknown>"


NAME = Column("Name", ".metadata.name", format="name", description="Name of the object")
AGE = Column("Age", age_cell, description="Time since the object was created")


@frozen
class Requester:
    """Who asks, as far as an object may say so."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


# All that a client can say in metadata: kinds whose `/status` takes a status and nothing else keep it.
SETTABLE_METADATA = ("labels", "annotations", "finalizers", "ownerReferences")


class Subresource:
    """What a write through a subresource of the object's own kind may change, and what is wrong with it."""

    # The server's own doing: nothing is defaulted, counted as a generation, or looked at for mistakes.
    trusted: ClassVar[bool] = False

    # Whether what its writer says and may not change is the writer's all the same, as in Kubernetes for `resize`.
    owns_what_it_says: ClassVar[bool] = False

    def prepare(self, strategy: Strategy, obj: Obj, old: Obj) -> None:
        """Restore what such a write may not change."""
        raise NotImplementedError

    def validate(self, strategy: Strategy, obj: Obj, old: Obj) -> Iterator[FieldError]:
        raise NotImplementedError


class Main(Subresource):
    """The object itself; and its scale, which changes what an update of the object may change."""

    def prepare(self, strategy: Strategy, obj: Obj, old: Obj) -> None:
        strategy.prepare_update(obj, old)

    def validate(self, strategy: Strategy, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return strategy.validate(obj, old)


class Status(Subresource):
    """`/status`."""

    def prepare(self, strategy: Strategy, obj: Obj, old: Obj) -> None:
        strategy.prepare_status(obj, old)

    def validate(self, strategy: Strategy, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return strategy.validate_status(obj, old)


MAIN = Main()
STATUS = Status()
_SUBRESOURCES: Mapping[str, Subresource] = {"": MAIN, "scale": MAIN, "status": STATUS}


class Strategy:
    """What is special about one kind; a kind without a strategy of its own uses this one as it is."""

    columns: ClassVar[Sequence[Column]] = (NAME, AGE)
    # A warning for whoever uses this version of the kind, in whichever way.
    deprecation: ClassVar[str] = ""
    # Field selectors beyond metadata.name and metadata.namespace: dotted paths.
    selectable: ClassVar[Sequence[str]] = ()
    # What `selected` looks at that is called otherwise: dotted paths, too.
    selected_by: ClassVar[Sequence[str]] = ()
    # Metadata names: "subdomain" (most), "label" (Service), "path" (RBAC: only / and % are forbidden),
    # "key" (LeaseCandidate: as a ConfigMap's keys).
    name_rule: ClassVar[str] = "subdomain"
    # A new object's finalizers must have a domain (`example.com/name`), but for Kubernetes' own.
    finalizers_have_domains: ClassVar[bool] = True
    # Kinds that keep `metadata.generation`: it is set on create and bumped when anything outside metadata and
    # status changes.
    has_generation: ClassVar[bool] = False
    # What it is set to; 0 where only changes are counted (CSIDriver).
    first_generation: ClassVar[int] = 1
    # … and when annotations change.
    generation_counts_annotations: ClassVar[bool] = False
    # PUT of an object that does not exist creates it (Lease, Endpoints, Event … in Kubernetes).
    allow_create_on_update: ClassVar[bool] = False
    # Objects go by themselves some time after their last write (events: `--event-ttl`).
    expires: ClassVar[bool] = False
    # Without resourceVersion an update overwrites; where False an update must carry it.
    allow_unconditional_update: ClassVar[bool] = True
    # A delete answers with the object rather than with a Status (Pod, Service, PersistentVolume, ServiceAccount …).
    returns_deleted: ClassVar[bool] = False
    # Lists, by dotted path, that are null where they have no items rather than left out: so Go writes a list without
    # `omitempty`, and clients of typed languages count on the field. Nobody owns such a null.
    nulls: ClassVar[Sequence[str]] = ()
    # The same of what is inside of optional structs, which must be there for it; `*` stands for every item of a list.
    nulls_within: ClassVar[Sequence[str]] = ()
    # A Table's rows are in an order of their own (`row_order`).
    orders_rows: ClassVar[bool] = False
    # Annotations that Kubernetes has as fields in memory, so that the metadata alone does not show them.
    fields_in_annotations: ClassVar[Sequence[str]] = ()
    # What its writer says and the strategy then takes back is the writer's all the same (see `Subresource`).
    owns_what_it_says: ClassVar[bool] = False
    # Its `defaults` are of what a write to `/status` leaves as it is, and need not be looked for there.
    defaults_specification_only: ClassVar[bool] = False
    # Its `defaults` depend on nothing but what the object says beside its name: what is alike is completed once.
    defaults_ignore_name: ClassVar[bool] = False
    # It writes times into objects as a default (`stamp`).
    stamps: ClassVar[bool] = False
    # What of the metadata a write to `/status` leaves as it is.
    status_keeps: ClassVar[Sequence[str]] = ()
    # What of an object a write cannot set, beside `status` where the kind has one (CertificateSigningRequest: `spec`).
    resets_on_write: ClassVar[Sequence[str]] = ()
    # Feature gates on which it hangs what the kind does, and those of them that are on where it serves.
    gates: ClassVar[Sequence[str]] = ()
    on: frozenset[str] = frozenset()
    # The subresources of the kind's own type beyond `status` and `scale`, by name.
    subresources: ClassVar[Mapping[str, Subresource]] = {}

    def metadata_alone(self, obj: Obj) -> Obj:
        """The metadata as it is shown without the rest of the object."""
        metadata: Obj = obj["metadata"]
        annotations = metadata.get("annotations") or {}
        if annotations.keys().isdisjoint(self.fields_in_annotations):
            return metadata
        kept = {name: value for name, value in annotations.items() if name not in self.fields_in_annotations}
        others = {name: value for name, value in metadata.items() if name != "annotations"}
        return {**others, "annotations": kept} if kept else others

    def row_order(self, obj: Obj) -> tuple[int, str]:
        """By what the rows of a Table are in order, for kinds that say `orders_rows`."""
        return 0, str(obj["metadata"]["name"])

    def row_conditions(self, obj: Obj) -> list[Obj] | None:
        """By what a client may mark the object's row in a table."""
        return None

    def defaults(self, obj: Obj) -> None:
        """Fill in the defaults that a read of the object shows (those that the OpenAPI schema states are applied
        before this runs)."""

    def stamp(self, obj: Obj, now: str, old: Obj | None) -> None:
        """Fill in the defaults that are the time of the write, for kinds that say `stamps`."""

    def complete(self, obj: Obj) -> None:
        """The last touch before an object is stored: what is there though nobody said so."""
        for path in self.nulls:
            at = obj
            *parents, last = path.split(".")
            for parent in parents:
                at = at.setdefault(parent, {})
            if not at.get(last):
                at[last] = None
        for path in self.nulls_within:
            _fill_null(obj, path.split("."))

    def prepare_create(self, obj: Obj) -> None:
        """Clear what a client may not set on create; by default `status`."""
        obj.pop("status", None)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        """Restore what a client may not change through the main resource; by default `status`."""
        if "status" in old:
            obj["status"] = old["status"]
        else:
            obj.pop("status", None)

    def prepare_status(self, obj: Obj, old: Obj) -> None:
        """Restore what a client may not change through `/status`: by default all but `status` and what of the metadata
        the kind does not keep (`status_keeps`)."""
        metadata, was = obj["metadata"], old["metadata"]
        for name in self.status_keeps:
            if name in was:
                metadata[name] = was[name]
            else:
                metadata.pop(name, None)
        for name in [name for name in obj if name not in ("status", "metadata", "apiVersion", "kind")]:
            if name not in old:
                del obj[name]
        for name, value in old.items():
            if name not in ("status", "metadata", "apiVersion", "kind"):
                obj[name] = value

    # Whether `prepare_status` and `complete` make of a status what depends on nothing but it and what it was before, in
    # whose times and addresses they do not look.
    status_alone: ClassVar[bool] = False

    # Whether the metadata is looked at first, as nearly all kinds' own validation does in Kubernetes, or only where the
    # kind has nothing to say against an object.
    metadata_first: ClassVar[bool] = True

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        """What is wrong with the object (`old` is None on create), beyond types and metadata, which are checked
        for every kind."""
        yield from ()

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        yield from ()

    def early_warnings(self, obj: Obj) -> Iterator[str]:
        """Such texts of a new object that are said even if it is then refused."""
        yield from ()

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        """Texts for the response's `Warning` headers."""
        yield from ()

    def resets(self, subresource: str, *, has_status: bool) -> Sequence[str]:
        """The dotted paths of what a write through a subresource (empty: of the object itself) cannot set, whatever it
        says: nobody comes to own them by it."""
        if subresource == "status":
            return ("spec", *(f"metadata.{name}" for name in self.status_keeps))
        return ("status", *self.resets_on_write) if has_status else self.resets_on_write

    def through(self, subresource: str) -> Subresource:
        """How a write through a subresource (empty: of the object itself) goes.  Raises KeyError."""
        own = self.subresources.get(subresource)
        return own if own is not None else _SUBRESOURCES[subresource]

    def name_requester(self, obj: Obj, requester: Callable[[], Requester]) -> None:
        """Write down who asks for a new object, where the kind does that (after `prepare_create`)."""

    def selected(self, obj: Obj) -> dict[str, str]:
        """The `field_value` of all `selectable` paths."""
        return {path: self.field_value(obj, path) for path in self.selectable}

    def field_value(self, obj: Obj, path: str) -> str:
        """The text that a field selector compares for one of the `selectable` paths."""
        from navarch.api.meta import get_path

        value = get_path(obj, path, "")
        return ("true" if value else "false") if isinstance(value, bool) else str(value)

    def selector_fields(self, resource: Resource) -> Mapping[str, str]:
        """The fields that a selector may name, and as which of its fields an object is asked for each: `selectable`
        ones, name and namespace, or one that no object has."""
        fields = {"metadata.name": "metadata.name", **{path: path for path in self.selectable}}
        if resource.namespaced or not self.selectable:
            fields["metadata.namespace"] = "metadata.namespace"
        return fields

    def unknown_field(self, resource: Resource, field: str) -> str:
        """What is said of a selector that names another."""
        if self.selectable:
            return f"field label not supported: {field}"
        return f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'

    # Whether a deletion has a grace period, even if it is none for the object at hand.
    deletes_gracefully: ClassVar[bool] = False

    def delete_grace_s(self, obj: Obj, requested_s: int | None) -> int:
        """Seconds of graceful deletion: 0 deletes at once (unless finalizers hold the object)."""
        return 0

    def default_propagation(self) -> str:
        """What a delete without `propagationPolicy` does: `Background`, `Foreground` or `Orphan`."""
        return "Background"

    def delete_warnings(self) -> Iterator[str]:
        """Texts for who deletes without saying what shall become of dependents."""
        yield from ()

    # Whether the beginning of a deletion counts as a generation, and says how long it takes.
    counts_deletion: ClassVar[bool] = True

    def refuse_deletion(self, obj: Obj) -> str:
        """Why the object may not be deleted by anyone; empty if it may."""
        return ""

    def prepare_delete(self, obj: Obj) -> None:
        """Change what a beginning deletion changes besides metadata (a Namespace's phase)."""

    def holds_deletion(self, obj: Obj) -> bool:
        """Whether something other than `metadata.finalizers` keeps a deleted object (a Namespace's spec.finalizers)."""
        return False

    def finalizers_on_create(self, obj: Obj) -> Sequence[str]:
        """Finalizers that the server itself puts on a new object."""
        return ()


def _fill_null(at: Any, steps: Sequence[str]) -> None:
    step, *further = steps
    if step == "*":
        for item in at:
            _fill_null(item, further)
    elif not further:
        at.setdefault(step, None)
    elif below := at.get(step):
        _fill_null(below, further)


@frozen
class ScaleSubresource:
    """Where `/scale` finds its numbers. Paths are dotted; `selector` may point at a label selector object, a map or a
    text, or be empty where there is none."""

    replicas: str = "spec.replicas"
    status_replicas: str = "status.replicas"
    selector: str = "spec.selector"


class Converter(Protocol):
    """Converts objects of a kind between its versions; it may take long, and it may fail (a webhook)."""

    async def convert(self, objects: Sequence[Obj], api_version: str) -> Sequence[Obj]:
        """The objects, each of whatever version, in the version wanted, in order; the caller's own copies.  Raises
        StatusError."""
        ...


_WRITES = frozenset({"create", "patch", "update"})


@frozen
class Kind:
    """A served kind: its resource, its names, its verbs and subresources, and its strategy.

    `definition` is the name of its OpenAPI definition (`io.k8s.api.core.v1.Pod`), None for one without schema.
    `storage` is the resource under whose key and version objects are stored, where that is another version of the
    same kind; `to_storage` and `from_storage` convert then, or the `converter`, which does it for all versions; without
    either, versions differ in nothing but their name.
    `own_schemas` has the definition of a custom kind, which no version of Kubernetes has.
    `virtual` kinds (TokenReview, SubjectAccessReview, …) are answered, never stored.
    """

    resource: Resource
    singular: str
    strategy: Strategy
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
    has_status: bool = False
    scale: ScaleSubresource | None = None
    # Other subresources by name: the Kind in their discovery entry and the verbs, e.g. {"log": ("Pod", ("get",))}.
    # A kind of another group is written "policy/v1/Eviction".
    subresources: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    definition: str | None = None
    list_kind: str = ""
    virtual: bool = False
    storage: Resource | None = None
    to_storage: Callable[[Obj], Obj] | None = None
    from_storage: Callable[[Obj], Obj] | None = None
    converter: Converter | None = None
    own_schemas: StructuralSchemas | None = None
    # False for a version that objects may be stored in, but that nobody can ask for.
    served: bool = True
    # What everybody who asks for it is warned of; empty for none.
    deprecation: str = ""
    # Its objects are going, and it goes with the last of them: no more may come.
    ending: bool = False

    @property
    def shown_verbs(self) -> tuple[str, ...]:
        """Those that discovery tells of."""
        return tuple(verb for verb in self.verbs if verb not in _WRITES) if self.ending else self.verbs

    @property
    def stored_resource(self) -> Resource:
        return self.storage or self.resource
