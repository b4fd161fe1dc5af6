"""What a configuration makes of an object, and what goes with what is no longer applied."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import fields, schema
from navarch.api.merge import merged, pruned

POD = schema.load().compile("io.k8s.api.core.v1.Pod").root


def pod(names: str) -> Any:
    return {"spec": {"containers": [{"name": name} for name in names]}}


def names(obj: Any) -> str:
    return "".join(container["name"] for container in obj["spec"]["containers"])


@pytest.mark.parametrize(
    ("live", "config", "out"),
    [
        ("ab", "c", "abc"),
        ("abc", "cda", "bcda"),
        ("abcd", "ca", "bcda"),
        ("abc", "xb", "axbc"),
        ("abcde", "edcba", "edcba"),
        ("ac", "abc", "abc"),
        ("bxd", "abcd", "abxcd"),
    ],
)
def test_items_of_the_configuration_keep_their_order_and_others_their_place(live: str, config: str, out: str) -> None:
    assert names(merged(pod(live), pod(config), POD)) == out


@given(
    st.lists(st.sampled_from("abcdef"), unique=True, max_size=5),
    st.lists(st.sampled_from("abcdef"), unique=True, min_size=1, max_size=5),
)
def test_nothing_is_lost_and_the_configuration_is_in_its_order(live: list[str], config: list[str]) -> None:
    out = names(merged(pod("".join(live)), pod("".join(config)), POD))
    assert sorted(out) == sorted({*live, *config})
    assert [name for name in out if name in config] == config
    assert [name for name in out if name not in config] == [name for name in live if name not in config]


def test_atomic_lists_and_maps_are_replaced_sets_are_united() -> None:
    live = {
        "metadata": {"finalizers": ["a/x"]},
        "spec": {"tolerations": [{"key": "a"}], "nodeSelector": {"a": "b"}},
    }
    config = {
        "metadata": {"finalizers": ["b/x"]},
        "spec": {"tolerations": [{"key": "b"}], "nodeSelector": {"c": "d"}},
    }
    assert merged(live, config, POD) == {
        "metadata": {"finalizers": ["a/x", "b/x"]},
        "spec": {"tolerations": [{"key": "b"}], "nodeSelector": {"c": "d"}},
    }


def test_null_unsets_a_scalar_and_adds_nothing_to_a_map() -> None:
    live = {"metadata": {"labels": {"a": "b"}}, "spec": {"hostname": "h"}}
    out = merged(live, {"metadata": {"labels": None}, "spec": {"hostname": None}}, POD)
    assert out == {"metadata": {"labels": {"a": "b"}}, "spec": {"hostname": None}}


def test_duplicates_that_a_client_left_give_way_to_what_is_applied() -> None:
    live = {"spec": {"containers": [{"name": "a", "env": [{"name": "E", "value": v} for v in "12"]}]}}
    config = {"spec": {"containers": [{"name": "a", "env": [{"name": "E", "value": "3"}]}]}}
    assert merged(live, config, POD)["spec"]["containers"][0]["env"] == [{"name": "E", "value": "3"}]


def test_what_others_own_below_what_is_no_longer_applied_stays_with_what_is_around_it() -> None:
    obj = {"spec": {"containers": [{"name": "a", "image": "x", "env": [{"name": "E", "value": "v"}]}]}}
    last = fields.owned_set(pod("a") | {}, POD)
    others = fields.owned_set({"spec": {"containers": [{"name": "a", "env": [{"name": "E", "value": "v"}]}]}}, POD)
    assert pruned(obj, last, others, POD) == obj
    assert pruned(obj, last, {}, POD) == {}
