"""Strategic merge patch, on the schema that is served."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import schema
from navarch.api.errors import StatusError
from navarch.api.patch import strategic_merge_patch
from navarch.api.strategic import sharing_merge_patch

POD = schema.load().compile("io.k8s.api.core.v1.Pod").root
DEPLOYMENT = schema.load().compile("io.k8s.api.apps.v1.Deployment").root


def pod(*containers: Any, **spec: Any) -> Any:
    return {"metadata": {"name": "web"}, "spec": {"containers": list(containers), **spec}}


def names(obj: Any) -> list[str]:
    return [container["name"] for container in obj["spec"]["containers"]]


def test_containers_merge_by_name() -> None:
    live = pod({"name": "a", "image": "x"}, {"name": "b", "image": "y"})
    patched = strategic_merge_patch(live, {"spec": {"containers": [{"name": "b", "image": "z"}]}}, POD)
    assert patched["spec"]["containers"] == [{"name": "a", "image": "x"}, {"name": "b", "image": "z"}]


def test_new_items_go_before_those_that_only_the_server_has() -> None:
    live = pod({"name": "a"}, {"name": "b"})
    patched = strategic_merge_patch(live, {"spec": {"containers": [{"name": "c"}]}}, POD)
    assert names(patched) == ["c", "a", "b"]


def test_set_element_order_sets_the_order_of_what_it_names() -> None:
    live = pod({"name": "a"}, {"name": "b"}, {"name": "c"})
    patch = {"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}}
    assert names(strategic_merge_patch(live, patch, POD)) == ["b", "c", "a"]


def test_set_element_order_that_contradicts_the_list_is_refused() -> None:
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "b"}, {"name": "a"}],
        }
    }
    with pytest.raises(StatusError) as caught:
        strategic_merge_patch(pod({"name": "a"}, {"name": "b"}), patch, POD)
    assert caught.value.code == 500
    assert caught.value.message.startswith("The order in patch list:\n[map[name:b] map[name:a]]")


def test_a_delete_directive_removes_the_item() -> None:
    live = pod({"name": "a"}, {"name": "b"})
    patch = {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}
    assert names(strategic_merge_patch(live, patch, POD)) == ["b"]


def test_a_replace_directive_in_a_list_replaces_it_whole() -> None:
    live = pod({"name": "a"}, {"name": "b"})
    patch = {"spec": {"containers": [{"name": "c", "image": "x"}, {"$patch": "replace"}]}}
    assert strategic_merge_patch(live, patch, POD)["spec"]["containers"] == [{"name": "c", "image": "x"}]


def test_a_replace_directive_in_an_object_replaces_it_whole() -> None:
    live = pod(nodeSelector={"a": "b"}, hostNetwork=True)
    patched = strategic_merge_patch(live, {"spec": {"$patch": "replace", "hostPID": True}}, POD)
    assert patched["spec"] == {"hostPID": True}


def test_null_deletes_also_inside_items() -> None:
    live = pod({"name": "a", "image": "x", "env": [{"name": "K", "value": "v"}]})
    patched = strategic_merge_patch(live, {"spec": {"containers": [{"name": "a", "env": None}]}}, POD)
    assert patched["spec"]["containers"] == [{"name": "a", "image": "x"}]


def test_lists_without_merge_strategy_are_replaced() -> None:
    live = pod({"name": "a", "args": ["1", "2"]})
    patched = strategic_merge_patch(live, {"spec": {"containers": [{"name": "a", "args": ["3"]}]}}, POD)
    assert patched["spec"]["containers"][0]["args"] == ["3"]


def test_finalizers_are_a_set_that_grows_and_shrinks() -> None:
    live = {"metadata": {"finalizers": ["a/x", "b/x"]}}
    grown = strategic_merge_patch(live, {"metadata": {"finalizers": ["c/x", "a/x"]}}, POD)
    assert sorted(grown["metadata"]["finalizers"]) == ["a/x", "b/x", "c/x"]
    shrunk = strategic_merge_patch(live, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"]}}, POD)
    assert shrunk["metadata"]["finalizers"] == ["b/x"]


def test_retain_keys_drops_what_is_not_retained() -> None:
    live = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_merge_patch(live, patch, DEPLOYMENT)["spec"]["strategy"] == {"type": "Recreate"}


def test_retain_keys_must_name_what_the_patch_sets() -> None:
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate", "rollingUpdate": {}}}}
    with pytest.raises(StatusError, match="invalid patch format of retainKeys"):
        strategic_merge_patch({"spec": {"strategy": {}}}, patch, DEPLOYMENT)


def test_an_item_without_its_merge_key_is_refused_with_its_contents() -> None:
    with pytest.raises(StatusError) as caught:
        strategic_merge_patch(pod({"name": "a"}), {"spec": {"containers": [{"image": "x"}]}}, POD)
    assert caught.value.message == "map: map[image:x] does not contain declared merge key: name"


def test_items_that_only_delete_leave_no_trace_where_the_object_has_nothing_yet() -> None:
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "env": [{"name": "E", "$patch": "delete"}]}],
            "volumes": [{"name": "v", "$patch": "delete"}, {"name": "w", "emptyDir": {"medium": None}}],
        }
    }
    patched = strategic_merge_patch({"spec": {}}, patch, POD)
    assert patched["spec"] == {
        "containers": [{"name": "a", "env": []}],
        "volumes": [{"name": "w", "emptyDir": {}}],
    }


CONTAINERS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abcd")}, optional={"image": st.sampled_from(["x", "y"])}),
    unique_by=lambda container: container["name"],
    max_size=4,
)


@given(CONTAINERS, CONTAINERS)
def test_patching_twice_changes_nothing_more_and_inputs_stay(live_items: Any, patch_items: Any) -> None:
    live, patch = pod(*live_items), {"spec": {"containers": patch_items}}
    before = copy.deepcopy((live, patch))
    once = strategic_merge_patch(live, patch, POD)
    assert strategic_merge_patch(once, patch, POD) == once
    assert (live, patch) == before
    assert set(names(once)) == {item["name"] for item in [*live_items, *patch_items]}


@given(CONTAINERS.filter(bool), CONTAINERS, st.permutations("abcd"))
def test_a_list_whose_order_names_every_item_is_in_that_order(live: Any, change: Any, order: Any) -> None:
    change = sorted(change, key=lambda item: order.index(item["name"]))
    patch = {"spec": {"containers": change, "$setElementOrder/containers": [{"name": name} for name in order]}}
    before, after = ({item["name"]: item for item in items} for items in (live, change))

    patched = strategic_merge_patch(pod(*live), patch, POD)

    wanted = [{**before.get(name, {}), **after.get(name, {})} for name in order if name in before or name in after]
    assert patched["spec"]["containers"] == wanted


@given(CONTAINERS, CONTAINERS)
def test_what_a_patch_leaves_as_it_is_may_be_shared(live_items: Any, patch_items: Any) -> None:
    live, patch = pod(*live_items, hostPID=True), {"metadata": {"name": "web"}, "spec": {"containers": patch_items}}
    before = copy.deepcopy((live, patch))

    shared = sharing_merge_patch(live, patch, POD)

    assert shared == strategic_merge_patch(live, patch, POD)
    assert (live, patch) == before
    assert shared["metadata"] is live["metadata"]
    held = {item["name"]: item for item in live_items}
    for item in shared["spec"]["containers"]:
        if item == held.get(item["name"]):
            assert item is held[item["name"]]


def test_an_item_that_a_patch_gives_twice_is_one() -> None:
    patch = {"spec": {"containers": [{"name": "b", "image": "x"}, {"name": "b", "tty": True}]}}
    patched = strategic_merge_patch(pod({"name": "a"}), patch, POD)
    assert patched["spec"]["containers"] == [{"name": "b", "image": "x", "tty": True}, {"name": "a"}]


def _patch_between(old: Any, new: Any) -> Any:
    """What `kubectl apply` would send: changed and new items, the deleted ones, and the order of all."""
    before = {container["name"]: container for container in old}
    items = []
    for container in new:
        was = before.get(container["name"], {})
        gone = {name: None for name in was if name not in container}
        if (change := {**container, **gone}) != was:
            items.append(change)
    deleted = [{"name": name, "$patch": "delete"} for name in before if name not in {c["name"] for c in new}]
    order = [{"name": container["name"]} for container in new]
    return {"spec": {"containers": items + deleted, "$setElementOrder/containers": order}}


@given(CONTAINERS.filter(bool), CONTAINERS.filter(bool))
def test_a_patch_of_the_difference_leads_from_one_list_to_the_other(old: Any, new: Any) -> None:
    assert strategic_merge_patch(pod(*old), _patch_between(old, new), POD) == pod(*new)


@pytest.mark.parametrize(
    ("patch", "code", "message"),
    [
        ([1], 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ({"spec": {"$patch": "nope"}}, 500, "unknown patch type: nope in map: map[$patch:nope]"),
        ({"spec": {"containers": [{"$patch": "merge"}]}}, 500, "merging lists cannot yet be specified in the patch"),
        (
            {"spec": {"containers": [{"$patch": "delete"}]}},
            500,
            "map: map[$patch:delete] does not contain declared merge key: name",
        ),
        (
            {"spec": {"containers": ["x"]}},
            500,
            "list element types are not identical: [[map[name:a]] [x]]",
        ),
        (
            {"spec": {"$setElementOrder/containers": "x"}},
            500,
            "expected a []interface {}, but received a string",
        ),
        (
            {"spec": {"$setElementOrder/nope": []}},
            500,
            'unable to find api field in struct PodSpec for the json field "nope"',
        ),
        ({"metadata": {"$deleteFromPrimitiveList": []}}, 400, "invalid patch format of primitive list"),
        ({"spec": {"$retainKeys": "x"}}, 400, "invalid patch format of retainKeys"),
        (
            {"metadata": {"finalizers": [["x"]]}},
            500,
            "list element types are not identical: [[a/b] [[x]]]",
        ),
    ],
)
def test_a_patch_that_cannot_be_carried_out(patch: Any, code: int, message: str) -> None:
    live = {**pod({"name": "a"}), "metadata": {"finalizers": ["a/b"]}}
    with pytest.raises(StatusError) as caught:
        strategic_merge_patch(live, patch, POD)
    assert (caught.value.code, caught.value.message) == (code, message)


def test_a_list_that_is_replaced_keeps_what_only_means_something_where_lists_merge() -> None:
    live = pod(tolerations=[{"key": "a"}])
    patched = strategic_merge_patch(live, {"spec": {"tolerations": [{"key": "b", "$patch": "delete"}]}}, POD)
    assert patched["spec"]["tolerations"] == [{"key": "b", "$patch": "delete"}]
