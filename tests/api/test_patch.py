"""JSON Patch and JSON merge patch: what they do, and what a client reads when they cannot be done."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.errors import StatusError
from navarch.api.patch import json_patch, merge_patch

SCALARS = st.one_of(st.booleans(), st.integers(-5, 5), st.text(max_size=3))
NAMES = st.sampled_from(["a", "b", "c", "d"])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, JSON, max_size=4)


@pytest.mark.parametrize(
    ("operation", "before", "after"),
    [
        ({"op": "add", "path": "/a", "value": 1}, {}, {"a": 1}),
        ({"op": "add", "path": "/l/1", "value": 9}, {"l": [1, 2]}, {"l": [1, 9, 2]}),
        ({"op": "add", "path": "/l/-", "value": 9}, {"l": [1, 2]}, {"l": [1, 2, 9]}),
        ({"op": "add", "path": "/m/a~1b~0c", "value": 9}, {"m": {}}, {"m": {"a/b~c": 9}}),
        ({"op": "add", "path": "", "value": {"x": 1}}, {"a": 1}, {"x": 1}),
        ({"op": "remove", "path": "/l/0"}, {"l": [1, 2]}, {"l": [2]}),
        ({"op": "replace", "path": "/a", "value": None}, {"a": 1}, {"a": None}),
        ({"op": "replace", "path": "/l/-1", "value": 3}, {"l": [1, 2]}, {"l": [1, 3]}),
        ({"op": "move", "from": "/a", "path": "/b"}, {"a": 1}, {"b": 1}),
        ({"op": "copy", "from": "/a", "path": "/b"}, {"a": [1]}, {"a": [1], "b": [1]}),
        ({"op": "test", "path": "/a", "value": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}, {"a": {"x": 1, "y": 2}}),
        ({"op": "test", "path": "/none", "value": None}, {"a": 1}, {"a": 1}),
        # What Kubernetes' library does beyond what a JSON patch may state.
        ({"op": "test", "path": "/none"}, {"a": 1}, {"a": 1}),
        ({"op": "copy", "from": "/none", "path": "/b"}, {"a": 1}, {"a": 1, "b": None}),
        ({"op": "add", "path": "/b"}, {"a": 1}, {"a": 1, "b": None}),
        ({"op": "replace", "path": "/a"}, {"a": 1}, {"a": None}),
        ({"op": "add", "path": "skipped/b", "value": 2}, {"a": 1}, {"a": 1, "b": 2}),
    ],
)
def test_an_operation(operation: Any, before: Any, after: Any) -> None:
    original = copy.deepcopy(before)
    assert json_patch(before, [operation]) == after
    assert before == original


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": 2},
        {"op": "test", "path": "/a", "value": True},
        {"op": "remove", "path": "/missing"},
        {"op": "replace", "path": "/missing/deeper", "value": 1},
        {"op": "add", "path": "/missing/deeper", "value": 1},
        {"op": "add", "path": "/l/7", "value": 1},
        {"op": "add", "path": "no-slash", "value": 1},
        {"op": "test", "path": "/missing/deeper", "value": None},
        {"op": "test", "path": "/l/7", "value": None},
        {"op": "copy", "from": "/missing/deeper", "path": "/a"},
        {"op": "copy", "from": "/l/7", "path": "/a"},
        None,
        {"op": "dance", "path": "/a"},
        {"op": "move", "from": "/m", "path": "/m/n"},
        {"op": "replace", "path": "", "value": 3},
    ],
)
def test_an_operation_that_does_not_fit_is_refused_as_invalid(operation: Any) -> None:
    with pytest.raises(StatusError) as caught:
        json_patch({"a": 1, "l": [1], "m": {}}, [operation])
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert caught.value.message == "the server rejected our request due to an error in our request"


def test_a_patch_that_is_no_list_is_a_bad_request() -> None:
    with pytest.raises(StatusError) as caught:
        json_patch({}, {"a": 1})
    assert caught.value.code == 400
    assert caught.value.message == "json: cannot unmarshal object into Go value of type jsonpatch.Patch"


def test_too_many_operations_are_too_large() -> None:
    with pytest.raises(StatusError) as caught:
        json_patch({}, [{"op": "add", "path": "/a", "value": 1}] * 10_001)
    assert caught.value.code == 413


@pytest.mark.parametrize(
    ("patch", "before", "after"),
    [
        ({"a": None}, {"a": 1, "b": 2}, {"b": 2}),
        ({"a": {"b": None, "c": 1}}, {"a": {"b": 1}}, {"a": {"c": 1}}),
        ({"a": {"b": {"c": None}}}, {}, {"a": {"b": {}}}),
        ({"a": [None, 1]}, {"a": [5, 6, 7]}, {"a": [None, 1]}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": {"b": 1}}),
    ],
)
def test_merge_patch(patch: Any, before: Any, after: Any) -> None:
    assert merge_patch(before, patch) == after


def test_a_merge_patch_must_be_an_object() -> None:
    with pytest.raises(StatusError) as caught:
        merge_patch({}, [1])
    assert (caught.value.code, caught.value.message) == (400, "Invalid JSON Patch")


def _difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        if name not in old or old[name] != value or type(old[name]) is not type(value):
            both = isinstance(value, dict) and isinstance(old.get(name), dict)
            patch[name] = _difference(old[name], value) if both else value
    return patch


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_made_from_the_difference_leads_from_one_object_to_the_other(old: Any, new: Any) -> None:
    assert merge_patch(old, _difference(old, new)) == new


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_done_twice_is_the_same_as_once(obj: Any, patch: Any) -> None:
    once = merge_patch(obj, patch)
    assert merge_patch(once, patch) == once


@given(OBJECTS, OBJECTS)
def test_the_result_shares_nothing_with_object_or_patch(obj: Any, patch: Any) -> None:
    before = copy.deepcopy((obj, patch))
    result = merge_patch(obj, patch)
    for value in list(result.values()):
        if isinstance(value, (dict, list)):
            value.clear()
    assert (obj, patch) == before


def test_what_is_replaced_need_not_be_there() -> None:
    assert json_patch({"a": {}}, [{"op": "replace", "path": "/a/new", "value": 1}]) == {"a": {"new": 1}}


def _operations(old: Any, new: Any, at: str = "") -> list[Any]:
    """A JSON patch of the difference of two objects."""
    out: list[Any] = [{"op": "remove", "path": f"{at}/{name}"} for name in old if name not in new]
    for name, value in new.items():
        path, was = f"{at}/{name}", old.get(name)
        if name not in old:
            out.append({"op": "add", "path": path, "value": value})
        elif isinstance(value, dict) and isinstance(was, dict):
            out += [{"op": "test", "path": path, "value": was}, *_operations(was, value, path)]
        elif was != value or type(was) is not type(value):
            out.append({"op": "replace", "path": path, "value": value})
    return out


@given(OBJECTS, OBJECTS)
def test_a_json_patch_made_from_the_difference_leads_from_one_object_to_the_other(old: Any, new: Any) -> None:
    assert json_patch(old, _operations(old, new)) == new
