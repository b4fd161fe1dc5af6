"""Deployment, ReplicaSet, StatefulSet, DaemonSet: defaults, refusals, updates, tables."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.kinds.writing import created, headings, refused, row, template, updated, workload


def test_deployment_defaults() -> None:
    spec = created("apps", "Deployment", workload())[0]["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    assert (spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (10, 600)
    assert spec["template"]["spec"]["restartPolicy"] == "Always"


def test_statefulset_defaults() -> None:
    obj = workload(serviceName="web", volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": {}}])
    spec = created("apps", "StatefulSet", obj)[0]["spec"]
    assert spec["podManagementPolicy"] == "OrderedReady"
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert (spec["replicas"], spec["revisionHistoryLimit"]) == (1, 10)
    (claim,) = spec["volumeClaimTemplates"]
    assert (claim["apiVersion"], claim["kind"], claim["status"]) == (
        "v1",
        "PersistentVolumeClaim",
        {"phase": "Pending"},
    )
    assert claim["spec"]["volumeMode"] == "Filesystem"


def test_daemonset_defaults_and_template_generation() -> None:
    obj, errors = created("apps", "DaemonSet", workload())
    assert errors == []
    assert obj["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
    }
    assert obj["metadata"]["annotations"]["deprecated.daemonset.template.generation"] == "1"
    changed = copy.deepcopy(obj)
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "apache"
    changed["metadata"]["annotations"] = {}
    after, errors = updated("apps", "DaemonSet", obj, changed)
    assert errors == []
    assert after["metadata"]["annotations"]["deprecated.daemonset.template.generation"] == "2"


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"])
def test_defaulting_twice_changes_nothing_and_a_valid_workload_passes(kind: str) -> None:
    obj, errors = created("apps", kind, workload())
    assert errors == []
    again, errors = updated("apps", kind, obj, obj)
    assert errors == []
    assert again == obj


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"])
def test_an_empty_spec_names_what_is_required(kind: str) -> None:
    errors = refused("apps", kind, {"spec": {}})
    # Of a DaemonSet only that no selector selects nothing.
    assert ("spec.selector: Required value" in errors) == (kind != "DaemonSet")
    mismatch = "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`"
    assert mismatch in errors
    assert "spec.template.spec.containers: Required value" in errors


@pytest.mark.parametrize(
    ("kind", "obj", "error"),
    [
        ("Deployment", workload(replicas=-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            "Deployment",
            workload(template=template({"app": "other"})),
            'spec.template.metadata.labels: Invalid value: {"app":"other"}: '
            "`selector` does not match template `labels`",
        ),
        (
            "Deployment",
            workload(selector={}),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            "Deployment",
            workload(template=template(restartPolicy="Never")),
            'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
        ),
        (
            "Deployment",
            workload(strategy={"type": "Recreate", "rollingUpdate": {}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "Deployment",
            workload(strategy={"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            "Deployment",
            workload(strategy={"rollingUpdate": {"maxUnavailable": "150%"}}),
            'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "150%": must not be greater than 100%',
        ),
        (
            "Deployment",
            workload(minReadySeconds=600),
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ),
        (
            "ReplicaSet",
            workload(template=template(activeDeadlineSeconds=5)),
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
        ),
        (
            "StatefulSet",
            workload(podManagementPolicy="Wild"),
            "spec.podManagementPolicy: Invalid value: \"Wild\": must be 'OrderedReady' or 'Parallel'",
        ),
        (
            "StatefulSet",
            workload(updateStrategy={"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
            'spec.updateStrategy.rollingUpdate: Invalid value: {"Partition":1,"MaxUnavailable":null}: '
            "only allowed for updateStrategy 'RollingUpdate'",
        ),
        (
            "DaemonSet",
            workload(updateStrategy={"rollingUpdate": {"maxUnavailable": 0}}),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
        ),
        (
            "DaemonSet",
            workload(updateStrategy={"rollingUpdate": {"maxSurge": 1}}),
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: "
            "may not be set when maxUnavailable is non-zero",
        ),
    ],
)
def test_what_is_refused(kind: str, obj: Any, error: str) -> None:
    assert error in refused("apps", kind, obj)


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "DaemonSet"])
def test_the_selector_is_immutable(kind: str) -> None:
    old = created("apps", kind, workload())[0]
    new = copy.deepcopy(old)
    new["spec"]["selector"] = {"matchLabels": {"tier": "x"}}
    new["spec"]["template"]["metadata"]["labels"] = {"tier": "x"}
    assert updated("apps", kind, old, new)[1] == [
        'spec.selector: Invalid value: {"matchLabels":{"tier":"x"}}: field is immutable'
    ]


def test_a_statefulset_changes_only_in_some_fields() -> None:
    old = created("apps", "StatefulSet", workload(serviceName="web"))[0]
    assert updated("apps", "StatefulSet", old, {**old, "spec": {**old["spec"], "replicas": 5}})[1] == []
    (error,) = updated("apps", "StatefulSet", old, {**old, "spec": {**old["spec"], "serviceName": "other"}})[1]
    assert error.startswith("spec: Forbidden: updates to statefulset spec for fields other than 'replicas', ")


def test_status_comes_only_through_its_subresource() -> None:
    old = created("apps", "Deployment", workload())[0]
    new = {**copy.deepcopy(old), "status": {"replicas": 2}}
    assert updated("apps", "Deployment", old, new)[0]["status"] == {}
    new["spec"]["replicas"] = 7
    after, errors = updated("apps", "Deployment", old, new, "status")
    assert errors == []
    assert (after["status"], after["spec"]["replicas"]) == ({"replicas": 2}, 1)


def test_status_counts_must_agree() -> None:
    old = created("apps", "ReplicaSet", workload())[0]
    new = {**old, "status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3}}
    assert updated("apps", "ReplicaSet", old, new, "status")[1] == [
        "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
        "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
        "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
    ]


def test_names_that_are_no_host_names_are_warned_about() -> None:
    from navarch.kinds.strategies import lookup

    obj = {"metadata": {"name": "a.b"}, **workload()}
    (warning,) = lookup("apps", "Deployment").warnings(obj, None)
    assert warning.startswith("metadata.name: this is used in Pod names and hostnames")


STATUS = {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}
META = {"name": "web", "creationTimestamp": "2026-01-01T23:59:00Z"}


@pytest.mark.parametrize(
    ("kind", "obj", "names", "cells"),
    [
        (
            "Deployment",
            {**workload(replicas=3), "status": STATUS},
            ["Name", "Ready", "Up-to-date", "Available", "Age", "Containers", "Images", "Selector"],
            ["web", "2/3", 3, 1, "60s", "web", "nginx", "app=web"],
        ),
        (
            "ReplicaSet",
            {**workload(replicas=3), "status": STATUS},
            ["Name", "Desired", "Current", "Ready", "Age", "Containers", "Images", "Selector"],
            ["web", 3, 3, 2, "60s", "web", "nginx", "app=web"],
        ),
        (
            "StatefulSet",
            {**workload(replicas=3), "status": STATUS},
            ["Name", "Ready", "Age", "Containers", "Images"],
            ["web", "2/3", "60s", "web", "nginx"],
        ),
        (
            "DaemonSet",
            {**workload(), "status": {"desiredNumberScheduled": 2, "numberReady": 1}},
            [
                "Name",
                "Desired",
                "Current",
                "Ready",
                "Up-to-date",
                "Available",
                "Node Selector",
                "Age",
                "Containers",
                "Images",
                "Selector",
            ],
            ["web", 2, 0, 1, 0, 0, "<none>", "60s", "web", "nginx", "app=web"],
        ),
    ],
)
def test_the_table(kind: str, obj: Any, names: Any, cells: Any) -> None:
    always, wide = headings("apps", kind)
    assert always + wide == names
    assert row("apps", kind, {**obj, "metadata": META}, wide=True) == cells


def test_controller_revision_data_is_immutable() -> None:
    old = created("apps", "ControllerRevision", {"data": {"a": 1}, "revision": 1})[0]
    (error,) = updated("apps", "ControllerRevision", old, {**old, "data": {"a": 2}})[1]
    assert error == 'data: Invalid value: {"a":2}: field is immutable'
