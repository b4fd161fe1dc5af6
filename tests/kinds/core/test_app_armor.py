"""AppArmor profiles that annotations of new pods name: they become the containers' own, as in Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.kinds.strategies import lookup
from tests.kinds.writing import CONTAINER, created

KEY = "container.apparmor.security.beta.kubernetes.io/web"
USE_THE_FIELD = f'metadata.annotations[{KEY}]: deprecated since v1.30; use the "appArmorProfile" field instead'
LOCAL = {"type": "Localhost", "localhostProfile": "mine"}


def pod(annotation: str, **spec: Any) -> Any:
    own = spec.pop("own", None)
    container = {**CONTAINER, **({"securityContext": own} if own is not None else {})}
    return {"metadata": {"name": "p", "annotations": {KEY: annotation}}, "spec": {"containers": [container], **spec}}


def said(obj: Any) -> list[str]:
    return list(lookup("", "Pod").early_warnings(obj))


def profile_of(obj: Any) -> Any:
    stored, errors = created("", "Pod", obj)
    assert errors == []
    return (stored["spec"]["containers"][0].get("securityContext") or {}).get("appArmorProfile")


@pytest.mark.parametrize(
    ("annotation", "profile"),
    [
        ("unconfined", {"type": "Unconfined"}),
        ("runtime/default", {"type": "RuntimeDefault"}),
        ("localhost/mine", LOCAL),
        ("", None),
        ("localhost/", None),
        ("localhost/ padded", None),
    ],
)
def test_a_container_gets_the_profile_that_its_annotation_names(annotation: str, profile: Any) -> None:
    assert said(pod(annotation)) == [USE_THE_FIELD]
    assert profile_of(pod(annotation)) == profile


def test_what_else_a_container_says_of_its_security_stays() -> None:
    stored, _ = created("", "Pod", pod("unconfined", own={"privileged": True}))

    own = stored["spec"]["containers"][0]["securityContext"]
    assert own == {"privileged": True, "appArmorProfile": {"type": "Unconfined"}}


def test_a_profile_of_its_own_is_left_alone_without_a_word() -> None:
    obj = pod("localhost/mine", own={"appArmorProfile": dict(LOCAL)})

    assert said(obj) == []
    assert profile_of(obj) == LOCAL


def test_the_pods_profile_is_not_said_twice() -> None:
    whole = {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}

    assert said(pod("runtime/default", **whole)) == []
    assert profile_of(pod("runtime/default", **whole)) is None
    assert said(pod("localhost/mine", **whole)) == [USE_THE_FIELD]
    assert profile_of(pod("localhost/mine", **whole)) == LOCAL


def test_windows_has_no_such_profiles() -> None:
    assert said(pod("unconfined", os={"name": "windows"})) == []
    assert profile_of(pod("unconfined", os={"name": "windows"})) is None
