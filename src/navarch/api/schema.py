"""Schemas: the OpenAPI definitions of a Kubernetes version, compiled per kind into what requests need.

In: the packed definitions that `tools/pack_schemas.py` made.  Out, per definition and at first use only: `decode` (type
checks, pruning, canonical scalars; see `schema_decode`), `default`, and the `SchemaNode` tree by which patches, apply
and field ownership find their way.  Invariant: definitions and nodes are shared and never change.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson

from navarch.api.errors import Obj
from navarch.api.go_structs import present
from navarch.api.scalar_decoders import DecodeError, decode_failure
from navarch.api.schema_decode import Decoders
from navarch.api.version import DEFAULT_VERSION

_FOLDER: Final = Path(__file__).parent / "_schemas"
_NOTHING: Final[Mapping[str, Any]] = {}

# Defaults that Kubernetes states in its schema because list keys or structured merge depend on them; the published
# definitions leave them out.
_STATED_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "io.k8s.api.core.v1.ContainerPort": {"protocol": "TCP"},
    "io.k8s.api.core.v1.ServicePort": {"protocol": "TCP"},
    "io.k8s.api.core.v1.ISCSIVolumeSource": {"iscsiInterface": "default"},
    "io.k8s.api.core.v1.ISCSIPersistentVolumeSource": {"iscsiInterface": "default"},
    "io.k8s.api.core.v1.RBDVolumeSource": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "io.k8s.api.core.v1.RBDPersistentVolumeSource": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "io.k8s.api.core.v1.ScaleIOVolumeSource": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
    "io.k8s.api.core.v1.ScaleIOPersistentVolumeSource": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
    "io.k8s.api.core.v1.AzureDiskVolumeSource": {
        "cachingMode": "ReadWrite",
        "fsType": "ext4",
        "readOnly": False,
        "kind": "Shared",
    },
}

_SCALARS: Final = {"string": "string", "integer": "numeric", "number": "numeric", "boolean": "boolean"}
# Other formats are scalars that may be spelt in more ways than one (times, `int-or-string`).
_PLAIN_FORMATS: Final = frozenset(
    (
        ("string", "byte"),
        *((kind, form) for kind in ("integer", "number") for form in ("int32", "int64", "double", "float")),
    )
)


class SchemaNode:
    """One place in a kind's schema.

    `kind` is object (a struct), map, array or scalar; `fields` are a struct's, `items` is an array's or map's element.
    `list_type` is map, set or atomic; `list_map_keys` identify a map list's items, whose defaults are in `defaults`.
    `patch_strategy` (comma-separated) and `patch_merge_key` serve strategic merge; `atomic` structs and maps are owned
    as a whole; below `preserve_unknown` there is no schema. `definition` is the definition's name without its package;
    `scalar` is string, numeric, boolean, or empty for scalars that may be spelt in several ways, and `any` where no
    type is stated; `present` are the fields that Kubernetes' type has by value. Filled in on first access.
    """

    __slots__ = (
        "_schema",
        "_schemas",
        "atomic",
        "default",
        "defaults",
        "definition",
        "fields",
        "items",
        "key_function",
        "kind",
        "list_map_keys",
        "list_type",
        "patch_merge_key",
        "patch_strategy",
        "present",
        "preserve_unknown",
        "scalar",
        "walker",
    )

    kind: str
    definition: str
    scalar: str
    present: frozenset[str]
    fields: Mapping[str, SchemaNode]
    items: SchemaNode | None
    list_type: str
    list_map_keys: tuple[str, ...]
    patch_merge_key: str
    patch_strategy: str
    atomic: bool
    preserve_unknown: bool
    default: Any
    defaults: Mapping[str, Any]

    def __init__(self, schemas: SchemaSet, schema: Obj) -> None:
        self._schemas = schemas
        self._schema = schema
        # What `fields` makes of the node, when it is asked to.
        self.walker: Any = None
        self.key_function: Any = None

    def __getattr__(self, name: str) -> Any:
        # Reached only while a slot is empty: the first access to any of them fills all.
        if name.startswith("__"):
            raise AttributeError(name)
        self._fill()
        return object.__getattribute__(self, name)

    def _fill(self) -> None:
        outer, schemas = self._schema, self._schemas
        schema, defaults = outer, _NOTHING
        self.definition, self.scalar, self.present = "", "", frozenset()
        if (ref := outer.get("$ref")) is not None:
            self.definition, self.present = ref.rpartition(".")[2], schemas.present(ref)
            schema = schemas.definition(ref)
            defaults = _STATED_DEFAULTS.get(ref, _NOTHING)
        self.patch_strategy = outer.get("x-kubernetes-patch-strategy", "")
        self.patch_merge_key = outer.get("x-kubernetes-patch-merge-key", "")
        self.list_type = outer.get("x-kubernetes-list-type", "atomic")
        self.list_map_keys = tuple(outer.get("x-kubernetes-list-map-keys", ()))
        map_type = outer.get("x-kubernetes-map-type") or schema.get("x-kubernetes-map-type")
        self.atomic = map_type == "atomic"
        self.default = outer.get("default")
        self.fields, self.items, self.preserve_unknown = _NOTHING, None, False
        self.defaults = defaults
        properties, of_type = schema.get("properties"), schema.get("type")
        self.preserve_unknown = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        if of_type == "array":
            self.kind, self.items = "array", schemas.node_of(schema["items"])
        elif properties is not None:
            self.kind = "object"
            self.fields = {
                name: schemas.node_of({**field, "default": defaults[name]} if name in defaults else field)
                for name, field in properties.items()
            }
        elif isinstance(values := schema.get("additionalProperties"), dict):
            self.kind, self.items = "map", schemas.node_of(values)
        elif of_type == "object" or (of_type is None and "oneOf" not in schema):
            self.kind, self.preserve_unknown = "object", True
            self.scalar = "any" if of_type is None else ""
            # Bytes to Kubernetes, whatever is written in them: nobody owns a part.
            self.atomic = self.atomic or self.definition == "RawExtension"
        else:
            self.kind = "scalar"
            if of_type is None:
                self.scalar = "any"
            elif "format" not in schema or (of_type, schema["format"]) in _PLAIN_FORMATS:
                self.scalar = _SCALARS.get(of_type, "")

    def __repr__(self) -> str:
        return f"SchemaNode({self.kind}, {', '.join(self.fields) or self.list_type})"


class Compiled:
    """What a definition compiles to."""

    __slots__ = ("_decode", "_default", "_schemas", "kind", "name", "root", "version")

    def __init__(self, schemas: SchemaSet, name: str) -> None:
        self.name = name
        self._schemas = schemas
        # io.k8s.api.apps.v1.Deployment: version v1, kind Deployment.
        self.version, self.kind = name.split(".")[-2:]
        self.root = schemas.node_of({"$ref": name})
        self._decode = schemas.decoders.struct(name)
        self._default: Callable[[Any], None] | bool | None = False

    def decode(self, obj: Any) -> list[str]:
        """Check types, prune unknown fields and nulls, and spell scalars canonically, all in place.

        Returns the dotted paths of the unknown fields.  Raises StatusError 400 in the words of Kubernetes' decoder.
        """
        try:
            return self._decode(obj) or []
        except DecodeError as error:
            raise decode_failure(error, self.version, self.kind) from None

    def checked(self, obj: Any) -> list[str]:
        """`decode` for callers that have their own words for what is wrong.  Raises DecodeError."""
        return self._decode(obj) or []

    def default(self, obj: Obj) -> None:
        """Apply the defaults that the schema states, in place."""
        if self._default is False:
            self._default = self._schemas.defaulter(self.name)
        if callable(self._default):
            self._default(obj)


class SchemaSet:
    """The definitions of one Kubernetes version by name, and what has been compiled of them so far."""

    def __init__(self, version: str, definitions: Mapping[str, Obj]) -> None:
        self.version = version
        self._definitions = definitions
        self._compiled: dict[str, Compiled] = {}
        self._nodes: dict[str, SchemaNode] = {}
        self._defaulters: dict[str, Callable[[Any], None] | None] = {}
        self._defaulted: frozenset[str] | None = None
        self.decoders = Decoders(definitions)

    def __contains__(self, name: object) -> bool:
        return name in self._definitions

    def names(self) -> list[str]:
        return list(self._definitions)

    def definition(self, name: str) -> Obj:
        """The raw definition, without descriptions; `$ref` holds a definition's name.  Raises KeyError."""
        return self._definitions[name]

    def present(self, name: str) -> frozenset[str]:
        """The fields that are there whether or not somebody set them."""
        return present(name)

    def compile(self, name: str) -> Compiled:
        """What the definition compiles to; made once.  Raises KeyError."""
        compiled = self._compiled.get(name)
        if compiled is None:
            compiled = self._compiled[name] = Compiled(self, name)
        return compiled

    def node_of(self, schema: Obj) -> SchemaNode:
        """The node for a schema; definitions referred to without additions share theirs."""
        ref = schema.get("$ref")
        if ref is None or "x-kubernetes-patch-strategy" in schema or "x-kubernetes-map-type" in schema:
            return SchemaNode(self, schema)
        node = self._nodes.get(ref)
        if node is None:
            node = self._nodes[ref] = SchemaNode(self, {"$ref": ref})
        return node

    def documented(self) -> dict[str, Obj]:
        """All definitions with their descriptions, freshly read: for OpenAPI documents only."""
        import lzma

        path = _FOLDER / f"v{self.version}.json.xz"
        definitions: dict[str, Obj] = orjson.loads(lzma.decompress(path.read_bytes()))
        return definitions

    def stated_defaults(self, name: str) -> Mapping[str, Any]:
        """The defaults that Kubernetes states in the schema of this definition, by field."""
        return _STATED_DEFAULTS.get(name, _NOTHING)

    def defaulter(self, name: str) -> Callable[[Any], None] | None:
        """A function that fills in stated defaults below a definition, None where there are none."""
        if name not in self._with_defaults():
            return None
        if name in self._defaulters:
            return self._defaulters[name]
        stated = list(_STATED_DEFAULTS.get(name, _NOTHING).items())
        below: list[tuple[str, Callable[[Any], None]]] = []

        def fill(obj: Any) -> None:
            if type(obj) is not dict:
                return
            for key, value in stated:
                if key not in obj:
                    obj[key] = value
            for key, fill_field in below:
                child = obj.get(key)
                if child:
                    fill_field(child)

        self._defaulters[name] = fill
        for key, schema in (self._definitions[name].get("properties") or _NOTHING).items():
            if (fill_field := self._field_defaulter(schema)) is not None:
                below.append((key, fill_field))
        return fill

    def _field_defaulter(self, schema: Obj) -> Callable[[Any], None] | None:
        if (ref := schema.get("$ref")) is not None:
            return self.defaulter(ref)
        if schema.get("type") == "array":
            inner = self._field_defaulter(schema["items"])
            return None if inner is None else _each(inner)
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            inner = self._field_defaulter(values)
            return None if inner is None else _each_value(inner)
        return None

    def _with_defaults(self) -> frozenset[str]:
        """The definitions at or below which a default is stated (a fixed point, since definitions may be recursive)."""
        if self._defaulted is None:
            users: dict[str, set[str]] = {}
            for name, definition in self._definitions.items():
                for ref in _references(definition.get("properties")):
                    users.setdefault(ref, set()).add(name)
            found = {name for name in _STATED_DEFAULTS if name in self._definitions}
            frontier = list(found)
            while frontier:
                for user in users.get(frontier.pop(), ()):
                    if user not in found:
                        found.add(user)
                        frontier.append(user)
            self._defaulted = frozenset(found)
        return self._defaulted


def _each(fill: Callable[[Any], None]) -> Callable[[Any], None]:
    def fill_items(items: Any) -> None:
        for item in items:
            fill(item)

    return fill_items


def _each_value(fill: Callable[[Any], None]) -> Callable[[Any], None]:
    def fill_values(mapping: Any) -> None:
        for value in mapping.values():
            fill(value)

    return fill_values


def _references(node: Any) -> set[str]:
    found: set[str] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            if isinstance(ref := current.get("$ref"), str):
                found.add(ref)
            pending.extend(current.values())
        elif isinstance(current, list):
            pending.extend(current)
    return found


def versions() -> list[str]:
    """The Kubernetes versions whose schemas the package has, oldest first."""
    found = [path.name.removeprefix("v").removesuffix(".structure") for path in _FOLDER.glob("v*.structure")]
    return sorted(found, key=lambda version: tuple(map(int, version.split("."))))


@lru_cache(maxsize=2)
def load(version: str = DEFAULT_VERSION) -> SchemaSet:
    """The schemas of a Kubernetes version (`1.37`); shared.  Raises FileNotFoundError where the package has none."""
    path = _FOLDER / f"v{version}.structure"
    return SchemaSet(version, orjson.loads(zlib.decompress(path.read_bytes())))
