"""A path in a collection that is known is read by its last part alone; it says what the whole path says."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from navarch.apiserver.routes import parse, taken_apart

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
