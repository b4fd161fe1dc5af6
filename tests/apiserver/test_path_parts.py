"""A path in a collection that is known is read by its last part alone; it says what the whole path says."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from navarch.apiserver.routes import parse, taken_apart
from tests.growth import grows_with_size

PARTS = st.sampled_from(
    ["", "api", "apis", "v1", "apps", "watch", "namespaces", "status", "finalize", "pods", "nodes", "proxy", "a", "%2f"]
)


@given(st.sampled_from(["", "/api/v1/", "/apis/apps/v1/"]), st.lists(PARTS, max_size=8))
@example("/api/v1/", ["namespaces", "a", "pods", "b"])
@example("/api/v1/", ["namespaces", "a", "status"])
@example("/api/v1/", ["watch", "pods", "a"])
@example("/api/v1/", ["pods", "", "a"])
@example("/apis/apps/v1/", ["namespaces", "a", "deployments", "b"])
def test_a_path_is_what_its_parts_say_however_it_is_read(start: str, parts: list[str]) -> None:
    path = start + "/".join(parts)

    # Twice: what is remembered is the same.
    assert parse(path) == taken_apart(path)
    assert parse(path) == taken_apart(path)


@pytest.mark.parametrize(
    "object_", ["/api/v1/nodes/a", "/api/v1/namespaces/a/pods/b", "/apis/g/v1/watch/namespaces/a/things/b"]
)
@pytest.mark.parametrize("behind", ["a", "", "a/", "a//b/%2F/", "/", "1/2/3/4/5/6/7/8/9/10/11/12/"])
def test_what_is_behind_a_proxy_is_passed_on_as_it_was_sent(object_: str, behind: str) -> None:
    route = parse(f"{object_}/proxy/{behind}")

    assert (route.subresource, route.rest, route.shape.tail) == ("proxy", behind, True)


@pytest.mark.parametrize("slashes", range(12))
def test_slashes_at_the_end_name_nothing(slashes: int) -> None:
    route = parse("/apis/apps/v1/namespaces/a/deployments/b" + "/" * slashes)

    assert (route.namespace, route.plural, route.name, route.subresource) == ("a", "deployments", "b", "")
    assert not route.odd
    assert not route.shape.tail


@pytest.mark.parametrize("start", ["/", "/api/v1/pods", "/api/v1/namespaces/a/pods/b/", "/apis/g/v1/watch/"])
@pytest.mark.parametrize("piece", ["/", "a/", "%41", "%2F", "%"])
def test_a_long_path_takes_no_longer_than_its_length(start: str, piece: str) -> None:
    assert grows_with_size(lambda size: taken_apart(start + piece * size), 80_000)
