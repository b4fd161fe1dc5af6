"""The definitions of custom kinds as OpenAPI documents show them.

In: a kind with a structural schema, and the format's version.  Out: its definition and that of its list, in the form of
the built-in ones: `$ref` names a definition. Version 3 says what the schema says; version 2 has no words for much of
it, and where a place takes unknown fields it says nothing of the known ones, or clients would refuse the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from navarch.api.meta import Obj
from navarch.api.openapi import Version, rendered
from navarch.api.structural import EMBEDDED, LIST_META, OBJECT_META, PRESERVE
from navarch.kinds.base import Kind

_JUNCTORS: Final = ("allOf", "anyOf", "oneOf", "not")
_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_CONVENTIONS: Final = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
# Where the words for what every object has are taken from.
_LIKE: Final = "io.k8s.api.core.v1.ConfigMap"
_NOT_SHOWN: Final = frozenset({"externalDocs", "example", "$schema", "id"})


def published(kind: Kind, documented: Mapping[str, Obj], version: Version) -> dict[str, Obj]:
    """The kind's definitions by name, as they are shown: of a structural schema nothing refers to another, so that it
    is gone through once. `documented` are the built-in ones with their descriptions."""
    schemas = kind.own_schemas
    assert schemas is not None
    resource = kind.resource
    like = documented[_LIKE]["properties"]
    type_meta = {name: like[name] for name in ("apiVersion", "kind")}
    own: Obj = rendered({**type_meta, "metadata": _metadata(documented)}, version)
    schema = schemas.source.load()
    if version == 2 and schema.get(PRESERVE):
        shown: Obj = {"type": "object"}
    else:
        shown = _shown(schema, own, version)
        shown["properties"] = {**(shown.get("properties") or {}), **own}
    listed = documented[_LIKE + "List"]["properties"]["metadata"]
    items: Obj = {
        "type": "array",
        "items": {"$ref": schemas.name},
        "description": f"List of {resource.plural}. More info: {_CONVENTIONS}",
    }
    list_: Obj = {
        "description": f"{kind.list_kind} is a list of {resource.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {**type_meta, "items": items, "metadata": {**listed, "$ref": LIST_META}},
    }
    list_ = rendered(list_, version)
    made = {schemas.name: shown, schemas.list_name: list_}
    for definition, name in ((shown, resource.kind), (list_, kind.list_kind)):
        gvk = {"group": resource.group, "version": resource.version, "kind": name}
        definition["x-kubernetes-group-version-kind"] = [gvk]
        if kind.strategy.selectable:
            fields = [{"fieldPath": path} for path in kind.strategy.selectable]
            definition["x-kubernetes-selectable-fields"] = fields
    return made


def _metadata(documented: Mapping[str, Obj]) -> Obj:
    said = documented[_LIKE]["properties"]["metadata"]
    return {"description": said.get("description", ""), "$ref": OBJECT_META}


def _shown(schema: Obj, own: Obj, version: Version) -> Obj:
    """A place of the schema and all below."""
    found = {name: value for name, value in schema.items() if name not in _NOT_SHOWN}
    if version == 2:
        _say_less(found)
    elif schema.get(_INT_OR_STRING):
        _unfold(found)
    if isinstance(properties := found.get("properties"), dict):
        found["properties"] = {name: _shown(inner, own, version) for name, inner in properties.items()}
    for name in ("items", "additionalProperties"):
        if isinstance(below := found.get(name), dict):
            found[name] = _shown(below, own, version)
    if found.get(EMBEDDED) and not (version == 2 and found.get(PRESERVE)):
        found["properties"] = {**(found.get("properties") or {}), **own}
        needed = list(found.get("required") or ())
        found["required"] = [*needed, *(name for name in ("kind", "apiVersion") if name not in needed)]
    return found


def _unfold(found: Obj) -> None:
    """Say of what is a number or a text that it is."""
    either = [{"type": "integer"}, {"type": "string"}]
    stated = found.get("anyOf")
    if stated == either or ((found.get("allOf") or [{}])[0].get("anyOf") == either):
        return
    if stated is None:
        found["anyOf"] = either
    else:
        found["allOf"] = [{"anyOf": either}, *(found.get("allOf") or ())]


def _say_less(found: Obj) -> None:
    """Drop what version 2 cannot say."""
    for name in _JUNCTORS:
        found.pop(name, None)
    free = found.get(PRESERVE)
    if found.pop("nullable", False):
        for name in ("type", "items", "properties"):
            found.pop(name, None)
    if free:
        for name in ("items", "properties"):
            found.pop(name, None)
    if ("items" not in found and found.get("type") == "array") or (free and found.get("type") == "object"):
        found.pop("type", None)
    properties, values = found.get("properties"), found.get("additionalProperties")
    if "required" in found:
        nullable = {name for name, inner in (properties or {}).items() if inner.get("nullable")}
        needed = [name for name in found["required"] if name not in nullable]
        if (isinstance(values, dict) and values.get("nullable")) or not needed:
            del found["required"]
        else:
            found["required"] = needed
