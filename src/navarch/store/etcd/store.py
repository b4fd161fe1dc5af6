"""`EtcdStore`: the seam over etcd. Nothing is kept here that etcd does not have; revisions are etcd's.

A commit is one transaction that compares mod revisions. Where its answer is lost (an endpoint died, the leader changed)
it is sent again: the comparison lets it happen once, and if it fails now, what the keys hold tells whether the first
try did it. Only when that cannot be told is the outcome reported as unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from navarch.numbers import integer_or
from navarch.store import failpoints, record
from navarch.store.base import (
    ETCD_MAX_OPS,
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
from navarch.store.etcd.client import Client, LeaseGone, Unanswered
from navarch.store.etcd.leases import Leases
from navarch.store.etcd.proto import rpc_pb2 as rpc
from navarch.store.etcd.target import Target
from navarch.store.etcd.watching import Watch, after
from navarch.store.outcome import Outcome, settle
from navarch.store.record import Noted, Record
from navarch.world import Clock, SystemClock

_COMMIT_BEFORE = failpoints.Point("etcd.commit.before")
_COMMIT_AFTER = failpoints.Point("etcd.commit.after")

_OWNER: Final = "/navarch.dev/cluster"
_PAGE: Final = 1_000
_RANGE_ATTEMPTS: Final = 3
_COMMIT_TIMEOUT_S = 10.0
_COMMIT_PAUSE_S: Final = 0.1
_OLDEST_TIMEOUT_S: Final = 5.0


class EtcdStore:
    """`owner` says whose objects these are, a cluster's name and what tells it apart: another one's are not touched.
    `record` is a file in which is noted which etcd it is and how far it has come, so that another or an older one is
    not taken for it."""

    max_ops = ETCD_MAX_OPS

    def __init__(
        self, target: Target, *, owner: str = "", record: Path | None = None, clock: Clock | None = None
    ) -> None:
        self._target = target
        self._owner = owner
        self._record_path = record
        self._record: Record | None = None
        self._root = target.prefix
        self._client = Client(target)
        self._leases = Leases(self._client, clock or SystemClock())
        self._asks = False
        self._cluster = 0
        self._newest = 0
        self._watches: dict[Watch, None] = {}
        self._writing: set[asyncio.Task[int]] = set()
        self._asking: asyncio.Task[int] | None = None
        self._next: asyncio.Task[int] | None = None
        self._users = 0

    async def open(self) -> None:
        self._users += 1
        if self._users > 1:
            return
        await self._client.open()
        try:
            status = await self._client.call("Maintenance/Status", rpc.StatusRequest())
            self._cluster = status.header.cluster_id
            self._asks = tells_progress(status.version)
            self._compare_with_record(await self.revision())
            await self._claim()
        except BaseException:
            self._users -= 1
            await self._client.close()
            raise

    async def close(self) -> None:
        """Finish what has been handed in, then hang up."""
        self._users -= 1
        if self._users == 0:
            if self._writing:
                await asyncio.wait(self._writing)
            await self._client.close()
            if self._record is not None:
                self._record.sync()
                self._record.close()
                self._record = None

    def _compare_with_record(self, revision: int) -> None:
        """Raises StoreUnavailable where this is not the etcd that was used before, or an older state of it."""
        if self._record_path is None:
            return
        generation = f"{self._cluster:032x}"
        try:
            noted = record.read(self._record_path)
        except ValueError as error:
            raise Lost(str(error)) from error
        if noted is None:
            self._record_path.parent.mkdir(parents=True, exist_ok=True)
            record.create(self._record_path, Noted(generation, revision))
        elif noted.generation != generation:
            raise Lost(
                f"{self._target} is another etcd (cluster id {self._cluster:x}) than the one that this cluster is in "
                f"({int(noted.generation, 16):x}), or that one was restored from a snapshot"
            )
        elif revision < noted.revision:
            raise Lost(
                f"{self._target} is at revision {revision}, and had been at {noted.revision}: it has lost its newest "
                "state"
            )
        self._record = Record(self._record_path, generation)
        self._record.note(revision)

    async def _claim(self) -> None:
        """Raises StoreUnavailable where the objects there are another cluster's."""
        if not self._owner:
            return
        try:
            await self.commit((Put(_OWNER, self._owner.encode(), expected=0),))
        except Conflict as conflict:
            found = conflict.current.value.decode(errors="replace") if conflict.current else ""
            if found.rpartition(" ")[2] != self._owner.rpartition(" ")[2]:
                raise StoreUnavailable(
                    f"what is in {self._target} belongs to the cluster {found.partition(' ')[0]!r} with another "
                    "authority; give this one a part of its own, such as "
                    f"etcd://{','.join(self._target.endpoints)}/{self._owner.partition(' ')[0]}"
                ) from None

    def _bytes(self, key: str) -> bytes:
        return (self._root + key).encode()

    def _entry(self, kv: Any) -> Entry:
        return Entry(kv.key.decode()[len(self._root) :], kv.value, kv.create_revision, kv.mod_revision)

    # Reading

    async def get(self, key: str) -> Entry | None:
        answer = await self._client.call("KV/Range", rpc.RangeRequest(key=self._bytes(key)))
        return self._entry(answer.kvs[0]) if answer.kvs else None

    async def range(self, prefix: str, *, revision: int = 0, limit: int = 0, after: str = "") -> Page:
        for _ in range(_RANGE_ATTEMPTS if not revision else 1):
            try:
                return await self._range(prefix, revision, limit, after)
            except Compacted:
                # Of a range over several pages only the first one can be read at "now".
                if revision:
                    raise Compacted(await self._oldest(revision)) from None
        raise StoreUnavailable(f"{self._target} forgets its history faster than {prefix} can be read")

    async def _range(self, prefix: str, revision: int, limit: int, behind: str) -> Page:
        full = self._bytes(prefix)
        key, end = full, after(full)
        if behind >= prefix:
            key = self._bytes(behind) + b"\0"
        entries: list[Entry] = []
        while True:
            wanted = min(limit - len(entries), _PAGE) if limit else _PAGE
            request = rpc.RangeRequest(key=key, range_end=end, limit=wanted, revision=revision)
            answer = await self._client.call("KV/Range", request)
            # Pages behind the first are read as of the same moment.
            revision = revision or answer.header.revision
            entries += map(self._entry, answer.kvs)
            if not answer.more or len(entries) == limit:
                remaining = answer.count - len(answer.kvs)
                return Page(entries, revision, remaining > 0, remaining)
            key = answer.kvs[-1].key + b"\0"

    async def _oldest(self, revision: int) -> int:
        """The revision that etcd still has; only a watch says it."""
        watch = Watch(self._client, self._root, "/", max(0, revision - 1), lambda: True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OLDEST_TIMEOUT_S), aclosing(watch.run()) as stream:
                try:
                    async for _ in stream:
                        pass
                except Compacted as error:
                    return error.oldest
        return revision + 1

    async def revision(self) -> int:
        """Reads that come while one is under way share the next one: that one begins after they were asked for."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_revision())
            mine = self._asking
        else:
            if self._next is None:
                self._next = asyncio.create_task(self._ask_revision(behind=self._asking))
            mine = self._next
        newest = await asyncio.shield(mine)
        for watch in self._watches:
            watch.want(newest)
        return newest

    def known_revision(self) -> None:
        # Others write, too.
        return None

    async def _ask_revision(self, behind: asyncio.Task[int] | None = None) -> int:
        if behind is not None:
            await asyncio.wait([behind])
            self._asking, self._next = self._next, None
        try:
            request = rpc.RangeRequest(key=self._bytes("/"), count_only=True)
            answer = await self._client.call("KV/Range", request)
            return self._seen(answer.header)
        finally:
            if self._next is None:
                self._asking = None

    def _seen(self, header: Any) -> int:
        """A revision that goes back, or another cluster's id, is another history: nothing known of it is true."""
        if header.cluster_id != self._cluster or header.revision < self._newest:
            raise StoreUnavailable(
                f"{self._target} is at revision {header.revision} of cluster {header.cluster_id:x}, where revision "
                f"{self._newest} of cluster {self._cluster:x} was seen: it was restored or replaced. Restart the "
                "API servers to go on with what it has now"
            )
        self._newest = header.revision
        if self._record is not None:
            self._record.note(self._newest)
        return self._newest

    # Writing

    async def commit(self, ops: Sequence[Put | Delete]) -> int:
        check_ops(ops, self.max_ops)
        outcome: Outcome[int] = Outcome(loop=asyncio.get_running_loop())
        writing = asyncio.create_task(self._commit(ops))

        def done(task: asyncio.Task[int]) -> None:
            if task.cancelled():
                outcome.set_exception(StoreUnavailable("stopped while a write was under way; its outcome is not known"))
            elif (error := task.exception()) is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(task.result())

        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        writing.add_done_callback(done)
        return await settle(outcome)

    async def _commit(self, ops: Sequence[Put | Delete]) -> int:
        request = await self._transaction(ops)
        give_up_s = asyncio.get_running_loop().time() + _COMMIT_TIMEOUT_S
        sent = False
        while True:
            try:
                if failpoints.armed:
                    _COMMIT_BEFORE.visit()
                answer = await self._client.attempt("KV/Txn", request, give_up_s)
                if failpoints.armed:
                    _COMMIT_AFTER.visit()
                break
            except LeaseGone:
                self._leases.forget()
                request = await self._transaction(ops)
            except Unanswered as error:
                sent = sent or error.sent
                if asyncio.get_running_loop().time() + _COMMIT_PAUSE_S >= give_up_s:
                    what = "; whether the write happened is not known" if sent else ""
                    raise self._client.unavailable(f"{error}{what}") from error
                await asyncio.sleep(_COMMIT_PAUSE_S)
        if answer.succeeded:
            return int(answer.header.revision)
        return self._refused(ops, answer, sent)

    async def _transaction(self, ops: Sequence[Put | Delete]) -> rpc.TxnRequest:
        request = rpc.TxnRequest()
        for op in ops:
            key = self._bytes(op.key)
            if op.expected is not None:
                request.compare.add(result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, key=key, mod_revision=op.expected)
            if isinstance(op, Delete) and not op.expected:
                request.compare.add(result=rpc.Compare.GREATER, target=rpc.Compare.MOD, key=key, mod_revision=0)
            if isinstance(op, Put):
                lease = await self._leases.lease(op.ttl_s) if op.ttl_s is not None else 0
                request.success.add(request_put=rpc.PutRequest(key=key, value=op.value, lease=lease))
            else:
                request.success.add(request_delete_range=rpc.DeleteRangeRequest(key=key))
            request.failure.add(request_range=rpc.RangeRequest(key=key))
        return request

    def _refused(self, ops: Sequence[Put | Delete], answer: Any, sent: bool) -> int:
        """The comparison failed: somebody else's write is there, or, after an answer that was lost, our own."""
        held = [next(iter(each.response_range.kvs), None) for each in answer.responses]
        current = [None if kv is None else self._entry(kv) for kv in held]
        if sent:
            return self._recognise(ops, current)
        for op, entry in zip(ops, current, strict=True):
            missing = isinstance(op, Delete) and entry is None
            if missing or (op.expected is not None and op.expected != (entry.mod_revision if entry else 0)):
                raise Conflict(entry, op.key)
        raise self._client.unavailable("it refused a transaction whose conditions hold")

    def _recognise(self, ops: Sequence[Put | Delete], current: Sequence[Entry | None]) -> int:
        """The revision of our own earlier try, if what the keys hold is its work."""
        revisions: set[int] = set()
        ours = True
        for op, entry in zip(ops, current, strict=True):
            if isinstance(op, Delete):
                ours = ours and entry is None
            else:
                ours = ours and entry is not None and entry.value == op.value
                revisions.add(entry.mod_revision if entry else 0)
        if ours and len(revisions) == 1:
            return revisions.pop()
        raise self._client.unavailable(
            "the answer to a write was lost, and its keys were written again since; whether it happened is not known"
        )

    # Watching

    async def watch(self, prefix: str, since: int) -> AsyncIterator[Event | Progress]:
        watch = Watch(self._client, self._root, prefix, since, lambda: self._asks)
        self._watches[watch] = None
        watch.want(self._newest)
        try:
            async with aclosing(watch.run()) as stream:
                async for item in stream:
                    yield item
        except Compacted as error:
            raise error if error.oldest else Compacted(await self._oldest(since)) from None
        finally:
            self._watches.pop(watch, None)

    # Housekeeping

    async def check(self) -> None:
        status = await self._client.call("Maintenance/Status", rpc.StatusRequest())
        if status.errors:
            raise self._client.unavailable("; ".join(status.errors))
        await self.revision()

    async def compact(self, revision: int) -> None:
        revision = min(revision, await self.revision())
        if revision <= 0:
            return
        try:
            await self._client.call("KV/Compact", rpc.CompactionRequest(revision=revision))
        except Compacted:
            # Another API server, or etcd itself, was faster.
            return

    async def crowded(self) -> bool:
        # Who runs it sees to its size.
        return False

    async def expire(self) -> int:
        return 0


def tells_progress(version: str) -> bool:
    """Whether this etcd's answers to progress requests can be trusted: from 3.4.31 and 3.5.13 on."""
    numbers = version.split("-")[0].split(".")
    major, minor, patch = (integer_or(number, 0) for number in [*numbers, "0", "0"][:3])
    return (major, minor) > (3, 5) or (major, minor, patch) >= (3, 5, 13) or ((major, minor) == (3, 4) and patch >= 31)
