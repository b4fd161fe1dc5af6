"""The etcd of `navarch envtest`: what its keys, leases and watches answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from navarch.cluster.kube.etcd_keys import COMPACTED, FUTURE, NO_KEY, NO_LEASE, TWICE, Keys, KeysError
from navarch.cluster.kube.etcd_leases import Leases
from navarch.cluster.kube.etcd_watches import Stream
from navarch.store.etcd.proto import rpc_pb2 as rpc
from navarch.world import RealWorld


def put(keys: Keys, key: str, value: str = "", **stated: Any) -> rpc.PutResponse:
    return keys.put(rpc.PutRequest(key=key.encode(), value=value.encode(), **stated))


def found(keys: Keys, **asked: Any) -> list[tuple[bytes, bytes]]:
    answer = keys.range(rpc.RangeRequest(**{"key": b"\0", "range_end": b"\0", **asked}))
    return [(kv.key, kv.value) for kv in answer.kvs]


def test_ranges_are_sorted_bounded_and_counted_as_they_are_asked() -> None:
    keys = Keys()
    for key, value in (("b", "1"), ("a", "2"), ("c", "0"), ("a", "3")):
        put(keys, key, value)

    newest = {"sort_target": rpc.RangeRequest.MOD, "sort_order": rpc.RangeRequest.DESCEND}
    assert found(keys) == [(b"a", b"3"), (b"b", b"1"), (b"c", b"0")]
    assert found(keys, **newest, limit=2) == [(b"a", b"3"), (b"c", b"0")]
    assert found(keys, key=b"b", range_end=b"c") == [(b"b", b"1")]
    assert found(keys, revision=3) == [(b"a", b"2"), (b"b", b"1")]
    assert found(keys, min_mod_revision=4, keys_only=True) == [(b"a", b""), (b"c", b"")]
    counted = keys.range(rpc.RangeRequest(key=b"a", range_end=b"z", count_only=True))
    assert (counted.count, len(counted.kvs)) == (3, 0)


def test_a_transaction_compares_and_writes_all_or_nothing() -> None:
    keys = Keys()
    put(keys, "a", "1")
    first = rpc.Compare(target=rpc.Compare.VERSION, key=b"a", version=1)
    inner = rpc.TxnRequest(success=[rpc.RequestOp(request_put={"key": b"c", "value": b"3"})])
    ops = [
        rpc.RequestOp(request_put={"key": b"b", "value": b"2", "prev_kv": True}),
        rpc.RequestOp(request_delete_range={"key": b"a", "prev_kv": True}),
        rpc.RequestOp(request_txn=inner),
    ]
    request = rpc.TxnRequest(compare=[first], success=ops)

    done = keys.txn(request)
    again = keys.txn(request)

    assert (done.succeeded, done.header.revision) == (True, 3)
    assert done.responses[1].response_delete_range.prev_kvs[0].value == b"1"
    assert (again.succeeded, again.header.revision) == (False, 3)
    assert found(keys) == [(b"b", b"2"), (b"c", b"3")]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (rpc.TxnRequest(success=[rpc.RequestOp(request_put={"value": b"1"})]), NO_KEY),
        (rpc.TxnRequest(success=[rpc.RequestOp(request_put={"key": b"a", "lease": 7})]), NO_LEASE),
        (rpc.TxnRequest(success=[rpc.RequestOp(request_put={"key": b"a"})] * 2), TWICE),
        (rpc.TxnRequest(success=[rpc.RequestOp(request_range={"key": b"a", "revision": 99})]), FUTURE),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(request_: rpc.TxnRequest, words: str) -> None:
    keys = Keys()

    with pytest.raises(KeysError, match=words):
        keys.txn(request_)

    assert (keys.revision, found(keys)) == (1, [])


def test_what_was_compacted_is_gone_and_what_is_there_stays() -> None:
    keys = Keys()
    for key in ("a", "b", "a"):
        put(keys, key)
    keys.delete(rpc.DeleteRangeRequest(key=b"b"))

    keys.compact(rpc.CompactionRequest(revision=5))

    assert found(keys) == [(b"a", b"")]
    with pytest.raises(KeysError, match=COMPACTED):
        found(keys, revision=4)
    with pytest.raises(KeysError, match=COMPACTED):
        keys.compact(rpc.CompactionRequest(revision=5))


def test_a_watch_tells_the_past_and_then_what_happens() -> None:
    keys = Keys()
    for value in ("1", "2"):
        put(keys, "a", value)
    stream = Stream(keys)
    noput = rpc.WatchCreateRequest.NOPUT
    begun: dict[str, Any] = {"key": b"a", "start_revision": 3, "prev_kv": True}
    stream.take(rpc.WatchRequest(create_request=begun))
    stream.take(rpc.WatchRequest(create_request={"key": b"\0", "range_end": b"\0", "filters": [noput]}))

    put(keys, "b")
    keys.delete(rpc.DeleteRangeRequest(key=b"a"))
    stream.take(rpc.WatchRequest(progress_request={}))
    stream.take(rpc.WatchRequest(cancel_request={"watch_id": 0}))
    put(keys, "a", "4")
    stream.close()

    told = [
        (each.watch_id, each.created, each.canceled, [(event.type, event.prev_kv.value) for event in each.events])
        for each in stream
    ]
    assert told == [
        (0, True, False, []),
        (0, False, False, [(rpc.Event.PUT, b"1")]),
        (1, True, False, []),
        (0, False, False, [(rpc.Event.DELETE, b"2")]),
        (1, False, False, [(rpc.Event.DELETE, b"")]),
        (-1, False, False, []),
        (0, False, True, []),
    ]


class Clock(RealWorld):
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s = 0.0
        self.monotonic = lambda: self.at_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def leases(keys: Keys, clock: Clock) -> Iterator[Leases]:
    made = Leases(keys, clock)
    yield made
    made.close()


def test_keys_go_with_their_lease(keys: Keys, clock: Clock, leases: Leases) -> None:
    granted = leases.grant(rpc.LeaseGrantRequest(TTL=10))
    put(keys, "a", lease=granted.ID)
    put(keys, "b")
    clock.at_s = 6
    kept = leases.keep_alive(rpc.LeaseKeepAliveRequest(ID=granted.ID))
    clock.at_s = 12
    asked = leases.time_to_live(rpc.LeaseTimeToLiveRequest(ID=granted.ID, keys=True))

    leases.revoke(rpc.LeaseRevokeRequest(ID=granted.ID))

    assert (kept.TTL, asked.TTL, asked.grantedTTL, list(asked.keys)) == (10, 4, 10, [b"a"])
    assert found(keys) == [(b"b", b"")]
    assert leases.keep_alive(rpc.LeaseKeepAliveRequest(ID=granted.ID)).TTL == 0
    with pytest.raises(KeysError, match=NO_LEASE):
        leases.revoke(rpc.LeaseRevokeRequest(ID=granted.ID))


def test_a_lease_that_nobody_keeps_ends(keys: Keys, clock: Clock, leases: Leases) -> None:
    granted = leases.grant(rpc.LeaseGrantRequest(TTL=10))
    put(keys, "a", lease=granted.ID)
    clock.at_s = 11

    # Any change makes the thread look again.
    leases.grant(rpc.LeaseGrantRequest(TTL=10))

    stream = Stream(keys)
    stream.take(rpc.WatchRequest(create_request={"key": b"a", "start_revision": 2}))
    events = (each.events[0].type for each in stream if each.events)
    assert (next(events), next(events)) == (rpc.Event.PUT, rpc.Event.DELETE)
    stream.close()
