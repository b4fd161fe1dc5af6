"""Opening the database, and refusing one that has lost something.

Beside the database lies a record of which one it is and how far it had come (`record`). A database that is missing,
empty, another one or behind its record is not gone on with: an older or empty cluster would start without a word, and
revisions would be given out twice. The refusal leaves every file as it was found and says how to go on.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from navarch.records import mutable
from navarch.store import failpoints, record, sqlite_file
from navarch.store.base import Lost
from navarch.store.record import Noted, Record
from navarch.store.sqlite_file import Loaded
from navarch.world import MACHINE

_GENERATION_BEFORE = failpoints.Point("sqlite.generation.before")
_GENERATION_AFTER = failpoints.Point("sqlite.generation.after")


@mutable
class Opened:
    writer: sqlite3.Connection
    reader: sqlite3.Connection
    loaded: Loaded
    record: Record
    # Worth a line in the log.
    remark: str = ""


def record_path(database: Path) -> Path:
    """Where the record lies if nobody says."""
    return database.with_name(database.name + ".record")


def open_database(database: Path, record_file: Path) -> Opened:
    """Blocks.  Raises Lost, StoreUnavailable, sqlite3.Error."""
    noted = _read_record(database, record_file)
    if noted is not None:
        _compare(database, record_file, noted)
    writer = reader = None
    try:
        hide(database)
        writer = sqlite_file.connect(database)
        sqlite_file.prepare(writer)
        sqlite_file.shrink(writer)
        reader = sqlite_file.connect(database)
        loaded = sqlite_file.load(reader)
        remark = "" if noted else _make_record(database, record_file, writer, loaded)
        opened = Record(record_file, sqlite_file.generation(writer))
        opened.note(loaded.revision)
    except BaseException:
        for connection in (reader, writer):
            if connection is not None:
                connection.close()
        raise
    return Opened(writer, reader, loaded, opened, remark)


def _read_record(database: Path, record_file: Path) -> Noted | None:
    try:
        return record.read(record_file)
    except ValueError as error:
        raise Lost(f"{error}: whether {database} is complete cannot be told") from error


def _compare(database: Path, record_file: Path, noted: Noted) -> None:
    """Raises Lost where the database is behind its record."""
    if not database.exists() or not database.stat().st_size:
        raise Lost(
            f"{database} is {'empty' if database.exists() else 'missing'}, and had come to revision {noted.revision}"
        )
    generation, revision = sqlite_file.inspect(database)
    log = f"its write-ahead log ({database.name}-wal) is missing or damaged"
    if not generation:
        raise Lost(f"{database} holds no cluster, and had come to revision {noted.revision}: {log}")
    if generation != noted.generation:
        raise Lost(f"{database} is not the database that {record_file} belongs to")
    if revision < noted.revision:
        raise Lost(
            f"{database} ends at revision {revision}, and revision {noted.revision} was durable: {log}, or an older "
            "copy was put in its place"
        )


def _make_record(database: Path, record_file: Path, writer: sqlite3.Connection, loaded: Loaded) -> str:
    """The first record of a database; a new one gets its generation. Returns what is worth a line in the log."""
    generation = sqlite_file.generation(writer)
    remark = f"{record_file} is missing: whether {database} is complete cannot be told" if generation else ""
    if not generation:
        generation = f"{MACHINE.unpredictable().getrandbits(128):032x}"
        if failpoints.armed:
            _GENERATION_BEFORE.visit()
        sqlite_file.set_generation(writer, generation)
        if failpoints.armed:
            _GENERATION_AFTER.visit()
    record_file.parent.mkdir(parents=True, exist_ok=True)
    record.create(record_file, Noted(generation, loaded.revision))
    return remark


def hide(database: Path) -> None:
    """Secrets are in it: the file is its owner's alone, and SQLite gives its companions the mode that it has."""
    os.close(os.open(database, os.O_WRONLY | os.O_CREAT, 0o600))
    for name in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.chmod(database.with_name(database.name + name), 0o600)
