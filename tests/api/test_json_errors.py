"""What is said of text that is no JSON: the words of Go, whatever Python's own decoder says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.json_errors import why_no_json
from tests.growth import cpu_s

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "unexpected end of JSON input"),
        (b" \n", "unexpected end of JSON input"),
        (b'{"a":', "unexpected end of JSON input"),
        (b'"abc', "unexpected end of JSON input"),
        (b"1e", "unexpected end of JSON input"),
        (b"tru", "unexpected end of JSON input"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b"'a'", "invalid character '\\'' looking for beginning of value"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        (b"\x81", "invalid character '\\u0081' looking for beginning of value"),
        (b"\x00", "invalid character '\\x00' looking for beginning of value"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"{a:1}", "invalid character 'a' looking for beginning of object key string"),
        (b"{,", "invalid character ',' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b"', "invalid character '\"' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"[1}", "invalid character '}' after array element"),
        (b"{} {}", "invalid character '{' after top-level value"),
        (b"01", "invalid character '1' after top-level value"),
        (b'"\n"', "invalid character '\\n' in string literal"),
        (b'"\\q"', "invalid character 'q' in string escape code"),
        (b'"\\u12x4"', "invalid character 'x' in \\u hexadecimal character escape"),
        (b"-x", "invalid character 'x' in numeric literal"),
        (b"1.x", "invalid character 'x' after decimal point in numeric literal"),
        (b"1.e5", "invalid character 'e' after decimal point in numeric literal"),
        (b"1ex", "invalid character 'x' in exponent of numeric literal"),
        (b"trux", "invalid character 'x' in literal true (expecting 'e')"),
        (b"[" * 20_000, "exceeded max depth"),
    ],
)
def test_it_is_said_as_go_says_it(text: bytes, why: str) -> None:
    assert why_no_json(text) == why


@given(VALUES)
def test_nothing_is_said_of_what_is_json(value: object) -> None:
    assert why_no_json(json.dumps(value).encode()) == ""


@given(VALUES, st.integers(0, 60), st.sampled_from(list(b'{}[]",:0e.-xn\\ \x00\xff')))
def test_something_is_said_of_all_that_is_none(value: object, at: int, byte: int) -> None:
    text = json.dumps(value).encode()
    text = text[:at] + bytes([byte]) + text[at:]
    try:
        json.loads(text.decode("utf-8", "replace"))
    except ValueError:
        assert why_no_json(text).startswith(("invalid character '", "unexpected end of JSON input"))
    else:
        assert why_no_json(text) == ""


@pytest.mark.parametrize(
    "text", [b"[" + b"1," * 1_500_000, b"[" + b"[]," * 1_000_000, b'"' + b"a" * 3_000_000, b'{"a":' * 600_000]
)
def test_long_texts_take_no_long_time(text: bytes) -> None:
    assert why_no_json(text)
    assert cpu_s(lambda: why_no_json(text), enough_s=0.5) < 0.5
