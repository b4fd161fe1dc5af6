"""The caches follow the store, and find back to it when they lose it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from navarch.apiserver import caches as caches_module
from navarch.apiserver.caches import Caches
from navarch.apiserver.watchcache import Change, Watcher
from navarch.kinds.registry import builtin
from navarch.kinds.resources import CONFIG_MAPS
from navarch.store.base import Event, Progress, Put
from navarch.store.memory import MemoryStore

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
