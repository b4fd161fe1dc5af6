"""Duplicate keys in request bodies."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.duplicates import duplicate_fields


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"spec":{"replicas":1,"replicas":2}}', ["spec.replicas"]),
        (b'{"a":[{"b":1},{"b":1,"b":1}]}', ["a[1].b"]),
        (b'{"a":1,"a":1,"a":1}', ["a"]),
        (b'{"a":{"b":1},"c":{"b":2}}', []),
        (b'{"url":"http://x:80/","t":"12:30"}', []),
        # Escapes hide a colon inside a string, which must not make up for a lost key.
        (b'{"a":1,"a":"\\u003a"}', ["a"]),
    ],
)
def test_duplicates_are_named_by_path(body: bytes, found: list[str]) -> None:
    assert duplicate_fields(body, orjson.loads(body)) == found


@given(st.recursive(st.text(), lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner), max_leaves=6))
def test_no_body_without_duplicates_is_accused(value: Any) -> None:
    body = json.dumps(value).encode()
    assert duplicate_fields(body, value) == []
