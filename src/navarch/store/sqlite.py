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
import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from navarch.store import failpoints, sqlite_file
from navarch.store.base import (
    MAX_OPS,
    Compacted,
    Conflict,
    Delete,
    Entry,
    Event,
    Lost,
    Page,
    Progress,
    Put,
    StoreUnavailable,
    check_ops,
)
from navarch.store.expiry import Deadlines
from navarch.store.feed import Feed
from navarch.store.lock import FileLock
from navarch.store.outcome import Outcome, settle
from navarch.store.sqlite_batch import Batch, Refused, Waiting
from navarch.store.sqlite_file import Loaded, Standing
from navarch.store.sqlite_open import open_database, record_path
from navarch.world import Clock, SystemClock

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Up to this many rows a batch has any size; above, only multiples of it, so that few statements need preparing.
_BATCH_STEP = 64
_BATCH_MAX = 1024
_COMPACT_STEP = 5_000
_WATCH_PAGE = 1_000
_SYNC_EVERY_S = 1.0

_WRITE_BEFORE = failpoints.Point("sqlite.write.before")
_WRITE_AFTER = failpoints.Point("sqlite.write.after")
_NOTE_BEFORE = failpoints.Point("sqlite.note.before")
_NOTE_AFTER = failpoints.Point("sqlite.note.after")
# A failed batch is at most this much late.
_LATE_MAX = _BATCH_MAX + 2 * MAX_OPS
_ROW = "(" + ",".join("?" * sqlite_file.COLUMNS) + ")"


class SQLiteStore:
    """`path` is the database file, made if missing; a lock file beside it keeps a second process out. `record` is where
    is noted how far it has come: best kept where it is not lost together with the database. Without `sync` a crash of
    the machine loses what was written last: for stores that live no longer than a test."""

    max_ops = MAX_OPS

    def __init__(
        self, path: str | Path, *, record: str | Path = "", clock: Clock | None = None, sync: bool = True
    ) -> None:
        # SQLite keeps its companions beside the file itself, and so do we.
        self._path = Path(path).resolve()
        self._record_path = Path(record) if record else record_path(self._path)
        self._sync = sync
        self._clock = clock or SystemClock()
        self._feed = Feed()
        self._index: dict[str, Standing] = {}
        self._deadlines = Deadlines()
        self._revision = 0
        self._last_used_revision = 0
        self._compacted = 0
        self._waiting: deque[Waiting] = deque()
        self._busy = False
        self._needs_reload = False
        self._closing = False
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = asyncio.Event()
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="store-read")
        self._lock = FileLock(self._path)
        self._users = 0
        self._syncing = False
        # Why the last write failed, and how large it was.
        self._refusing = ""
        self._refused_bytes = 0

    # Opening and closing

    async def open(self) -> None:
        self._users += 1
        if self._users > 1:
            return
        self._loop = asyncio.get_running_loop()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.take()
            opened = await self._loop.run_in_executor(self._reads, open_database, self._path, self._record_path)
        except (sqlite3.Error, OSError) as error:
            self._users -= 1
            self._lock.give()
            raise Lost(f"cannot open {self._path}: {error}") from error
        except BaseException:
            self._users -= 1
            self._lock.give()
            raise
        if opened.remark:
            log.warning("%s", opened.remark)
        self._writer, self._reader, self._record = opened.writer, opened.reader, opened.record
        self._settle(self._writer)
        self._adopt(opened.loaded)
        self._thread = threading.Thread(target=self._work, name="store-write", daemon=True)
        self._thread.start()

    def _settle(self, connection: sqlite3.Connection) -> None:
        if not self._sync:
            connection.execute("PRAGMA synchronous = OFF")

    def _adopt(self, loaded: Loaded) -> None:
        self._index = loaded.index
        self._deadlines.load(loaded.expiring)
        self._compacted = max(self._compacted, loaded.compacted)
        self._revision = max(loaded.newest, loaded.compacted)
        self._last_used_revision = max(self._last_used_revision, self._revision)

    async def close(self) -> None:
        """Finish what has been handed in, then close the files."""
        if self._closing or not self._users:
            return
        self._users -= 1
        if self._users:
            return
        self._closing = True
        if self._busy or self._waiting:
            await self._idle.wait()
        self._jobs.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        await self._loop.run_in_executor(self._reads, self._close_files)
        self._reads.shutdown()
        self._lock.give()

    def _close_files(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._reader.close()
        self._writer.close()
        self._record.sync()
        self._record.close()

    # Writing

    async def commit(self, ops: Sequence[Put | Delete]) -> int:
        check_ops(ops)
        if self._closing:
            raise StoreUnavailable("the store is closed")
        done: Outcome[int] = Outcome(loop=self._loop)
        self._waiting.append(Waiting(ops, done))
        if not self._busy:
            self._take_turn()
            # One turn of the loop lets every writer that is ready now join the first batch.
            self._loop.call_soon(self._start_batch)
        return await settle(done)

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

    def _form_batch(self) -> Batch:
        size = len(self._waiting)
        if size > _BATCH_STEP:
            size = min(size - size % _BATCH_STEP, _BATCH_MAX)
        batch = Batch(self._index)
        while self._waiting and len(batch.events) < size:
            waiting = self._waiting.popleft()
            refused = batch.refusal_of(waiting.ops)
            if refused is None:
                self._last_used_revision += 1
                batch.add(waiting, self._last_used_revision, self._clock)
            else:
                batch.refused.append(Refused(refused, waiting.done))
        return batch

    def _finish_batch(self, batch: Batch) -> None:
        """Durable (or empty): tell the index, the watchers, the writers; start the next batch."""
        index = self._index
        for key, standing in batch.index.items():
            if standing is not None:
                index[key] = standing
            else:
                index.pop(key, None)
        for key, revision, expires in batch.expiring:
            self._deadlines.add(key, revision, expires)
        if batch.events:
            self._refusing = ""
            self._revision = batch.events[-1].revision
            self._note()
            self._feed.publish(batch.events, self._revision)
        for done, revision in batch.acknowledged:
            if not done.done():
                done.set_result(revision)
        for refused in batch.refused:
            self._refuse(refused)
        self._start_batch()

    def _note(self) -> None:
        """Before anybody is told of the batch, it is on record; about once a second the record is synced."""
        if failpoints.armed:
            _NOTE_BEFORE.visit()
        self._record.note(self._revision)
        if failpoints.armed:
            _NOTE_AFTER.visit()
        if not self._syncing:
            self._syncing = True
            self._loop.call_later(_SYNC_EVERY_S, self._sync_record)

    def _sync_record(self) -> None:
        if self._closing:
            return
        syncing = self._loop.run_in_executor(self._reads, self._record.sync)

        def synced(done: asyncio.Future[None]) -> None:
            self._syncing = False
            if error := done.exception():
                log.warning("cannot sync %s: %s", self._record_path, error)

        syncing.add_done_callback(synced)

    def _refuse(self, refused: Refused) -> None:
        """A failed precondition is answered with what the key holds, which only the file knows."""
        key, done = refused
        if key not in self._index:
            if not done.done():
                done.set_exception(Conflict(None, key))
            return
        read = self._loop.run_in_executor(self._reads, self._read_one, key)

        def answer(result: asyncio.Future[Entry | None]) -> None:
            if done.done():
                return
            failed = result.exception()
            done.set_exception(Conflict(result.result(), key) if failed is None else _unavailable(failed))

        read.add_done_callback(answer)

    def _fail_batch(self, batch: Batch, error: BaseException) -> None:
        self._needs_reload = True
        self._refused_bytes = sum(len(event.value) for event in batch.events if event.value)
        self._refusing = str(error)
        failure = [done for done, _ in batch.acknowledged] + [refused.done for refused in batch.refused]
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

    def _reloaded(self, loaded: Loaded, late: list[Event]) -> None:
        """A write whose commit reported an error may have become durable all the same; watchers must see it then."""
        self._needs_reload = False
        self._adopt(loaded)
        self._note()
        if late:
            self._feed.publish(late, self._revision)
        self._start_batch()

    # On the writer thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _write(self, batch: Batch) -> None:
        statement = f"INSERT INTO log VALUES {_ROW}" + f",{_ROW}" * (len(batch.events) - 1)
        try:
            if failpoints.armed:
                _WRITE_BEFORE.visit()
            self._writer.execute(statement, batch.rows)
            if failpoints.armed:
                _WRITE_AFTER.visit()
        except Exception as error:
            # Not only sqlite3.Error: whatever went wrong, somebody waits for an answer.
            self._call(self._fail_batch, batch, error)
        else:
            self._call(self._finish_batch, batch)

    def _reload(self) -> None:
        """After a failed write: a fresh connection, and the index as the file has it."""
        try:
            fresh = sqlite_file.connect(self._path)
            self._settle(fresh)
            loaded = sqlite_file.load(fresh)
            late = sqlite_file.rows_since(fresh, self._revision, _LATE_MAX)
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
        except RuntimeError as error:  # the threads are gone
            raise StoreUnavailable("the store is closed") from error

    async def get(self, key: str) -> Entry | None:
        return await self._read(self._read_one, key) if key in self._index else None

    def _read_one(self, key: str) -> Entry | None:
        return sqlite_file.read_one(self._reader, key)

    async def range(self, prefix: str, *, revision: int = 0, limit: int = 0, after: str = "") -> Page:
        if revision and revision < self._compacted:
            raise Compacted(self._compacted)
        return await self._read(sqlite_file.read_range, self._reader, prefix, revision, limit, after, self._compacted)

    async def watch(self, prefix: str, since: int) -> AsyncIterator[Event | Progress]:
        if since < self._compacted:
            raise Compacted(self._compacted)
        subscription = self._feed.subscribe(prefix)
        try:
            seen, live_from = since, self._revision
            while seen < live_from:
                page = await self._read(sqlite_file.rows_since, self._reader, seen, _WATCH_PAGE)
                if seen < self._compacted:
                    raise Compacted(self._compacted)
                for event in page:
                    if event.key.startswith(prefix):
                        yield event
                seen = page[-1].revision if page else live_from
            yield Progress(seen)
            while True:
                events, revision = await subscription.take()
                for event in events:
                    if event.revision > seen:
                        yield event
                yield Progress(revision)
        finally:
            self._feed.unsubscribe(subscription)

    async def revision(self) -> int:
        return self._revision

    def known_revision(self) -> int:
        return self._revision

    async def check(self) -> None:
        if self._refusing:
            # Whether it still is so only a write can tell.
            await self._on_writer(self._try_to_write)
            self._refusing = ""

    def _try_to_write(self) -> None:
        if failpoints.armed:
            _WRITE_BEFORE.visit()
        sqlite_file.try_to_write(self._writer, self._refused_bytes)

    # Expiry and compaction

    async def expire(self) -> int:
        over = [
            Delete(key, revision)
            for key, revision in self._deadlines.over(self._clock.now().timestamp())
            if (known := self._index.get(key)) is not None and known.mod == revision
        ]
        results = await asyncio.gather(*(self.commit((op,)) for op in over), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        for op, result in zip(over, results, strict=True):
            if isinstance(result, BaseException) and not isinstance(result, Conflict):
                self._deadlines.add(op.key, op.expected or 0, 0.0)
        for error in failed:
            if not isinstance(error, Conflict):
                raise error
        return len(over) - len(failed)

    async def compact(self, revision: int) -> None:
        revision = min(revision, self._revision)
        if revision <= self._compacted:
            return
        before, self._compacted = self._compacted, revision
        for start in range(before, revision, _COMPACT_STEP):
            await self._compact_step(start, min(start + _COMPACT_STEP, revision))
        await self._on_writer(lambda: sqlite_file.settle(self._writer))

    async def crowded(self) -> bool:
        return await self._read(sqlite_file.crowded, self._reader)

    async def _compact_step(self, after: int, until: int) -> None:
        await self._on_writer(lambda: sqlite_file.forget(self._writer, after, until))

    async def _on_writer(self, function: Callable[[], None]) -> None:
        """Call it on the writer's thread, between two batches."""
        if self._closing:
            raise StoreUnavailable("the store is closed")
        done: asyncio.Future[None] = self._loop.create_future()

        def settle(error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(_unavailable(error)) if error else done.set_result(None)

        def work() -> None:
            try:
                function()
            except Exception as error:
                self._call(settle, error)
            else:
                self._call(settle, None)

        self._jobs.put(work)
        await done


def _unavailable(error: BaseException) -> StoreUnavailable:
    unavailable = StoreUnavailable(f"the store cannot serve now: {error}")
    unavailable.__cause__ = error
    return unavailable
