"""Webhooks that hang, lie, talk too much or are somebody else: each is a bounded error with a text that helps."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest

from navarch.api.go_text import TYPE_META
from navarch.api.meta import Obj
from navarch.apiserver.webhooks import client
from navarch.apiserver.webhooks.services import NowhereError, is_allowed
from navarch.testing.embedded import EmbeddedCluster
from tests.apiserver.conftest import CONFIG_MAPS, Api
from tests.apiserver.webhooks.server import Authority, HTTPSServer, Webhook, http, patch
from tests.apiserver.webhooks.test_admission import MUTATING, VALIDATING, config_map, configure

FAILED = 'Internal error occurred: failed calling webhook "w.example.com": '
TEXT = "text/plain"
TYPE = f"Go value of type {TYPE_META}"
UNREADABLE = "failed to call webhook: couldn't get version/kind; json parse error: "


def answered(response: Any, **changed: Any) -> bytes:
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response, **changed}
    return http(200, orjson.dumps(body))


async def failure(api: Api, webhook: Webhook, path: str = VALIDATING, **stated: Any) -> str:
    """What the client of a write reads."""
    await configure(api, path, webhook.config(**stated))
    code, answer = await api("POST", CONFIG_MAPS, config_map(a="b"))
    assert (code, answer["reason"]) == (500, "InternalError"), answer
    assert (await api("GET", f"{CONFIG_MAPS}/c"))[0] == 404
    message: str = answer["message"]
    assert message.startswith(FAILED), message
    assert answer["details"] == {"causes": [{"message": message.removeprefix("Internal error occurred: ")}]}
    return message.removeprefix(FAILED)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http(404, b"nothing", TEXT), "failed to call webhook: the server could not find the requested resource"),
        (
            http(500, b"oh no", TEXT),
            'failed to call webhook: an error on the server ("oh no") has prevented the request from succeeding',
        ),
        (
            http(503, b'{"kind":"Status","status":"Failure","message":"not now"}'),
            "failed to call webhook: not now",
        ),
        (
            http(302, b"", TEXT, Location="https://127.0.0.1:1/elsewhere"),
            "failed to call webhook: the server responded with the status code 302 but did not return more information",
        ),
        (
            http(200, b""),
            "failed to call webhook: 0-length response with status code: 200 and content type: application/json",
        ),
        (http(200, b"<html>", TEXT), f"{UNREADABLE}json: cannot unmarshal string into Go value of type {TYPE_META}"),
        (
            http(200, b"<p>" * 5000, TEXT),
            f"{UNREADABLE}json: cannot unmarshal string into Go value of type {TYPE_META}",
        ),
        (http(200, b"[]"), f"{UNREADABLE}json: cannot unmarshal array into Go value of type {TYPE_META}"),
        (http(200, b"{]"), f"{UNREADABLE}invalid character ']' looking for beginning of object key string"),
        (
            answered({}, kind=1),
            f"{UNREADABLE}json: cannot unmarshal number into Go struct field .kind of type string",
        ),
        (answered(None), "received invalid webhook response: webhook response was absent"),
        (answered(None, kind=None), "received invalid webhook response: webhook response was absent"),
        (
            answered({}, kind="Pod"),
            'failed to call webhook: no kind "Pod" is registered for version "admission.k8s.io/v1"',
        ),
        (
            answered({}, apiVersion="admission.k8s.io/v2"),
            'failed to call webhook: no kind "AdmissionReview" is registered for version "admission.k8s.io/v2"',
        ),
        (
            answered({}, apiVersion="admission.k8s.io/v1beta1"),
            "failed to call webhook: converting (v1beta1.AdmissionReview) to (v1.AdmissionReview): unknown conversion",
        ),
        (
            http(200, b'{"kind":"Status","apiVersion":"v1"}'),
            "failed to call webhook: converting (v1.Status) to (v1.AdmissionReview): unknown conversion",
        ),
        (
            answered({"allowed": "yes"}),
            "failed to call webhook: json: cannot unmarshal string into Go struct field "
            "AdmissionResponse.response.allowed of type bool",
        ),
        (
            answered({"auditAnnotations": {"a": 1}}),
            "failed to call webhook: json: cannot unmarshal number into Go struct field "
            "AdmissionResponse.response.auditAnnotations of type string",
        ),
        (b"HTTP/1.1 banana\r\n\r\n", "malformed"),
        (b"", "EOF"),
    ],
)
async def test_what_is_no_answer_is_an_error_that_says_so(
    api: Api, authority: Authority, answer: bytes, why: str
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from tests.apiserver.webhooks.server import read_request

        if await read_request(reader) is not None:
            writer.write(answer)
            await writer.drain()

    webhook = Webhook(authority, lambda request: {})
    webhook.server = HTTPSServer(authority.serving(["127.0.0.1"]), talk)
    async with webhook:
        message = await failure(api, webhook)

    if why == "malformed":
        assert "the answer is no HTTP" in message
    elif "is registered" in why:
        # And in which of Kubernetes' tables it is not.
        assert message.startswith(f'{why} in scheme "')
    elif why == "EOF":
        assert message == f'failed to call webhook: Post "{webhook.url}?timeout=10s": EOF'
    else:
        assert message == why


async def test_an_answer_that_does_not_say_what_it_is_does_not_count(api: Api, authority: Authority) -> None:
    def anonymous(request: Obj) -> bytes:
        return http(200, orjson.dumps({"response": {"allowed": True, "uid": request["uid"]}}))

    async with Webhook(authority, anonymous) as webhook:
        message = await failure(api, webhook)

    expected = "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind="
    assert message == f"received invalid webhook response: {expected}"


async def test_an_answer_may_be_yaml(api: Api, authority: Authority) -> None:
    def yaml(request: Obj) -> bytes:
        head = "apiVersion: admission.k8s.io/v1\nkind: AdmissionReview\n"
        text = f"{head}response: {{uid: {request['uid']}, allowed: true}}"
        return http(200, text.encode(), "application/yaml")

    async with Webhook(authority, yaml) as webhook:
        await configure(api, VALIDATING, webhook.config())
        await api.ok("POST", CONFIG_MAPS, config_map())


async def test_who_refuses_is_believed_whatever_the_patch(api: Api, authority: Authority) -> None:
    answer = {"allowed": False, "status": {"message": "no"}, "patch": "e30=", "patchType": "MergePatch"}
    async with Webhook(authority, lambda request: answer) as webhook:
        await configure(api, MUTATING, webhook.config())

        code, answered = await api("POST", CONFIG_MAPS, config_map())

    assert (code, answered["message"]) == (400, 'admission webhook "w.example.com" denied the request: no')


async def test_an_answer_to_another_question_does_not_count(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: {"allowed": True, "uid": "another"}) as webhook:
        message = await failure(api, webhook)

    uid = webhook.asked[0].request["uid"]
    assert message == f'received invalid webhook response: expected response.uid="{uid}", got "another"'


async def test_one_that_hangs_is_waited_for_as_long_as_it_says(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: asyncio.Event().wait()) as webhook:
        message = await failure(api, webhook, timeoutSeconds=1)

    assert message == f'failed to call webhook: Post "{webhook.url}?timeout=1s": context deadline exceeded'


async def test_one_that_never_ends_its_answer_is_cut_off(api: Api, authority: Authority) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        while True:
            writer.write(chunk)
            await writer.drain()
            sent += len(chunk)

    webhook = Webhook(authority, lambda request: {})
    webhook.server = HTTPSServer(authority.serving(["127.0.0.1"]), flood)
    async with webhook:
        message = await failure(api, webhook)

    assert "a body of more than" in message
    assert sent < 2 * client.LONGEST_ANSWER


@pytest.mark.parametrize("length", [1 << 40, (16 << 20) + 1])
async def test_one_that_announces_too_much_is_not_listened_to(api: Api, authority: Authority, length: int) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode()
    async with Webhook(authority, lambda request: head) as webhook:
        assert "a body of more than" in await failure(api, webhook)


async def test_a_small_answer_that_unpacks_to_a_big_one_is_too_big(api: Api, authority: Authority) -> None:
    packed = gzip.compress(b" " * (64 << 20))
    async with Webhook(authority, lambda request: http(200, packed, Content_Encoding="gzip")) as webhook:
        assert "a body of more than" in await failure(api, webhook)


def unknown(authority: Authority) -> Authority:
    other = Authority()
    other.bundle = authority.bundle
    return other


@pytest.mark.parametrize(
    ("names", "life", "other", "why"),
    [
        (["127.0.0.1"], timedelta(days=1), True, "x509: certificate signed by unknown authority"),
        (["10.0.0.1"], timedelta(days=1), False, "x509: certificate is valid for 10.0.0.1, not 127.0.0.1"),
        (
            ["example.com"],
            timedelta(days=1),
            False,
            "x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs",
        ),
        (["127.0.0.1"], timedelta(days=-1), False, "x509: certificate has expired or is not yet valid: current time "),
    ],
)
async def test_one_that_is_not_who_it_should_be_is_not_believed(
    api: Api, authority: Authority, names: list[str], life: timedelta, other: bool, why: str
) -> None:
    webhook = Webhook(unknown(authority) if other else authority, lambda request: {"allowed": True}, names)
    webhook.server = HTTPSServer(webhook.authority.serving(names, life), webhook._talk)
    async with webhook:
        message = await failure(api, webhook)

    shown = f'failed to call webhook: Post "{webhook.url}?timeout=10s": tls: failed to verify certificate: {why}'
    assert message.startswith(shown)
    assert webhook.asked == []


async def test_one_without_tls_is_not_talked_to(api: Api, authority: Authority) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(http(400, b"speak plainly", TEXT))
        await writer.drain()

    webhook = Webhook(authority, lambda request: {})
    webhook.server = HTTPSServer(None, talk)
    async with webhook:
        message = await failure(api, webhook)

    expected = f'failed to call webhook: Post "{webhook.url}?timeout=10s": '
    assert message == f"{expected}http: server gave HTTP response to HTTPS client"


@pytest.mark.parametrize(
    "url",
    [
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00:ec2::254]/latest",
        "https://[::ffff:169.254.169.254]/x",
        "https://[fe80::1]/x",
        "https://0.0.0.0/x",
        "https://2852039166/x",
    ],
)
async def test_what_clouds_tell_their_machines_is_out_of_reach(api: Api, authority: Authority, url: str) -> None:
    webhook = Webhook(authority, lambda request: {})
    message = await failure(api, webhook, clientConfig={"url": url})

    assert message.endswith(": address not allowed"), message


async def test_a_service_does_not_lead_to_this_machine(api: Api, authority: Authority) -> None:
    spec = {"type": "ExternalName", "externalName": "localhost"}
    await api.ok("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "here"}, "spec": spec})
    reference = {"namespace": "default", "name": "here"}
    webhook = Webhook(authority, lambda request: {})

    message = await failure(api, webhook, clientConfig={"service": reference})

    assert message.endswith(": address not allowed")


async def test_a_service_is_reached_by_its_name_at_its_endpoint(
    api: Api, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "is_allowed", lambda address, here: True)
    async with Webhook(authority, lambda request: {"allowed": True}, ["hooks.default.svc"]) as webhook:
        port = webhook.server.port
        spec = {"type": "ExternalName", "externalName": "localhost"}
        await api.ok("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "hooks"}, "spec": spec})
        reference = {"namespace": "default", "name": "hooks", "port": port, "path": "/a/b"}
        config = {"service": reference, "caBundle": authority.bundle}
        await configure(api, VALIDATING, webhook.config(clientConfig=config))

        await api.ok("POST", CONFIG_MAPS, config_map())

    (asked,) = webhook.asked
    assert asked.target == "/a/b?timeout=10s"
    assert asked.headers["host"] == f"hooks.default.svc:{port}"


SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


async def test_a_services_address_is_that_of_a_ready_endpoint(api: Api, cluster: EmbeddedCluster) -> None:
    ports = [{"name": "web", "port": 443, "targetPort": 8443}, {"name": "other", "port": 80}]
    await api.ok("POST", SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": ports}})
    services = cluster.server.core.webhooks._services
    with pytest.raises(NowhereError, match='no endpoints available for service "s"'):
        services.address("default", "s", 443)
    await api.ok(
        "POST",
        SLICES,
        {
            "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "ports": [{"name": "web", "port": 8443}],
            "endpoints": [
                {"addresses": ["10.1.2.3"], "conditions": {"ready": False}},
                {"addresses": ["10.1.2.4"], "conditions": {"ready": True}},
            ],
        },
    )

    assert services.address("default", "s", 443) == ("10.1.2.4", 8443)
    with pytest.raises(NowhereError, match='no service port 444 found for service "s"'):
        services.address("default", "s", 444)
    with pytest.raises(NowhereError, match='no endpoints available for service "s"'):
        services.address("default", "s", 80)


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/data", "value": "text"},
        {"op": "add", "path": "/nowhere/at/all", "value": 1},
        {"op": "replace", "path": "", "value": []},
        {"op": "replace", "path": "/metadata", "value": None},
        {"op": "replace", "path": "/metadata/labels", "value": {"a": {"b": "c"}}},
        {"op": "nonsense", "path": "/data"},
        {"op": "test", "path": "/data/a", "value": "z"},
        "no operation",
    ],
)
async def test_a_patch_that_makes_no_object_is_the_webhooks_mistake(
    api: Api, authority: Authority, operation: Any
) -> None:
    async with Webhook(authority, lambda request: patch(operation)) as webhook:
        await configure(api, MUTATING, webhook.config())

        code, answer = await api("POST", CONFIG_MAPS, config_map(a="b"))

    assert (code, answer["reason"]) == (500, "InternalError")
    assert "its log says why" not in answer["message"]


@pytest.mark.parametrize(
    ("response", "why"),
    [
        ({"patch": "e30="}, "received invalid webhook response: webhook returned response.patch but not response."),
        ({"patchType": "JSONPatch"}, "received invalid webhook response: webhook returned response.patchType but not"),
        ({"patch": "!!", "patchType": "JSONPatch"}, "failed to call webhook: illegal base64 data at input byte 0"),
        (
            {"patch": "e30=", "patchType": "JSONPatch"},
            "received undecodable patch in webhook response: json: cannot unmarshal object",
        ),
        (
            {"patch": "WyJhIl0=", "patchType": "JSONPatch"},
            "received undecodable patch in webhook response: json: cannot unmarshal string into Go value of type "
            "jsonpatch.Operation",
        ),
        ({"patch": "W3t9XQ==", "patchType": "MergePatch"}, 'unsupported patch type "MergePatch"'),
        ({"patch": "aGVsbG8", "patchType": "JSONPatch"}, "failed to call webhook: illegal base64 data at input byte 4"),
    ],
)
async def test_a_patch_that_is_none_is_said_to_be(api: Api, authority: Authority, response: Obj, why: str) -> None:
    async with Webhook(authority, lambda request: {"allowed": True, **response}) as webhook:
        assert (await failure(api, webhook, MUTATING)).startswith(why)


async def test_copies_upon_copies_are_bounded(api: Api, authority: Authority) -> None:
    doubling: Callable[[int], Obj] = lambda number: {"op": "copy", "from": "/data", "path": f"/data/x{number}"}  # noqa: E731
    async with Webhook(authority, lambda request: patch(*map(doubling, range(40)))) as webhook:
        await configure(api, MUTATING, webhook.config())

        code, _ = await api("POST", CONFIG_MAPS, config_map(a="b" * 1000))

    assert code == 500


async def test_a_webhook_cannot_move_an_object(api: Api, authority: Authority) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map(a="b"))
    moves = [
        {"op": "replace", "path": "/metadata/name", "value": "elsewhere"},
        {"op": "replace", "path": "/metadata/namespace", "value": "kube-system"},
        {"op": "replace", "path": "/metadata/uid", "value": "another"},
    ]
    async with Webhook(authority, lambda request: patch(*moves)) as webhook:
        await configure(api, MUTATING, webhook.config())

        await api.patch(f"{CONFIG_MAPS}/c", {"data": {"a": "c"}})

    assert (await api("GET", "/api/v1/namespaces/kube-system/configmaps/elsewhere"))[0] == 404
    assert (await api("GET", f"{CONFIG_MAPS}/elsewhere"))[0] == 404


@pytest.mark.parametrize(
    ("address", "here", "allowed"),
    [
        ("10.0.0.1", False, True),
        ("127.0.0.1", False, False),
        ("127.0.0.1", True, True),
        ("::1", False, False),
        ("::ffff:127.0.0.1", False, False),
        ("169.254.1.1", True, False),
        ("224.0.0.1", True, False),
        ("fd00::1", False, True),
    ],
)
def test_where_a_connection_may_go(address: str, here: bool, allowed: bool) -> None:
    assert is_allowed(address, here=here) is allowed
