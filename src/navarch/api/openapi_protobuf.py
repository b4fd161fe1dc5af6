"""The OpenAPI version-2 document in the protobuf form that client-go asks for (gnostic's `openapi.v2.Document`).

In: the document as a JSON object, as `navarch.kinds.openapi` makes it.  Out: its bytes.  Only what occurs in our
documents is encoded. Extensions (`x-…`) travel as YAML text, for which JSON serves.

A message is written by a table from JSON key to field number and encoder; what the table does not name and does not
begin with `x-` is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from navarch.api.meta import Obj

MEDIA_TYPE: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"

Encoder = Callable[[int, Any], bytes]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _text(number: int, value: Any) -> bytes:
    return _bytes(number, str(value).encode())


def _flag(number: int, value: Any) -> bytes:
    return _varint(number << 3) + b"\x01" if value else b""


def _texts(number: int, values: Any) -> bytes:
    return b"".join(_text(number, value) for value in values)


def _any(value: Any) -> bytes:
    return _text(2, orjson.dumps(value).decode())


def _anys(number: int, values: Any) -> bytes:
    return b"".join(_bytes(number, _any(value)) for value in values)


def _one_any(number: int, value: Any) -> bytes:
    return _bytes(number, _any(value))


def _named(number: int, name: str, value: bytes) -> bytes:
    return _bytes(number, _text(1, name) + _bytes(2, value))


def _message(obj: Obj, table: Mapping[str, tuple[int, Encoder]], extensions: int = 0) -> bytes:
    parts = []
    for key, value in obj.items():
        entry = table.get(key)
        if entry is not None:
            number, encode = entry
            parts.append(encode(number, value))
        elif extensions and key.startswith("x-"):
            parts.append(_named(extensions, key, _any(value)))
    return b"".join(parts)


def _schema(schema: Obj) -> bytes:
    return _message(schema, _SCHEMA, 31)


def _sub_schema(number: int, schema: Any) -> bytes:
    return _bytes(number, _schema(schema))


def _schemas(number: int, schemas: Any) -> bytes:
    return b"".join(_sub_schema(number, schema) for schema in schemas)


def _items(number: int, schema: Any) -> bytes:
    return _bytes(number, _sub_schema(1, schema))


def _type(number: int, kind: Any) -> bytes:
    return _bytes(number, _text(1, kind))


def _additional_properties(number: int, value: Any) -> bytes:
    return _bytes(number, _sub_schema(1, value) if isinstance(value, dict) else _flag(2, value))


def _properties(number: int, properties: Any) -> bytes:
    return _bytes(number, b"".join(_named(1, name, _schema(schema)) for name, schema in properties.items()))


_SCHEMA: Final[Mapping[str, tuple[int, Encoder]]] = {
    "$ref": (1, _text),
    "format": (2, _text),
    "title": (3, _text),
    "description": (4, _text),
    "default": (5, _one_any),
    "pattern": (13, _text),
    "uniqueItems": (16, _flag),
    "required": (19, _texts),
    "enum": (20, _anys),
    "additionalProperties": (21, _additional_properties),
    "type": (22, _type),
    "items": (23, _items),
    "allOf": (24, _schemas),
    "properties": (25, _properties),
}
_BODY_PARAMETER: Final[Mapping[str, tuple[int, Encoder]]] = {
    "description": (1, _text),
    "name": (2, _text),
    "in": (3, _text),
    "required": (4, _flag),
    "schema": (5, _sub_schema),
}
_PATH_PARAMETER: Final[Mapping[str, tuple[int, Encoder]]] = {
    "required": (1, _flag),
    "in": (2, _text),
    "description": (3, _text),
    "name": (4, _text),
    "type": (5, _text),
    "format": (6, _text),
    "uniqueItems": (19, _flag),
}
_QUERY_PARAMETER: Final = {**_PATH_PARAMETER, "type": (6, _text), "format": (7, _text), "uniqueItems": (20, _flag)}


def _parameters(number: int, parameters: Any) -> bytes:
    return b"".join(_bytes(number, _bytes(1, _parameter(parameter))) for parameter in parameters)


def _parameter(parameter: Obj) -> bytes:
    if parameter["in"] == "body":
        return _bytes(1, _message(parameter, _BODY_PARAMETER, 6))
    if parameter["in"] == "path":
        return _bytes(2, _bytes(4, _message(parameter, _PATH_PARAMETER, 22)))
    return _bytes(2, _bytes(3, _message(parameter, _QUERY_PARAMETER, 23)))


def _responses(number: int, responses: Any) -> bytes:
    parts = []
    for code, response in responses.items():
        body = _text(1, response.get("description", ""))
        if "schema" in response:
            body += _bytes(2, _sub_schema(1, response["schema"]))
        parts.append(_named(1, code, _bytes(1, body)))
    return _bytes(number, b"".join(parts))


_OPERATION: Final[Mapping[str, tuple[int, Encoder]]] = {
    "tags": (1, _texts),
    "description": (3, _text),
    "operationId": (5, _text),
    "produces": (6, _texts),
    "consumes": (7, _texts),
    "parameters": (8, _parameters),
    "responses": (9, _responses),
    "schemes": (10, _texts),
}


def _operation(number: int, operation: Any) -> bytes:
    return _bytes(number, _message(operation, _OPERATION, 13))


_PATH_ITEM: Final[Mapping[str, tuple[int, Encoder]]] = {
    "get": (2, _operation),
    "put": (3, _operation),
    "post": (4, _operation),
    "delete": (5, _operation),
    "options": (6, _operation),
    "head": (7, _operation),
    "patch": (8, _operation),
    "parameters": (9, _parameters),
}


def _paths(number: int, paths: Any) -> bytes:
    return _bytes(number, b"".join(_named(2, path, _message(item, _PATH_ITEM, 10)) for path, item in paths.items()))


def _info(number: int, info: Any) -> bytes:
    return _bytes(number, _message(info, {"title": (1, _text), "version": (2, _text), "description": (3, _text)}))


def _security_definitions(number: int, definitions: Any) -> bytes:
    """API keys, the only kind there is here."""
    table: Mapping[str, tuple[int, Encoder]] = {
        "type": (1, _text),
        "name": (2, _text),
        "in": (3, _text),
        "description": (4, _text),
    }
    parts = [_named(1, name, _bytes(2, _message(definition, table))) for name, definition in definitions.items()]
    return _bytes(number, b"".join(parts))


def _security(number: int, requirements: Any) -> bytes:
    return b"".join(
        _bytes(number, b"".join(_named(1, name, _texts(1, scopes)) for name, scopes in requirement.items()))
        for requirement in requirements
    )


_DOCUMENT: Final[Mapping[str, tuple[int, Encoder]]] = {
    "swagger": (1, _text),
    "info": (2, _info),
    "paths": (8, _paths),
    "definitions": (9, _properties),
    "security": (12, _security),
    "securityDefinitions": (13, _security_definitions),
}


def encode_v2(document: Obj) -> bytes:
    """A version-2 document as `openapi.v2.Document`."""
    return _message(document, _DOCUMENT, 16)
