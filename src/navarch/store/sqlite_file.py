"""What is in the SQLite file, and every statement that reads it or thins it out.

`log` has a row per operation, numbered by its position: the commit's revision and the operation's place in that commit
in one integer, so that rows of one commit share a revision and the table needs no second index. `current` says at which
position each key stands; triggers keep it in step with the log. The functions here block: they are called on the
store's threads, and each is given the connection to use.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from navarch.records import mutable
from navarch.store import failpoints
from navarch.store.base import Entry, Event, Lost, Page, StoreUnavailable

_COMPACT_BEFORE = failpoints.Point("sqlite.compact.before")
_COMPACT_AFTER = failpoints.Point("sqlite.compact.after")

# One row of `log`: position, key, value, create_revision, previous (position), expires.
COLUMNS: Final = 6
# A commit has room for 1,024 operations; a revision for 53 bits.
_PLACE_BITS: Final = 10

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
  position INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB, create_revision INTEGER NOT NULL,
  previous INTEGER NOT NULL, expires REAL);
CREATE TABLE IF NOT EXISTS current (
  key TEXT PRIMARY KEY, position INTEGER NOT NULL, create_revision INTEGER NOT NULL, expires REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS log_put AFTER INSERT ON log WHEN NEW.value IS NOT NULL BEGIN
  INSERT INTO current VALUES (NEW.key, NEW.position, NEW.create_revision, NEW.expires)
    ON CONFLICT (key) DO UPDATE SET position = NEW.position, create_revision = NEW.create_revision,
      expires = NEW.expires;
END;
CREATE TRIGGER IF NOT EXISTS log_delete AFTER INSERT ON log WHEN NEW.value IS NULL BEGIN
  DELETE FROM current WHERE key = NEW.key;
END;
"""
_FORMAT = 2
_TRIAL_MAX: Final = 1 << 20
_LOG_MAX: Final = 64 << 20
# So much more than after the last compaction is too much; and a file of which so much is free is made smaller.
_CROWDED_BYTES: Final = 256 << 20
_SPARE_BYTES: Final = 256 << 20
_SPARE_SHARE: Final = 0.75
# The first format had one operation per revision, and nothing expired.
_FROM_FORMAT_1 = f"""
BEGIN IMMEDIATE;
DROP TRIGGER log_put;
DROP TRIGGER log_delete;
ALTER TABLE log RENAME TO log1;
ALTER TABLE current RENAME TO current1;
{{schema}}
INSERT INTO log SELECT revision << {_PLACE_BITS}, key, value, create_revision, previous << {_PLACE_BITS}, NULL
  FROM log1 ORDER BY revision;
DELETE FROM current;
INSERT INTO current SELECT key, revision << {_PLACE_BITS}, create_revision, NULL FROM current1;
DROP TABLE log1;
DROP TABLE current1;
PRAGMA user_version = {_FORMAT};
COMMIT;
"""


class Standing(NamedTuple):
    """Where a key stands: the revision that made it and the position of its last write."""

    create: int
    position: int

    @property
    def mod(self) -> int:
        return self.position >> _PLACE_BITS


@mutable
class Loaded:
    """What the store's index must say, as the file has it."""

    index: dict[str, Standing]
    expiring: list[tuple[float, str, int]]
    newest: int
    compacted: int

    @property
    def revision(self) -> int:
        """The newest that was given out."""
        return max(self.newest, self.compacted)


def first_position(revision: int) -> int:
    """That of a commit's first operation; the others follow it one by one."""
    return revision << _PLACE_BITS


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=128, timeout=10)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    # A log that grew while somebody read for long is cut when it begins anew.
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_MAX}")
    connection.execute("PRAGMA cache_size = -8000")
    return connection


def renew(path: Path) -> None:
    """Bring a database of an older format up to date; one of today's is not touched.  Raises sqlite3.Error."""
    with contextlib.closing(look(path)) as connection:
        current = connection.execute("PRAGMA user_version").fetchone()[0] == _FORMAT
        empty = not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'log'").fetchone()
    if not current and not empty:
        with contextlib.closing(connect(path)) as connection:
            prepare(connection)


def inspect(path: Path) -> tuple[str, int]:
    """Generation (empty if it has none) and newest revision, without a change to any file.  Raises sqlite3.Error."""
    with contextlib.closing(look(path)) as connection:
        if connection.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
            return "", 0
        return generation(connection), max(_newest(connection), _compacted(connection))


def look(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing; nor does SQLite tidy up when it is closed, as it does otherwise: it ends a
    damaged write-ahead log where the damage begins, and deletes it."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring those of an older format up to date."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == 0 and connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'log'").fetchone():
        connection.executescript(_FROM_FORMAT_1.format(schema=_SCHEMA))
    elif found == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT;")
    elif found != _FORMAT:
        raise sqlite3.DatabaseError(f"its format is {found}, which a newer version wrote; this one knows {_FORMAT}")


def load(connection: sqlite3.Connection) -> Loaded:
    """Read from the file what the index must say."""
    index: dict[str, Standing] = {}
    expiring: list[tuple[float, str, int]] = []
    for key, create, position, expires in connection.execute(
        "SELECT key, create_revision, position, expires FROM current"
    ):
        index[key] = standing = Standing(create, position)
        if expires is not None:
            expiring.append((expires, key, standing.mod))
    return Loaded(index, expiring, _newest(connection), _compacted(connection))


def _compacted(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()
    return int(row[0]) if row else 0


def generation(connection: sqlite3.Connection) -> str:
    """Which database this is; empty for one that has not been told yet."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()
    return str(row[0])[1:] if row else ""


def set_generation(connection: sqlite3.Connection, generation: str) -> None:
    # The letter keeps SQLite from reading a number.
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('generation', ?)", (f"g{generation}",))


def set_compacted(connection: sqlite3.Connection, revision: int) -> None:
    """Nothing before this revision can be asked for, and none up to it is given out."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (revision,))


Row = tuple[int, str, bytes, int, int, float | None]
"""A row of `log`."""


def salvage(connection: sqlite3.Connection) -> Iterator[tuple[str, Row | None]]:
    """Every key that can still be found, with its current row, or None where that cannot be read."""
    for key, position, create, expires in _readable_keys(connection):
        row: Row | None = None
        with contextlib.suppress(sqlite3.DatabaseError):
            found = connection.execute("SELECT value FROM log WHERE position = ?", (position,)).fetchone()
            if found is not None and found[0] is not None:
                row = (position, key, found[0], create, 0, expires)
        yield key, row


def _readable_keys(connection: sqlite3.Connection) -> Iterator[tuple[str, int, int, float | None]]:
    """From `current`; where that is damaged, from the log, up to where that is."""
    query = "SELECT key, position, create_revision, expires FROM current"
    with contextlib.suppress(sqlite3.DatabaseError):
        yield from connection.execute(query).fetchall()
        return
    latest: dict[str, tuple[int, int, float | None] | None] = {}
    with contextlib.suppress(sqlite3.DatabaseError):
        for key, position, create, gone, expires in connection.execute(
            "SELECT key, position, create_revision, value IS NULL, expires FROM log ORDER BY position"
        ):
            latest[key] = None if gone else (position, create, expires)
    yield from ((key, *known) for key, known in latest.items() if known is not None)


def insert(connection: sqlite3.Connection, row: Row) -> None:
    connection.execute("INSERT INTO log VALUES (?,?,?,?,?,?)", row)


def revision_of(row: Row) -> int:
    return row[0] >> _PLACE_BITS


def try_to_write(connection: sqlite3.Connection, size: int) -> None:
    """Write so many bytes, and take them away.  Raises sqlite3.Error where there is no room."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('trial', zeroblob(?))", (min(size, _TRIAL_MAX),))
    connection.execute("DELETE FROM meta WHERE name = 'trial'")


def _newest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT max(position) FROM log").fetchone()[0] or 0) >> _PLACE_BITS


def rows_since(connection: sqlite3.Connection, since: int, limit: int) -> list[Event]:
    """Events after revision `since`, whole commits only, about `limit` of them; none if there are no more."""
    rows = connection.execute(
        "SELECT key, value, position, create_revision FROM log WHERE position >= ? ORDER BY position LIMIT ?",
        (first_position(since + 1), limit),
    )
    events = [
        Event(key, value, position >> _PLACE_BITS, 0 if value is None else create)
        for key, value, position, create in rows
    ]
    if len(events) == limit:
        # The last commit may go on behind the limit.
        last = events[-1].revision
        while events[-1].revision == last:
            events.pop()
    return events


def read_one(connection: sqlite3.Connection, key: str) -> Entry | None:
    row = connection.execute(
        "SELECT log.key, value, log.create_revision, log.position FROM current JOIN log USING (position) "
        "WHERE current.key = ?",
        (key,),
    ).fetchone()
    return _entry(row) if row else None


def _entry(row: tuple[str, bytes, int, int]) -> Entry:
    key, value, create, position = row
    return Entry(key, value, create, position >> _PLACE_BITS)


def read_range(
    connection: sqlite3.Connection, prefix: str, revision: int, limit: int, after: str, compacted: int
) -> Page:
    connection.execute("BEGIN")
    try:
        newest = max(_newest(connection), compacted)
        low, high = max(prefix, after), _after_prefix(prefix)
        if not limit and not (revision and revision < newest):
            with contextlib.suppress(sqlite3.DatabaseError):
                # Everything, in one statement. Where that meets a damaged page, the way below says whose value it is.
                return Page(_entries_now(connection, low, high, after), revision or newest, False, 0)
        if revision and revision < newest:
            positions = _positions_at(connection, revision, low, high, after)
        else:
            rows = connection.execute(
                "SELECT position FROM current WHERE key >= ? AND key < ? AND key <> ? ORDER BY key",
                (low, high, after),
            )
            positions = [row[0] for row in rows]
        wanted = positions[:limit] if limit else positions
        entries = [_entry_at(connection, position) for position in wanted]
        remaining = len(positions) - len(wanted)
        return Page(entries, revision or newest, remaining > 0, remaining)
    finally:
        # Where a page is damaged, COMMIT would fail, too.
        connection.execute("ROLLBACK")


def _entries_now(connection: sqlite3.Connection, low: str, high: str, after: str) -> list[Entry]:
    """What keys in range hold now.  Raises sqlite3.DatabaseError where a value is missing or cannot be read."""
    rows = connection.execute(
        "SELECT current.key, log.value, log.create_revision, current.position FROM current "
        "LEFT JOIN log USING (position) WHERE current.key >= ? AND current.key < ? AND current.key <> ? "
        "ORDER BY current.key",
        (low, high, after),
    )
    found = [Entry(key, value, create, position >> _PLACE_BITS) for key, value, create, position in rows]
    if any(entry.value is None for entry in found):
        raise sqlite3.DatabaseError("a value is missing")
    return found


def _entry_at(connection: sqlite3.Connection, position: int) -> Entry:
    try:
        row = connection.execute(
            "SELECT key, value, create_revision, position FROM log WHERE position = ?", (position,)
        ).fetchone()
    except sqlite3.DatabaseError as error:
        raise _damaged(connection, position, str(error)) from error
    if row is None:
        raise _damaged(connection, position, "it is missing")
    return _entry(row)


def _damaged(connection: sqlite3.Connection, position: int, why: str) -> StoreUnavailable:
    """The database cannot give a value back: whose."""
    row = connection.execute("SELECT key FROM current WHERE position = ?", (position,)).fetchone()
    known = f"(revision {position >> _PLACE_BITS}) is damaged: {why}"
    return Lost(f"the value of {row[0]} {known}") if row else StoreUnavailable(f"a past value {known}")


def _positions_at(connection: sqlite3.Connection, revision: int, low: str, high: str, after: str) -> list[int]:
    """The log positions of the keys in range as they were at `revision`, in key order: current ones that are no
    newer, and for each key that changed since, what its first change replaced."""
    return [
        row[0]
        for row in connection.execute(
            """
            WITH first_change AS (
              SELECT key, min(position) AS position FROM log
              WHERE position >= :behind AND key >= :low AND key < :high GROUP BY key),
            then_current AS (
              SELECT key, position FROM current
              WHERE key >= :low AND key < :high AND position < :behind
              UNION ALL
              SELECT first_change.key, log.previous FROM first_change JOIN log USING (position)
              WHERE log.previous > 0)
            SELECT position FROM then_current WHERE key <> :after ORDER BY key
            """,
            {"behind": first_position(revision + 1), "low": low, "high": high, "after": after},
        )
    ]


def crowded(connection: sqlite3.Connection) -> bool:
    """Whether much has been written since the last compaction."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'settled'").fetchone()
    return _used(connection) - (int(row[0]) if row else 0) > _CROWDED_BYTES


def settle(connection: sqlite3.Connection) -> None:
    """Note how large it is without what was just forgotten."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('settled', ?)", (_used(connection),))


def _used(connection: sqlite3.Connection) -> int:
    """Bytes in the file that hold something."""
    return _pragma(connection, "page_size") * (
        _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def shrink(connection: sqlite3.Connection) -> None:
    """Give back what a file has left of larger days, which takes as long as copying what it holds. Where there is no
    room for that, it stays as it is."""
    free = _pragma(connection, "page_size") * _pragma(connection, "freelist_count")
    if free > _SPARE_BYTES and free > _SPARE_SHARE * (free + _used(connection)):
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("VACUUM")


def _after_prefix(prefix: str) -> str:
    """The smallest string greater than every string with this prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\U0010ffff"


def forget(connection: sqlite3.Connection, after: int, until: int) -> None:
    """Versions that a commit in (after, until] replaced, and the tombstones among those commits, are history."""
    span = {"low": first_position(after + 1), "high": first_position(until + 1)}
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "DELETE FROM log WHERE position IN "
            "(SELECT previous FROM log WHERE position >= :low AND position < :high AND previous > 0)",
            span,
        )
        connection.execute(
            "DELETE FROM log WHERE position >= :low AND position < :high AND value IS NULL "
            "AND position < (SELECT max(position) FROM log)",
            span,
        )
        set_compacted(connection, until)
        if failpoints.armed:
            _COMPACT_BEFORE.visit()
        connection.execute("COMMIT")
        if failpoints.armed:
            _COMPACT_AFTER.visit()
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
