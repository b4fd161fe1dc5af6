"""The file of a SQLite store does not grow with what was, and gives room back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from navarch.apiserver.caches import Caches
from navarch.apiserver.housekeeping import Compaction
from navarch.kinds.registry import builtin
from navarch.store import sqlite_file
from navarch.store.base import Delete, Put
from navarch.store.sqlite import SQLiteStore

VALUE = b"x" * 10_000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test reaches."""
    monkeypatch.setattr(sqlite_file, "_CROWDED_BYTES", 1 << 20)
    monkeypatch.setattr(sqlite_file, "_SPARE_BYTES", 1 << 20)
    monkeypatch.setattr(sqlite_file, "_LOG_MAX", 1 << 20)


def size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))


async def test_writing_for_long_does_not_fill_the_disk(tmp_path: Path, small: None) -> None:
    """Forty megabytes are written over the same keys, faster than time alone would compact."""
    store = SQLiteStore(tmp_path / "state.db")
    await store.open()
    caches = Caches(store, builtin().kinds())
    await caches.start()
    compaction = Compaction(caches, pause_s=3600)
    sizes: list[int] = []
    for _ in range(40):
        await asyncio.gather(*(store.commit([Put(f"/registry/core/other/{key}", VALUE)]) for key in range(100)))
        await caches.sync()
        await compaction()
        sizes.append((tmp_path / "state.db").stat().st_size)

    assert max(sizes) < 10 << 20
    assert sizes[-1] <= max(sizes[:20])
    assert len((await store.range("/")).entries) == 100
    await caches.stop()
    await store.close()


async def test_what_is_written_is_not_crowded_once_it_is_compacted_however_much_there_is(
    tmp_path: Path, small: None
) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    await store.open()
    assert not await store.crowded()
    for number in range(300):
        await store.commit([Put(f"/a/{number}", VALUE)])
    assert await store.crowded()

    await store.compact(await store.revision())

    assert not await store.crowded()
    assert len((await store.range("/")).entries) == 300
    await store.close()


async def test_a_log_that_grew_while_somebody_read_is_cut(tmp_path: Path, small: None) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    await store.open()
    reader = sqlite_file.look(tmp_path / "state.db")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM log").fetchone()
    log = tmp_path / "state.db-wal"
    number = 0
    while log.stat().st_size < 24 << 20:
        number += 1
        await store.commit([Put(f"/a/{number % 50}", VALUE)])
    reader.close()
    for number in range(2000):
        await store.commit([Put(f"/b/{number % 50}", VALUE)])
        if log.stat().st_size < 24 << 20:
            break

    assert log.stat().st_size < 24 << 20
    await store.close()


async def test_a_file_that_is_mostly_empty_is_smaller_after_a_start(tmp_path: Path, small: None) -> None:
    path = tmp_path / "state.db"
    store = SQLiteStore(path)
    await store.open()
    for number in range(1000):
        await store.commit([Put(f"/a/{number}", VALUE)])
    for number in range(990):
        await store.commit([Delete(f"/a/{number}")])
    await store.compact(await store.revision())
    revision = await store.revision()
    await store.close()
    before = size(path)

    store = SQLiteStore(path)
    await store.open()
    kept = (await store.range("/")).entries
    assert await store.revision() == revision
    await store.close()

    assert before > 9 << 20
    assert size(path) < 1 << 20
    assert [entry.value for entry in kept] == [VALUE] * 10
