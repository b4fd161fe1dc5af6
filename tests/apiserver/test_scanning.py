"""Reading many stored values at once: what is found by fewer fields is the same, and what is damaged is found out."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.meta import Obj
from navarch.apiserver.codec import Codec, decode
from navarch.apiserver.scanning import MANY, scanner
from navarch.apiserver.watchcache import WatchCache
from navarch.kinds.base import Kind
from navarch.kinds.core.pod import PodStrategy
from navarch.kinds.registry import builtin
from navarch.kinds.resources import PODS
from navarch.store.base import Entry

KINDS = [kind for kind in builtin().kinds() if kind.strategy.selectable]
VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "x", "ä", "\x00", True, False, 0, 7, {}, {"component": "kubelet", "a": 1}, []]
)


@st.composite
def objects(draw: st.DrawFn, paths: tuple[str, ...]) -> Obj:
    """With something at some of the paths, and beside them."""
    obj: Obj = {"metadata": draw(st.sampled_from([{}, {"name": "a"}, {"labels": {"a": "b", "c": ""}}]))}
    for path in paths:
        if not draw(st.booleans()):
            continue
        *before, last = path.split(".")
        at: Any = obj
        for step in before:
            at = at.setdefault(step, {"beside": {"it": [1, 2.5e3, "\\"]}}) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at[last] = draw(VALUES)
    return obj


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource.plural)
def test_an_object_is_found_by_the_same_fields_however_it_is_read(kind: Kind) -> None:
    strategy = kind.strategy
    paths = (*strategy.selectable, *strategy.selected_by)
    read = scanner(paths)

    @given(objects(paths))
    def agree(obj: Obj) -> None:
        data = orjson.dumps(obj)
        try:
            expected = strategy.selected(decode(data))
        except AttributeError:
            # What no schema lets in.
            return
        found = read(data)
        assert strategy.selected(found) == expected
        assert found["metadata"].get("labels") == obj["metadata"].get("labels")

    agree()


def test_every_damaged_byte_that_decoding_finds_is_found() -> None:
    read = scanner(("spec.nodeName", "status.phase"))
    whole = orjson.dumps(
        {
            "metadata": {"labels": {"a": "b"}, "quoted": '\\"\n\x01', "none": None},
            "spec": {"nodeName": "n", "numbers": [0, -1, 23, 1.5, 6e22, -7e-30], "yes": True, "no": False},
            "status": {"empty": {}, "list": [[], [{"a": ""}]], "far": "a/b\\t"},
        }
    )
    for at in range(len(whole)):
        for byte in range(256):
            check(read, whole[:at] + bytes((byte,)) + whole[at + 1 :])
        # Cut off there, without this byte, or with it twice.
        check(read, whole[:at])
        check(read, whole[:at] + whole[at + 1 :])
        check(read, whole[: at + 1] + whole[at:])


@pytest.mark.parametrize(
    "text", [rb'"\ud800"', rb'"\udc00\ud800"', b'"\xff"', b'"\xc3"', b'"\x1f"', b'"\\x"', b"NaN", b"01", b"[" * 2000]
)
def test_what_decoding_refuses_in_a_field_that_is_passed_is_refused(text: bytes) -> None:
    check(scanner(()), b'{"metadata":{"labels":{}},"data":' + text + b"}")


def check(read: Any, data: bytes) -> None:
    """`read` refuses what decoding refuses, and nothing else."""
    try:
        decode(data)
    except orjson.JSONDecodeError:
        with pytest.raises(orjson.JSONDecodeError):
            read(data)
    else:
        read(data)


def test_what_is_no_ascii_is_read_as_ever() -> None:
    data = '{"metadata":{"labels":{"a":"ä"}},"data":"ö"}'.encode()

    assert scanner(())(data) == decode(data)


@pytest.mark.parametrize("damage", [b"\xff", b"\x01", b'"', b"\\"])
def test_a_damaged_value_among_thousands_is_told_by_its_key(damage: bytes) -> None:
    codec = Codec(PODS)
    cache = WatchCache(codec, PodStrategy())

    def entry(number: int) -> Entry:
        name = f"p-{number}"
        pod = {"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"nodeName": "n"}, "status": {"x": "MARK"}}
        value = codec.encode(pod)
        return Entry(codec.key("a", name), value.replace(b"MARK", damage) if number == 7 else value, 1, number + 1)

    cache.load([entry(number) for number in range(MANY + 1)], MANY + 1)

    assert list(cache.undecodable) == [codec.key("a", "p-7")]
    assert cache.get("a", "p-7") is None
    found = cache.get("a", "p-8")
    assert found is not None
    assert (found.labels, found.field("spec.nodeName"), found.field("status.phase")) == ({"app": "web"}, "n", "")
    assert len(cache) == MANY
