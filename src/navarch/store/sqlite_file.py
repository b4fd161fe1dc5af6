"""What is in the SQLite file, and every statement that reads it or thins it out.

`log` has a row per operation, numbered by its position: the commit's revision and the operation's place in that commit
in one integer, so that rows of one commit share a revision and the table needs no second index. `current` says at which
position each key stands; triggers keep it in step with the log. The functions here block: they are called on the
store's threads, and each is given the connection to use.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from navarch.store.base import Entry, Event, Page

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


@dataclass(slots=True)
class Loaded:
    """What the store's index must say, as the file has it."""

    index: dict[str, Standing]
    expiring: list[tuple[float, str, int]]
    newest: int
    compacted: int


def first_position(revision: int) -> int:
    """That of a commit's first operation; the others follow it one by one."""
    return revision << _PLACE_BITS


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=128, timeout=10)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA cache_size = -8000")
    return connection


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
    compacted = connection.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()
    return Loaded(index, expiring, _newest(connection), compacted[0] if compacted else 0)


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
        connection.execute("COMMIT")


def _entry_at(connection: sqlite3.Connection, position: int) -> Entry:
    row = connection.execute(
        "SELECT key, value, create_revision, position FROM log WHERE position = ?", (position,)
    ).fetchone()
    return _entry(row)


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
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (until,))
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
