"""Who stands for a lease, with which versions."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.metadata_validation import name_problems
from navarch.kinds.strategies import lookup
from tests.kinds.writing import refused, updated

GROUP, KIND = "coordination.k8s.io", "LeaseCandidate"


def candidate(**spec: Any) -> dict[str, Any]:
    versions = {"binaryVersion": "1.36.0", "emulationVersion": "1.36.0"}
    stated = {"leaseName": "l", **versions, "strategy": "OldestEmulationVersion", **spec}
    return {"spec": {name: value for name, value in stated.items() if value is not None}}


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({}, ""),
        ({"emulationVersion": "1.35.0"}, ""),
        ({"binaryVersion": "1.36.0-rc.1", "emulationVersion": "1.36.0-rc.0"}, ""),
        ({"strategy": "example.com/Own", "emulationVersion": None}, ""),
        (
            {"emulationVersion": None},
            "spec.emulationVersion: Required value: must be specified when `strategy` is 'OldestEmulationVersion'",
        ),
        ({"leaseName": None}, "spec.leaseName: Required value"),
        ({"strategy": None}, "spec.strategy: Required value"),
        ({"binaryVersion": None}, "spec.binaryVersion: Required value"),
        (
            {"binaryVersion": "1.36", "emulationVersion": None, "strategy": "example.com/Own"},
            'spec.binaryVersion: Invalid value: "1.36": must be a valid semantic version',
        ),
        (
            {"emulationVersion": "1.36.0", "binaryVersion": "1.36.0-rc.1"},
            'spec.binaryVersion: Invalid value: "1.36.0-rc.1": must be greater than or equal to `emulationVersion`',
        ),
        (
            {"strategy": "Own"},
            'spec.strategy.strategy: Unsupported value: "Own": supported values: "OldestEmulationVersion"',
        ),
    ],
)
def test_a_candidate_says_what_it_is(spec: dict[str, Any], problem: str) -> None:
    assert refused(GROUP, KIND, candidate(**spec)) == ([problem] if problem else [])


def test_a_strategy_of_ones_own_has_a_domain_and_a_name() -> None:
    (problem,) = refused(GROUP, KIND, candidate(strategy="example.com/not a name"))

    assert problem.startswith('spec.strategy.strategy: Invalid value: "example.com/not a name": name part must consist')


def test_what_is_no_version_counts_as_the_least() -> None:
    assert refused(GROUP, KIND, candidate(binaryVersion="1.36")) == [
        'spec.binaryVersion: Invalid value: "1.36": must be a valid semantic version',
        'spec.binaryVersion: Invalid value: "1.36": must be greater than or equal to `emulationVersion`',
    ]


def test_a_candidate_is_named_as_a_key_is() -> None:
    rule = lookup(GROUP, KIND).name_rule

    assert name_problems("Node_1.example", rule) == ()
    assert name_problems("..x", rule) == ("must not start with '..'",)


def test_a_candidate_stands_for_one_lease() -> None:
    stored = {"metadata": {"name": "c", "namespace": "default"}, **candidate()}
    other = {**stored, **candidate(leaseName="m")}

    (problem,) = updated(GROUP, KIND, stored, other)[1]
    assert problem == 'spec.leaseName: Invalid value: "m": field is immutable'
