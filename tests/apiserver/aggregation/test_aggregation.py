"""API servers behind this one: whether they can be asked, how they are asked, and what is shown of them."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from typing import Any

import orjson
import pytest

from navarch.api.meta import Obj
from navarch.apiserver.aggregation import proxy
from navarch.apiserver.user import User
from navarch.client.transport import Request
from navarch.testing.embedded import EmbeddedCluster
from tests.apiserver.aggregation.conftest import (
    API_SERVICES,
    GROUP,
    NAME,
    RESOURCE,
    ROOT,
    VERSION,
    Extension,
    api_service,
    registered,
    settled,
)
from tests.apiserver.conftest import Api
from tests.apiserver.webhooks.server import Asked, Authority, http
from tests.apiserver.widgets import widgets

SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


async def shown(api: Api, path: str, until: Any, accept: str = "application/json") -> Any:
    """A document, once it says what it is waited for."""
    async with asyncio.timeout(30):
        while True:
            _, answer = await api("GET", path, accept=accept)
            if until(answer):
                return answer
            await asyncio.sleep(0.01)


async def unavailable(api: Api) -> str:
    """What metrics say of it."""
    text = (await api.send("GET", "/metrics")).body
    assert isinstance(text, bytes)
    line = f'aggregator_unavailable_apiservice{{name="{NAME}"}} '
    return next(found.removeprefix(line) for found in text.decode().splitlines() if found.startswith(line))


# What this server keeps


async def test_every_version_that_is_served_has_its_api_service(api: Api) -> None:
    found = {item["metadata"]["name"]: item for item in (await api.ok("GET", API_SERVICES))["items"]}

    assert found["v1.apps"]["spec"] == {
        "group": "apps",
        "version": "v1",
        "groupPriorityMinimum": 17800,
        "versionPriority": 15,
    }
    assert found["v1."]["spec"] == {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}
    assert found["v2.autoscaling"]["spec"]["versionPriority"] > found["v1.autoscaling"]["spec"]["versionPriority"]
    for item in found.values():
        assert item["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
        (condition,) = item["status"]["conditions"]
        assert (condition["reason"], condition["status"]) == ("Local", "True")


async def test_those_of_custom_resources_come_and_go_with_them(api: Api, cluster: EmbeddedCluster) -> None:
    await cluster.server.serve(*widgets())
    obj = await settled(api, "Local", "v1.example.com")
    assert obj["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
    assert (obj["spec"]["groupPriorityMinimum"], obj["spec"]["versionPriority"]) == (1000, 100)

    await api.ok("DELETE", f"{API_SERVICES}/v1.example.com")
    again = await settled(api, "Local", "v1.example.com")
    assert again["metadata"]["uid"] != obj["metadata"]["uid"]

    await cluster.server.withdraw("example.com", "widgets", stored="keep")
    async with asyncio.timeout(30):
        while (await api("GET", f"{API_SERVICES}/v1.example.com"))[0] != 404:
            await asyncio.sleep(0.01)
    await api.ok("GET", f"{API_SERVICES}/v1.apps")


# Whether they can be asked


async def test_the_condition_says_what_is_wrong_with_the_service(api: Api, authority: Authority) -> None:
    await api.ok("POST", API_SERVICES, api_service(authority, 443))
    missing = await settled(api, "ServiceNotFound")
    assert missing["status"]["conditions"][0]["message"] == 'service/wardle in "default" is not present'

    ports = [{"name": "api", "port": 80}]
    await api.ok("POST", SERVICES, {"metadata": {"name": "wardle"}, "spec": {"ports": ports}})
    other_port = await settled(api, "ServicePortError")
    assert (
        other_port["status"]["conditions"][0]["message"] == 'service/wardle in "default" is not listening on port 443'
    )

    await api.patch(f"{SERVICES}/wardle", {"spec": {"ports": [{"name": "api", "port": 443}]}})
    await settled(api, "EndpointsNotFound")

    slice_ = {
        "metadata": {"name": "wardle-1", "labels": {"kubernetes.io/service-name": "wardle"}},
        "addressType": "IPv4",
        "ports": [{"name": "api", "port": 443}],
        "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": False}}],
    }
    await api.ok("POST", SLICES, slice_)
    nobody = await settled(api, "MissingEndpoints")
    message = 'endpointslices for service/wardle in "default" have no addresses with port name "api"'
    assert nobody["status"]["conditions"][0]["message"] == message
    # It never could be asked, and that has been so from the beginning.
    times = {obj["status"]["conditions"][0]["lastTransitionTime"] for obj in (missing, other_port, nobody)}
    assert len(times) == 1


async def test_one_that_does_not_answer_to_discovery_is_not_available(
    api: Api, extension: Extension, authority: Authority
) -> None:
    extension.status = 403
    service = {"type": "ExternalName", "externalName": "localhost"}
    await api.ok("POST", SERVICES, {"metadata": {"name": "wardle"}, "spec": service})
    port = extension.server.port
    await api.ok("POST", API_SERVICES, api_service(authority, port))

    obj = await settled(api, "FailedDiscoveryCheck")
    url = f"https://wardle.default.svc:{port}{ROOT}"
    message = f"failing or missing response from {url}: bad status from {url}: 403"
    assert obj["status"]["conditions"][0]["message"] == message
    response = await api.send("GET", f"{ROOT}/namespaces/default/flunders")
    assert (response.status, response.body) == (503, b"service unavailable\n")

    assert await unavailable(api) == "1"

    extension.status = 200
    await settled(api, "Passed")
    assert await unavailable(api) == "0"


async def test_one_that_is_made_local_is_available(api: Api, authority: Authority) -> None:
    await api.ok("POST", API_SERVICES, api_service(authority, 443))
    await settled(api, "ServiceNotFound")

    await api.patch(f"{API_SERVICES}/{NAME}", {"spec": {"service": None, "caBundle": None}})

    await settled(api, "Local")


# How they are asked


async def test_the_registrations_themselves_cannot_be_given_away(api: Api) -> None:
    name = f"{API_SERVICES}/v1.apiregistration.k8s.io"
    spec = {
        "group": "apiregistration.k8s.io",
        "version": "v1",
        "groupPriorityMinimum": 100,
        "versionPriority": 10,
        "insecureSkipTLSVerify": True,
        "service": {"namespace": "default", "name": "nowhere"},
    }
    await api.ok("POST", API_SERVICES, {"metadata": {"name": "v1.apiregistration.k8s.io"}, "spec": spec})
    given_away = await api.patch(f"{API_SERVICES}/v1.apps", {"spec": {"service": spec["service"]}})
    assert given_away[0] == 200
    await settled(api, "ServiceNotFound", "v1.apps")

    await api.ok("GET", name)
    await api.ok("DELETE", name)
    local = await api.patch(f"{API_SERVICES}/v1.apps", {"spec": {"service": None}})

    assert local[0] == 200
    await settled(api, "Local", "v1.apps")
    await api.ok("GET", "/apis/apps/v1/deployments")


async def test_a_request_goes_on_with_the_identity_that_was_found_out(
    api: Api, cluster: EmbeddedCluster, extension: Extension, authority: Authority
) -> None:
    await registered(api, extension, authority)
    extension.more[f"{ROOT}/namespaces/default/flunders"] = lambda asked: http(
        201, b'{"made":true}', X_Kubernetes_Own="yes"
    )
    user = User("jane", ("system:masters", "devs"), "u1", {"example.com/scopes": ("a", "b c")})
    headers = {
        "authorization": "Bearer secret",
        "x-remote-user": "system:admin",
        "x-remote-group": "system:masters",
        "x-remote-extra-sudo": "yes",
        "content-type": "application/json",
        "accept": "application/json",
    }
    path = f"{ROOT}/namespaces/default/flunders"
    request = Request("POST", path, [("dryRun", "All"), ("x", "a b")], headers, b'{"spec":{}}')
    response = await cluster.server.handle(request, user)

    body = b"".join([chunk async for chunk in response.body])  # type: ignore[union-attr]
    assert (response.status, body) == (201, b'{"made":true}')
    assert response.headers["X-Kubernetes-Own"] == "yes"
    (asked,) = extension.asked
    assert (asked.method, asked.target) == ("POST", f"{path}?dryRun=All&x=a+b")
    assert asked.body == b'{"spec":{}}'
    assert asked.headers["x-remote-user"] == "jane"
    assert asked.headers["x-remote-uid"] == "u1"
    assert "authorization" not in asked.headers
    assert "x-remote-extra-sudo" not in asked.headers
    assert [name for name in asked.headers if name.startswith("x-remote-extra-")] == [
        "x-remote-extra-example.com%2fscopes"
    ]


async def test_who_may_not_ask_is_not_passed_on(
    api: Api, cluster: EmbeddedCluster, extension: Extension, authority: Authority
) -> None:
    await registered(api, extension, authority)

    stranger = Api(cluster.server, User("stranger", ("system:authenticated",)))
    code, answer = await stranger("GET", f"{ROOT}/namespaces/default/flunders")

    assert (code, answer["reason"]) == (403, "Forbidden")
    assert extension.asked == []


async def test_a_watch_is_a_stream(
    api: Api, cluster: EmbeddedCluster, extension: Extension, authority: Authority
) -> None:
    await registered(api, extension, authority)
    go_on, gone = asyncio.Event(), asyncio.Event()

    async def watch(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in (1, 2):
            event = orjson.dumps({"type": "ADDED", "object": {"number": number}}) + b"\n"
            writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            await writer.drain()
            await go_on.wait()
        try:
            while True:
                writer.write(b"1\r\n \r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    extension.stream = watch
    response = await cluster.server.handle(Request("GET", f"{ROOT}/watched", [("watch", "1")]), api.user)
    chunks = response.body
    assert not isinstance(chunks, bytes)

    async with asyncio.timeout(30):
        # The first event is here before there is a second.
        assert b'"number":1' in await anext(chunks)
        go_on.set()
        assert b'"number":2' in await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]
        # And who watches no longer is not watched for.
        await gone.wait()


async def test_an_answer_is_a_stream_on_the_wire_and_ends_with_who_asked(
    api: Api, cluster: EmbeddedCluster, extension: Extension, authority: Authority
) -> None:
    await registered(api, extension, authority)
    gone = asyncio.Event()

    async def much(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"5\r\nhello\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    extension.stream = much
    await cluster.serve()
    pki = cluster.config.pki
    tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", cluster.config.port, ssl=tls)
        writer.write(f"GET {ROOT}/namespaces/default/watched HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert head.lower().count(b"\r\ndate:") == 1
        await reader.readuntil(b"hello")
        writer.transport.abort()
        await gone.wait()


async def test_an_upgrade_joins_the_two_connections(
    api: Api, cluster: EmbeddedCluster, extension: Extension, authority: Authority
) -> None:
    await registered(api, extension, authority)

    async def switch(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nhello")
        await writer.drain()

    extension.stream = switch
    headers = {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x-remote-user": "root"}
    user = User("jane", ("system:masters", "devs"))
    response: Any = await cluster.server.handle(Request("POST", f"{ROOT}/things/a/exec", (), headers), user)

    assert response.status == 101
    assert response.head.startswith(b"HTTP/1.1 101")
    assert await response.reader.read() == b"hello"
    response.writer.close()
    (asked,) = extension.asked
    assert asked.headers["x-remote-user"] == "jane"
    assert asked.headers["upgrade"] == "SPDY/3.1"


async def test_one_whose_certificate_is_not_its_own_is_not_sent_anything(
    api: Api, extension: Extension, authority: Authority
) -> None:
    await registered(api, extension, authority, caBundle=Authority().bundle)

    response = await api.send("GET", f"{ROOT}/namespaces/default/flunders")

    assert response.status == 503
    assert isinstance(response.body, bytes)
    assert response.body.startswith(b"error trying to reach service: tls: failed to verify certificate")
    assert extension.asked == []


async def test_a_service_that_leads_to_this_machine_is_not_followed(
    api: Api, extension: Extension, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    service = {"type": "ExternalName", "externalName": "localhost"}
    await api.ok("POST", SERVICES, {"metadata": {"name": "wardle"}, "spec": service})
    await api.ok("POST", API_SERVICES, api_service(authority, extension.server.port))

    obj = await settled(api, "FailedDiscoveryCheck")

    assert obj["status"]["conditions"][0]["message"].endswith("address not allowed")
    assert extension.looked == []


async def test_what_is_gone_is_unknown_again(api: Api, extension: Extension, authority: Authority) -> None:
    await registered(api, extension, authority)
    await api.ok("DELETE", f"{API_SERVICES}/{NAME}")

    assert (await api("GET", f"{ROOT}/namespaces/default/flunders"))[0] == 404
    assert (await api("GET", f"/apis/{GROUP}"))[0] == 404


# What is shown of them


async def test_discovery_shows_what_others_serve_in_its_place(
    api: Api, extension: Extension, authority: Authority
) -> None:
    own = [group["name"] for group in (await api.ok("GET", "/apis"))["groups"]]
    await registered(api, extension, authority)

    groups = (await api.ok("GET", "/apis"))["groups"]
    assert [group["name"] for group in groups] == [*own, GROUP]
    entry = {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
    assert groups[-1] == {"name": GROUP, "versions": [entry], "preferredVersion": entry}
    assert (await api.ok("GET", f"/apis/{GROUP}"))["versions"] == [entry]
    async with asyncio.timeout(30):
        response = await api.send("GET", ROOT)
        assert b"".join([chunk async for chunk in response.body]).startswith(b'{"kind":"APIResourceList"')  # type: ignore[union-attr]


async def test_aggregated_discovery_has_their_resources(api: Api, extension: Extension, authority: Authority) -> None:
    await registered(api, extension, authority)

    def is_there(answer: Obj) -> bool:
        return any(
            group["metadata"].get("name") == GROUP and group["versions"][0]["resources"] for group in answer["items"]
        )

    answer = await shown(api, "/apis", is_there, AGGREGATED)

    group = answer["items"][-1]
    assert group["versions"] == [{"version": VERSION, "resources": [RESOURCE], "freshness": "Current"}]


async def test_what_does_not_answer_any_more_is_stale_not_gone(
    api: Api, extension: Extension, authority: Authority
) -> None:
    await registered(api, extension, authority)
    await shown(api, "/apis", lambda answer: answer["items"][-1]["versions"][0]["resources"], AGGREGATED)

    await api.ok("DELETE", f"{SERVICES}/wardle")
    await settled(api, "ServiceNotFound")

    def is_stale(answer: Obj) -> bool:
        return bool(answer["items"][-1]["versions"][0]["freshness"] == "Stale")

    answer = await shown(api, "/apis", is_stale, AGGREGATED)
    assert answer["items"][-1]["versions"][0]["resources"] == [RESOURCE]


async def test_one_without_aggregated_discovery_is_asked_in_the_old_form(
    api: Api, extension: Extension, authority: Authority
) -> None:
    extension.more["/apis"] = lambda asked: http(200, b'{"kind":"APIGroupList","groups":[]}')
    extension.more[ROOT] = lambda asked: http(
        200,
        orjson.dumps(
            {
                "kind": "APIResourceList",
                "resources": [
                    {
                        "name": "flunders",
                        "singularName": "flunder",
                        "namespaced": True,
                        "kind": "Flunder",
                        "verbs": ["get"],
                    },
                    {"name": "flunders/status", "kind": "Flunder", "verbs": ["get", "update"]},
                ],
            }
        ),
    )
    await registered(api, extension, authority)

    answer = await shown(api, "/apis", lambda found: found["items"][-1]["versions"][0]["resources"], AGGREGATED)

    kind = {"group": GROUP, "version": VERSION, "kind": "Flunder"}
    assert answer["items"][-1]["versions"][0]["resources"] == [
        {
            "resource": "flunders",
            "scope": "Namespaced",
            "singularResource": "flunder",
            "responseKind": kind,
            "verbs": ["get"],
            "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get", "update"]}],
        }
    ]


async def test_what_is_no_resource_is_not_shown_as_one(api: Api, extension: Extension, authority: Authority) -> None:
    odd: list[Any] = [None, {}, {"resource": 7}, {"resource": "a/b", "responseKind": {}}, {"resource": "x"}]
    rich = {**RESOURCE, "verbs": ["get", None], "shortNames": "fl", "more": {"than": "asked"}}
    version = {"version": VERSION, "resources": [*odd, rich]}
    groups = {"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": GROUP}, "versions": [version]}]}
    extension.more["/apis"] = lambda asked: http(200, orjson.dumps(groups))
    await registered(api, extension, authority)

    answer = await shown(api, "/apis", lambda found: found["items"][-1]["versions"][0]["resources"], AGGREGATED)

    assert answer["items"][-1]["versions"][0]["resources"] == [{**RESOURCE, "verbs": ["get"]}]


@pytest.mark.parametrize("headers", [{"Content_Encoding": "gzip"}, {}])
async def test_documents_that_are_too_much_are_left(
    api: Api, extension: Extension, authority: Authority, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(proxy, "LONGEST_DOCUMENT", 1000)
    much = b" " * 2000 if not headers else gzip.compress(b" " * 2000)
    for path in ("/apis", "/openapi/v2", "/openapi/v3"):
        extension.more[path] = lambda asked: http(200, much, **headers)
    await registered(api, extension, authority)

    async with asyncio.timeout(30):
        while not any(asked.target == "/apis" for asked in extension.looked):
            await asyncio.sleep(0.01)
    answer = await api.ok("GET", "/apis", accept=AGGREGATED)
    assert answer["items"][-1]["versions"][0]["freshness"] == "Stale"
    assert f"{ROOT}/flunders" not in (await api.ok("GET", "/openapi/v2"))["paths"]


async def test_openapi_shows_what_others_say_of_theirs(api: Api, extension: Extension, authority: Authority) -> None:
    await registered(api, extension, authority)

    index = await shown(api, "/openapi/v3", lambda answer: ROOT[1:] in answer["paths"])
    assert index["paths"][ROOT[1:]] == {"serverRelativeURL": f"/openapi/v3{ROOT}?hash=1"}
    assert "apis/apps/v1" in index["paths"]
    response = await api.send("GET", f"/openapi/v3{ROOT}?hash=1")
    assert b"".join([chunk async for chunk in response.body]) == b'{"openapi":"3.0.0","here":true}'  # type: ignore[union-attr]

    document = await shown(api, "/openapi/v2", lambda answer: f"{ROOT}/flunders" in answer["paths"])
    assert "com.example.Flunder" in document["definitions"]
    assert "io.k8s.api.apps.v1.Deployment" in document["definitions"]
    assert "/apis/other/v1/things" not in document["paths"]


async def test_a_document_that_is_the_same_is_not_sent_again(
    api: Api, extension: Extension, authority: Authority
) -> None:
    await registered(api, extension, authority)
    await shown(api, "/apis", lambda answer: answer["items"][-1]["versions"][0]["resources"], AGGREGATED)
    first = await api.send("GET", "/apis", accept=AGGREGATED)
    api.headers["if-none-match"] = first.headers["ETag"]

    assert (await api.send("GET", "/apis", accept=AGGREGATED)).status == 304


# Who is believed


async def test_extension_servers_are_told_whom_to_believe(api: Api, cluster: EmbeddedCluster) -> None:
    told = await api.ok("GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")

    authority = (cluster.config.pki / "front-proxy-ca.crt").read_text()
    assert told["data"]["requestheader-client-ca-file"] == authority
    assert authority != told["data"]["client-ca-file"]
    assert told["data"]["requestheader-allowed-names"] == '["front-proxy"]'
