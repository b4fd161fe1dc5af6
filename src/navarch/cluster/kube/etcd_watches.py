"""Watches of the `etcd` of `navarch envtest`: one stream of messages for all that a client watches over it.

In: a client's requests to begin, to end and to say how far it is.  Out: etcd's answers in order, each with the events
of one revision. A watch from the past is given first what happened since; nothing is lost or told twice in between.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from navarch.cluster.kube.etcd_keys import COMPACTED, Keys, KeysError, within
from navarch.store.etcd.proto import rpc_pb2 as rpc


@dataclass(frozen=True)
class _Watch:
    start: bytes
    end: bytes
    filters: frozenset[int]
    previous: bool

    def of(self, events: Iterable[rpc.Event]) -> list[rpc.Event]:
        """What it is told of a revision."""
        found = []
        for event in events:
            unwanted = rpc.WatchCreateRequest.NODELETE if event.type else rpc.WatchCreateRequest.NOPUT
            if within(event.kv.key, self.start, self.end) and unwanted not in self.filters:
                told = rpc.Event(type=event.type, kv=event.kv)
                if self.previous and event.HasField("prev_kv"):
                    told.prev_kv.CopyFrom(event.prev_kv)
                found.append(told)
        return found


class Stream:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._watches: dict[int, _Watch] = {}
        self._next = 0
        self._answers: queue.SimpleQueue[rpc.WatchResponse | None] = queue.SimpleQueue()
        with keys.lock:
            keys.listeners.append(self._told)

    def __iter__(self) -> Iterator[rpc.WatchResponse]:
        while (answer := self._answers.get()) is not None:
            yield answer

    def close(self) -> None:
        with self._keys.lock:
            if self._told in self._keys.listeners:
                self._keys.listeners.remove(self._told)
        self._answers.put(None)

    def take(self, asked: rpc.WatchRequest) -> None:
        kind = asked.WhichOneof("request_union")
        with self._keys.lock:
            if kind == "create_request":
                self._create(asked.create_request)
            elif kind == "cancel_request":
                if self._watches.pop(asked.cancel_request.watch_id, None) is not None:
                    self._say(asked.cancel_request.watch_id, canceled=True)
            elif kind == "progress_request":
                # About all watches of the stream, which no number means.
                self._say(-1)

    def _create(self, asked: rpc.WatchCreateRequest) -> None:
        number = asked.watch_id or self._next
        if number in self._watches:
            self._say(-1, created=True, canceled=True, cancel_reason="mvcc: duplicate watch ID provided")
            return
        self._next = max(self._next, number + 1)
        watch = _Watch(asked.key, asked.range_end, frozenset(asked.filters), asked.prev_kv)
        self._say(number, created=True)
        try:
            past = (
                self._keys.events_since(asked.key, asked.range_end, asked.start_revision)
                if 0 < asked.start_revision <= self._keys.revision
                else ()
            )
        except KeysError:
            self._say(number, canceled=True, compact_revision=self._keys.compacted, cancel_reason=COMPACTED)
            return
        for _, events in past:
            self._tell(number, watch, events)
        self._watches[number] = watch

    def _told(self, revision: int, events: Sequence[rpc.Event]) -> None:
        for number, watch in self._watches.items():
            self._tell(number, watch, events)

    def _tell(self, number: int, watch: _Watch, events: Iterable[rpc.Event]) -> None:
        if told := watch.of(events):
            self._say(number, events=told)

    def _say(self, number: int, **stated: object) -> None:
        self._answers.put(rpc.WatchResponse(header=self._keys.header(), watch_id=number, **stated))
