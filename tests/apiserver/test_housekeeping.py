"""Housekeeping goes on whatever happens, and says when something does."""

from __future__ import annotations

import asyncio

import pytest

from navarch.apiserver import housekeeping
from navarch.apiserver.caches import Caches
from navarch.apiserver.housekeeping import Chore, Compaction, Housekeeping
from navarch.kinds.registry import builtin
from navarch.store.base import Compacted, Put
from navarch.store.memory import MemoryStore


@pytest.mark.parametrize("error", [ValueError("odd"), RuntimeError("worse"), MemoryError(), OSError(28, "full")])
async def test_a_chore_that_fails_is_counted_and_tried_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(housekeeping, "RETRY_S", 0.001)
    turns = 0
    well = asyncio.Event()

    async def fragile() -> None:
        nonlocal turns
        turns += 1
        if turns <= 3:
            raise error
        if turns == 5:
            well.set()

    failed: list[str] = []
    house = Housekeeping([Chore("fragile", 0.001, fragile)], failed.append)
    house.start()
    async with asyncio.timeout(5):
        await well.wait()
    await house.stop()

    assert failed == ["fragile"] * 3
    assert caplog.text.count("fragile failed") == 3


async def test_one_chore_that_hangs_keeps_no_other_from_its_turns() -> None:
    done = asyncio.Event()

    async def hang() -> None:
        await asyncio.sleep(3600)

    async def work() -> None:
        done.set()

    house = Housekeeping([Chore("hanging", 0, hang), Chore("working", 0, work)], lambda name: None)
    house.start()
    async with asyncio.timeout(5):
        await done.wait()
    await house.stop()


class Crowded(MemoryStore):
    is_crowded = False

    async def crowded(self) -> bool:
        return self.is_crowded


async def test_compaction_does_not_wait_where_history_takes_too_much_room() -> None:
    store = Crowded()
    caches = Caches(store, builtin().kinds())
    await caches.start()
    compaction = Compaction(caches, pause_s=3600)
    first = await store.commit([Put("/registry/core/other/x", b"1")])
    await store.commit([Put("/registry/core/other/x", b"2")])
    await caches.sync()

    await compaction()
    await compaction()
    assert (await store.range("/", revision=first)).entries[0].value == b"1"

    store.is_crowded = True
    await compaction()
    await compaction()
    with pytest.raises(Compacted):
        await store.range("/", revision=first)
    await caches.stop()


async def test_compaction_forgets_what_was_history_a_turn_ago() -> None:
    store = MemoryStore()
    caches = Caches(store, builtin().kinds())
    await caches.start()
    compaction = Compaction(caches)
    first = await store.commit([Put("/registry/core/other/x", b"1")])
    await caches.sync()

    await compaction()
    assert (await store.range("/", revision=first)).entries
    await store.commit([Put("/registry/core/other/x", b"2")])
    await caches.sync()
    await compaction()
    await compaction()

    with pytest.raises(Compacted):
        await store.range("/", revision=first)
    await caches.stop()
