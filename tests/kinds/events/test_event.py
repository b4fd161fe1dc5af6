"""Event in both groups."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.kinds.events.conversion import from_core
from navarch.kinds.strategies import lookup
from tests.kinds.writing import headings, refused, row

EVENT: Any = {
    "apiVersion": "v1",
    "metadata": {"name": "web.1", "namespace": "default"},
    "involvedObject": {"kind": "Pod", "name": "web-1", "namespace": "default", "fieldPath": "spec.containers{web}"},
    "reason": "Started",
    "message": "Started container web\n",
    "type": "Normal",
    "source": {"component": "kubelet", "host": "n1"},
    "firstTimestamp": "2026-01-01T23:50:00Z",
    "lastTimestamp": "2026-01-01T23:59:30Z",
    "count": 4,
}


@pytest.mark.parametrize(("group", "obj"), [("", EVENT), ("events.k8s.io", from_core(EVENT))])
def test_the_table_is_the_same_in_both_groups(group: str, obj: Any) -> None:
    assert headings(group, "Event")[0] == ["Last Seen", "Type", "Reason", "Object", "Message"]
    assert row(group, "Event", obj, wide=True) == [
        "30s",
        "Normal",
        "Started",
        "pod/web-1",
        "spec.containers{web}",
        "kubelet, n1",
        "Started container web",
        "10m",
        4,
        "web.1",
    ]


def test_a_series_tells_when_the_event_was_last_seen() -> None:
    obj = {**EVENT, "series": {"count": 9, "lastObservedTime": "2026-01-01T23:59:55.000000Z"}}
    assert row("", "Event", obj)[0] == "5s"


def test_events_are_selected_by_what_they_are_about_in_both_forms() -> None:
    for group, obj in (("", EVENT), ("events.k8s.io", from_core(EVENT))):
        value = lookup(group, "Event").field_value
        assert value(obj, "involvedObject.name") == "web-1"
        assert value(obj, "reason") == "Started"
        assert value(obj, "source") == "kubelet"


def test_an_event_lives_in_the_namespace_of_its_object() -> None:
    assert refused("", "Event", EVENT) == []
    other = {**EVENT, "involvedObject": {"kind": "Pod", "namespace": "other"}}
    assert refused("", "Event", other) == [
        'involvedObject.namespace: Invalid value: "other": does not match event.namespace'
    ]


def test_the_new_form_says_who_reports() -> None:
    obj = {"apiVersion": "events.k8s.io/v1", "regarding": {"kind": "Node"}, "type": "Normal", "reason": "x"}
    assert refused("events.k8s.io", "Event", obj) == ["eventTime: Required value"]
    [who, *why, instance, action] = refused(
        "events.k8s.io", "Event", {**obj, "eventTime": "2024-01-01T00:00:00.000000Z"}
    )
    assert who == "reportingController: Required value"
    assert all(problem.startswith('reportingController: Invalid value: "": name part must ') for problem in why)
    assert [instance, action] == ["reportingInstance: Required value", "action: Required value"]
