"""The caches follow the store, and find back to it when they lose it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from navarch.apiserver import caches as caches_module
from navarch.apiserver.caches import Caches
from navarch.apiserver.changes import Change
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import LOOPBACK
from navarch.apiserver.watchers import Watcher
from navarch.client.transport import Request
from navarch.kinds.registry import builtin
from navarch.kinds.resources import CONFIG_MAPS
from navarch.store.base import Delete, Event, Page, Progress, Put
from navarch.store.memory import MemoryStore

from .conftest import CONFIG_MAPS as CONFIG_MAPS_PATH
from .conftest import Api

KEY = "/registry/core/configmaps/default/{}"
VALUE = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"default"}}'


class Forgetful(MemoryStore):
    """A store whose watch breaks once."""

    broken = False

    async def watch(self, prefix: str, since: int) -> AsyncIterator[Event | Progress]:
        async for event in super().watch(prefix, since):
            if not self.broken and isinstance(event, Event):
                self.broken = True
                raise RuntimeError("connection lost")
            yield event


async def test_a_lost_watch_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches_module, "_RETRY_S", 0.01)
    store = Forgetful()
    caches = Caches(store, builtin().kinds())
    cache = caches.of(CONFIG_MAPS)
    seen: list[Change] = []
    cache.listeners.append(seen.append)
    await caches.start()
    watcher = Watcher(("", ""), None, 0)
    cache.watch(watcher)

    await store.commit([Put(KEY.format("a"), VALUE)])
    await caches.sync()
    await store.commit([Put(KEY.format("b"), VALUE)])
    await caches.sync()

    assert [cached.name for cached in cache.items()] == ["a", "b"]
    assert watcher.closed
    assert [change.type for change in seen] == ["ADDED", "ADDED"]
    assert caches.following
    await caches.stop()
    assert not caches.following


async def test_a_consistent_read_waits_for_what_was_acknowledged() -> None:
    store = MemoryStore()
    caches = Caches(store, builtin().kinds())
    await caches.start()

    revision = await store.commit([Put(KEY.format("a"), VALUE)])
    assert caches.of(CONFIG_MAPS).get("default", "a") is None
    assert await caches.sync() == revision

    assert caches.of(CONFIG_MAPS).get("default", "a") is not None
    await caches.stop()


async def test_one_undecodable_value_does_not_stop_the_others() -> None:
    store = MemoryStore()
    caches = Caches(store, builtin().kinds())
    await caches.start()

    await store.commit([Put(KEY.format("bad"), b"{")])
    await store.commit([Put(KEY.format("good"), VALUE)])
    await caches.sync()
    await asyncio.sleep(0)

    assert [cached.name for cached in caches.of(CONFIG_MAPS).items()] == ["good"]
    await caches.stop()


class Slow(MemoryStore):
    """Its ranges of one prefix are answered when the test says so, as of when they were asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.answer.set()

    async def range(self, prefix: str, *, revision: int = 0, limit: int = 0, after: str = "") -> Page:
        page = await super().range(prefix, revision=revision, limit=limit, after=after)
        self.asked.set()
        await self.answer.wait()
        return page


async def test_a_resource_added_while_others_write_misses_nothing_and_sees_nothing_twice() -> None:
    store = Slow()
    config_maps = next(kind for kind in builtin().kinds() if kind.resource == CONFIG_MAPS)
    caches = Caches(store, [kind for kind in builtin().kinds() if kind.resource != CONFIG_MAPS])
    await store.commit([Put(KEY.format("before"), VALUE), Put(KEY.format("goes"), VALUE)])
    await caches.start()
    store.asked.clear()
    store.answer.clear()

    adding = asyncio.create_task(caches.add(config_maps))
    await store.asked.wait()
    await store.commit([Put(KEY.format("during"), VALUE), Delete(KEY.format("goes"))])
    await asyncio.sleep(0)
    store.answer.set()
    cache = await adding
    seen: list[Change] = []
    cache.listeners.append(seen.append)
    await store.commit([Put(KEY.format("after"), VALUE)])
    await caches.sync()

    assert caches.of(CONFIG_MAPS) is cache
    assert [cached.name for cached in cache.items()] == ["after", "before", "during"]
    assert [change.key for change in seen] == [KEY.format("after")]
    await caches.stop()


async def test_a_resource_whose_loading_meets_a_lost_feed_is_loaded_again() -> None:
    store = Slow()
    config_maps = next(kind for kind in builtin().kinds() if kind.resource == CONFIG_MAPS)
    caches = Caches(store, [kind for kind in builtin().kinds() if kind.resource != CONFIG_MAPS])
    await caches.start()
    store.asked.clear()
    store.answer.clear()
    adding = asyncio.create_task(caches.add(config_maps))
    await store.asked.wait()

    await store.commit([Put(KEY.format("a"), VALUE)])
    store.answer.set()
    await caches._fill()

    assert [cached.name for cached in (await adding).items()] == ["a"]
    await caches.stop()


async def test_a_removed_resource_ends_its_watches_and_can_come_again() -> None:
    store = MemoryStore()
    config_maps = next(kind for kind in builtin().kinds() if kind.resource == CONFIG_MAPS)
    caches = Caches(store, builtin().kinds())
    await caches.start()
    await store.commit([Put(KEY.format("a"), VALUE)])
    watcher = Watcher(("", ""), None, 0)
    old = caches.of(CONFIG_MAPS)
    old.watch(watcher)

    caches.remove(CONFIG_MAPS)
    await store.commit([Put(KEY.format("b"), VALUE)])
    await caches.sync()
    assert watcher.closed
    with pytest.raises(KeyError):
        caches.of(CONFIG_MAPS)
    cache = await caches.add(config_maps)

    assert cache is not old
    assert [cached.name for cached in cache.items()] == ["a", "b"]
    await caches.stop()


async def test_the_changes_of_one_commit_are_seen_together() -> None:
    store = MemoryStore()
    caches = Caches(store, builtin().kinds())
    await caches.start()
    cache = caches.of(CONFIG_MAPS)
    counts: set[tuple[int, int]] = set()

    async def look() -> None:
        while caches.revision < 20:
            counts.add((caches.revision, len(cache)))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    for n in range(20):
        await store.commit([Put(KEY.format(f"{n}-{i}"), VALUE, expected=0) for i in range(5)])
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await looking

    assert counts <= {(n, 5 * n) for n in range(21)}
    await caches.stop()


async def test_an_undecodable_value_found_at_the_start_is_named_and_the_others_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    await store.commit([Put(KEY.format("bad"), b"{"), Put(KEY.format("good"), VALUE)])
    server = ApiServer(store)
    await server.start()

    path = "/api/v1/namespaces/default/configmaps/{}"
    bad, good = [await server.handle(Request("GET", path.format(name)), LOOPBACK) for name in ("bad", "good")]
    await server.stop()

    assert good.status == 200
    assert bad.status == 500
    assert KEY.format("bad") in str(bad.body)
    assert KEY.format("bad") in caplog.text


async def test_an_undecodable_object_is_not_absent_to_who_changes_it_and_can_be_taken_away() -> None:
    store = MemoryStore()
    await store.commit([Put(KEY.format("bad"), b"{")])
    server = ApiServer(store)
    await server.start()
    api = Api(server)
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    path = f"{CONFIG_MAPS_PATH}/bad"
    whole = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad"}}

    for method, where, body in (
        ("GET", path, None),
        ("PUT", path, whole),
        ("PATCH", path, {"data": {"a": "b"}}),
        ("PATCH", f"{path}?fieldManager=me&force=true", whole),
        ("DELETE", path, None),
    ):
        type_ = "application/apply-patch+yaml" if "force" in where else "application/merge-patch+json"
        status, answer = await api(method, where, body, content_type=type_ if method == "PATCH" else "application/json")
        assert (status, answer["reason"]) == (500, "InternalError"), (method, where)
        assert KEY.format("bad") in answer["message"]
    assert (await api("POST", CONFIG_MAPS_PATH, whole))[0] == 409
    await api.ok("DELETE", f"{path}?ignoreStoreReadErrorWithClusterBreakingPotential=true")
    assert (await api("GET", path))[0] == 404
    await api.ok("POST", CONFIG_MAPS_PATH, whole)
    await server.stop()


async def test_an_object_that_becomes_undecodable_is_gone_until_it_is_written_again() -> None:
    store = MemoryStore()
    caches = Caches(store, builtin().kinds())
    await caches.start()
    cache = caches.of(CONFIG_MAPS)
    types: list[str] = []
    cache.listeners.append(lambda change: types.append(change.type))

    for value in (VALUE, b"{", b"[]", VALUE):
        await store.commit([Put(KEY.format("a"), value)])
    await caches.sync()

    assert types == ["ADDED", "DELETED", "ADDED"]
    assert not cache.undecodable
    await caches.stop()


async def test_caches_that_cannot_be_filled_say_so_and_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches_module, "_RETRY_S", 0.01)

    class Failing(Forgetful):
        failures = 3

        async def range(self, prefix: str, *, revision: int = 0, limit: int = 0, after: str = "") -> Page:
            if self.broken and self.failures:
                self.failures -= 1
                raise ValueError("odd")
            return await super().range(prefix, revision=revision, limit=limit, after=after)

    store = Failing()
    caches = Caches(store, builtin().kinds())
    await caches.start()
    await store.commit([Put(KEY.format("a"), VALUE)])
    async with asyncio.timeout(5):
        while caches.following:
            await asyncio.sleep(0)
        while not caches.following:
            await asyncio.sleep(0.001)

    assert [cached.name for cached in caches.of(CONFIG_MAPS).items()] == ["a"]
    assert caches.failures == 4
    await caches.stop()
