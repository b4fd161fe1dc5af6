"""Duplicate keys in request bodies."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.duplicates import has_duplicates, strict_problems


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
    assert has_duplicates(body, orjson.loads(body)) or not found
    assert strict_problems(body, ()) == [f'duplicate field "{path}"' for path in found]


@given(st.recursive(st.text(), lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner), max_leaves=6))
def test_no_body_without_duplicates_is_accused(value: Any) -> None:
    body = json.dumps(value).encode()
    assert not has_duplicates(body, value) or strict_problems(body, ()) == []


def test_mistakes_are_told_in_the_order_of_the_text() -> None:
    body = b'{"spec":{"bad":1,"replicas":1,"replicas":2,"bad":{"x":1,"x":2}},"metadata":{"name":1,"name":2},"odd":3}'

    assert strict_problems(body, ["odd", "spec.bad"]) == [
        'unknown field "spec.bad"',
        'duplicate field "spec.replicas"',
        'duplicate field "metadata.name"',
        'unknown field "odd"',
    ]
