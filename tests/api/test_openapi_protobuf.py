"""The protobuf form of the OpenAPI document, read back field by field."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.openapi_protobuf import encode_v2

DOCUMENT = {
    "swagger": "2.0",
    "info": {"title": "Kubernetes", "version": "v1.37.0"},
    "paths": {
        "/api/v1/pods": {
            "parameters": [{"name": "pretty", "in": "query", "type": "string", "uniqueItems": True}],
            "get": {
                "operationId": "listPods",
                "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/Pod"}}},
                "x-kubernetes-action": "list",
            },
        }
    },
    "definitions": {"Pod": {"type": "object", "properties": {"spec": {"type": "array", "items": {"type": "string"}}}}},
}


def fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        value = varint()
        if tag & 7 == 2:
            yield tag >> 3, data[at : at + value]
            at += value
        else:
            yield tag >> 3, value


def at_path(data: bytes, *numbers: int) -> list[bytes | int]:
    found: list[bytes | int] = [data]
    for number in numbers:
        found = [value for part in found if isinstance(part, bytes) for n, value in fields(part) if n == number]
    return found


def test_the_document_says_the_same_in_protobuf() -> None:
    data = encode_v2(DOCUMENT)

    assert at_path(data, 1) == [b"2.0"]
    assert at_path(data, 2, 1) == [b"Kubernetes"]
    assert at_path(data, 8, 2, 1) == [b"/api/v1/pods"]
    get = (8, 2, 2, 2)
    assert at_path(data, *get, 5) == [b"listPods"]
    assert at_path(data, *get, 13, 1) == [b"x-kubernetes-action"]
    assert at_path(data, *get, 13, 2, 2) == [b'"list"']
    assert at_path(data, *get, 9, 1, 1) == [b"200"]
    assert at_path(data, *get, 9, 1, 2, 1, 2, 1, 1) == [b"#/definitions/Pod"]
    query = (8, 2, 2, 9, 1, 2, 3)
    assert at_path(data, *query, 4) == [b"pretty"]
    assert at_path(data, *query, 20) == [1]
    assert at_path(data, 9, 1, 1) == [b"Pod"]
    assert at_path(data, 9, 1, 2, 25, 1, 2, 23, 1, 22, 1) == [b"string"]
