"""Device classes, claims, templates and slices: defaults, what is refused and in which words, columns."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.kinds.writing import created, refused, row, updated

GROUP = "resource.k8s.io"


def claim(**request: Any) -> dict[str, Any]:
    return {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpus", **request}}]}}}


def devices(*listed: dict[str, Any], **spec: Any) -> dict[str, Any]:
    pool = {"name": "p", "generation": 1, "resourceSliceCount": 1}
    return {"spec": {"driver": "gpu.example.com", "nodeName": "n1", "pool": pool, "devices": list(listed), **spec}}


def test_a_request_is_for_one_device_unless_it_says_more() -> None:
    stored, errors = created(GROUP, "ResourceClaim", claim())

    assert errors == []
    exactly = stored["spec"]["devices"]["requests"][0]["exactly"]
    assert exactly == {"deviceClassName": "gpus", "allocationMode": "ExactCount", "count": 1}


AT = "spec.devices.requests[0]"


@pytest.mark.parametrize(
    ("request_", "errors"),
    [
        (
            {"name": "gpu", "exactly": {"deviceClassName": "gpus", "allocationMode": "All", "count": 2}},
            [f"{AT}.exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"],
        ),
        (
            {"name": "gpu", "exactly": {"deviceClassName": "gpus", "allocationMode": "Some"}},
            [f'{AT}.exactly.allocationMode: Unsupported value: "Some": supported values: "All", "ExactCount"'],
        ),
        ({"name": "gpu"}, [f"{AT}: Required value: exactly one of `exactly` or `firstAvailable` is required"]),
        (
            {"name": "gpu", "exactly": {"deviceClassName": "a"}, "firstAvailable": [{"name": "x"}]},
            [
                f"{AT}: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple "
                "fields are set"
            ],
        ),
        ({"name": "gpu", "exactly": {}}, [f"{AT}.exactly.deviceClassName: Required value"]),
        (
            {
                "name": "gpu",
                "exactly": {"deviceClassName": "gpus", "tolerations": [{"operator": "Exists", "value": "x"}]},
            },
            [f'{AT}.exactly.tolerations[0].value: Invalid value: "x": must be empty for operator `Exists`'],
        ),
        (
            {"name": "gpu", "exactly": {"deviceClassName": "gpus", "selectors": [{}]}},
            [f"{AT}.exactly.selectors[0].cel: Required value"],
        ),
    ],
)
def test_requests_that_mean_nothing_are_refused(request_: dict[str, Any], errors: list[str]) -> None:
    assert refused(GROUP, "ResourceClaim", {"spec": {"devices": {"requests": [request_]}}}) == errors


def test_constraints_and_configuration_name_requests_that_there_are() -> None:
    asked = claim()
    asked["spec"]["devices"]["constraints"] = [{"requests": ["gpu", "nic"], "matchAttribute": "model"}]
    asked["spec"]["devices"]["config"] = [{"requests": ["gpu/a/b"], "opaque": {"driver": "d.example.com"}}]

    reference = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
    assert refused(GROUP, "ResourceClaim", asked) == [
        f'spec.devices.constraints[0].requests[1]: Invalid value: "nic": {reference}',
        'spec.devices.constraints[0].matchAttribute: Invalid value: "model": a fully qualified name must be a domain '
        "and a name separated by a slash",
        f'spec.devices.config[0].requests[0]: Invalid value: "gpu/a/b": {reference}',
        "spec.devices.config[0].opaque.parameters: Required value",
    ]


def test_what_a_claim_asks_for_does_not_change() -> None:
    old, _ = created(GROUP, "ResourceClaim", claim())
    _, errors = updated(GROUP, "ResourceClaim", old, {**old, **claim(count=3)})

    assert len(errors) == 1
    assert errors[0].startswith("spec: Invalid value")
    assert errors[0].endswith("field is immutable")


ALLOCATED = {
    "allocation": {"devices": {"results": [{"request": "gpu", "driver": "d.example.com", "pool": "p", "device": "d0"}]}}
}
POD = {"resource": "pods", "name": "web", "uid": "u-2"}


@pytest.mark.parametrize(
    ("status", "errors"),
    [
        ({**ALLOCATED, "reservedFor": [POD]}, []),
        (
            {"reservedFor": [POD]},
            ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"],
        ),
        ({**ALLOCATED, "reservedFor": [POD, POD]}, ['status.reservedFor[1]: Duplicate value: "u-2"']),
        (
            {**ALLOCATED, "devices": [{"driver": "d.example.com", "pool": "p", "device": "d1"}]},
            ['status.devices[0]: Invalid value: "d.example.com/p/d1": must be an allocated device in the claim'],
        ),
    ],
)
def test_a_status_says_only_what_can_be(status: dict[str, Any], errors: list[str]) -> None:
    old, _ = created(GROUP, "ResourceClaim", claim())

    assert updated(GROUP, "ResourceClaim", old, {**old, "status": status}, "status")[1] == errors


def test_an_allocation_does_not_change_but_may_go() -> None:
    old, _ = created(GROUP, "ResourceClaim", claim())
    old["status"] = copy.deepcopy(ALLOCATED)
    other = copy.deepcopy(ALLOCATED)
    other["allocation"]["devices"]["results"][0]["device"] = "d1"

    changed = updated(GROUP, "ResourceClaim", old, {**old, "status": other}, "status")[1]
    assert [error.partition(":")[0] for error in changed] == ["status.allocation"]
    assert updated(GROUP, "ResourceClaim", old, {**old, "status": {}}, "status")[1] == []


@pytest.mark.parametrize(
    ("status", "deleted", "state"),
    [
        ({}, False, "pending"),
        (ALLOCATED, False, "allocated"),
        ({**ALLOCATED, "reservedFor": [POD]}, False, "allocated,reserved"),
        ({}, True, "deleted"),
        (ALLOCATED, True, "deleted,allocated"),
    ],
)
def test_people_see_how_far_a_claim_has_come(status: dict[str, Any], deleted: bool, state: str) -> None:
    metadata = {"name": "c", **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {})}

    assert row(GROUP, "ResourceClaim", {"metadata": metadata, "status": status})[1] == state


@pytest.mark.parametrize(
    ("offered", "errors"),
    [
        (devices({"name": "d0"}, {"name": "d1"}), []),
        (devices({"name": "d0"}, {"name": "d0"}), ['spec.devices[1]: Duplicate value: "d0"']),
        (
            devices({"name": "d0", "attributes": {"model": {"string": "x", "bool": True}}}),
            [
                'spec.devices[0].attributes[model]: Invalid value: {"string":"x","bool":true}: exactly one value must '
                "be specified"
            ],
        ),
        (
            devices({"name": "d0", "attributes": {"driver": {"version": "1.2"}}}),
            [
                'spec.devices[0].attributes[driver].version: Invalid value: "1.2": must be a string compatible with '
                "semver.org spec 2.0.0"
            ],
        ),
        (
            devices({"name": "d0"}, allNodes=True),
            [
                'spec: Invalid value: "{`nodeName`, `allNodes`}": exactly one of `nodeName`, `nodeSelector`, '
                "`allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"
            ],
        ),
        (
            devices({"name": "d0", "capacity": {"memory": {"value": "4Gi", "requestPolicy": {"default": "1Gi"}}}}),
            [
                "spec.devices[0].capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true",
            ],
        ),
        (
            devices({"name": "d0", "taints": [{"key": "broken", "effect": "Never"}]}),
            [
                'spec.devices[0].taints[0].effect: Unsupported value: "Never": supported values: "NoExecute", '
                '"NoSchedule", "None"'
            ],
        ),
        (
            {"spec": {}},
            [
                "spec.driver: Required value",
                "spec.pool.name: Required value",
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, "
                "`perDeviceNodeSelection` is required",
            ],
        ),
    ],
)
def test_slices_are_looked_through(offered: dict[str, Any], errors: list[str]) -> None:
    assert refused(GROUP, "ResourceSlice", offered) == errors


@pytest.mark.parametrize(
    ("policy", "errors"),
    [
        ({"default": "1Gi", "validValues": ["1Gi", "2Gi"]}, []),
        ({"validValues": ["1Gi"]}, ["default: Required value: required when validValues is defined"]),
        (
            {"default": "1Gi", "validValues": ["1Gi", "8Gi"]},
            ['validValues[1]: Invalid value: "8Gi": option is larger than capacity value: 4Gi'],
        ),
        ({"default": "1Gi", "validRange": {"min": "1Gi", "max": "4Gi", "step": "1Gi"}}, []),
        (
            {"default": "1Gi", "validRange": {"min": "2Gi"}},
            ['validRange.default: Invalid value: "1Gi": default is less than min: 2Gi'],
        ),
        (
            {"default": "3Gi", "validRange": {"min": "1Gi", "step": "1500Mi"}},
            ['validRange.step: Invalid value: "3Gi": value is not a multiple of a given step (1500Mi) from (1Gi)'],
        ),
    ],
)
def test_how_much_of_a_device_may_be_taken(policy: dict[str, Any], errors: list[str]) -> None:
    capacity = {"memory": {"value": "4Gi", "requestPolicy": policy}}
    offered = devices({"name": "d0", "allowMultipleAllocations": True, "capacity": capacity})

    at = "spec.devices[0].capacity[memory].requestPolicy."
    assert refused(GROUP, "ResourceSlice", offered) == [at + error for error in errors]


@pytest.mark.parametrize(
    ("name", "accepted"), [("example.com/gpu", True), ("gpu", False), ("kubernetes.io/gpu", False), ("a b/c", False)]
)
def test_a_class_may_stand_for_an_extended_resource(name: str, accepted: bool) -> None:
    assert (refused(GROUP, "DeviceClass", {"spec": {"extendedResourceName": name}}) == []) is accepted


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ('device.driver == "gpu.example.com" && device.attributes["gpu.example.com"].model == "a"', ""),
        ('device.capacity["gpu.example.com"].memory.compareTo(quantity("10Gi")) >= 0', ""),
        ('cel.bind(gpu, device.attributes["gpu.example.com"], gpu.fast)', ""),
        (
            "device.price",
            "Invalid value: \"device.price\": compilation failed: ERROR: <input>:1:7: undefined field 'price'",
        ),
        ("device.driver", 'Invalid value: "device.driver": must evaluate to bool'),
        (
            "device.attributes.all(a, device.attributes.all(b, device.attributes[a].all(c, device.attributes[b].all(d, "
            "c.contains(d) && d.contains(a)))))",
            "Forbidden: too complex, exceeds cost limit",
        ),
    ],
)
def test_devices_are_selected_by_expressions_that_compile(expression: str, error: str) -> None:
    errors = refused(GROUP, "DeviceClass", {"spec": {"selectors": [{"cel": {"expression": expression}}]}})

    assert [text.partition("\n")[0] for text in errors] == (
        [f"spec.selectors[0].cel.expression: {error}"] if error else []
    )
