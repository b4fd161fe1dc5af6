"""The embedded durable store: one SQLite file, one writer thread, group commit.

Writes that arrive while a commit runs wait and go into the next one together. A batch is checked on the event loop
against an index of every key's revisions (compare-and-swap needs no read from disk), handed to the writer thread, made
durable there, and only then published to watchers and acknowledged, in that order.

A batch is a single SQL statement: one `INSERT` into the log, whose trigger keeps the table of current revisions, under
SQLite's own implicit transaction. That is for the interpreter lock: every statement that the thread runs gives the lock
away and must win it back from a busy event loop, which takes up to the switch interval (5 ms) each time.

Invariants: `log` has every version since the last compaction and each key's current one; `current` points at those.
The newest log row always stays, so that revisions go on where they stopped. After a failed batch the index is rebuilt
from the file, which alone knows what became durable, and the failed batch's revisions are not used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from navarch.store.base import Compacted, Conflict, Delete, Entry, Event, Page, Put, StoreUnavailable
from navarch.store.feed import Feed

_T = TypeVar("_T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
  revision INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB, create_revision INTEGER NOT NULL,
  previous INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS current (
  key TEXT PRIMARY KEY, revision INTEGER NOT NULL, create_revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS log_put AFTER INSERT ON log WHEN NEW.value IS NOT NULL BEGIN
  INSERT INTO current VALUES (NEW.key, NEW.revision, NEW.create_revision)
    ON CONFLICT (key) DO UPDATE SET revision = NEW.revision, create_revision = NEW.create_revision;
END;
CREATE TRIGGER IF NOT EXISTS log_delete AFTER INSERT ON log WHEN NEW.value IS NULL BEGIN
  DELETE FROM current WHERE key = NEW.key;
END;
"""

# Up to this many rows a batch has any size; above, only multiples of it, so that few statements need preparing.
_BATCH_STEP = 64
_BATCH_MAX = 1024
_COMPACT_STEP = 5_000
_WATCH_PAGE = 1_000


class _Revisions(NamedTuple):
    create: int
    mod: int


@dataclass(slots=True)
class _Loaded:
    index: dict[str, _Revisions]
    newest: int
    compacted: int


class _Waiting(NamedTuple):
    op: Put | Delete
    done: asyncio.Future[int]


class _Batch:
    """What one statement writes, and who waits for it."""

    __slots__ = ("acknowledged", "events", "refused", "rows")

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.events: list[Event] = []
        self.acknowledged: list[tuple[asyncio.Future[int], int]] = []
        self.refused: list[_Waiting] = []


class SQLiteStore:
    """`path` is the database file, made if missing; a lock file beside it keeps a second process out."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._feed = Feed()
        self._index: dict[str, _Revisions] = {}
        self._revision = 0
        self._last_used_revision = 0
        self._compacted = 0
        self._waiting: deque[_Waiting] = deque()
        self._busy = False
        self._needs_reload = False
        self._closing = False
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = asyncio.Event()
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="store-read")
        self._lock_file: IO[str] | None = None

    # Opening and closing

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock()
        try:
            await self._loop.run_in_executor(self._reads, self._open_files)
        except sqlite3.Error as error:
            self._unlock()
            raise StoreUnavailable(f"cannot open {self._path}: {error}") from error
        self._thread = threading.Thread(target=self._work, name="store-write", daemon=True)
        self._thread.start()

    def _lock(self) -> None:
        lock_file = open(self._path.with_name(self._path.name + ".lock"), "w")  # noqa: SIM115 - held until close
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock_file.close()
            raise StoreUnavailable(f"{self._path} is in use by another process") from error
        self._lock_file = lock_file

    def _unlock(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=128, timeout=10
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA cache_size = -8000")
        return connection

    def _open_files(self) -> None:
        self._hide()
        self._writer = self._connect()
        self._writer.executescript(_SCHEMA)
        self._reader = self._connect()
        self._adopt(_load(self._reader))

    def _hide(self) -> None:
        """Secrets are in it: the file is its owner's alone, and SQLite gives its companions the mode that it has."""
        os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600))
        for name in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.chmod(self._path.with_name(self._path.name + name), 0o600)

    def _adopt(self, loaded: _Loaded) -> None:
        self._index = loaded.index
        self._compacted = max(self._compacted, loaded.compacted)
        self._revision = max(loaded.newest, loaded.compacted)
        self._last_used_revision = max(self._last_used_revision, self._revision)

    async def close(self) -> None:
        """Finish what has been handed in, then close the files."""
        if self._closing or self._lock_file is None:
            return
        self._closing = True
        if self._busy or self._waiting:
            await self._idle.wait()
        self._jobs.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        await self._loop.run_in_executor(self._reads, self._close_files)
        self._reads.shutdown()
        self._unlock()

    def _close_files(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._reader.close()
        self._writer.close()

    # Writing

    async def commit(self, op: Put | Delete) -> int:
        if self._closing:
            raise StoreUnavailable("the store is closed")
        done: asyncio.Future[int] = self._loop.create_future()
        self._waiting.append(_Waiting(op, done))
        if not self._busy:
            self._take_turn()
            # One turn of the loop lets every writer that is ready now join the first batch.
            self._loop.call_soon(self._start_batch)
        return await done

    def _take_turn(self) -> None:
        self._busy = True
        self._idle.clear()

    def _start_batch(self) -> None:
        """Check waiting writes in order of arrival and hand those that pass to the writer thread."""
        if not self._waiting:
            self._busy = False
            self._idle.set()
            return
        if self._needs_reload:
            self._jobs.put(self._reload)
            return
        batch = self._form_batch()
        if batch.rows:
            self._jobs.put(lambda: self._write(batch))
        else:
            self._finish_batch(batch)

    def _form_batch(self) -> _Batch:
        size = len(self._waiting)
        if size > _BATCH_STEP:
            size = min(size - size % _BATCH_STEP, _BATCH_MAX)
        batch = _Batch()
        overlay: dict[str, _Revisions | None] = {}
        for _ in range(size):
            waiting = self._waiting.popleft()
            op = waiting.op
            key = op.key
            known = overlay[key] if key in overlay else self._index.get(key)
            expected = op.expected
            if (expected is not None and expected != (known.mod if known else 0)) or (
                known is None and isinstance(op, Delete)
            ):
                batch.refused.append(waiting)
                continue
            self._last_used_revision += 1
            revision = self._last_used_revision
            create = known.create if known else revision
            value = op.value if isinstance(op, Put) else None
            overlay[key] = None if value is None else _Revisions(create, revision)
            batch.rows += (revision, key, value, create, known.mod if known else 0)
            batch.events.append(Event(key, value, revision, create))
            batch.acknowledged.append((waiting.done, revision))
        return batch

    def _finish_batch(self, batch: _Batch) -> None:
        """Durable (or empty): tell the index, the watchers, the writers; start the next batch."""
        index = self._index
        for key, value, revision, create in batch.events:
            if value is None:
                del index[key]
            else:
                index[key] = _Revisions(create, revision)
        if batch.events:
            self._revision = batch.events[-1].revision
            self._feed.publish(batch.events)
        for done, revision in batch.acknowledged:
            if not done.done():
                done.set_result(revision)
        for waiting in batch.refused:
            self._refuse(waiting)
        self._start_batch()

    def _refuse(self, waiting: _Waiting) -> None:
        """A failed precondition is answered with what the key holds, which only the file knows."""
        known = self._index.get(waiting.op.key)
        if known is None:
            if not waiting.done.done():
                waiting.done.set_exception(Conflict(None))
            return
        read = self._loop.run_in_executor(self._reads, self._read_one, waiting.op.key)

        def answer(result: asyncio.Future[Entry | None]) -> None:
            if waiting.done.done():
                return
            failed = result.exception()
            waiting.done.set_exception(Conflict(result.result()) if failed is None else _unavailable(failed))

        read.add_done_callback(answer)

    def _fail_batch(self, batch: _Batch, error: BaseException) -> None:
        self._needs_reload = True
        failure = [done for done, _ in batch.acknowledged] + [waiting.done for waiting in batch.refused]
        for done in failure:
            if not done.done():
                done.set_exception(_unavailable(error))
        self._start_batch()

    def _reload_failed(self, error: BaseException) -> None:
        while self._waiting:
            done = self._waiting.popleft().done
            if not done.done():
                done.set_exception(_unavailable(error))
        self._start_batch()

    def _reloaded(self, loaded: _Loaded, late: list[Event]) -> None:
        """A write whose commit reported an error may have become durable all the same; watchers must see it then."""
        self._needs_reload = False
        self._adopt(loaded)
        if late:
            self._feed.publish(late)
        self._start_batch()

    # On the writer thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _write(self, batch: _Batch) -> None:
        rows = len(batch.rows) // 5
        statement = "INSERT INTO log VALUES (?,?,?,?,?)" + ",(?,?,?,?,?)" * (rows - 1)
        try:
            self._writer.execute(statement, batch.rows)
        except Exception as error:
            # Not only sqlite3.Error: whatever went wrong, somebody waits for an answer.
            self._call(self._fail_batch, batch, error)
        else:
            self._call(self._finish_batch, batch)

    def _reload(self) -> None:
        """After a failed write: a fresh connection, and the index as the file has it."""
        try:
            fresh = self._connect()
            loaded = _load(fresh)
            late = _rows_since(fresh, self._revision, _BATCH_MAX)
        except Exception as error:
            self._call(self._reload_failed, error)
            return
        stale, self._writer = self._writer, fresh
        with contextlib.suppress(sqlite3.Error):
            stale.close()
        self._call(self._reloaded, loaded, late)

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to tell
            self._loop.call_soon_threadsafe(function, *args)

    # Reading

    async def _read(self, function: Callable[..., _T], *args: Any) -> _T:
        try:
            return await self._loop.run_in_executor(self._reads, function, *args)
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    async def get(self, key: str) -> Entry | None:
        return await self._read(self._read_one, key) if key in self._index else None

    def _read_one(self, key: str) -> Entry | None:
        row = self._reader.execute(
            "SELECT log.key, value, log.create_revision, log.revision FROM current JOIN log USING (revision) "
            "WHERE current.key = ?",
            (key,),
        ).fetchone()
        return Entry(*row) if row else None

    async def range(self, prefix: str, *, revision: int = 0, limit: int = 0, after: str = "") -> Page:
        if revision and revision < self._compacted:
            raise Compacted(self._compacted)
        return await self._read(self._read_range, prefix, revision, limit, after)

    def _read_range(self, prefix: str, revision: int, limit: int, after: str) -> Page:
        reader = self._reader
        reader.execute("BEGIN")
        try:
            newest = max(reader.execute("SELECT max(revision) FROM log").fetchone()[0] or 0, self._compacted)
            low, high = max(prefix, after), _after_prefix(prefix)
            if revision and revision < newest:
                keys = self._revisions_at(revision, low, high, after)
            else:
                rows = reader.execute(
                    "SELECT revision FROM current WHERE key >= ? AND key < ? AND key <> ? ORDER BY key",
                    (low, high, after),
                )
                keys = [row[0] for row in rows]
            wanted = keys[:limit] if limit else keys
            entries = [self._entry(found) for found in wanted]
            remaining = len(keys) - len(wanted)
            return Page(entries, revision or newest, remaining > 0, remaining)
        finally:
            reader.execute("COMMIT")

    def _entry(self, revision: int) -> Entry:
        row = self._reader.execute(
            "SELECT key, value, create_revision, revision FROM log WHERE revision = ?", (revision,)
        ).fetchone()
        return Entry(*row)

    def _revisions_at(self, revision: int, low: str, high: str, after: str) -> list[int]:
        """The log revisions of the keys in range as they were at `revision`, in key order: current ones that are no
        newer, and for each key that changed since, what its first change replaced."""
        return [
            row[0]
            for row in self._reader.execute(
                """
                WITH first_change AS (
                  SELECT key, min(revision) AS revision FROM log
                  WHERE revision > :at AND key >= :low AND key < :high GROUP BY key),
                then_current AS (
                  SELECT key, revision FROM current
                  WHERE key >= :low AND key < :high AND revision <= :at
                  UNION ALL
                  SELECT first_change.key, log.previous FROM first_change JOIN log USING (revision)
                  WHERE log.previous > 0)
                SELECT revision FROM then_current WHERE key <> :after ORDER BY key
                """,
                {"at": revision, "low": low, "high": high, "after": after},
            )
        ]

    async def watch(self, prefix: str, since: int) -> AsyncIterator[Event]:
        if since < self._compacted:
            raise Compacted(self._compacted)
        subscription = self._feed.subscribe(prefix)
        try:
            seen, live_from = since, self._revision
            while seen < live_from:
                page = await self._read(_rows_since, self._reader, seen, _WATCH_PAGE)
                if seen < self._compacted:
                    raise Compacted(self._compacted)
                for event in page:
                    if event.key.startswith(prefix):
                        yield event
                seen = page[-1].revision if page else live_from
            while True:
                for event in await subscription.take():
                    if event.revision > seen:
                        yield event
        finally:
            self._feed.unsubscribe(subscription)

    async def revision(self) -> int:
        return self._revision

    # Compaction

    async def compact(self, revision: int) -> None:
        revision = min(revision, self._revision)
        if revision <= self._compacted:
            return
        before, self._compacted = self._compacted, revision
        for start in range(before, revision, _COMPACT_STEP):
            await self._compact_step(start, min(start + _COMPACT_STEP, revision))

    async def _compact_step(self, after: int, until: int) -> None:
        done: asyncio.Future[None] = self._loop.create_future()

        def settle(error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(_unavailable(error)) if error else done.set_result(None)

        def work() -> None:
            try:
                self._forget(after, until)
            except Exception as error:
                self._call(settle, error)
            else:
                self._call(settle, None)

        self._jobs.put(work)
        await done

    def _forget(self, after: int, until: int) -> None:
        """Versions that a commit in (after, until] replaced, and the tombstones among those commits, are history."""
        span = {"after": after, "until": until}
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            self._writer.execute(
                "DELETE FROM log WHERE revision IN "
                "(SELECT previous FROM log WHERE revision > :after AND revision <= :until AND previous > 0)",
                span,
            )
            self._writer.execute(
                "DELETE FROM log WHERE revision > :after AND revision <= :until AND value IS NULL "
                "AND revision < (SELECT max(revision) FROM log)",
                span,
            )
            self._writer.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (until,))
            self._writer.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise


def _load(connection: sqlite3.Connection) -> _Loaded:
    """Read from the file what the index must say."""
    rows = connection.execute("SELECT key, create_revision, revision FROM current")
    index = {key: _Revisions(create, mod) for key, create, mod in rows}
    newest = connection.execute("SELECT max(revision) FROM log").fetchone()[0] or 0
    compacted = connection.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()
    return _Loaded(index, newest, compacted[0] if compacted else 0)


def _rows_since(connection: sqlite3.Connection, since: int, limit: int) -> list[Event]:
    rows = connection.execute(
        "SELECT key, value, revision, create_revision FROM log WHERE revision > ? ORDER BY revision LIMIT ?",
        (since, limit),
    )
    return [Event(*row) for row in rows]


def _after_prefix(prefix: str) -> str:
    """The smallest string greater than every string with this prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\U0010ffff"


def _unavailable(error: BaseException) -> StoreUnavailable:
    unavailable = StoreUnavailable(f"the store cannot serve now: {error}")
    unavailable.__cause__ = error
    return unavailable
