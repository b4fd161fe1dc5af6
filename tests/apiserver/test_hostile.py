"""Requests that mean harm or make no sense: each gets its Status, quickly, and nobody else notices."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from navarch.apiserver.http import HTTPFront
from navarch.apiserver.server import ApiServer
from navarch.client.transport import Request
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld
from tests.apiserver.conftest import CONFIG_MAPS, PODS, Api, config_map, pod
from tests.growth import async_grows_with_size, collector_at_rest

pytestmark = pytest.mark.alone

A = f"{CONFIG_MAPS}/a"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
YAML = "application/yaml"


@pytest.fixture
async def api_with_a(api: Api) -> Api:
    await api.ok("POST", CONFIG_MAPS, config_map("a", k="v"))
    return api


# Bodies


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "unexpected end of JSON input"),
        (b"{", "unexpected end of JSON input"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b"{} {}", "invalid character '{' after top-level value"),
        (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        (b"[]", "cannot unmarshal array"),
        (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
        ('{"a": 1}'.encode("utf-16-le"), "invalid character '\\x00' looking for beginning of object key string"),
        (b"[" * 100_000, "exceeded max depth"),
        (b'{"a":' * 100_000, "exceeded max depth"),
        (b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", "exceeded max depth"),
    ],
)
async def test_malformed_json(api: Api, body: bytes, why: str) -> None:
    status, answer = await api("POST", CONFIG_MAPS, body)

    assert (status, answer["reason"]) == (400, "BadRequest")
    assert why in answer["message"]


@pytest.mark.parametrize("kind", [JSON_PATCH, MERGE, STRATEGIC])
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "unexpected end of JSON input"),
        (b"[" * 50_000, "exceeded max depth"),
        (b"\xff\xfe", "invalid character '\u00ff' looking for beginning of value"),
        (b"", "unexpected end of JSON input"),
        (b"a: 1", "invalid character 'a' looking for beginning of value"),
    ],
)
async def test_malformed_patches(api_with_a: Api, kind: str, body: bytes, why: str) -> None:
    status, answer = await api_with_a("PATCH", A, body, content_type=kind)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert answer["message"].startswith(why if kind == STRATEGIC else f"error decoding patch: {why}")
    assert (await api_with_a.ok("GET", A))["data"] == {"k": "v"}


@pytest.mark.parametrize("body", [b"7", b"null", b'"x"', b"true"])
@pytest.mark.parametrize("kind", [JSON_PATCH, MERGE, STRATEGIC, APPLY])
async def test_patches_that_are_no_objects(api_with_a: Api, kind: str, body: bytes) -> None:
    status, answer = await api_with_a("PATCH", f"{A}?fieldManager=m", body, content_type=kind)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert (await api_with_a.ok("GET", A))["data"] == {"k": "v"}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "yaml: line 1: did not find expected node content"),
        (b"a: [unclosed", "yaml: line 1: did not find expected ',' or ']'"),
        (b"[" * 50_000, "yaml: exceeded max depth of 200"),
        (b"a: &a [*a]", "yaml: anchor 'a' value contains itself"),
        (b"a: &a " + b"x" * 50_000 + b"\nb: [" + b",".join([b"*a"] * 20_000) + b"]", "yaml: document contains excess"),
    ],
)
async def test_malformed_yaml(api_with_a: Api, body: bytes, why: str) -> None:
    status, answer = await api_with_a("PATCH", f"{A}?fieldManager=m", body, content_type=APPLY)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert answer["message"].startswith(f"error decoding YAML: error converting YAML to JSON: {why}")
    status, answer = await api_with_a("POST", CONFIG_MAPS, body, content_type=YAML)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert f"(must be of type ConfigMap): error converting YAML to JSON: {why}" in answer["message"]
    assert (await api_with_a("PATCH", A, body, content_type=YAML))[0] == 415


async def test_what_is_no_unicode_becomes_the_replacement_character(api: Api) -> None:
    body = b'{"metadata":{"name":"a"},"data":{"k":"\xff","s":"\\ud800"}}'
    assert (await api.ok("POST", CONFIG_MAPS, body))["data"] == {"k": "\ufffd", "s": "\ufffd"}


@pytest.mark.parametrize("number", ["99999999999999999999999", "-9223372036854775809", "1e400", "9" * 6000, "1.5"])
async def test_numbers_beyond_their_type(api: Api, number: str) -> None:
    body = b'{"metadata":{"name":"a"},"spec":{"terminationGracePeriodSeconds":%s}}' % number.encode()
    status, answer = await api("POST", PODS, body)
    assert status == 400
    assert "cannot unmarshal number" in answer["message"]


@pytest.mark.parametrize(("seconds", "waited"), [(-1, 1), (2**31, 2**31), (2**62, 2**62), (2**63 - 1, 2**63 - 1)])
async def test_grace_periods_of_all_sizes(api: Api, seconds: int, waited: int) -> None:
    made = pod("p", node="n")
    made["spec"]["terminationGracePeriodSeconds"] = seconds
    await api.ok("POST", PODS, made)

    deleting = await api.ok("DELETE", f"{PODS}/p")
    assert deleting["metadata"]["deletionGracePeriodSeconds"] == waited
    assert deleting["metadata"]["deletionTimestamp"]

    shorter = await api.ok("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 5})
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == min(waited, 5)
    await api.ok("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
    assert (await api("GET", f"{PODS}/p"))[0] == 404


async def test_a_grace_period_of_nothing_deletes_at_once(api: Api) -> None:
    made = pod("p", node="n")
    made["spec"]["terminationGracePeriodSeconds"] = 0
    await api.ok("POST", PODS, made)
    await api.ok("DELETE", f"{PODS}/p")
    assert (await api("GET", f"{PODS}/p"))[0] == 404


async def test_duplicate_and_unknown_fields(api: Api) -> None:
    body = b'{"metadata":{"name":"a","nope":1},"data":{"x":"1","x":"2"},"what":{}}'
    strict = await api("POST", f"{CONFIG_MAPS}?fieldValidation=Strict", body)
    assert strict[0] == 400
    for part in ('duplicate field "data.x"', 'unknown field "metadata.nope"', 'unknown field "what"'):
        assert part in strict[1]["message"]
    warned = await api.send("POST", CONFIG_MAPS, body)
    assert warned.status == 201
    assert 'unknown field \\"what\\"' in warned.headers["Warning"]
    ignored = await api.send("PUT", f"{A}?fieldValidation=Ignore", body)
    assert "Warning" not in ignored.headers
    assert (await api("PUT", f"{A}?fieldValidation=Perhaps", body))[0] == 422


async def test_yaml_keys_given_twice_are_refused_strictly(api: Api) -> None:
    body = b"metadata: {name: a}\ndata:\n  k: x\n  k: z\n"
    status, answer = await api("POST", f"{CONFIG_MAPS}?fieldValidation=Strict", body, content_type=YAML)
    assert status == 400
    assert 'key "k" already set in map' in answer["message"]


@pytest.mark.parametrize(
    "body_of",
    [
        lambda size: {"metadata": {"name": "big"}, **{f"field{index}": "x" for index in range(size)}},
        lambda size: {"metadata": {"name": "big"}, "data": {f"bad key {index}": "x" for index in range(size)}},
        lambda size: {"metadata": {"name": "big", "labels": {f"k{index}": "" for index in range(size)}}},
        lambda size: {"metadata": {"name": "big", "finalizers": [f"a.b/{index}" for index in range(size // 2)]}},
        lambda size: {"metadata": {"name": "big", "annotations": {"k": "x" * (10 * size)}}},
    ],
    ids=["unknown fields", "bad keys", "labels", "finalizers", "annotation"],
)
async def test_big_bodies_take_no_quadratic_time(api: Api, body_of: Any) -> None:
    async def send(size: int) -> None:
        response = await api.send("POST", f"{CONFIG_MAPS}?dryRun=All", orjson.dumps(body_of(size)))
        assert response.status in (201, 422)
        assert len(response.headers.get("Warning", "")) < 10_000

    # Quadratic work would take minutes.
    assert await async_grows_with_size(send, 100_000, never_much_s=3)


MANY_FINALIZERS = config_map("big") | {"metadata": {"name": "big", "finalizers": [f"a.b/{n}" for n in range(24_000)]}}
MANY_VARIABLES = {"containers": [{"name": "c", "image": "i", "env": [{"name": f"e{n}"} for n in range(24_000)]}]}


def of_first_container(**change: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "c", **{name.replace("_", "/"): each for name, each in change.items()}}]}}


@pytest.mark.parametrize(
    ("path", "patch_of"),
    [
        (CONFIG_MAPS, lambda size: {"metadata": {"finalizers": [f"a.b/{n}" for n in reversed(range(size))]}}),
        (
            CONFIG_MAPS,
            lambda size: {"metadata": {"$deleteFromPrimitiveList/finalizers": [f"a.c/{n}" for n in range(size)]}},
        ),
        (
            CONFIG_MAPS,
            lambda size: {
                "data": {"$retainKeys": [f"k{n}" for n in range(size)], **{f"k{n}": "" for n in range(size)}}
            },
        ),
        (
            PODS,
            lambda size: of_first_container(env=[{"name": f"x{n}", "$patch": "delete"} for n in range(size)]),
        ),
        (
            PODS,
            lambda size: of_first_container(**{"$setElementOrder_env": [{"name": f"e{n}"} for n in range(size)]}),
        ),
    ],
    ids=["finalizers", "items that go", "keys that stay", "entries that go", "order"],
)
async def test_big_patches_take_no_quadratic_time(api: Api, path: str, patch_of: Any) -> None:
    await api.ok("POST", CONFIG_MAPS, MANY_FINALIZERS)
    await api.ok("POST", PODS, {**pod("big"), "spec": MANY_VARIABLES})

    async def send(size: int) -> None:
        patch = orjson.dumps(patch_of(size))
        response = await api.send("PATCH", f"{path}/big?dryRun=All", patch, content_type=STRATEGIC)
        assert response.status in (200, 422)

    # Quadratic work would take five seconds and more.
    assert await async_grows_with_size(send, 24_000, never_much_s=1)


async def test_thousands_of_field_owners_take_no_quadratic_time(api: Api) -> None:
    async def send(size: int) -> None:
        entry = {"operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "time": "2026-01-01T00:00:00Z"}
        made = config_map("big", k="v")
        made["metadata"]["managedFields"] = [
            {**entry, "manager": f"m{n}", "fieldsV1": {"f:data": {f"f:x{n}": {}}}} for n in range(size)
        ]
        await api.ok("POST", f"{CONFIG_MAPS}?dryRun=All&fieldManager=me", made)

    assert await async_grows_with_size(send, 10_000, never_much_s=1.5)


async def test_a_pod_with_ten_thousand_of_everything(api: Api) -> None:
    def of_many(count: int) -> dict[str, Any]:
        made = pod("p")
        many = range(count)
        made["spec"] |= {
            "containers": [{"name": f"c{index}", "image": "i"} for index in many],
            "volumes": [{"name": f"v{index}", "emptyDir": {}} for index in many],
            "tolerations": [{"key": f"k{index}", "operator": "Exists"} for index in many],
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]} for _ in many],
        }
        made["spec"]["containers"][0] |= {
            "env": [{"name": f"e{index}", "value": "$(e1)"} for index in many],
            "ports": [{"containerPort": 1 + index, "name": f"p{index}"} for index in many],
            "volumeMounts": [{"name": f"v{index}", "mountPath": f"/{index}"} for index in many],
        }
        return made

    async def send(count: int) -> None:
        status, _ = await api("POST", f"{PODS}?dryRun=All", of_many(count))
        assert status in (201, 413, 422)

    assert await async_grows_with_size(send, 10_000, never_much_s=3)


# Patches


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([{"op": "copy", "from": "", "path": f"/data/x{index}"} for index in range(60)], 413),
        ([{"op": "test", "path": "/data/k", "value": "v"}] * 10_001, 413),
        ([{"op": "remove", "path": "/nothing"}], 422),
        ([{"op": "replace", "path": "/a/b", "value": 1}], 422),
        ([{"op": "test", "path": "/data/k", "value": "other"}], 422),
        ([{"op": "fly", "path": "/data"}], 422),
        ([{"op": ["add"], "path": "/"}], 400),
        ([{"op": "add", "path": 3}], 400),
        ([{}], 422),
        ([3], 400),
        ({}, 400),
        ([{"op": "add", "path": "", "value": 7}], 422),
        ([{"op": "remove", "path": "/metadata"}], 400),
        ([{"op": "replace", "path": "/metadata/name", "value": "b"}], 400),
    ],
)
async def test_json_patches_that_do_not_fit(api_with_a: Api, operations: Any, code: int) -> None:
    status, answer = await api_with_a("PATCH", A, operations, content_type=JSON_PATCH)
    assert status == code, answer


async def test_nesting_put_together_by_a_patch(api: Api) -> None:
    path = "/apis/apps/v1/namespaces/default/controllerrevisions"
    await api.ok("POST", path, {"metadata": {"name": "r"}, "revision": 1, "data": {"a": {}}})
    deep: Any = {}
    for _ in range(150):
        deep = {"a": deep}
    operations = [{"op": "add", "path": "/data" + "/a" * (150 * index + 1), "value": deep} for index in range(3)]
    status, answer = await api("PATCH", f"{path}/r", operations, content_type=JSON_PATCH)
    assert status in (400, 422), answer


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ({"metadata": {"uid": "other"}}, 422),
        ({"metadata": {"resourceVersion": "1"}}, 409),
        ({"metadata": {"resourceVersion": "9" * 5000}}, 500),
        ({"metadata": {"resourceVersion": "x"}}, 500),
        ({"metadata": {"namespace": "other"}}, 400),
        ({"metadata": {"name": "other"}}, 400),
        ({"kind": "Pod"}, 200),
        ({"apiVersion": "v9"}, 200),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": 1}}, 200),
        ({"metadata": {"$setElementOrder/ownerReferences": [{"x": 1}]}}, 200),
        ({"$patch": 3}, 500),
        ({"data": {"a b": "x"}}, 422),
        ({"data": 3}, 422),
    ],
)
async def test_strategic_patches_that_do_not_fit(api_with_a: Api, patch: Any, code: int) -> None:
    # Directives for what the object does not have, and another type's name, are passed over as Kubernetes does.
    status, answer = await api_with_a("PATCH", A, patch, content_type=STRATEGIC)
    assert status == code, answer


# Parameters and paths


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=x", 400),
        ("limit=" + "9" * 5000, 400),
        ("continue=x", 400),
        ("continue=é", 400),
        ("continue=bnVsbA", 400),
        ("resourceVersion=x", 400),
        ("resourceVersion=-1", 400),
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersionMatch=What&resourceVersion=1", 422),
        ("labelSelector=a b", 400),
        ("labelSelector=a in (", 400),
        ("labelSelector=a=b=c", 400),
        ("fieldSelector=spec.nope=1", 400),
        ("fieldSelector=x", 400),
        ("watch=1&timeoutSeconds=x", 400),
        ("watch=1&timeoutSeconds=" + "9" * 5000, 400),
        ("watch=1&sendInitialEvents=true", 422),
    ],
)
async def test_parameters_that_make_no_sense(api: Api, query: str, code: int) -> None:
    # Values may contain "="; the helper takes the first of them as the separator.
    status, answer = await api("GET", f"{CONFIG_MAPS}?{query}")
    assert status == code, answer
    assert answer["kind"] == "Status"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"gracePeriodSeconds": "x"}, 500),
        ({"gracePeriodSeconds": 10**25}, 500),
        ({"propagationPolicy": {}}, 500),
        ({"propagationPolicy": "Sideways"}, 422),
        ({"orphanDependents": "x"}, 500),
        ({"orphanDependents": True, "propagationPolicy": "Orphan"}, 422),
        ({"preconditions": "x"}, 500),
        ({"preconditions": {"uid": 3}}, 500),
        ({"preconditions": {"uid": "other"}}, 409),
        ({"preconditions": {"resourceVersion": "1"}}, 409),
        ({"dryRun": "All"}, 500),
        ({"dryRun": ["Some"]}, 422),
        ({"kind": "Pod"}, 500),
        ({"kind": []}, 500),
    ],
)
async def test_delete_options_that_make_no_sense(api_with_a: Api, body: Any, code: int) -> None:
    # Those that cannot be read are errors without a reason in Kubernetes, too.
    status, answer = await api_with_a("DELETE", A, json.dumps(body).encode())
    assert status == code, answer
    assert (await api_with_a("GET", A))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/api/v1/namespaces/default/configmaps/..%2f..%2fx", 404),
        ("GET", "/api/v1/namespaces/default/configmaps/%ff%00", 404),
        ("GET", "/api/v1/namespaces/default/configmaps/%", 404),
        ("GET", "/api/v1/namespaces/default/../../nodes", 404),
        ("GET", "//", 404),
        ("GET", "/api//v1", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("GET", "/api/v1/configmaps/a", 404),
        ("POST", "/api/v1/namespaces/default/configmaps/a", 405),
        ("BREW", "/api/v1/namespaces/default/configmaps", 405),
        ("PUT", "/api/v1/namespaces/default/configmaps", 405),
        ("DELETE", "/api/v1/namespaces", 405),
        ("POST", "/version", 405),
        ("POST", "/healthz", 200),
    ],
)
async def test_paths_and_methods_that_lead_nowhere(api_with_a: Api, method: str, path: str, code: int) -> None:
    status, answer = await api_with_a(method, path, b"{}" if method in ("POST", "PUT") else None)
    assert status == code, answer


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a%2fb", "A", "-a", "a b", "a\x00", "x" * 300, "é", ""])
async def test_names_that_are_none(api: Api, name: str) -> None:
    status, answer = await api("POST", CONFIG_MAPS, {"metadata": {"name": name}})
    assert (status, answer["reason"]) == (422, "Invalid")
    assert answer["details"]["causes"][0]["field"] == "metadata.name"


# On the wire


@pytest.fixture
async def port(server: ApiServer, api: Api) -> AsyncIterator[int]:
    front = HTTPFront(server)
    yield await front.start("127.0.0.1", 0, None)
    await front.stop()


async def exchange(port: int, data: bytes, timeout_s: float = 60) -> bytes:
    """What the server says to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(timeout_s):
            return await reader.read(65_536)
    finally:
        writer.close()


def post(body: bytes, *headers: str, path: str = CONFIG_MAPS) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (post(gzip.compress(b"\0" * (64 << 20)), "Content-Encoding: gzip"), 413),
        (post(b"nonsense", "Content-Encoding: gzip"), 400),
        (post(gzip.compress(b'{"metadata":{"name":"z"}}')[:-6], "Content-Encoding: gzip"), 400),
        (post(b"x", "Content-Encoding: br"), 415),
        (post(gzip.compress(b'{"metadata":{"name":"z"}}'), "Content-Encoding: gzip"), 201),
        (post(b'{"metadata":{"name":"z"}}', "User-Agent: \xff\xfe"), 201),
        (post(b"{" + b" " * (4 << 20)), 413),
        (post(b"", "X-Much: " + "a" * 2_000_000), 431),
        (post(b"a:\n" * 1_000_000, "Content-Type: application/yaml"), 400),
        (post(b"key: value\n" * 1_000_000, "Content-Type: application/yaml"), 413),
        (f"POST {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".encode(), 413),
        (f"POST {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n".encode(), 400),
        (f"POST {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n".encode(), 400),
        (b"\x00\x01\x02\r\n\r\n", 400),
    ],
    ids=["bomb", "no gzip", "cut gzip", "br", "gzip", "user agent", "4 MiB", "long header", "a million lines",
         "10 MB of YAML", "100 GB", "negative length", "bad chunk", "garbage"],
)  # fmt: skip
async def test_bytes_on_the_wire(port: int, data: bytes, code: int, caplog: pytest.LogCaptureFixture) -> None:
    lags: list[float] = []

    async def beat() -> None:
        while True:
            # CPU time: what other processes take of the machine is none of the server's doing.
            started = time.process_time()
            await asyncio.sleep(0.01)
            lags.append(time.process_time() - started)

    with collector_at_rest():
        beating = asyncio.create_task(beat())
        answer = await exchange(port, data)
        beating.cancel()

    assert answer.split(b" ", 2)[1] == str(code).encode(), answer[:300]
    assert max(lags, default=0) < 0.5
    assert "Traceback" not in caplog.text


async def test_a_client_that_hangs_up_in_the_middle_leaves_nothing(port: int, api: Api) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(post(b'{"metadata":{"name":"half"}}')[:-5])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    # Who comes afterwards is answered afterwards.
    for _ in range(3):
        assert (await exchange(port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert (await api("GET", f"{CONFIG_MAPS}/half"))[0] == 404


async def test_a_watcher_that_does_not_read_slows_nobody_down(port: int, api: Api) -> None:
    async def creating_s(name: str) -> float:
        started = time.monotonic()
        for index in range(200):
            await api.ok("POST", CONFIG_MAPS, config_map(f"{name}{index}", k="x" * 100_000))
        return time.monotonic() - started

    alone_s = await creating_s("a")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {CONFIG_MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")

    # Waiting for it would take until it is cut off, half a minute.
    assert await creating_s("b") < 10 * alone_s + 5
    writer.close()


async def test_a_request_without_anything(server: ApiServer) -> None:
    bare = ApiServer(MemoryStore(), world=RealWorld(1))
    await bare.start()
    for method in ("", "GET", "\x00"):
        for path in ("", "/", "x", "/api", "/apis/"):
            assert (await bare.handle(Request(method, path))).status < 500
    await bare.stop()


async def test_what_goes_wrong_inside_is_told_to_the_log_only(
    api: Api, server: ApiServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a word of Python's")

    monkeypatch.setattr(server.core.authorizer, "authorize", fail)

    status, answer = await api("GET", CONFIG_MAPS)

    assert status == 500
    assert answer["message"] == "Internal error occurred: the server failed to handle the request; its log says why"
    assert "a word of Python's" in caplog.text
