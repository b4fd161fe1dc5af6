"""`--accept-loss`: go on with what is left of a database, or with a copy of an earlier day, knowingly, while no process
has it open.

In: the database and its record, in whatever state.  Out: a database that opens, and a report of what was given up.
Values that can still be read are kept, with their revisions. Revisions go on well past all that may ever have been
given out, and what was known of the past is declared compacted, so that every client lists anew. Nothing is deleted:
the files as they were found are moved aside. Killed at any point, it can be called again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from navarch.store import failpoints, record, sqlite_file
from navarch.store.lock import FileLock
from navarch.store.record import Noted
from navarch.store.sqlite_open import hide
from navarch.world import MACHINE

_BEFORE_ASIDE = failpoints.Point("recovery.aside.before")
_AFTER_ASIDE = failpoints.Point("recovery.aside.after")
_AFTER_REPLACE = failpoints.Point("recovery.replace.after")

# More than a store gives out between two syncs of its record.
_MARGIN: Final = 1_000_000
_COMPANIONS: Final = ("", "-wal", "-shm")


@dataclass(slots=True)
class Report:
    """`kept` values; `lost` are the keys that were there and could not be read. Revisions from `first_lost` to
    `last_lost` (0: none is known of) are gone, except for what is in `kept`."""

    kept: int = 0
    lost: list[str] = field(default_factory=list)
    first_lost: int = 0
    last_lost: int = 0
    aside: str = ""


def accept_loss(database: Path, record_file: Path) -> Report:
    """Blocks.  Raises StoreUnavailable where a process has the database open."""
    return _go_on(database, record_file, database)


def put_back(copy: Path, database: Path, record_file: Path) -> Report:
    """Go on with a copy in place of what is there. Blocks.  Raises StoreUnavailable where a process has the database
    open."""
    return _go_on(database, record_file, copy)


def _go_on(database: Path, record_file: Path, source: Path) -> Report:
    database, source = database.resolve(), source.resolve()
    lock = FileLock(database)
    database.parent.mkdir(parents=True, exist_ok=True)
    lock.take()
    try:
        return _accept(database, record_file, source)
    finally:
        lock.give()


def _accept(database: Path, record_file: Path, source: Path) -> Report:
    recovered = database.with_name(database.name + ".recovered")
    report = Report()
    if source != database:
        # What another attempt left is of something else.
        recovered.unlink(missing_ok=True)
    if not recovered.exists():
        _recover(source, database, _noted(record_file), recovered, report)
    if failpoints.armed:
        _BEFORE_ASIDE.visit()
    report.aside = _move_aside(database)
    if failpoints.armed:
        _AFTER_ASIDE.visit()
    recovered.replace(database)
    if failpoints.armed:
        _AFTER_REPLACE.visit()
    with contextlib.closing(sqlite_file.connect(database)) as found:
        noted = Noted(sqlite_file.generation(found), sqlite_file.load(found).revision)
    record_file.parent.mkdir(parents=True, exist_ok=True)
    record.create(record_file, noted)
    return report


def _recover(source: Path, database: Path, noted: Noted | None, recovered: Path, report: Report) -> None:
    """Make the database that goes on, whole or not at all."""
    fresh = database.with_name(database.name + ".new")
    for name in _COMPANIONS:
        fresh.with_name(fresh.name + name).unlink(missing_ok=True)
    hide(fresh)
    with contextlib.closing(sqlite_file.connect(fresh)) as target:
        sqlite_file.prepare(target)
        newest = _salvage(source, target, report)
        durable = noted.revision if noted else 0
        if durable > newest:
            report.first_lost, report.last_lost = newest + 1, durable
        sqlite_file.set_compacted(target, max(newest, durable) + _MARGIN)
        generation = f"{MACHINE.unpredictable().getrandbits(128):032x}"
        sqlite_file.set_generation(target, generation)
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    fresh.replace(recovered)


def _noted(record_file: Path) -> Noted | None:
    try:
        return record.read(record_file)
    except ValueError:
        return None


def _salvage(database: Path, target: sqlite3.Connection, report: Report) -> int:
    """Copy each key's current value that can be read; returns the newest revision seen."""
    if not database.exists() or not database.stat().st_size:
        return 0
    newest = 0
    try:
        sqlite_file.renew(database)
        with contextlib.closing(sqlite_file.look(database)) as source:
            target.execute("BEGIN")
            for key, row in sqlite_file.salvage(source):
                if row is None:
                    report.lost.append(key)
                else:
                    report.kept += 1
                    sqlite_file.insert(target, row)
                    newest = max(newest, sqlite_file.revision_of(row))
            with contextlib.suppress(sqlite3.DatabaseError):
                newest = max(newest, sqlite_file.load(source).revision)
    except sqlite3.DatabaseError:
        # Not even its list of tables can be read.
        pass
    finally:
        if target.in_transaction:
            target.execute("COMMIT")
    return newest


def _move_aside(database: Path) -> str:
    """Under the first free number, so that an earlier one stays."""
    number = next(_free(database))
    moved = ""
    for name in _COMPANIONS:
        path = database.with_name(database.name + name)
        if path.exists():
            aside = database.with_name(f"{database.name}.lost-{number}{name}")
            path.replace(aside)
            moved = moved or str(aside)
    return moved


def _free(database: Path) -> Iterator[int]:
    for number in range(1, 1_000_000):
        if not list(database.parent.glob(f"{database.name}.lost-{number}*")):
            yield number
