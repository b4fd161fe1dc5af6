"""Field sets: what an object's fields are called, and the algebra of sets."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from navarch.api import field_sets, fields, schema
from navarch.api.field_paths import paths

POD = schema.load().compile("io.k8s.api.core.v1.Pod").root
SERVICE = schema.load().compile("io.k8s.api.core.v1.Service").root

OBJECT = {
    "metadata": {"labels": {"app": "web"}, "finalizers": ["a/b"]},
    "spec": {
        "containers": [
            {
                "name": "web",
                "image": "nginx",
                "args": ["-v"],
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1"}},
            }
        ],
        "securityContext": {},
        "tolerations": [{"key": "a"}],
    },
}


def test_the_names_in_maps_are_not_remembered_for_ever() -> None:
    def write(first: int) -> None:
        labels = {f"name-{number}": "" for number in range(first, first + 1000)}
        fields.owned_set({"metadata": {"labels": labels}, "unknown": labels}, POD)

    for first in range(0, 10_000, 1000):
        write(first)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for first in range(10_000, 60_000, 1000):
            write(first)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # A hundred thousand names would be some 25 MB.
    assert after - before < 5_000_000


def test_an_applier_owns_the_leaves_and_the_items() -> None:
    assert fields.owned_set(OBJECT, POD) == {
        "f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {'v:"a/b"': {}}},
        "f:spec": {
            "f:containers": {
                'k:{"name":"web"}': {
                    ".": {},
                    "f:name": {},
                    "f:image": {},
                    "f:args": {},
                    "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
                    "f:resources": {"f:limits": {"f:cpu": {}}},
                }
            },
            "f:securityContext": {},
            "f:tolerations": {},
        },
    }


def test_a_creator_owns_maps_and_lists_too_but_not_what_every_object_has() -> None:
    owned = fields.created_set(OBJECT, POD)
    assert owned["f:metadata"]["f:labels"] == {".": {}, "f:app": {}}
    assert "." not in owned["f:spec"]
    assert "." not in owned["f:spec"]["f:containers"]
    container = owned["f:spec"]["f:containers"]['k:{"name":"web"}']
    assert container["f:resources"] == {".": {}, "f:limits": {".": {}, "f:cpu": {}}}


def test_a_comparison_tells_what_was_added_removed_and_modified() -> None:
    new = json.loads(json.dumps(OBJECT))
    new["metadata"]["labels"] = {"tier": "front"}
    new["spec"]["containers"][0]["image"] = "apache"
    new["spec"]["tolerations"].append({"key": "b"})
    changes = fields.compare(OBJECT, new, POD)
    assert list(paths(changes.added)) == [".metadata.labels.tier"]
    assert list(paths(changes.removed)) == [".metadata.labels.app"]
    assert list(paths(changes.modified)) == [".spec.tolerations", '.spec.containers[name="web"].image']


def test_the_order_of_items_with_keys_is_no_difference() -> None:
    one = {"spec": {"ports": [{"port": 1}, {"port": 2}]}}
    other = {"spec": {"ports": [{"port": 2}, {"port": 1}]}}
    changes = fields.compare(one, other, SERVICE)
    assert [changes.added, changes.removed, changes.modified] == [{}, {}, {}]


def test_values_without_schema_are_owned_field_by_field() -> None:
    owned = fields.owned_set({"spec": {"deep": {"list": [1], "text": "x", "none": {}}}}, None)
    assert owned == {
        "f:spec": {".": {}, "f:deep": {".": {}, "f:list": {}, "f:text": {}, "f:none": {}}},
    }


def test_paths_of_sets_and_several_keys() -> None:
    owned = {"f:a": {'v:"x"': {}, 'k:{"port":80,"protocol":"TCP"}': {".": {}}}}
    assert list(paths(owned)) == ['.a[port=80,protocol="TCP"]', '.a[="x"]']


KEYS = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"'])
SETS: Any = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3).flatmap(
        lambda below: st.sampled_from([below, {".": {}, **below}]) if below else st.just({})
    ),
    max_leaves=6,
).map(lambda found: {key: child for key, child in found.items() if key != "."})


def members(owned: Any) -> set[str]:
    return set(paths(owned))


@given(SETS, SETS)
def test_union_difference_and_intersection_are_those_of_the_members(left: Any, right: Any) -> None:
    assert members(field_sets.union(left, right)) == members(left) | members(right)
    assert members(field_sets.difference(left, right)) == members(left) - members(right)
    assert members(field_sets.intersection(left, right)) == members(left) & members(right)
    if members(left) & members(right):
        assert field_sets.overlaps(left, right)


def test_what_became_one_value_in_the_schema_is_owned_as_one() -> None:
    node = POD.fields["spec"]
    owned = {
        "f:hostname": {},
        "f:nodeSelector": {".": {}, "f:a": {}},
        "f:tolerations": {'k:{"key":"a"}': {".": {}, "f:key": {}}},
        "f:containers": {'k:{"name":"c"}': {".": {}, "f:args": {}, "f:name": {}}},
    }

    now = fields.reconciled(owned, node)

    assert now == {**owned, "f:nodeSelector": {}, "f:tolerations": {}}
    assert fields.reconciled(now, node) is now


def test_an_empty_struct_that_every_object_has_is_nobodys() -> None:
    policy = schema.load().compile("io.k8s.api.networking.v1.NetworkPolicy").root
    spec = {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert fields.created_set({"spec": spec}, policy) == {"f:spec": {"f:policyTypes": {}}}
