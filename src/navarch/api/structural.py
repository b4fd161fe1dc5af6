"""Structural schemas: the OpenAPI v3 schemas of custom kinds, compiled into what requests need.

In: the schema of one version of a kind.  Out, as for built-in kinds: `decode` (unknown fields and nulls pruned),
`default`, the `SchemaNode` tree for patches, apply and field ownership, and also `errors`, since here the schema is all
the validation there is. A definition may have a megabyte of schema, and a cluster hundreds of definitions of which few
have objects: a schema is read when it is needed first, without its descriptions, and compiled place by place.

Invariant: `apiVersion`, `kind` and `metadata` are the server's, whatever the schema says of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from navarch.api.errors import FieldError
from navarch.api.meta import Obj
from navarch.api.scalar_decoders import DecodeError, decode_failure
from navarch.api.schema import Compiled, SchemaNode, SchemaSet
from navarch.api.schema_decode import Decoder
from navarch.api.structural_invariants import Metadata, Walk, embedded, uniqueness
from navarch.api.structural_pruning import EMBEDDED, PRESERVE, RULES, Filler, Pruner, fields_of, has_rules
from navarch.api.structural_scalars import Found
from navarch.api.structural_values import UNKNOWN, Values
from navarch.records import frozen

if TYPE_CHECKING:
    from navarch.api.structural_rules import SchemaRules

_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
OBJECT_META: Final = _META + "ObjectMeta"
LIST_META: Final = _META + "ListMeta"
_NEEDED: Final = ("ObjectMeta", "OwnerReference", "ManagedFieldsEntry", "FieldsV1", "Time", "ListMeta")
# What says something to people and nothing to the server.
_WORDS: Final = frozenset({"description", "title", "example", "externalDocs"})


@frozen
class SchemaSource:
    """Where a schema is: `load` reads it, whenever somebody needs it; `says` are the words of it that matter here."""

    load: Callable[[], Obj]
    digest: bytes
    says: frozenset[str]
    # How many defaults it states.
    defaults: int = 0

    @classmethod
    def of(cls, schema: Obj) -> SchemaSource:
        return cls.at(lambda: schema, schema)

    @classmethod
    def at(cls, load: Callable[[], Obj], schema: Obj) -> SchemaSource:
        """The schema that `load` would read now is given, for a look at it; it is not kept."""
        data = orjson.dumps(schema)
        said = frozenset(word for word in _LOOKED_FOR if b'"' + word.encode() + b'"' in data)
        return cls(load, hashlib.sha256(data).digest(), said, data.count(b'"default":'))


# Few defaults are stated in a place that an object has.
_DEFAULT_BYTES: Final = 8
_LIST_TYPE: Final = "x-kubernetes-list-type"
_LOOKED_FOR: Final = ("default", EMBEDDED, _LIST_TYPE, RULES)


def stripped(schema: Any) -> Any:
    """A schema without what is written for people. Only what schemas consist of is looked through: a field may be
    called `description`, and a default may have one."""
    found: Obj = {}
    for name, value in schema.items():
        if name in _WORDS:
            continue
        if name == "properties" and isinstance(value, dict):
            value = {field: stripped(inner) for field, inner in value.items()}
        elif name in ("items", "additionalProperties", "not") and isinstance(value, dict):
            value = stripped(value)
        elif name in ("allOf", "anyOf", "oneOf") and isinstance(value, list):
            value = [stripped(inner) for inner in value]
        found[name] = value
    return found


_OWN: Final[Obj] = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"$ref": OBJECT_META}}


def definition_of(schema: Obj, *, embeds: bool = False) -> Obj:
    """The OpenAPI definition of a custom kind: its schema with what every object has, those that it `embeds` too."""
    found: Obj = {**schema, "type": "object", "properties": {**_OWN, **fields_of(schema, root=True)}}
    return _with_embedded(found) if embeds else found


def _with_embedded(schema: Obj) -> Obj:
    found = dict(schema)
    if isinstance(fields := schema.get("properties"), dict):
        found["properties"] = {name: _with_embedded(inner) for name, inner in fields.items()}
    for name in ("items", "additionalProperties"):
        if isinstance(inner := schema.get(name), dict):
            found[name] = _with_embedded(inner)
    if schema.get(EMBEDDED):
        found["properties"] = {**(found.get("properties") or {}), **_OWN}
    return found


class _Definitions(dict[str, Obj]):
    """The definitions by name; those of the kind itself are made when somebody asks."""

    def __init__(self, shared: Mapping[str, Obj], own: Mapping[str, Callable[[], Obj]]) -> None:
        super().__init__(shared)
        self._own = own

    def __missing__(self, name: str) -> Obj:
        made = self[name] = self._own[name]()
        return made

    def __contains__(self, name: object) -> bool:
        return name in self._own or super().__contains__(name)


class StructuralSchemas(SchemaSet):
    """The definitions of one version of one custom kind: its own, and those of what every object has."""

    def __init__(
        self, builtin: SchemaSet, name: str, list_name: str, source: SchemaSource, *, prunes: bool = True
    ) -> None:
        self.source = source
        self.name, self.list_name = name, list_name
        self._schema: Obj | None = None
        own = {name: self._definition, list_name: self._list}
        shared = {_META + each: builtin.definition(_META + each) for each in _NEEDED}
        super().__init__(builtin.version, _Definitions(shared, own))
        self._structural = Structural(self, name, builtin.decoders.struct(OBJECT_META), prunes=prunes)

    @property
    def digest(self) -> bytes:
        """What differs where the schema does."""
        return self.source.digest

    @property
    def adds(self) -> int:
        """How much defaults may add to an object, in bytes of which an object that takes that long would have."""
        return self.source.defaults * _DEFAULT_BYTES

    @property
    def schema(self) -> Obj:
        """The schema, without words for people; kept from the first time that it is needed."""
        if self._schema is None:
            self._schema = stripped(self.source.load())
        return self._schema

    def present(self, name: str) -> frozenset[str]:
        # Whose an object's metadata is, is said of what is in it.
        return frozenset({"metadata"}) if name == self.name else super().present(name)

    def _definition(self) -> Obj:
        return definition_of(self.schema, embeds=EMBEDDED in self.source.says)

    def _list(self) -> Obj:
        return {
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "items": {"type": "array", "items": {"$ref": self.name}},
                "kind": {"type": "string"},
                "metadata": {"$ref": LIST_META},
            },
        }

    def compile(self, name: str) -> Compiled:
        return self._structural if name == self.name else super().compile(name)

    @property
    def structural(self) -> Structural:
        return self._structural


@frozen
class _Parts:
    """What a schema comes to; None where it says nothing of that."""

    pruner: Pruner
    filler: Filler | None
    values: Values
    status: Values | None
    embedded: Walk | None
    unique: Walk | None
    coerce: Metadata | None
    rules: SchemaRules | None


@frozen
class Judgement:
    """What is to be said of an object, and of which change of which it was said."""

    obj: Obj
    old: Obj | None
    errors: Sequence[FieldError]
    warnings: Sequence[str] = ()


class Structural(Compiled):
    """What a structural schema compiles to."""

    __slots__ = ("_judged", "_made", "_metadata", "_own", "_prunes")

    def __init__(self, schemas: StructuralSchemas, name: str, metadata: Decoder, *, prunes: bool) -> None:
        self.name = name
        self.version, self.kind = name.split(".")[-2:]
        self._schemas = schemas
        self.root = schemas.node_of({"$ref": name})
        self._own = schemas
        self._metadata = metadata
        self._prunes = prunes
        self._made: _Parts | None = None
        self._judged: Judgement | None = None

    @property
    def _parts(self) -> _Parts:
        made = self._made
        if made is None:
            schema, says = self._own.schema, self._own.source.says
            status = (schema.get("properties") or {}).get("status")
            coerce = Metadata(schema, self._metadata) if EMBEDDED in says else None
            made = self._made = _Parts(
                Pruner(schema, root=True),
                Filler(schema, root=True) if "default" in says else None,
                Values(schema),
                Values(status) if isinstance(status, dict) else None,
                embedded(schema) if EMBEDDED in says else None,
                uniqueness(schema) if _LIST_TYPE in says else None,
                coerce or None,
                _rules_of(schema) if RULES in says else None,
            )
        return made

    def prepare(self) -> None:
        """Read the schema now, where who needs it first shall not wait: it may be big."""
        _ = self._parts

    def decode(self, obj: Any) -> list[str]:
        """Drop unknown fields, and nulls that may not be, in place. Returns the dotted paths of the unknown fields.
        Raises StatusError 400 where metadata, the object's or an embedded one's, is not what it has to be."""
        try:
            return self.checked(obj)
        except DecodeError as error:
            raise decode_failure(error, self.version, self.kind) from None

    def checked(self, obj: Any) -> list[str]:
        unknown: list[str] = []
        metadata = obj.get("metadata")
        if metadata is None:
            obj.pop("metadata", None)
        else:
            unknown += [f"metadata.{path}" for path in self._metadata(metadata) or ()]
        parts = self._parts
        if self._prunes:
            dropped: list[str] = []
            parts.pruner.prune(obj, "", dropped)
            unknown += sorted(dropped)
        if parts.coerce is not None and (problem := parts.coerce.coerce(obj, unknown)) is not None:
            raise DecodeError(obj, "", str(problem))
        return unknown

    def default(self, obj: Obj) -> None:
        """Apply the defaults that the schema states, in place."""
        filler = self._parts.filler
        if filler is not None:
            filler.fill(obj)

    def settle(self, obj: Obj) -> bool:
        """Make what is stored what the schema says now; whether that changed anything."""
        parts = self._parts
        changed = self._prunes and parts.pruner.prune(obj, "", [])
        return (parts.filler is not None and parts.filler.fill(obj)) or changed

    # Validation

    def errors(self, obj: Obj, old: Obj | None = None, beside: Sequence[FieldError] = ()) -> Sequence[FieldError]:
        """What of the object its schema does not allow, where it is not as it was. `beside` is what else is wrong,
        which is told before what lists and rules say."""
        return self._judged_once(obj, old, beside).errors

    def warnings(self, obj: Obj, old: Obj) -> Sequence[str]:
        """What of the object its rules do not allow, but is as it was."""
        return self._judged_once(obj, old).warnings if self._parts.rules is not None else ()

    def _judged_once(self, obj: Obj, old: Obj | None, beside: Sequence[FieldError] = ()) -> Judgement:
        """Errors and warnings are asked for one after the other; the second of them costs nothing."""
        judged, self._judged = self._judged, None
        if judged is not None and judged.obj is obj and judged.old is old:
            return judged
        judged = self._judge(obj, old, beside)
        if self._parts.rules is not None and old is not None and not judged.errors:
            self._judged = judged
        return judged

    def _judge(self, obj: Obj, old: Obj | None, beside: Sequence[FieldError]) -> Judgement:
        parts = self._parts
        found = list(parts.values.errors(obj) if old is None else parts.values.errors(obj, old))
        found += beside
        if parts.embedded is not None:
            found += parts.embedded(obj, "")
        found += self._repeated(obj, old)
        return self._by_rules(obj, old, found)

    def _by_rules(self, obj: Obj, old: Obj | None, found: list[FieldError]) -> Judgement:
        rules = self._parts.rules
        if rules is None:
            return Judgement(obj, old, found)
        verdict = rules.judge(obj, old, found)
        return Judgement(obj, old, [*found, *verdict.errors], verdict.warnings)

    def status_errors(self, obj: Obj, old: Obj, beside: Sequence[FieldError] = ()) -> Sequence[FieldError]:
        """The same of a change of the status, of which only the status is judged."""
        wrong = [*self._status_values(obj, old), *beside, *self._repeated(obj, old)]
        return self._by_rules(obj, old, wrong).errors

    def _status_values(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        parts = self._parts
        if parts.status is not None and "status" in obj:
            was = old.get("status", UNKNOWN)
            found: Found = parts.status.errors(obj["status"], was)
            for error in found:
                path = "status" if error.field == "<nil>" else f"status.{error.field}"
                yield FieldError(error.type, path, error.detail, error.value)

    def _repeated(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        """Items of lists that are there twice, unless some were before."""
        parts = self._parts
        if parts.unique is not None and (old is None or next(parts.unique(old, ""), None) is None):
            yield from parts.unique(obj, "")


def _rules_of(schema: Obj) -> SchemaRules | None:
    # With all of CEL, which clusters without rules need not load.
    from navarch.api.structural_rules import SchemaRules

    return SchemaRules(schema) if has_rules(schema) else None


def fits(value: Any, node: SchemaNode) -> bool:
    """Whether a value has lists and objects where its schema has them: what is taken apart by its schema must."""
    kind = node.kind
    if value is None or kind == "scalar":
        return True
    if kind == "array":
        items = node.items
        if type(value) is not list:
            return False
        return items is None or items.kind == "scalar" or all(fits(item, items) for item in value)
    if node.preserve_unknown and not node.fields:
        return True
    if type(value) is not dict:
        return False
    if kind == "map":
        values = node.items
        return values is None or values.kind == "scalar" or all(fits(each, values) for each in value.values())
    fields = node.fields
    return all(fits(inner, fields[name]) for name, inner in value.items() if name in fields)


__all__ = [
    "EMBEDDED",
    "PRESERVE",
    "SchemaSource",
    "Structural",
    "StructuralSchemas",
    "definition_of",
    "fits",
    "stripped",
]
