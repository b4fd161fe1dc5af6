"""YAML from clients: what it stands for, and what it may not do to the server."""

from __future__ import annotations

import codecs
import re
import tracemalloc

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.yaml_reader import Document, load, steps
from navarch.api.yaml_scalars import plain
from tests.growth import cpu_s

# What YAML itself does not turn into something else: control characters and the line ends of Unicode stay out.
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x17F, exclude_categories=("Cc", "Cf")), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


class Writer(yaml.SafeDumper):
    """Quotes what Go would take for something else than text, which is more than what Python would."""


def quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(plain(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


Writer.add_representer(str, quoted)


@given(JSON, st.booleans())
def test_it_reads_what_was_written(value: object, flow: bool) -> None:
    text = yaml.dump(value, Dumper=Writer, default_flow_style=flow, allow_unicode=True)
    assert load(text.encode()).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", True), ("Off", False), ("~", None), ("", None), ("NULL", None), ("nUll", "nUll"),
        ("0o17", 15), ("017", 15), ("0x1F", 31), ("0b11", 3), ("-0x10", -16), ("1_000", 1000), ("+5", 5), ("09", 9.0),
        ("08", 8.0), ("1:20", "1:20"), ("12:30:45", "12:30:45"), ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0), (".", "."),
        ("-", "-"), ("+", "+"), ("2024-01-02", "2024-01-02"), ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
        ("1.2.3", "1.2.3"), ("0x", "0x"), ("18446744073709551615", 2**64 - 1), ("99999999999999999999", 1e20),
        ("\u0661", "\u0661"), ("=", "="), ("1" * 65, "1" * 65),
    ],
)  # fmt: skip
def test_scalars_are_what_they_are_in_go(text: str, value: object) -> None:
    found = plain(text)
    assert (type(found), found) == (type(value), value)


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


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 10)) for c in range(97, 110)
)
LONG = b"a: &a " + b"x" * 50_000 + b"\n"
ALIASES = b",".join([b"*a"] * 20_000)
EXCESSIVE = "yaml: document contains excessive aliasing"


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        LONG + b"b: [" + ALIASES + b"]\n",
        LONG + b"b:\n" + b"- *a\n" * 20_000,
        LONG + b"b: {" + b",".join(b"k%d: *a" % n for n in range(20_000)) + b"}\n",
        LONG + b"b: {" + b",".join([b"*a : 1"] * 20_000) + b"}\n",
        LONG + b"b: &b [" + b",".join([b"*a"] * 10) + b"]\nc: [" + b",".join([b"*b"] * 2000) + b"]\n",
        b"a: &a {k: " + b"x" * 50_000 + b"}\nb: [" + b",".join([b"{<<: *a}"] * 10_000) + b"]\n",
        b"a: &a {k: " + b"x" * 50_000 + b"}\nb: {<<: [" + ALIASES + b"]}\n",
        b"a: &a {" + b",".join(b"k%d: 1" % n for n in range(5000)) + b"}\nb: [" + ALIASES + b"]\n",
        b"a: &a [x]\nb: [" + b",".join([b"*a"] * 140_000) + b"]\n",
    ],
    ids=["lists of lists", "flow", "block", "values", "keys", "twice", "merged", "merges", "many keys", "short"],
)
def test_aliases_that_stand_for_too_much_are_refused_before_they_are_expanded(text: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=EXCESSIVE):
            load(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 << 20


def test_a_few_aliases_of_something_long_are_taken() -> None:
    value = load(LONG + b"b: [" + b",".join([b"*a"] * 50) + b"]\n").value
    assert value["b"] == ["x" * 50_000] * 50


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[" * 100_000, "yaml: exceeded max depth of 200"),
        (b"{a: " * 50_000, "yaml: exceeded max depth of 200"),
        (b"- " * 100_000, "yaml: exceeded max depth of 200"),
        (b"? " * 100_000, "yaml: invalid map key at line 1"),
        (b"a:\n" * 1_000_000, "yaml: the document has more than 300000 keys and values"),
        (
            b"".join(b"%%TAG !%d! x\n" % n for n in range(200_000)) + b"--- a",
            "yaml: the document has more than 100 dir",
        ),
        (b"a: &a [*a]", "yaml: anchor 'a' value contains itself"),
        (b"a: *b", "yaml: unknown anchor 'b' referenced"),
        (b"a: .inf", "json: unsupported value: +Inf"),
        (b"a: -.inf", "json: unsupported value: -Inf"),
        (b"a: .nan", "json: unsupported value: NaN"),
        (b"!!python/name:os.getcwd ''", "yaml: cannot decode !!python/name:os.getcwd"),
        (b"a: !!int x", "yaml: cannot decode !!str `x` as a !!int"),
        (b"? [a]\n: b", "yaml: invalid map key at line 1"),
        (b"a: [unclosed", "yaml: line 1: did not find expected ',' or ']'"),
        (b"a: b: c", "yaml: mapping values are not allowed in this context"),
        (b"x: 1\na: b: c", "yaml: line 2: mapping values are not allowed in this context"),
        (b"x: 1\ny: 2\na:\n\tb: c", "yaml: line 4: found character that cannot start any token"),
        (b"a: 'x", "yaml: found unexpected end of stream"),
        (b"- a\nb: c", "yaml: line 1: did not find expected '-' indicator"),
        (b"a: |\n  x\n b", "yaml: line 2: did not find expected key"),
        (b'a: "\\q"', "yaml: found unknown escape character"),
        (b"%YAML 3.0\n---\na", "yaml: found incompatible YAML document"),
        (b"\xff", "yaml: invalid leading UTF-8 octet"),
        (b"a: \xe4\x00b", "yaml: invalid trailing UTF-8 octet"),
        (b"a: \xe4", "yaml: incomplete UTF-8 octet sequence"),
        (b"a: \x00", "yaml: control characters are not allowed"),
    ],
)
def test_what_is_refused_at_once_and_in_the_words_of_go(text: bytes, why: str) -> None:
    def refuse() -> None:
        with pytest.raises(ValueError, match=re.escape(why)) as refused:
            load(text)
        assert str(refused.value).startswith(why)

    assert cpu_s(refuse, enough_s=3) < 3


ENCODINGS = {
    "UTF-8": (codecs.BOM_UTF8, "utf-8"),
    "UTF-16-LE": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "UTF-16-BE": (codecs.BOM_UTF16_BE, "utf-16-be"),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_byte_order_mark_says_the_encoding(name: str) -> None:
    mark, encoding = ENCODINGS[name]
    assert load(mark + "a: [ö, \U0001f600]".encode(encoding)).value == {"a": ["ö", "\U0001f600"]}


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("name", ENCODINGS)
def test_directives_are_bounded_in_every_encoding(name: str, end: str) -> None:
    mark, encoding = ENCODINGS[name]
    text = "".join(f"%TAG !{n}! x{end}" for n in range(200)) + "--- a"
    with pytest.raises(ValueError, match="more than 100 directives"):
        load(mark + text.encode(encoding))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (codecs.BOM_UTF16_LE + b"a", "yaml: incomplete UTF-16 character"),
        (codecs.BOM_UTF16_BE + b"\xdc\x00", "yaml: invalid Unicode character"),
    ],
)
def test_what_is_no_utf_16_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        load(data)


def test_what_an_alias_stands_for_is_made_in_steps() -> None:
    text = b"a: &a [" + b",".join([b"{k: [v]}"] * 10_000) + b"]\n"
    document = Document()
    few = sum(1 for _ in steps(text, Document()))

    taken = sum(1 for _ in steps(text + b"b: *a\n", document))

    assert taken - few > 50
    assert document.value["b"] == document.value["a"] == [{"k": ["v"]}] * 10_000
    assert not {id(item) for item in document.value["a"]} & {id(item) for item in document.value["b"]}
