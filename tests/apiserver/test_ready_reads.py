"""A read that is answered at once is answered as the general way would; whatever is not that plain goes there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import orjson
import pytest

from navarch.apiserver.auth.authenticator import ClusterAuthenticator, _Certified
from navarch.apiserver.auth.authorizer import ClusterAuthorizer
from navarch.apiserver.auth.base import EveryoneIsAdmin
from navarch.apiserver.auth.rbac import RBACAuthorizer
from navarch.apiserver.http import HTTPFront
from navarch.apiserver.plain_requests import plain_request
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import LOOPBACK, User
from navarch.client.transport import Request, Response
from navarch.world import SystemClock
from tests.apiserver.conftest import CONFIG_MAPS, Api, config_map

LONGEST = 100_000
JANE = User("jane", ("system:authenticated",))
ROLES = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"


class AsJane(EveryoneIsAdmin):
    async def authenticate(self, request: Request, peer_cert: object) -> User:
        return JANE

    def recognized(self, request: Request, peer_cert: object) -> User:
        return JANE


def get(path: str, *lines: str) -> Request:
    head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *lines]).encode()
    plain = plain_request(head)
    assert plain is not None
    return plain[0]


def at_once(server: ApiServer, path: str, *lines: str) -> Response | None:
    return server.ready_reads.answer(get(path, *lines), None, LONGEST)


def said(response: Response) -> tuple[int, object, str, dict[str, str]]:
    """All of an answer but the name that each has for itself."""
    return response.status, response.body, response.content_type, {**response.headers, "Audit-Id": ""}


@pytest.fixture
async def objects(server: ApiServer, api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a", k="v"))
    await api.ok("POST", CONFIG_MAPS, config_map("long", k="v" * LONGEST))


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        (f"{CONFIG_MAPS}/a", ()),
        (f"{CONFIG_MAPS}/a", ("Accept: application/json",)),
        (f"{CONFIG_MAPS}/a", ("Accept: */*", "User-Agent: kubelet/v1.37")),
        ("/api/v1/namespaces/default", ()),
    ],
)
async def test_what_is_plain_is_answered_alike(
    server: ApiServer, objects: None, path: str, lines: tuple[str, ...]
) -> None:
    ready = at_once(server, path, *lines)

    assert ready is not None
    assert said(ready) == said(await server.handle(get(path, *lines)))
    assert orjson.loads(ready.body)["metadata"]["name"] == path.rpartition("/")[2]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        (f"{CONFIG_MAPS}/none", ()),
        (f"{CONFIG_MAPS}/long", ()),
        (f"{CONFIG_MAPS}/a?resourceVersion=0", ()),
        (f"{CONFIG_MAPS}/a", ("Accept: application/json;as=Table;v=v1;g=meta.k8s.io",)),
        (f"{CONFIG_MAPS}/a", ("Accept: application/yaml",)),
        (f"{CONFIG_MAPS}/a", ("User-Agent: curl/8",)),
        (f"{CONFIG_MAPS}/a", ("Impersonate-User: jane",)),
        (f"{CONFIG_MAPS}/a", ("Audit-Id: mine",)),
        (CONFIG_MAPS, ()),
        ("/api/v1/namespaces/default/status", ()),
        ("/api/v1/watch/namespaces/default/configmaps/a", ()),
        ("/api/v1/configmaps/a", ()),
        ("/api/v1/namespaces/default/namespaces/default", ()),
        ("/api/v1/namespaces/default/unknown/a", ()),
    ],
)
async def test_what_is_not_plain_goes_the_general_way(
    server: ApiServer, objects: None, path: str, lines: tuple[str, ...]
) -> None:
    assert at_once(server, path, *lines) is None


async def test_a_read_sees_what_was_written_before_it(server: ApiServer, api: Api, objects: None) -> None:
    await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a", k="w"))

    ready = at_once(server, f"{CONFIG_MAPS}/a")

    # None where the cache has not heard of it yet.
    answer = ready or await server.handle(get(f"{CONFIG_MAPS}/a"), LOOPBACK)
    assert orjson.loads(answer.body)["data"] == {"k": "w"}  # type: ignore[arg-type]


async def test_a_cache_that_lags_behind_is_waited_for(
    server: ApiServer, objects: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = server.store.known_revision()
    assert newest is not None
    monkeypatch.setattr(server.store, "_revision", newest + 1)

    assert at_once(server, f"{CONFIG_MAPS}/a") is None


async def test_who_may_not_is_refused_until_a_role_lets_him(server: ApiServer, api: Api, objects: None) -> None:
    rbac = RBACAuthorizer(server.reader)
    server.use(authenticator=AsJane(), authorizer=ClusterAuthorizer(rbac))

    assert at_once(server, f"{CONFIG_MAPS}/a") is None
    assert (await server.handle(get(f"{CONFIG_MAPS}/a"))).status == 403

    rules = [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["get"]}]
    await api.ok("POST", f"{ROLES}/roles", {"metadata": {"name": "reader"}, "rules": rules})
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    }
    await api.ok("POST", f"{ROLES}/rolebindings", binding)
    rbac.invalidate()

    ready = at_once(server, f"{CONFIG_MAPS}/a")
    assert ready is not None
    assert said(ready) == said(await server.handle(get(f"{CONFIG_MAPS}/a")))
    assert at_once(server, "/api/v1/namespaces/default") is None


async def test_it_is_counted_like_any_other(server: ApiServer, objects: None) -> None:
    def count() -> int:
        lines = server.core.metrics.render([], 0).splitlines()
        start = 'apiserver_request_total{code="200",dry_run="",group="",resource="configmaps"'
        return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith(start) and 'verb="GET"' in line)

    before = count()
    for _ in range(3):
        assert at_once(server, f"{CONFIG_MAPS}/a") is not None

    assert count() == before + 3


async def test_without_a_free_seat_it_waits_its_turn(server: ApiServer, objects: None) -> None:
    server.use(authenticator=AsJane())
    assert at_once(server, f"{CONFIG_MAPS}/a") is not None
    levels = [level for level in server._flows._levels.values() if not level.config.exempt]  # type: ignore[union-attr]
    for level in levels:
        level.running_seats += level.limit

    assert at_once(server, f"{CONFIG_MAPS}/a") is None

    for level in levels:
        level.running_seats -= level.limit
    assert at_once(server, f"{CONFIG_MAPS}/a") is not None


@pytest.fixture
async def port(server: ApiServer, objects: None) -> AsyncIterator[int]:
    front = HTTPFront(server)
    yield await front.start("127.0.0.1", 0, None)
    await front.stop()


async def test_many_requests_in_one_piece_are_answered_in_their_order(server: ApiServer, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    paths = [f"{CONFIG_MAPS}/{name}" for name in ("a", "none", "a", "a") * 200]
    writer.write(b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))

    async with asyncio.timeout(60):
        for path in paths:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            body = orjson.loads(await reader.readexactly(length))
            expected = 404 if path.endswith("none") else 200
            assert int(head[9:12]) == expected
            assert body["metadata"].get("name") == ("a" if expected == 200 else None)
    writer.close()


async def test_a_certificate_that_has_ended_is_not_recognized() -> None:
    now = SystemClock.now()
    authenticator = ClusterAuthenticator(None)  # type: ignore[arg-type]
    hour = timedelta(hours=1)
    authenticator._certificates = {
        b"good": _Certified(JANE, now - hour, now + hour),
        b"over": _Certified(JANE, now - hour - hour, now - hour),
        b"early": _Certified(JANE, now + hour, now + hour + hour),
        b"nameless": _Certified(User(""), now - hour, now + hour),
    }
    request = get(f"{CONFIG_MAPS}/a")

    known = [authenticator.recognized(request, each) for each in (b"good", b"over", b"early", b"nameless", b"new")]

    assert known == [JANE, None, None, None, None]
