"""The OpenAPI version-2 document in the protobuf form that client-go asks for (gnostic's `openapi.v2.Document`).

In: the document as a JSON object, as `navarch.kinds.openapi` makes it.  Out: its bytes.  Only what occurs in our
documents is encoded. Extensions (`x-…`) travel as YAML text, for which JSON serves.

Per message a table says which field a JSON key goes to, and what is made of its value; what the table does not name and
does not begin with `x-` is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from navarch.api.meta import Obj

MEDIA_TYPE: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"

Table = Mapping[str, tuple[str, Callable[[Any], Any]]]


def _same(value: Any) -> Any:
    return value


def _any(value: Any) -> Obj:
    return {"yaml": orjson.dumps(value).decode()}


def _anys(values: Any) -> list[Obj]:
    return [_any(value) for value in values]


def _named(entries: Iterable[tuple[str, Any]]) -> list[Obj]:
    return [{"name": name, "value": value} for name, value in entries]


def _message(obj: Obj, table: Table) -> Obj:
    out: Obj = {}
    extensions = []
    for key, value in obj.items():
        entry = table.get(key)
        if entry is not None:
            out[entry[0]] = entry[1](value)
        elif key.startswith("x-"):
            extensions.append((key, _any(value)))
    if extensions:
        out["vendor_extension"] = _named(extensions)
    return out


def _schema(schema: Any) -> Obj:
    return _message(schema, _SCHEMA)


def _additional_properties(value: Any) -> Obj:
    return {"schema": _schema(value)} if isinstance(value, dict) else {"boolean": value}


def _properties(properties: Any) -> Obj:
    return {"additional_properties": _named((name, _schema(schema)) for name, schema in properties.items())}


_SCHEMA: Final[Table] = {
    "$ref": ("_ref", _same),
    "format": ("format", _same),
    "title": ("title", _same),
    "description": ("description", _same),
    "default": ("default", _any),
    "pattern": ("pattern", _same),
    "uniqueItems": ("unique_items", _same),
    "required": ("required", _same),
    "enum": ("enum", _anys),
    "additionalProperties": ("additional_properties", _additional_properties),
    "type": ("type", lambda kind: {"value": [kind]}),
    "items": ("items", lambda schema: {"schema": [_schema(schema)]}),
    "allOf": ("all_of", lambda schemas: [_schema(schema) for schema in schemas]),
    "properties": ("properties", _properties),
}
_BODY_PARAMETER: Final[Table] = {
    **{key: (key, _same) for key in ("description", "name", "in", "required")},
    "schema": ("schema", _schema),
}
_PARAMETER: Final[Table] = {
    **{key: (key, _same) for key in ("required", "in", "description", "name", "type", "format")},
    "uniqueItems": ("unique_items", _same),
}


def _parameters(parameters: Any) -> list[Obj]:
    return [{"parameter": _parameter(parameter)} for parameter in parameters]


def _parameter(parameter: Obj) -> Obj:
    if parameter["in"] == "body":
        return {"body_parameter": _message(parameter, _BODY_PARAMETER)}
    place = "path_parameter_sub_schema" if parameter["in"] == "path" else "query_parameter_sub_schema"
    return {"non_body_parameter": {place: _message(parameter, _PARAMETER)}}


def _responses(responses: Any) -> Obj:
    return {"response_code": _named((code, {"response": _response(stated)}) for code, stated in responses.items())}


def _response(stated: Obj) -> Obj:
    response: Obj = {"description": stated.get("description", "")}
    if "schema" in stated:
        response["schema"] = {"schema": _schema(stated["schema"])}
    return response


_OPERATION: Final[Table] = {
    **{key: (key, _same) for key in ("tags", "description", "produces", "consumes", "schemes")},
    "operationId": ("operation_id", _same),
    "parameters": ("parameters", _parameters),
    "responses": ("responses", _responses),
}


def _operation(operation: Any) -> Obj:
    return _message(operation, _OPERATION)


_PATH_ITEM: Final[Table] = {
    **{method: (method, _operation) for method in ("get", "put", "post", "delete", "options", "head", "patch")},
    "parameters": ("parameters", _parameters),
}


def _paths(paths: Any) -> Obj:
    return {"path": _named((path, _message(item, _PATH_ITEM)) for path, item in paths.items())}


def _security_definitions(definitions: Any) -> Obj:
    """API keys, the only kind there is here."""
    keys = ("type", "name", "in", "description")
    found = (
        (name, {"api_key_security": {key: stated[key] for key in keys if key in stated}})
        for name, stated in definitions.items()
    )
    return {"additional_properties": _named(found)}


def _security(requirements: Any) -> list[Obj]:
    return [
        {"additional_properties": _named((name, {"value": scopes}) for name, scopes in requirement.items())}
        for requirement in requirements
    ]


_DOCUMENT: Final[Table] = {
    "swagger": ("swagger", _same),
    "info": ("info", lambda info: {key: info[key] for key in ("title", "version", "description") if key in info}),
    "paths": ("paths", _paths),
    "definitions": ("definitions", _properties),
    "security": ("security", _security),
    "securityDefinitions": ("security_definitions", _security_definitions),
}


def encode_v2(document: Obj) -> bytes:
    """A version-2 document as `openapi.v2.Document`."""
    # The library is for those who ask for this.
    from navarch.api.protobuf_messages import message_class

    return bytes(message_class("openapi/v2.Document")(**_message(document, _DOCUMENT)).SerializeToString())
