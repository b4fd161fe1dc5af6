"""Which paths there are, and that nobody gets out of a namespace through one: over every resource, scope, verb and
subresource, by somebody who may do everything in one namespace and nothing elsewhere."""

from __future__ import annotations

import resource as process
import tracemalloc
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
import pytest

from navarch.api.meta import Obj
from navarch.apiserver.auth.rbac import RBACAuthorizer
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import ANONYMOUS, User
from navarch.client.transport import Request, Response
from navarch.kinds.base import Kind
from tests.apiserver.conftest import Api, config_map

RBAC = "/apis/rbac.authorization.k8s.io/v1"
OWNER = User("owner", ("system:authenticated",))
MONITOR = User("monitor", ("system:authenticated",))
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")
VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
ON_COLLECTIONS = {"get": "list", "delete": "deletecollection", "create": "create"}


@pytest.fixture
async def owned(server: ApiServer, api: Api) -> Api:
    """A server with the namespaces `mine` and `other`, where OWNER may do everything in `mine`."""
    for name in ("mine", "other"):
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        await api.ok("POST", f"/api/v1/namespaces/{name}/configmaps", config_map("x"))
        await api.ok("POST", f"/api/v1/namespaces/{name}/secrets", {"metadata": {"name": "x"}})
    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "other"}})
    await api.ok("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "other"}, "rules": []})
    everything = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    await api.ok("POST", f"{RBAC}/namespaces/mine/roles", {"metadata": {"name": "owner"}, "rules": everything})
    binding = {
        "metadata": {"name": "owner"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "owner"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "owner"}],
    }
    await api.ok("POST", f"{RBAC}/namespaces/mine/rolebindings", binding)
    monitor = {"metadata": {"name": "monitor"}, "rules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]}
    await api.ok("POST", f"{RBAC}/clusterroles", monitor)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "monitor"}
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "monitor"}]
    monitors = {"metadata": {"name": "monitor"}, "roleRef": reference, "subjects": subjects}
    await api.ok("POST", f"{RBAC}/clusterrolebindings", monitors)
    server.use(authorizer=RBACAuthorizer(server.reader))
    return api


async def answered(server: ApiServer, user: User, method: str, path: str) -> tuple[int, Obj]:
    response = await server.handle(Request(method, path, (), {}, b"{}" if method in ("POST", "PUT") else b""), user)
    if method == "HEAD":
        # It has no body; what it would say is what GET says.
        assert response.body == b""
        return response.status, (await answered(server, user, "GET", path))[1]
    return response.status, await _read(response)


async def _read(response: Response) -> Obj:
    body = response.body
    if not isinstance(body, bytes):
        await body.aclose()  # type: ignore[attr-defined]
        return {}
    found: Any = orjson.loads(body) if body[:1] == b"{" else {}
    return found if isinstance(found, dict) else {}


def leads_nowhere(status: int, answer: Obj) -> bool:
    return status == 404 and answer.get("message") == "the server could not find the requested resource"


class Path(NamedTuple):
    """A path of a kind, and what it is."""

    text: str
    inside: bool
    named: bool
    subresource: str
    watching: bool
    tail: bool


def paths_of(kind: Kind, namespace: str) -> Iterator[Path]:
    """Every form that a path can be given, whether it makes sense or not."""
    group, version = kind.resource.group, kind.resource.version
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    subresources = {"status", "scale", "finalize", "proxy", "bogus", *kind.subresources}
    for watching in (False, True):
        for inside in (False, True):
            start = root + ("/watch" if watching else "") + (f"/namespaces/{namespace}" if inside else "")
            yield Path(f"{start}/{kind.resource.plural}", inside, False, "", watching, False)
            item = f"{start}/{kind.resource.plural}/other"
            yield Path(item, inside, True, "", watching, False)
            for subresource in sorted(subresources):
                yield Path(f"{item}/{subresource}", inside, True, subresource, watching, False)
                yield Path(f"{item}/{subresource}/more", inside, True, subresource, watching, True)


def methods_at(kind: Kind, path: Path) -> set[str]:
    """What Kubernetes takes there, from its rules rather than from our table; nothing where there is no such path."""
    at_home = path.inside is kind.resource.namespaced
    verbs: set[str] = set(kind.verbs)
    if path.watching:
        stays = not path.subresource and (at_home or (kind.resource.namespaced and not path.named))
        return {"GET", "HEAD"} if stays and "watch" in verbs else set()
    if path.subresource:
        stated = dict(kind.subresources).get(path.subresource, ("", ()))[1]
        if (path.subresource == "status" and kind.has_status) or (path.subresource == "scale" and kind.scale):
            stated = ("get", "patch", "update")
        if not at_home or not stated or (path.tail and path.subresource != "proxy"):
            return set()
        if path.subresource == "proxy":
            return set(METHODS) - {"BREW"}
        taken = {method for method, verb in VERBS.items() if verb in stated}
        return taken - {"HEAD"} if "create" in stated else taken
    if path.named:
        return {method for method, verb in VERBS.items() if at_home and verb in verbs - {"create"}}
    taken = {method for method, verb in VERBS.items() if ON_COLLECTIONS.get(verb) in verbs}
    return taken if at_home else taken & {"GET", "HEAD"} if kind.resource.namespaced else set()


async def test_every_path_leads_where_it_does_in_kubernetes(server: ApiServer, owned: Api) -> None:
    kinds = list(server.core.registry.kinds())
    assert len(kinds) > 50
    for kind in kinds:
        for path in paths_of(kind, "mine"):
            if not path.inside or kind.resource.plural == "namespaces":
                continue
            taken = methods_at(kind, path)
            for method in METHODS:
                status, answer = await answered(server, OWNER, method, path.text)
                if not taken:
                    assert leads_nowhere(status, answer), (method, path, status, answer)
                elif method not in taken:
                    assert status == 405, (method, path, status, answer)
                else:
                    assert status not in (403, 405), (method, path, status, answer)
                    # Without an issuer there are no tokens.
                    assert path.subresource == "token" or not leads_nowhere(status, answer), (method, path, answer)


async def test_rights_in_one_namespace_reach_nothing_outside_of_it(server: ApiServer, owned: Api) -> None:
    def outside() -> dict[str, bytes]:
        caches = server.core.caches.all()
        found = {cached.key: cached.data for cache in caches for cached in cache.items() if cached.namespace != "mine"}
        del found["/registry/core/namespaces//mine"]
        return found

    before = outside()
    for kind in server.core.registry.kinds():
        for namespace in ("mine", "other"):
            for path in paths_of(kind, namespace):
                for method in METHODS:
                    status, answer = await answered(server, OWNER, method, path.text)
                    if not path.inside or namespace == "other":
                        assert status == 403, (method, path, status, answer)
                    elif not kind.resource.namespaced:
                        assert leads_nowhere(status, answer), (method, path, status, answer)

    assert outside() == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/v1/namespaces/mine/namespaces/other"),
        ("DELETE", "/api/v1/namespaces/mine/namespaces/mine"),
        ("GET", "/api/v1/namespaces/mine/namespaces"),
        ("POST", "/api/v1/namespaces/mine/namespaces"),
        ("PATCH", "/api/v1/namespaces/mine/namespaces/other"),
        ("PUT", "/api/v1/namespaces/mine/namespaces/other/finalize"),
        ("PUT", "/api/v1/namespaces/mine/namespaces/other/status"),
        ("GET", "/api/v1/watch/namespaces/mine/namespaces/other"),
        ("GET", "/api/v1/namespaces/mine/configmaps/x/bogus"),
        ("GET", "/api/v1/namespaces/mine/configmaps//x"),
        ("GET", "/api/v1/namespaces/mine/configmaps/..%2F..%2Fother%2Fx"),
        ("DELETE", "/api/v1/namespaces/mine/secrets%2Fx"),
        ("GET", "/api/v1/namespaces/mine/status/x"),
    ],
)
async def test_paths_that_are_none(server: ApiServer, owned: Api, method: str, path: str) -> None:
    assert leads_nowhere(*await answered(server, OWNER, method, path))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("name", ["", "/x"])
async def test_the_old_watch_paths_only_watch(server: ApiServer, owned: Api, method: str, name: str) -> None:
    status, answer = await answered(server, OWNER, method, f"/api/v1/watch/namespaces/mine/secrets{name}")

    assert (status, answer["reason"]) == (405, "MethodNotAllowed")
    assert (await answered(server, OWNER, "GET", "/api/v1/namespaces/mine/secrets/x"))[0] == 200


# Memory


async def test_strangers_leave_nothing_behind(server: ApiServer, owned: Api) -> None:
    async def visit(start: int, count: int) -> None:
        for index in range(start, start + count):
            word = f"stranger{index}"
            for path in (f"/{word}", f"/apis/{word}/v1/{word}", f"/api/v1/namespaces/{word}/{word}/a/{word}"):
                assert (await answered(server, ANONYMOUS, "GET", path))[0] == 403
            assert (await answered(server, ANONYMOUS, f"M{index}", "/api/v1/pods"))[0] == 403

    # What is kept of the last few thousand is kept from here on.
    await visit(0, 5000)
    await metrics(owned)
    lines = len(await metrics(owned))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await visit(5000, 5000)
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert len(await metrics(owned)) == lines
    assert not any("stranger" in line for line in await metrics(owned))
    # The memories are full of the newer paths, not larger: a few bytes for each would be 60 MB.
    assert kept < 6_000_000


async def test_long_paths_are_not_remembered(server: ApiServer, owned: Api) -> None:
    async def visit(index: int) -> None:
        long = f"{index}" + "x" * 500_000
        for path in (f"/{long}", f"/apis/{long}/v1/{long}", f"/api/v1/namespaces/{long}/pods/{long}"):
            assert (await answered(server, ANONYMOUS, "GET", path))[0] == 403

    await visit(0)
    before_kb = process.getrusage(process.RUSAGE_SELF).ru_maxrss
    for index in range(1, 200):
        await visit(index)
    size = sum(map(len, await metrics(owned)))

    assert size < 200_000
    assert process.getrusage(process.RUSAGE_SELF).ru_maxrss - before_kb < 50_000


async def test_a_path_forges_no_metrics(server: ApiServer, owned: Api) -> None:
    forged = 'x"} 1\nforged_total{a="\\'
    await answered(server, ANONYMOUS, "GET", f"/api/v1/{forged}")
    await answered(server, ANONYMOUS, forged, "/api/v1/pods")
    server.core.metrics.sent_events(forged, "v1", "X", 1)

    lines = await metrics(owned)
    assert not any(line.startswith("forged_total") for line in lines)
    assert [line for line in lines if "forged" in line] == [
        'apiserver_watch_events_total{group="x\\"} 1\\nforged_total{a=\\"\\\\",kind="X",version="v1"} 1'
    ]


async def metrics(api: Api) -> list[str]:
    """The lines of `/metrics`."""
    response = await api.server.handle(Request("GET", "/metrics"), MONITOR)
    assert isinstance(response.body, bytes)
    return response.body.decode().splitlines()
