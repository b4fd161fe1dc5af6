"""Nothing that a client sends may end as a 500."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.errors import StatusError
from navarch.apiserver.deadlines import within
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import LOOPBACK
from navarch.client.transport import Request, Response
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld
from tests.apiserver.conftest import Api, config_map, deployment, pod

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
SAMPLES = {
    "/api/v1/namespaces/default/pods": pod("x", node="n"),
    "/apis/apps/v1/namespaces/default/deployments": deployment("x"),
    "/api/v1/namespaces/default/configmaps": config_map("x", k="v"),
    "/api/v1/namespaces/default/services": {
        "metadata": {"name": "x"},
        "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}},
    },
    "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers": {
        "metadata": {"name": "x"},
        "spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "x"}},
    },
    "/apis/batch/v1/namespaces/default/jobs": {
        "metadata": {"name": "x"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
    },
    "/apis/rbac.authorization.k8s.io/v1/clusterroles": {"metadata": {"name": "x"}, "rules": [{"verbs": ["get"]}]},
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": {"spec": {"resourceAttributes": {"verb": "get"}}},
}
VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PATCHES = (
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "limit",
                "continue",
                "resourceVersion",
                "resourceVersionMatch",
                "labelSelector",
                "fieldSelector",
                "dryRun",
                "fieldManager",
                "force",
                "fieldValidation",
                "gracePeriodSeconds",
                "propagationPolicy",
                "pretty",
                "includeObject",
                "sendInitialEvents",
            ]
        ),
        st.sampled_from(
            ["", "0", "1", "-1", "x", "a=b", "a in (b", "metadata.name=x", "All", "true", "Exact", "Strict"]
        )
        | st.text(max_size=6),
    ),
    max_size=3,
)


def mutated(value: Any, where: list[int], junk: Any) -> Any:
    """The sample with something else somewhere inside."""
    if not where or not isinstance(value, (dict, list)) or not value:
        return junk
    step = where[0] % len(value)
    if isinstance(value, dict):
        key = list(value)[step]
        return {**value, key: mutated(value[key], where[1:], junk)}
    return [mutated(item, where[1:], junk) if index == step else item for index, item in enumerate(value)]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    path = draw(st.sampled_from(sorted(SAMPLES)))
    body = mutated(SAMPLES[path], draw(st.lists(st.integers(0, 6), max_size=7)), draw(JSON))
    method = draw(st.sampled_from(VERBS))
    tail = draw(
        st.sampled_from(
            [
                "",
                "/x",
                "/x/status",
                "/x/scale",
                "/x/binding",
                "/x/eviction",
                "/x/ephemeralcontainers",
                "/x/resize",
                "/x/log",
                "/x/nonsense",
            ]
        )
    )
    content = draw(st.sampled_from(PATCHES)) if method == "PATCH" else "application/json"
    accept = draw(
        st.sampled_from(["application/json", "application/json;as=Table;g=meta.k8s.io;v=v1", "application/yaml"])
    )
    headers = {"content-type": content, "accept": accept}
    return Request(method, path + tail, draw(QUERIES), headers, orjson.dumps(body))


@given(st.lists(requests(), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_no_request_ends_as_an_internal_error(sent: list[Request]) -> None:
    async def play() -> None:
        server = ApiServer(MemoryStore(), world=RealWorld(1))
        await server.start()
        await server.handle(Request("POST", "/api/v1/namespaces", (), {}, b'{"metadata":{"name":"default"}}'), LOOPBACK)
        for path, sample in SAMPLES.items():
            await server.handle(Request("POST", path, (), {}, orjson.dumps(sample)), LOOPBACK)
        try:
            for request in sent:
                response = await server.handle(request, LOOPBACK)
                # Mistakes to which Kubernetes gives no code are 500 without a reason, which our failures have.
                assert response.status != 500 or b"reason" not in bytes(response.body), (request, response.body)
        finally:
            await server.stop()

    asyncio.run(play())


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"metadata":3}', b"[" * 5000])
async def test_bodies_that_are_no_objects(api: Api, body: bytes) -> None:
    status, answer = await api("POST", "/api/v1/namespaces/default/pods", body)

    assert status in (400, 422), answer


async def test_too_big_a_body_is_refused(api: Api) -> None:
    body = orjson.dumps(config_map("a", k="x" * (3 * 1024 * 1024)))

    status, answer = await api("POST", "/api/v1/namespaces/default/configmaps", body)

    assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")


async def test_unknown_paths_media_types_and_methods(api: Api) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    assert (await api("GET", "/api/v1/nonsense"))[0] == 404
    assert (await api("GET", "/apis/nonsense/v1/things"))[0] == 404
    assert (await api("GET", path, accept="text/html"))[0] == 406
    assert (await api("POST", path, b"x", content_type="text/csv"))[0] == 415
    assert (await api("PATCH", f"{path}/a", {}, content_type="application/json"))[0] == 415
    assert (await api("PUT", path, {}))[0] == 405
    assert (await api("POST", "/api/v1/configmaps", {}))[0] == 405


@pytest.mark.parametrize(
    ("timeout", "refused"),
    [
        ("x", 'time: invalid duration "x"'),
        ("5", 'time: missing unit in duration "5"'),
        ("5y", 'time: unknown unit "y" in duration "5y"'),
    ],
)
async def test_a_time_that_a_request_may_take_is_a_duration(api: Api, timeout: str, refused: str) -> None:
    path = "/api/v1/namespaces/default/configmaps"

    status, answer = await api("GET", f"{path}?timeout={timeout}")

    assert (status, answer["message"]) == (400, f"invalid timeout specified in the request URL - {refused}")
    assert (await api("GET", f"{path}?timeout=30s"))[0] == 200
    assert (await api("GET", f"{path}?timeout=0s"))[0] == 200


async def test_a_request_that_takes_longer_than_its_client_has_time_is_given_up() -> None:
    ended: list[str] = []

    async def endless() -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("given up")
        raise AssertionError

    with pytest.raises(StatusError) as refused:
        await within(0.01, endless())

    why = "request did not complete within requested timeout - context deadline exceeded"
    assert (refused.value.code, refused.value.message) == (504, f"Timeout: {why}")
    assert ended == ["given up"]


async def test_what_fails_by_a_time_of_its_own_is_not_taken_for_the_clients() -> None:
    async def failing() -> Response:
        raise TimeoutError("a webhook")

    with pytest.raises(TimeoutError, match="a webhook"):
        await within(30, failing())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"x", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (78)"),
        (b"", "empty data (<empty>)"),
    ],
)
async def test_what_is_no_protobuf_is_told_so(api: Api, body: bytes, why: str) -> None:
    path = "/api/v1/namespaces/default/configmaps"

    status, answer = await api("POST", path, body, content_type="application/vnd.kubernetes.protobuf")

    assert (status, answer["message"]) == (
        400,
        f"the object provided is unrecognized (must be of type ConfigMap): {why}",
    )
