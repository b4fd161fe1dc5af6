"""A database that has lost something is refused with a message that says how to go on, and can be gone on with."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from navarch.store import record
from navarch.store.base import Compacted, Lost, Put, StoreUnavailable
from navarch.store.lock import holder
from navarch.store.recovery import accept_loss
from navarch.store.sqlite import SQLiteStore

_WRITER = """
import asyncio, os, sys
from navarch.store.base import Put
from navarch.store.sqlite import SQLiteStore

async def main():
    store = SQLiteStore(sys.argv[1], record=sys.argv[2])
    await store.open()
    for i in range(int(sys.argv[3])):
        await store.commit([Put(f"/a/{i}", b"x" * 2000), Put("/count", str(i).encode())])
    print(await store.revision(), flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "state.db"


def record_of(database: Path) -> Path:
    return database.parent.parent / "pki" / "store.record"


def killed(database: Path, commits: int = 50) -> int:
    """The revision of a store whose process was killed."""
    arguments = [sys.executable, "-c", _WRITER, str(database), str(record_of(database)), str(commits)]
    writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    revision = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    return revision


async def opened(database: Path) -> SQLiteStore:
    store = SQLiteStore(database, record=record_of(database))
    await store.open()
    return store


def wal(database: Path) -> Path:
    return database.with_name("state.db-wal")


def no_wal(database: Path) -> None:
    wal(database).unlink()


def empty_wal(database: Path) -> None:
    os.truncate(wal(database), 0)


def shorter_wal(database: Path) -> None:
    # The last frame: what the last commit wrote.
    os.truncate(wal(database), wal(database).stat().st_size - 4096)


def damaged_wal(database: Path) -> None:
    data = bytearray(wal(database).read_bytes())
    data[len(data) // 2] ^= 0xFF
    wal(database).write_bytes(data)


def damaged_end_of_wal(database: Path) -> None:
    data = bytearray(wal(database).read_bytes())
    data[-100] ^= 0xFF
    wal(database).write_bytes(data)


def wal_of_zeros(database: Path) -> None:
    wal(database).write_bytes(bytes(wal(database).stat().st_size))


def no_database(database: Path) -> None:
    for path in database.parent.glob("state.db*"):
        path.unlink()


def empty_database(database: Path) -> None:
    no_database(database)
    database.touch()


def database_of_zeros(database: Path) -> None:
    size = database.stat().st_size
    no_database(database)
    database.write_bytes(bytes(max(size, 4096)))


def another_database(database: Path) -> None:
    no_database(database)
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE other (x)")
    connection.close()


LOSSES = [
    no_wal,
    empty_wal,
    shorter_wal,
    damaged_wal,
    damaged_end_of_wal,
    wal_of_zeros,
    no_database,
    empty_database,
    database_of_zeros,
    another_database,
]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: str(lose.__name__))
async def test_a_loss_is_refused_again_and_again_and_accepted_on_demand(
    database: Path, lose: Callable[[Path], None]
) -> None:
    last = killed(database)
    lose(database)
    before = {path.name: path.read_bytes() for path in database.parent.glob("state.db*") if "shm" not in path.name}

    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="--accept-loss"):
            await opened(database)
    after = {path.name: path.read_bytes() for path in database.parent.glob("state.db*") if "shm" not in path.name}
    after.pop("state.db.lock")
    before.pop("state.db.lock", None)
    assert {name: data for name, data in after.items() if data} == {name: data for name, data in before.items() if data}

    report = accept_loss(database, record_of(database))
    store = await opened(database)
    entries = (await store.range("/")).entries
    newest = await store.commit([Put("/b", b"after")])
    with pytest.raises(Compacted):
        await store.range("/", revision=last)
    await store.close()

    assert len(entries) == report.kept
    assert newest > last + 1000
    again = await opened(database)
    assert len((await again.range("/")).entries) == report.kept + 1
    await again.close()


async def test_a_shortened_log_loses_no_more_than_its_end(database: Path) -> None:
    last = killed(database)
    shorter_wal(database)

    report = accept_loss(database, record_of(database))
    store = await opened(database)
    kept = {entry.key: entry for entry in (await store.range("/")).entries}
    await store.close()

    assert (report.first_lost, report.last_lost) == (last, last)
    assert report.lost == []
    assert kept.keys() == {f"/a/{i}" for i in range(49)} | {"/count"}
    assert kept["/count"].value == b"48"


async def test_an_older_copy_is_refused(database: Path) -> None:
    store = await opened(database)
    await store.commit([Put("/a", b"1")])
    await store.close()
    shutil.copy(database, database.with_name("copy"))
    store = await opened(database)
    await store.commit([Put("/a", b"2")])
    await store.close()
    shutil.copy(database.with_name("copy"), database)

    with pytest.raises(StoreUnavailable, match="an older copy was put in its place"):
        await opened(database)


async def test_the_database_of_another_cluster_is_refused(database: Path, tmp_path: Path) -> None:
    other = SQLiteStore(tmp_path / "other.db")
    await other.open()
    for i in range(10):
        await other.commit([Put(f"/a/{i}", b"x")])
    await other.close()
    await (await opened(database)).close()
    shutil.copy(tmp_path / "other.db", database)

    with pytest.raises(StoreUnavailable, match="not the database that"):
        await opened(database)


async def test_a_damaged_record_is_refused(database: Path) -> None:
    killed(database)
    record_of(database).write_bytes(b"\0" * 1024)

    with pytest.raises(StoreUnavailable, match="--accept-loss"):
        await opened(database)
    accept_loss(database, record_of(database))
    store = await opened(database)
    assert len((await store.range("/a/")).entries) == 50
    await store.close()


async def test_half_a_record_is_enough(database: Path) -> None:
    last = killed(database)
    data = record_of(database).read_bytes()
    whole = record.read(record_of(database))
    assert whole is not None
    for damaged in (bytes(100) + data[100:], data[:512] + bytes(100) + data[612:]):
        record_of(database).write_bytes(damaged)
        left = record.read(record_of(database))
        assert left is not None
        assert left.revision in (last, last - 1)
        assert left.generation == whole.generation


async def test_a_database_from_before_there_were_records_is_taken_over(database: Path) -> None:
    last = killed(database)
    connection = sqlite3.connect(database)
    connection.execute("DELETE FROM meta WHERE name = 'generation'")
    connection.close()
    record_of(database).unlink()

    store = await opened(database)
    assert await store.revision() == last
    await store.close()
    assert record.read(record_of(database)) is not None


async def test_a_missing_record_is_said_and_made_anew(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    last = killed(database)
    record_of(database).unlink()

    store = await opened(database)
    assert await store.revision() == last
    await store.close()
    assert "store.record is missing" in caplog.text
    assert record.read(record_of(database)) is not None


async def test_loss_is_not_accepted_under_a_running_server(database: Path) -> None:
    store = await opened(database)
    assert holder(database) == os.getpid()
    with pytest.raises(StoreUnavailable, match=f"in use by process {os.getpid()}"):
        accept_loss(database, record_of(database))
    await store.close()
    assert holder(database) is None


async def test_loss_is_accepted_where_the_database_is_whatever_leads_there(database: Path, tmp_path: Path) -> None:
    place = tmp_path / "another disk"
    place.mkdir()
    database.symlink_to(place / "real.db")
    store = await opened(database)
    await store.commit([Put("/kept", b"1")])
    await store.close()

    report = accept_loss(database, record_of(database))

    assert (report.kept, Path(report.aside).parent) == (1, place)
    assert database.is_symlink()
    store = await opened(database)
    assert (await store.range("/")).entries[0].value == b"1"
    await store.close()


async def test_a_damaged_row_is_named_and_the_rest_can_be_kept(database: Path) -> None:
    store = await opened(database)
    for i in range(40):
        await store.commit([Put(f"/a/{i:02}", bytes([65 + i]) * 9000)])
    await store.close()
    damage_value(database, bytes([65 + 17]) * 64)

    store = await opened(database)
    with pytest.raises(Lost, match=r"the value of /a/17 \(revision 18\) is damaged: .*--accept-loss"):
        await store.range("/")
    assert await store.get("/a/16") is not None
    await store.close()

    report = accept_loss(database, record_of(database))
    store = await opened(database)
    kept = [entry.key for entry in (await store.range("/")).entries]
    await store.close()
    assert report.lost == ["/a/17"]
    assert kept == [f"/a/{i:02}" for i in range(40) if i != 17]


async def test_a_value_that_is_missing_is_named(database: Path) -> None:
    store = await opened(database)
    for i in range(3):
        await store.commit([Put(f"/a/{i}", b"value")])
    await store.close()
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("DELETE FROM log WHERE key = '/a/1'")

    store = await opened(database)
    with pytest.raises(Lost, match=r"the value of /a/1 \(revision 2\) is damaged: it is missing"):
        await store.range("/")
    assert await store.get("/a/2") is not None
    await store.close()


def damage_value(database: Path, content: bytes) -> None:
    """Break the chain of pages that hold the value: the first four bytes of an overflow page say which comes next."""
    data = bytearray(database.read_bytes())
    page = data.index(content) // 4096
    pages = [
        number for number in range(page, len(data) // 4096) if content in data[number * 4096 : number * 4096 + 4096]
    ]
    start = pages[1] * 4096
    data[start : start + 4] = b"\xff\xff\xff\x7f"
    database.write_bytes(data)
