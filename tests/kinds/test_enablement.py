"""Which versions of groups are on, and what the settings that switch them mean."""

from __future__ import annotations

import pytest

from navarch.api import schema
from navarch.kinds.enablement import parse
from navarch.kinds.registry import builtin


@pytest.mark.parametrize(
    ("settings", "group", "version", "on"),
    [
        ("", "apps", "v1", True),
        ("", "resource.k8s.io", "v1beta2", False),
        ("", "resource.k8s.io", "v1alpha3", False),
        ("api/all=true", "resource.k8s.io", "v1alpha3", True),
        ("api/beta=true", "resource.k8s.io", "v1beta2", True),
        ("api/beta=true", "resource.k8s.io", "v1alpha3", False),
        ("api/all=false,apps/v1=true", "batch", "v1", False),
        ("api/all=false,apps/v1=true", "apps", "v1", True),
        ("api/all=true,api/alpha=false", "resource.k8s.io", "v1alpha3", False),
        ("autoscaling/v1=false", "autoscaling", "v1", False),
        ("resource.k8s.io/v1beta1", "resource.k8s.io", "v1beta1", True),
        ("v1=false", "", "v1", False),
    ],
)
def test_what_is_said_of_one_version_counts_more_than_what_is_said_of_all(
    settings: str, group: str, version: str, on: bool
) -> None:
    assert parse([settings]).enabled(group, version) is on


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("api/all=perhaps", "invalid value of api/all: perhaps"),
        ("apps=true", "invalid name apps"),
        ("api/all=false", "invalid key with only api/all=false"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse([settings])


@pytest.mark.parametrize(
    ("settings", "message"),
    [("nosuch.example.com/v1=true", "unknown api groups"), ("apps/v2=true", "apps/v2 that has not been registered")],
)
def test_versions_that_there_are_not_cannot_be_switched_on(settings: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        builtin(config=parse([settings]))


def test_a_version_that_is_off_but_stored_is_there_and_not_served() -> None:
    registry = builtin(schema.load("1.36"), parse(["resource.k8s.io/v1=false,resource.k8s.io/v1beta1=true"]))

    stored = registry.by_path("resource.k8s.io", "v1", "resourceclaims")
    asked_for = registry.by_path("resource.k8s.io", "v1beta1", "resourceclaims")
    assert stored is not None
    assert asked_for is not None
    assert (stored.served, asked_for.served) == (False, True)
    assert asked_for.storage == stored.resource


def test_a_group_without_any_version_that_is_on_is_not_there() -> None:
    assert "internal.apiserver.k8s.io" not in builtin().versions()
    assert "internal.apiserver.k8s.io" in builtin(config=parse(["internal.apiserver.k8s.io/v1alpha1=true"])).versions()
