"""Keys with a time to live are gone after it, unless they were written again."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch.store.base import Put, Store
from navarch.store.memory import MemoryStore
from navarch.store.sqlite import SQLiteStore
from tests.clocks import SetClock


def make(backend: str, path: Path, clock: SetClock) -> Store:
    return MemoryStore(clock=clock) if backend == "memory" else SQLiteStore(path / "state.db", clock=clock)


async def keys(store: Store) -> list[str]:
    return [entry.key for entry in (await store.range("/")).entries]


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_a_key_is_gone_after_its_time(backend: str, tmp_path: Path) -> None:
    clock = SetClock()
    store = make(backend, tmp_path, clock)
    await store.open()
    await store.commit([Put("/event", b"e", ttl_s=3600), Put("/kept", b"k")])
    await store.commit([Put("/later", b"l", ttl_s=7200)])

    clock.pass_s(3599)
    assert await store.expire() == 0
    assert await keys(store) == ["/event", "/kept", "/later"]
    clock.pass_s(1)
    assert await store.expire() == 1

    assert await keys(store) == ["/kept", "/later"]
    await store.close()


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_writing_a_key_again_renews_or_ends_its_time(backend: str, tmp_path: Path) -> None:
    clock = SetClock()
    store = make(backend, tmp_path, clock)
    await store.open()
    await store.commit([Put(key, b"x", ttl_s=100) for key in ("/forever", "/renewed", "/left")])
    clock.pass_s(50)
    await store.commit([Put("/forever", b"y"), Put("/renewed", b"y", ttl_s=100)])

    clock.pass_s(60)
    await store.expire()
    assert await keys(store) == ["/forever", "/renewed"]
    clock.pass_s(60)
    await store.expire()
    assert await keys(store) == ["/forever"]
    await store.close()


async def test_sqlite_remembers_over_a_restart_what_expires(tmp_path: Path) -> None:
    clock = SetClock()
    store = make("sqlite", tmp_path, clock)
    await store.open()
    await store.commit([Put("/event", b"e", ttl_s=3600), Put("/kept", b"k")])
    await store.close()

    again = make("sqlite", tmp_path, clock)
    await again.open()
    clock.pass_s(3600)
    assert await again.expire() == 1
    assert await keys(again) == ["/kept"]
    await again.close()
