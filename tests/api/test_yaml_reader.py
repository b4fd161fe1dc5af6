"""YAML from clients: what it stands for, and what it may not do to the server."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.yaml_reader import load

# What YAML itself does not turn into something else: control characters and the line ends of Unicode stay out.
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x17F, exclude_categories=("Cc", "Cf")), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_it_reads_what_was_written(value: object, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert load(text.encode()).value == value


def test_scalars_anchors_and_merges() -> None:
    text = b"""
base: &base {image: nginx, ports: [80]}
web: {<<: *base, image: "1", on: 2024-01-01, mode: 0644, size: 0x10, half: .5, none: ~, 7: seven, true: x}
"""
    web = load(text).value["web"]

    assert web == {
        "image": "1", "ports": [80], "true": "x", "mode": 420, "size": 16, "half": 0.5, "none": None, "7": "seven",
    }  # fmt: skip


def test_aliases_share_nothing() -> None:
    value = load(b"a: &a [1]\nb: *a\n").value
    value["a"].append(2)
    assert value["b"] == [1]


def test_keys_given_twice_are_told() -> None:
    document = load(b"a: 1\nb: 2\na: 3\n")
    assert document.value == {"a": 3, "b": 2}
    assert document.duplicates == ['line 3: key "a" already set in map']


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[" * 100_000, "max depth"),
        (b"{a: " * 50_000, "max depth"),
        (b"- " * 100_000, "max depth"),
        (b"a:\n" * 1_000_000, "more than"),
        (b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 10)) for c in range(97, 110)), "aliasing"),
        (b"a: &a [*a]", "unknown anchor"),
        (b"a: .inf", "unsupported value"),
        (b"!!python/name:os.getcwd ''", "cannot decode"),
        (b"? [a]\n: b", "invalid map key"),
        (b"a: b: c", "mapping values are not allowed"),
        (b"\xff", "utf-8"),
        (b"a: \x00", "not allowed"),
    ],
)  # fmt: skip
def test_what_is_refused_at_once(text: bytes, why: str) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match=why):
        load(text)
    assert time.monotonic() - started < 3
