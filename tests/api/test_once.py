"""What is made once, or by a shorter way, is what the longer way makes."""

from __future__ import annotations

import copy
import random
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from navarch.api import fields
from navarch.api.addresses import ip_problems
from navarch.api.apply import update_managed_fields
from navarch.api.created_sets import CreatedSets
from navarch.api.memo import memo
from navarch.api.meta import Obj, new_uid
from navarch.api.patch import merge_patch
from navarch.api.schema import load
from navarch.api.time import format_time

POD = load("1.37").compile("io.k8s.api.core.v1.Pod").root


def pod(name: str, **spec: Any) -> Obj:
    metadata: Obj = {"name": name, "labels": {"app": "web"}}
    return {"metadata": metadata, "spec": {"containers": [{"name": "web", "image": "web:1"}], **spec}}


def created(obj: Obj) -> list[Obj]:
    update_managed_fields(None, obj, POD, manager="m", api_version="v1", now="2026-11-26T00:00:00Z")
    entries: list[Obj] = obj["metadata"]["managedFields"]
    return entries


def test_objects_that_differ_in_their_names_have_equal_owners() -> None:
    assert created(pod("a")) == created(pod("b"))


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (pod("a", nodeName="n"), "f:nodeName"),
        (pod("a", containers=[{"name": "other", "image": "web:1"}]), "f:containers"),
        (pod("a", tolerations=[]), "f:tolerations"),
    ],
)
def test_what_differs_in_anything_else_has_owners_of_its_own(other: Obj, key: str) -> None:
    first = created(pod("a"))[0]["fieldsV1"]["f:spec"]

    second = created(other)[0]["fieldsV1"]["f:spec"]

    assert first.get(key) != second.get(key)


def test_owners_that_somebody_changes_are_not_what_others_get() -> None:
    expected = copy.deepcopy(created(pod("a")))

    owned = fields.created_set(pod("b"), POD)
    owned.clear()
    fields.created_set(pod("c"), POD)["f:metadata"].clear()

    assert created(pod("d")) == expected


def test_sets_of_objects_that_are_all_different_are_not_kept_for_ever() -> None:
    sets, made = CreatedSets(), 0

    def make(obj: Obj, out: dict[str, Any]) -> None:
        nonlocal made
        made += 1
        out["f:data"] = {key: {} for key in obj["data"]}

    for index in range(5_000):
        obj = {"metadata": {"name": "x"}, "data": {f"key-{index}": ""}}
        assert sets.of(obj, make) == {"f:data": {f"key-{index}": {}}}

    assert made == 5_000
    assert len(sets._known) <= 64


def test_sets_are_remembered_again_after_a_time_in_which_all_were_different() -> None:
    sets, made = CreatedSets(), 0

    def make(obj: Obj, out: dict[str, Any]) -> None:
        nonlocal made
        made += 1

    for index in range(500):
        sets.of({"data": index}, make)
    made = 0
    for _ in range(3_000):
        sets.of({"data": "same"}, make)

    assert made < 1_500


def test_uids_are_those_that_the_standard_library_makes() -> None:
    for seed in range(50):
        assert new_uid(random.Random(seed)) == str(uuid.UUID(int=random.Random(seed).getrandbits(128), version=4))


def test_a_merge_patch_shares_nothing_with_what_it_was_made_of() -> None:
    old, patch = {"a": {"b": [{"c": 1}]}, "d": {"e": 1}}, {"d": {"f": {"g": [{"h": 1}], "i": None}}, "j": [[1]]}
    before = copy.deepcopy((old, patch))

    merged = merge_patch(old, patch)

    assert merged == {"a": {"b": [{"c": 1}]}, "d": {"e": 1, "f": {"g": [{"h": 1}]}}, "j": [[1]]}
    merged["a"]["b"][0]["c"] = merged["d"]["f"]["g"][0]["h"] = 2
    merged["j"][0].append(2)
    assert (old, patch) == before


@pytest.mark.parametrize("text", ["10.0.0.256", "10.0.0", "10.0.0.1.2", "", "10.0.0.1\n", "1 .0.0.1", "٣.0.0.1"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert ip_problems(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "255.255.255.255", "10.244.19.200"])
def test_plain_addresses_are_right_also_where_it_is_strict(text: str) -> None:
    assert not ip_problems(text, strict=True)


def test_times_are_written_as_go_writes_them() -> None:
    moments = (
        datetime(1, 2, 3, tzinfo=UTC),
        datetime(2026, 11, 6, 7, 8, 9, 999_999, UTC),
        datetime(2026, 11, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=2))),
    )

    for moment in moments:
        assert format_time(moment) == moment.isoformat("T", "seconds")[:19] + "Z"


def test_of_texts_that_are_remembered_the_oldest_go_first_and_none_is_wrong() -> None:
    asked: list[str] = []

    @memo(16)
    def doubled(text: str) -> str:
        asked.append(text)
        return text * 2

    for number in range(100):
        assert doubled(str(number)) == str(number) * 2
    asked.clear()
    for number in reversed(range(100)):
        assert doubled(str(number)) == str(number) * 2

    remembered = {str(number) for number in range(100)} - set(asked)
    assert {"99", "98", "97"} <= remembered
    assert 8 <= len(remembered) <= 16
