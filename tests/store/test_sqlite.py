"""What is particular to SQLite: durability across restarts and kill -9, a full disk, one process at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from navarch.store.base import Compacted, Delete, Entry, Put, StoreUnavailable
from navarch.store.lock import holder
from navarch.store.sqlite import SQLiteStore

_WRITER = """
import asyncio, sys
from navarch.store.base import Put
from navarch.store.sqlite import SQLiteStore

async def write(store, worker):
    for i in range(1_000_000):
        key = f"/a/{worker}/{i}"
        revision = await store.commit([Put(key, b"x" * 500, expected=0)])
        sys.stdout.write(f"{revision} {key}\\n")
        sys.stdout.flush()

async def main():
    store = SQLiteStore(sys.argv[1])
    await store.open()
    await asyncio.gather(*(write(store, worker) for worker in range(8)))

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline() for _ in range(400)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [line for line in writer.stdout.readlines() if line.endswith("\n")]
    writer.wait()

    async def look() -> tuple[dict[str, int], int]:
        store = SQLiteStore(path)
        await store.open()
        stored = {entry.key: entry.mod_revision for entry in (await store.range("/a/")).entries}
        newest = await store.commit([Put("/b", b"after")])
        await store.close()
        return stored, newest

    stored, newest = asyncio.run(look())
    for line in acknowledged:
        revision, key = line.split()
        assert stored[key] == int(revision)
    assert newest > max(stored.values())


async def test_a_restart_keeps_values_revisions_and_history(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    await store.open()
    first = await store.commit([Put("/a", b"one")])
    second = await store.commit([Put("/a", b"two")])
    await store.commit([Put("/b", b"x")])
    deleted = await store.commit([Delete("/b")])
    await store.close()

    again = SQLiteStore(tmp_path / "state.db")
    await again.open()
    entry = await again.get("/a")
    past = await again.range("/a", revision=first)
    third = await again.commit([Put("/a", b"three", expected=second)])
    await again.close()

    assert entry is not None
    assert (entry.value, entry.create_revision, entry.mod_revision) == (b"two", first, second)
    assert past.entries[0].value == b"one"
    assert third == deleted + 1


async def test_compaction_survives_a_restart(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    await store.open()
    await store.commit([Put("/a", b"one")])
    last = await store.commit([Delete("/a")])
    await store.compact(last)
    await store.close()

    again = SQLiteStore(tmp_path / "state.db")
    await again.open()
    with pytest.raises(Compacted):
        await again.range("/", revision=last - 1)
    assert await again.commit([Put("/a", b"two")]) == last + 1
    await again.close()


async def test_a_full_disk_refuses_writes_loses_nothing_and_heals(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    await store.open()
    await store.commit([Put("/a/kept", b"k")])
    store._writer.execute("PRAGMA max_page_count = 30")

    with pytest.raises(StoreUnavailable):
        await asyncio.gather(*(store.commit([Put(f"/a/{i}", b"x" * 50_000)]) for i in range(20)))
    kept = await store.get("/a/kept")
    partial = (await store.range("/a/")).entries
    # The connection that the store opens anew after a failure has no limit: the disk has room again.
    healed = await store.commit([Put("/a/healed", b"h", expected=0)])
    await store.close()

    assert kept is not None
    assert [entry.key for entry in partial] == ["/a/kept"]
    assert healed > kept.mod_revision


async def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    await store.open()
    with pytest.raises(StoreUnavailable, match="in use"):
        await SQLiteStore(tmp_path / "state.db").open()
    await store.close()


async def test_who_comes_by_a_link_is_kept_out_too(tmp_path: Path) -> None:
    first = SQLiteStore(tmp_path / "state.db")
    await first.open()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "state.db"
    link.symlink_to(tmp_path / "state.db")

    with pytest.raises(StoreUnavailable, match="in use by process"):
        await SQLiteStore(link).open()

    assert holder(link) == os.getpid()
    await first.close()
    second = SQLiteStore(link)
    await second.open()
    await second.commit([Put("/a", b"1")])
    assert holder(tmp_path / "state.db") == os.getpid()
    await second.close()


async def test_close_finishes_what_was_handed_in(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    await store.open()
    writes = [asyncio.create_task(store.commit([Put(f"/a/{i}", b"x")])) for i in range(100)]
    await asyncio.sleep(0)
    await store.close()

    assert len({await write for write in writes}) == 100


async def test_commits_get_their_revisions_in_the_order_in_which_they_were_handed_in(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    await store.open()
    revisions = await asyncio.gather(*(store.commit([Put(f"/a/{i}", b"x")]) for i in range(300)))
    await store.close()

    assert revisions == list(range(1, 301))


async def test_its_files_are_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = SQLiteStore(tmp_path / "state.db")
        await store.open()
        await store.commit([Put("/a/secret", b"x", expected=0)])
    finally:
        os.umask(before)

    modes = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.glob("state.db*") if path.stat().st_size}
    await store.close()

    assert "state.db-wal" in modes
    assert set(modes.values()) == {0}


_FORMAT_1 = """
CREATE TABLE log (
  revision INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB, create_revision INTEGER NOT NULL,
  previous INTEGER NOT NULL);
CREATE TABLE current (
  key TEXT PRIMARY KEY, revision INTEGER NOT NULL, create_revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER log_put AFTER INSERT ON log WHEN NEW.value IS NOT NULL BEGIN
  INSERT INTO current VALUES (NEW.key, NEW.revision, NEW.create_revision)
    ON CONFLICT (key) DO UPDATE SET revision = NEW.revision, create_revision = NEW.create_revision;
END;
CREATE TRIGGER log_delete AFTER INSERT ON log WHEN NEW.value IS NULL BEGIN
  DELETE FROM current WHERE key = NEW.key;
END;
INSERT INTO log VALUES (1, '/a', 'one', 1, 0);
INSERT INTO log VALUES (2, '/b', 'x', 2, 0);
INSERT INTO log VALUES (3, '/a', CAST('two' AS BLOB), 1, 1);
INSERT INTO log VALUES (4, '/b', NULL, 2, 2);
"""


async def test_a_database_of_the_first_format_is_taken_over(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "state.db")
    old.execute("PRAGMA journal_mode = WAL")
    old.executescript(_FORMAT_1)
    old.close()

    store = SQLiteStore(tmp_path / "state.db")
    await store.open()
    now = await store.range("/")
    past = await store.range("/", revision=2)
    newest = await store.commit([Put("/a", b"three", expected=3)])
    await store.compact(newest)
    await store.close()

    assert now.entries == [Entry("/a", b"two", 1, 3)]
    assert [entry.key for entry in past.entries] == ["/a", "/b"]
    assert newest == 5


async def test_a_database_of_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    new = sqlite3.connect(tmp_path / "state.db")
    new.execute("PRAGMA user_version = 99")
    new.close()

    with pytest.raises(StoreUnavailable, match="a newer version wrote"):
        await SQLiteStore(tmp_path / "state.db").open()
