"""The keys of the `etcd` of `navarch envtest`, with etcd's revisions: what was written is there under each of them.

In: ranges, puts, deletions, transactions and compactions in etcd's messages.  Out: its answers, and for each write that
happened its events, to whoever listens. All writes of a transaction have one revision; a revision that was compacted
cannot be read. Keys are in memory and live as long as the process: they are a test's. One lock is around everything.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from navarch.store.etcd.proto import rpc_pb2 as rpc

Listener = Callable[[int, Sequence[rpc.Event]], None]
_TARGETS: Final = ("version", "create_revision", "mod_revision", "value", "lease")
_SORTED_BY: Final = ("key", "version", "create_revision", "mod_revision", "value")
FUTURE: Final = "etcdserver: mvcc: required revision is a future revision"
COMPACTED: Final = "etcdserver: mvcc: required revision has been compacted"
NO_KEY: Final = "etcdserver: key is not provided"
NO_LEASE: Final = "etcdserver: requested lease not found"
TWICE: Final = "etcdserver: duplicate key given in txn request"


class KeysError(Exception):
    """What etcd says of the request; the text is its own."""


def within(key: bytes, start: bytes, end: bytes) -> bool:
    """Whether a key is in a range as etcd writes them: no end is one key, a zero byte everything from there on."""
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)


class Keys:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.revision = 1
        self.compacted = 0
        self.listeners: list[Listener] = []
        # Whether there is a lease; who keeps leases says so.
        self.knows_lease: Callable[[int], bool] = lambda lease: False
        self._order: list[bytes] = []
        # Of each key all that is not compacted, oldest first; a version of 0 is its deletion.
        self._versions: dict[bytes, list[rpc.KeyValue]] = {}
        # What happened since the compaction, in order.
        self._log: list[rpc.Event] = []

    def header(self) -> rpc.ResponseHeader:
        return rpc.ResponseHeader(cluster_id=1, member_id=1, revision=self.revision)

    # Reading

    def range(self, asked: rpc.RangeRequest) -> rpc.RangeResponse:
        if not asked.key:
            raise KeysError(NO_KEY)
        with self.lock:
            self._refuse_revision(asked.revision)
            found = [kv for kv in self._at(asked.key, asked.range_end, asked.revision) if _bounded(kv, asked)]
            answer = rpc.RangeResponse(header=self.header(), count=len(found))
        if asked.count_only:
            return answer
        if asked.sort_order or asked.sort_target:
            by = _SORTED_BY[asked.sort_target]
            found.sort(key=lambda kv: getattr(kv, by), reverse=asked.sort_order == rpc.RangeRequest.DESCEND)
        if 0 < asked.limit < len(found):
            found, answer.more = found[: asked.limit], True
        for kv in found:
            made = answer.kvs.add()
            made.CopyFrom(kv)
            if asked.keys_only:
                made.value = b""
        return answer

    def events_since(self, start: bytes, end: bytes, revision: int) -> list[tuple[int, list[rpc.Event]]]:
        """What happened to a range since a revision, which is included.  Raises KeysError."""
        if revision < self.compacted:
            raise KeysError(COMPACTED)
        found: dict[int, list[rpc.Event]] = {}
        for event in self._log[bisect_left(self._log, revision, key=_revision_of) :]:
            if within(event.kv.key, start, end):
                found.setdefault(event.kv.mod_revision, []).append(event)
        return list(found.items())

    def _refuse_revision(self, revision: int) -> None:
        if revision > self.revision:
            raise KeysError(FUTURE)
        if 0 < revision < self.compacted:
            raise KeysError(COMPACTED)

    def _keys(self, start: bytes, end: bytes) -> Iterator[bytes]:
        for position in range(bisect_left(self._order, start), len(self._order)):
            if not within(self._order[position], start, end):
                return
            yield self._order[position]

    def _at(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[rpc.KeyValue]:
        """What is in a range, now or at a revision."""
        for key in self._keys(start, end):
            for kv in reversed(self._versions[key]):
                if not revision or kv.mod_revision <= revision:
                    if kv.version:
                        yield kv
                    break

    # Writing

    def put(self, asked: rpc.PutRequest) -> rpc.PutResponse:
        answer: rpc.PutResponse = self._one(rpc.RequestOp(request_put=asked)).response_put
        return answer

    def delete(self, asked: rpc.DeleteRangeRequest) -> rpc.DeleteRangeResponse:
        answer: rpc.DeleteRangeResponse = self._one(rpc.RequestOp(request_delete_range=asked)).response_delete_range
        return answer

    def _one(self, op: rpc.RequestOp) -> rpc.ResponseOp:
        answer = self.txn(rpc.TxnRequest(success=[op])).responses[0]
        getattr(answer, answer.WhichOneof("response")).header.CopyFrom(self.header())
        return answer

    def txn(self, asked: rpc.TxnRequest) -> rpc.TxnResponse:
        with self.lock:
            events: list[rpc.Event] = []
            self._refuse_txn(asked)
            answer = self._txn(asked, events)
            if events:
                self.revision += 1
                self._log += events
                for listener in list(self.listeners):
                    listener(self.revision, events)
            answer.header.CopyFrom(self.header())
            return answer

    def _refuse_txn(self, asked: rpc.TxnRequest) -> None:
        """Nothing is written by half: what is wrong with either branch is said before."""
        for branch in (asked.success, asked.failure):
            written: set[bytes] = set()
            for op in branch:
                kind = op.WhichOneof("request")
                if kind == "request_txn":
                    self._refuse_txn(op.request_txn)
                    continue
                request = getattr(op, kind)
                if not request.key:
                    raise KeysError(NO_KEY)
                if kind == "request_range":
                    self._refuse_revision(request.revision)
                if kind == "request_put":
                    if request.lease and not self.knows_lease(request.lease):
                        raise KeysError(NO_LEASE)
                    if request.key in written:
                        raise KeysError(TWICE)
                    written.add(request.key)

    def _txn(self, asked: rpc.TxnRequest, events: list[rpc.Event]) -> rpc.TxnResponse:
        succeeded = all(self._holds(compare) for compare in asked.compare)
        answer = rpc.TxnResponse(succeeded=succeeded)
        for op in asked.success if succeeded else asked.failure:
            kind = op.WhichOneof("request")
            made = answer.responses.add()
            if kind == "request_range":
                made.response_range.CopyFrom(self.range(op.request_range))
            elif kind == "request_put":
                made.response_put.CopyFrom(self._put(op.request_put, events))
            elif kind == "request_delete_range":
                made.response_delete_range.CopyFrom(self._delete(op.request_delete_range, events))
            else:
                made.response_txn.CopyFrom(self._txn(op.request_txn, events))
        return answer

    def _holds(self, compare: rpc.Compare) -> bool:
        found = list(self._at(compare.key, compare.range_end)) or [rpc.KeyValue()]
        name = _TARGETS[compare.target]
        return all(_compared(compare.result, getattr(kv, name), getattr(compare, name)) for kv in found)

    def _put(self, asked: rpc.PutRequest, events: list[rpc.Event]) -> rpc.PutResponse:
        before = next(self._at(asked.key, b""), None)
        revision = self.revision + 1
        kv = rpc.KeyValue(key=asked.key, value=asked.value, lease=asked.lease, mod_revision=revision)
        kv.create_revision = before.create_revision if before is not None else revision
        kv.version = before.version + 1 if before is not None else 1
        if before is not None and asked.ignore_value:
            kv.value = before.value
        if before is not None and asked.ignore_lease:
            kv.lease = before.lease
        self._note(kv, before, events)
        return rpc.PutResponse(prev_kv=before if asked.prev_kv else None)

    def _delete(self, asked: rpc.DeleteRangeRequest, events: list[rpc.Event]) -> rpc.DeleteRangeResponse:
        gone = list(self._at(asked.key, asked.range_end))
        for before in gone:
            self._note(rpc.KeyValue(key=before.key, mod_revision=self.revision + 1), before, events)
        return rpc.DeleteRangeResponse(deleted=len(gone), prev_kvs=gone if asked.prev_kv else ())

    def _note(self, kv: rpc.KeyValue, before: rpc.KeyValue | None, events: list[rpc.Event]) -> None:
        if kv.key not in self._versions:
            insort(self._order, kv.key)
            self._versions[kv.key] = []
        self._versions[kv.key].append(kv)
        events.append(_event(kv, before))

    def compact(self, asked: rpc.CompactionRequest) -> rpc.CompactionResponse:
        with self.lock:
            if asked.revision > self.revision:
                raise KeysError(FUTURE)
            if asked.revision <= self.compacted:
                raise KeysError(COMPACTED)
            self.compacted = asked.revision
            for key in list(self._order):
                self._forget(key, asked.revision)
            del self._log[: bisect_left(self._log, asked.revision, key=_revision_of)]
            return rpc.CompactionResponse(header=self.header())

    def _forget(self, key: bytes, revision: int) -> None:
        """Of what was at the revision or before only the newest stays, and that only where it is no deletion."""
        versions = self._versions[key]
        old = [kv for kv in versions if kv.mod_revision <= revision]
        kept = versions[len(old) :]
        if old and old[-1].version:
            kept.insert(0, old[-1])
        if kept:
            self._versions[key] = kept
        else:
            del self._versions[key]
            del self._order[bisect_left(self._order, key)]


def _revision_of(event: rpc.Event) -> int:
    return int(event.kv.mod_revision)


def _event(kv: rpc.KeyValue, before: rpc.KeyValue | None) -> rpc.Event:
    """One that has the value before, too; who did not ask for it is not told."""
    there = before if before is not None and before.version else None
    return rpc.Event(type=rpc.Event.PUT if kv.version else rpc.Event.DELETE, kv=kv, prev_kv=there)


def _bounded(kv: rpc.KeyValue, asked: rpc.RangeRequest) -> bool:
    return (
        kv.mod_revision >= asked.min_mod_revision
        and kv.create_revision >= asked.min_create_revision
        and (not asked.max_mod_revision or kv.mod_revision <= asked.max_mod_revision)
        and (not asked.max_create_revision or kv.create_revision <= asked.max_create_revision)
    )


def _compared(result: int, found: Any, stated: Any) -> bool:
    if result == rpc.Compare.EQUAL:
        return bool(found == stated)
    if result == rpc.Compare.NOT_EQUAL:
        return bool(found != stated)
    return bool(found > stated if result == rpc.Compare.GREATER else found < stated)
