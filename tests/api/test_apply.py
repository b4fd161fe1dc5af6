"""Ownership of fields and server-side apply, as a client sees them."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import schema
from navarch.api.apply import LAST_APPLIED, apply, keep_times, update_managed_fields
from navarch.api.errors import StatusError

NODE = schema.load().compile("io.k8s.api.apps.v1.Deployment").root
T1, T2 = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def config(replicas: int | None = None, image: str = "nginx", **labels: str) -> Any:
    spec: Any = {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}
    if replicas is not None:
        spec["replicas"] = replicas
    metadata: Any = {"name": "web", "namespace": "default"}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def applied(live: Any, wanted: Any, manager: str = "tool", *, force: bool = False, now: str = T1, **more: Any) -> Any:
    return apply(live, wanted, NODE, manager=manager, force=force, api_version="apps/v1", now=now, **more)


def updated(live: Any, new: Any, manager: str = "kubectl", now: str = T1, subresource: str = "") -> Any:
    new = copy.deepcopy(new)
    update_managed_fields(live, new, NODE, manager=manager, api_version="apps/v1", now=now, subresource=subresource)
    return new


def owners(obj: Any) -> list[tuple[str, str]]:
    return [(entry["manager"], entry["operation"]) for entry in obj["metadata"].get("managedFields", [])]


def owned(obj: Any, manager: str) -> Any:
    return next(e["fieldsV1"] for e in obj["metadata"]["managedFields"] if e["manager"] == manager)


def test_a_creator_owns_all_but_what_the_server_keeps() -> None:
    obj = config(3, app="web")
    obj["metadata"] |= {"uid": "u", "creationTimestamp": T1, "generation": 1}
    obj = updated(None, obj)
    (entry,) = obj["metadata"]["managedFields"]
    fields = entry.pop("fieldsV1")
    assert entry == {
        "manager": "kubectl",
        "operation": "Update",
        "apiVersion": "apps/v1",
        "time": T1,
        "fieldsType": "FieldsV1",
    }
    assert fields["f:metadata"] == {"f:labels": {".": {}, "f:app": {}}}
    assert fields["f:spec"]["f:replicas"] == {}


def test_an_update_takes_over_what_it_changes_and_nothing_else() -> None:
    before = updated(None, config(3))
    after = copy.deepcopy(before)
    after["spec"]["replicas"] = 5
    after = updated(before, after, "scaler", T2)
    assert owners(after) == [("kubectl", "Update"), ("scaler", "Update")]
    assert owned(after, "scaler") == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in owned(after, "kubectl")["f:spec"]


def test_an_update_that_changes_nothing_leaves_ownership_and_time_alone() -> None:
    before = updated(None, config(3))
    after = updated(before, before, "other", T2)
    assert after["metadata"]["managedFields"] == before["metadata"]["managedFields"]


def test_what_an_update_removes_belongs_to_nobody() -> None:
    before = updated(None, config(3))
    after = copy.deepcopy(before)
    del after["spec"]["replicas"]
    after = updated(before, after, "other", T2)
    assert owners(after) == [("kubectl", "Update")]
    assert "f:replicas" not in owned(after, "kubectl")["f:spec"]


def test_status_is_owned_apart_under_its_subresource() -> None:
    before = updated(None, config(3))
    after = copy.deepcopy(before)
    after["status"] = {"replicas": 3}
    after = updated(before, after, "kubectl", T2, "status")
    assert after["metadata"]["managedFields"][1]["subresource"] == "status"
    assert after["metadata"]["managedFields"][1]["fieldsV1"] == {"f:status": {"f:replicas": {}}}


def test_a_client_that_does_not_send_managed_fields_does_not_lose_them() -> None:
    before = updated(None, config(3))
    after = copy.deepcopy(before)
    del after["metadata"]["managedFields"]
    assert updated(before, after)["metadata"]["managedFields"] == before["metadata"]["managedFields"]


def test_an_empty_entry_forgets_all_ownership() -> None:
    before = updated(None, config(3))
    after = copy.deepcopy(before)
    after["metadata"]["managedFields"] = [{}]
    assert "managedFields" not in updated(before, after)["metadata"]


def test_more_than_ten_updaters_are_gathered() -> None:
    obj = updated(None, config(0))
    for number in range(1, 14):
        new = copy.deepcopy(obj)
        new["metadata"].setdefault("labels", {})[f"l{number}"] = "x"
        obj = updated(obj, new, f"m{number}", f"2026-01-{number:02}T00:00:00Z")
    assert len(obj["metadata"]["managedFields"]) == 10
    assert ("ancient-changes", "Update") in owners(obj)


def test_apply_creates_what_it_states() -> None:
    obj = applied(None, config(3))
    assert obj["spec"]["replicas"] == 3
    assert owners(obj) == [("tool", "Apply")]
    container = {".": {}, "f:image": {}, "f:name": {}}
    assert owned(obj, "tool") == {
        "f:spec": {
            "f:replicas": {},
            "f:template": {"f:spec": {"f:containers": {'k:{"name":"web"}': container}}},
        }
    }


def test_applying_the_same_again_changes_nothing_at_all() -> None:
    obj = applied(None, config(3, app="web"))
    assert applied(obj, config(3, app="web"), now=T2) == obj


def test_what_is_no_longer_applied_goes_away_and_what_others_own_stays() -> None:
    obj = applied(None, config(3, a="1", b="2"))
    new = copy.deepcopy(obj)
    new["metadata"]["labels"]["c"] = "3"
    obj = updated(obj, new, "other")
    obj = applied(obj, config(a="1"), now=T2)
    assert obj["metadata"]["labels"] == {"a": "1", "c": "3"}
    assert "replicas" not in obj["spec"]


def test_a_list_item_that_is_no_longer_applied_goes_away_with_its_defaults() -> None:
    both = config()
    both["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "x"})
    obj = applied(None, both)
    obj["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] = "Always"
    obj = applied(obj, config(), now=T2)
    assert [c["name"] for c in obj["spec"]["template"]["spec"]["containers"]] == ["web"]


def test_a_field_that_another_applier_states_alike_is_shared_and_survives_one_of_them() -> None:
    obj = applied(None, config(3), "one")
    obj = applied(obj, config(3), "two")
    assert sorted(name for name, _ in owners(obj)) == ["one", "two"]
    obj = applied(obj, config(), "one", now=T2)
    assert obj["spec"]["replicas"] == 3


def test_a_conflict_names_manager_and_field() -> None:
    obj = updated(None, config(3), "kubectl-client-side-apply")
    with pytest.raises(StatusError) as caught:
        applied(obj, config(5), "kubectl2")
    error = caught.value
    assert (error.code, error.reason) == (409, "Conflict")
    assert error.message == (
        'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas'
    )
    assert error.status()["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-client-side-apply" using apps/v1',
            "field": ".spec.replicas",
        }
    ]


def test_several_conflicts_are_listed_by_manager() -> None:
    obj = applied(None, config(3, image="a"), "one")
    with pytest.raises(StatusError) as caught:
        applied(obj, config(5, image="b"), "two")
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .spec.replicas\n'
        '- .spec.template.spec.containers[name="web"].image'
    )


def test_force_takes_the_fields_over() -> None:
    obj = applied(None, config(3), "one")
    obj = applied(obj, config(5), "two", force=True, now=T2)
    assert obj["spec"]["replicas"] == 5
    assert "f:replicas" not in owned(obj, "one")["f:spec"]
    assert owned(obj, "two")["f:spec"]["f:replicas"] == {}


def test_an_object_whose_ownership_was_never_recorded_belongs_to_who_was_before() -> None:
    live = config(3)
    with pytest.raises(StatusError, match='conflict with "before-first-apply" using apps/v1'):
        applied(live, config(5))
    assert owners(applied(live, config(3, app="web"))) == [("tool", "Apply"), ("before-first-apply", "Update")]


def test_kubectl_takes_over_what_it_applied_on_the_client_side() -> None:
    live = config(3)
    live["metadata"]["annotations"] = {LAST_APPLIED: json.dumps(config(3))}
    live = updated(None, live, "kubectl-client-side-apply")
    obj = applied(live, config(5), "kubectl")
    assert obj["spec"]["replicas"] == 5
    assert json.loads(obj["metadata"]["annotations"][LAST_APPLIED])["spec"]["replicas"] == 5


def test_kubectl_does_not_take_over_what_it_applied_in_another_version() -> None:
    live = config(3)
    live["metadata"]["annotations"] = {LAST_APPLIED: json.dumps({**config(3), "apiVersion": "apps/v1beta2"})}
    live = updated(None, live, "kubectl-client-side-apply")
    with pytest.raises(StatusError) as caught:
        applied(live, config(5), "kubectl")
    assert caught.value.message == (
        'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas'
    )


def test_what_cannot_be_written_here_is_owned_by_nobody_and_conflicts_with_nobody() -> None:
    wanted = config(3)
    wanted["status"] = {"replicas": 7}
    obj = applied(None, wanted, ignored=("status",))
    assert "f:status" not in owned(obj, "tool")
    wanted["status"] = {"replicas": 8}
    assert owners(applied(obj, wanted, "other", ignored=("status",))) == [("other", "Apply"), ("tool", "Apply")]


def test_status_is_applied_through_its_subresource_and_owned_there() -> None:
    obj = applied(None, config(3))
    wanted = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {"replicas": 2}}
    obj = applied(obj, wanted | {"spec": {"replicas": 9}}, subresource="status", ignored=("spec",))
    assert obj["status"] == {"replicas": 2}
    entry = next(entry for entry in obj["metadata"]["managedFields"] if entry.get("subresource"))
    assert (entry["subresource"], entry["fieldsV1"]) == ("status", {"f:status": {"f:replicas": {}}})


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (
            {"apiVersion": "apps/v2"},
            400,
            "invalid object type: apps/v2, Kind=Deployment",
        ),
        (
            {"metadata": {"name": "web", "managedFields": [{"manager": "x"}]}},
            400,
            "metadata.managedFields must be nil",
        ),
        (
            {"spec": {"replica": 3}},
            500,
            "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.replica: "
            "field not declared in schema",
        ),
        (
            {"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}},
            500,
            "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): "
            '.spec.template.spec.containers: duplicate entries for key [name="a"]',
        ),
    ],
)
def test_a_configuration_that_cannot_be_applied(change: Any, code: int, message: str) -> None:
    with pytest.raises(StatusError) as caught:
        applied(None, config(3) | change)
    assert (caught.value.code, caught.value.message) == (code, message)


def test_applied_items_keep_their_order_among_the_others() -> None:
    live = config()
    live["spec"]["template"]["spec"]["containers"] = [{"name": n, "image": "x"} for n in "abc"]
    live = updated(None, live, "other")
    wanted = config()
    wanted["spec"]["template"]["spec"]["containers"] = [{"name": n, "image": "x"} for n in "cda"]
    merged = applied(live, wanted)
    names = [c["name"] for c in merged["spec"]["template"]["spec"]["containers"]]
    assert sorted(names) == ["a", "b", "c", "d"]
    assert [n for n in names if n in "cda"] == ["c", "d", "a"]


def test_a_write_that_changes_only_times_takes_them_back() -> None:
    old = updated(None, config(3))
    new = updated(None, config(3), now=T2)
    other = updated(None, config(4), now=T2)

    keep_times(new, old)
    keep_times(other, old)

    assert new == old
    assert other["metadata"]["managedFields"][0]["time"] == T2


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)
CONTAINERS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("pqr")}, optional={"image": st.sampled_from("xy")}),
    unique_by=lambda container: container["name"],
    max_size=3,
)


def _config(labels: Any, containers: Any) -> Any:
    wanted = config(**labels)
    wanted["spec"]["template"]["spec"]["containers"] = containers
    return wanted


@given(LABELS, CONTAINERS, LABELS, CONTAINERS)
def test_whoever_applies_alone_gets_exactly_the_last_configuration(l1: Any, c1: Any, l2: Any, c2: Any) -> None:
    obj = applied(applied(None, _config(l1, c1)), _config(l2, c2), now=T2)
    assert obj["metadata"].get("labels", {}) == l2
    # Nobody owns an empty list, so that nothing is left of it.
    assert (obj["spec"]["template"]["spec"]["containers"] if c2 else []) == c2
    assert c2 or not c1 or obj.get("spec") is None
    if c2:
        assert applied(obj, _config(l2, c2), now="2026-01-03T00:00:00Z") == obj


@given(LABELS, LABELS, LABELS)
def test_a_second_applier_never_changes_what_the_first_states(mine: Any, theirs: Any, later: Any) -> None:
    obj = applied(None, config(**mine), "one")
    for labels in (theirs, later):
        with contextlib.suppress(StatusError):
            obj = applied(obj, config(**labels), "two", now=T2)
    assert mine.items() <= obj["metadata"].get("labels", {}).items()
