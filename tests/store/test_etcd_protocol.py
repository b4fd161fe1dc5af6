"""What the store says to etcd and makes of its answers, against a server that plays its part: what a real one does
rarely, or only in another version than the one that is installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc.aio
import pytest

from navarch.store.base import Compacted, Event, Progress, Put, StoreUnavailable, TooLarge
from navarch.store.etcd.proto import rpc_pb2 as rpc
from navarch.store.etcd.store import EtcdStore, tells_progress
from navarch.store.etcd.target import parse

Play = Callable[["Stream"], Awaitable[None]]


class Stream:
    """One watch, as the server sees it."""

    def __init__(self, requests: AsyncIterator[Any], context: Any) -> None:
        self._requests = requests
        self.context = context

    async def request(self) -> Any:
        return await anext(self._requests)

    async def created(self) -> Any:
        """The request that begins the watch, answered."""
        create = (await self.request()).create_request
        await self.send(created=True)
        return create

    async def send(self, *events: tuple[str, int], revision: int = 0, **fields: Any) -> None:
        response = rpc.WatchResponse(header=rpc.ResponseHeader(cluster_id=7, revision=revision), **fields)
        for key, at in events:
            response.events.add(kv=rpc.KeyValue(key=key.encode(), value=b"v", mod_revision=at, create_revision=at))
        await self.context.write(response)


class FakeEtcd:
    """Each watch is played by the next of `plays`; `revision` is what a linearizable read says."""

    def __init__(self, version: str = "3.5.13") -> None:
        self.version = version
        self.revision = 10
        self.cluster = 7
        self.plays: list[Play] = []
        self.errors: list[tuple[grpc.StatusCode, str]] = []
        self.alarms: list[str] = []
        self.transactions = 0
        self.reads = 0
        self.delay_s = 0.0

    async def __aenter__(self) -> FakeEtcd:
        self._server = grpc.aio.server()

        def unary(method: Any, request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                method, request.FromString, lambda answer: answer.SerializeToString()
            )

        handlers = {
            "KV": {"Range": unary(self._range, rpc.RangeRequest), "Txn": unary(self._txn, rpc.TxnRequest)},
            "Maintenance": {"Status": unary(self._status, rpc.StatusRequest)},
            "Watch": {
                "Watch": grpc.stream_stream_rpc_method_handler(
                    self._watch, rpc.WatchRequest.FromString, lambda answer: answer.SerializeToString()
                )
            },
        }
        for service, methods in handlers.items():
            self._server.add_generic_rpc_handlers(
                [grpc.method_handlers_generic_handler(f"etcdserverpb.{service}", methods)]
            )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.store = EtcdStore(parse(f"etcd://127.0.0.1:{self.port}"))
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()
        await self._server.stop(None)

    def _header(self) -> Any:
        return rpc.ResponseHeader(cluster_id=self.cluster, revision=self.revision)

    async def _status(self, request: Any, context: Any) -> Any:
        return rpc.StatusResponse(header=self._header(), version=self.version, errors=self.alarms)

    async def _range(self, request: Any, context: Any) -> Any:
        self.reads += 1
        answer = rpc.RangeResponse(header=self._header())
        await asyncio.sleep(self.delay_s)
        return answer

    async def _txn(self, request: Any, context: Any) -> Any:
        self.transactions += 1
        if self.errors:
            await context.abort(*self.errors.pop(0))
        self.revision += 1
        return rpc.TxnResponse(header=self._header(), succeeded=True)

    async def _watch(self, requests: AsyncIterator[Any], context: Any) -> None:
        await self.plays.pop(0)(Stream(requests, context))


async def watched(store: EtcdStore, since: int, until: int, prefix: str = "/a/") -> list[Event | Progress]:
    """What a watch yields before it says that it is complete up to `until`, that included."""
    found: list[Event | Progress] = []
    async with asyncio.timeout(10), aclosing(store.watch(prefix, since)) as stream:  # type: ignore[type-var]
        async for item in stream:
            found.append(item)
            if isinstance(item, Progress) and item.revision >= until:
                return found
    raise AssertionError("the watch ended")


@pytest.mark.parametrize(
    ("version", "tells"),
    [("3.4.23", False), ("3.4.30", False), ("3.4.31", True), ("3.5.0", False), ("3.5.12", False), ("3.5.13", True),
     ("3.5.13-rc.1", True), ("3.6.0", True), ("4.0.0", True), ("odd", False)],
)  # fmt: skip
def test_which_versions_tell_their_progress(version: str, tells: bool) -> None:
    assert tells_progress(version) is tells


async def test_progress_is_asked_for_until_it_is_told() -> None:
    """A watch that is still catching up gets no answer at all."""
    asked = 0
    begun: list[Any] = []

    async def play(stream: Stream) -> None:
        nonlocal asked
        begun.append(await stream.created())
        while True:
            assert (await stream.request()).HasField("progress_request")
            asked += 1
            if asked >= 3:
                await stream.send(revision=etcd.revision, watch_id=-1)

    async with FakeEtcd() as etcd:
        etcd.plays = [play]
        watching = asyncio.create_task(watched(etcd.store, 10, 25))
        await asyncio.sleep(0.05)
        etcd.revision = 25
        assert await etcd.store.revision() == 25
        found = await watching

    assert found[-1] == Progress(25)
    assert not [item for item in found if isinstance(item, Event)]
    assert asked >= 3
    assert (begun[0].key, begun[0].range_end, begun[0].start_revision) == (b"/a/", b"/a0", 11)


async def test_an_etcd_that_does_not_tell_its_progress_is_watched_whole_and_asked_nothing() -> None:
    begun: list[Any] = []
    requests: list[Any] = []

    async def play(stream: Stream) -> None:
        begun.append(await stream.created())
        await stream.send(("/elsewhere", 11))
        await stream.send(("/a/1", 12), ("/elsewhere", 12))
        await stream.send(("/elsewhere", 13))
        requests.append(await stream.request())

    async with FakeEtcd("3.4.23") as etcd:
        etcd.plays = [play]
        etcd.revision = 13
        found = await watched(etcd.store, 10, 13)
        await etcd.store.revision()

    assert found == [Progress(10), Progress(11), Event("/a/1", b"v", 12, 12), Progress(12), Progress(13)]
    assert (begun[0].key, begun[0].range_end) == (b"\0", b"\0")
    assert requests == []


async def test_a_commit_that_comes_in_pieces_is_yielded_whole() -> None:
    async def play(stream: Stream) -> None:
        assert (await stream.created()).fragment
        await stream.send(("/a/1", 11), ("/a/2", 12), fragment=True)
        await stream.send(("/a/3", 12), fragment=True)
        await stream.send(("/a/4", 12))
        await stream.request()

    async with FakeEtcd() as etcd:
        etcd.plays = [play]
        found = await watched(etcd.store, 10, 12)

    assert [(item.key, item.revision) for item in found if isinstance(item, Event)] == [
        ("/a/1", 11),
        ("/a/2", 12),
        ("/a/3", 12),
        ("/a/4", 12),
    ]
    assert [item for item in found if isinstance(item, Progress)] == [Progress(10), Progress(12)]


async def test_a_watch_that_breaks_off_goes_on_behind_what_was_complete() -> None:
    begun: list[int] = []

    async def breaks_in_a_piece(stream: Stream) -> None:
        begun.append((await stream.created()).start_revision)
        await stream.send(("/a/1", 11))
        await stream.send(("/a/2", 12), fragment=True)

    async def loses_its_leader(stream: Stream) -> None:
        begun.append((await stream.created()).start_revision)
        await stream.send(canceled=True, cancel_reason="etcdserver: no leader")

    async def fails(stream: Stream) -> None:
        begun.append((await stream.created()).start_revision)
        await stream.context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: server stopped")

    async def goes_on(stream: Stream) -> None:
        begun.append((await stream.created()).start_revision)
        await stream.send(("/a/2", 12), ("/a/3", 12))
        await stream.request()

    async with FakeEtcd() as etcd:
        etcd.plays = [breaks_in_a_piece, loses_its_leader, fails, goes_on]
        found = await watched(etcd.store, 10, 12)

    assert [item.key for item in found if isinstance(item, Event)] == ["/a/1", "/a/2", "/a/3"]
    assert begun == [11, 12, 12, 12]


async def test_a_watch_whose_past_is_compacted_says_what_is_left() -> None:
    async def play(stream: Stream) -> None:
        await stream.created()
        await stream.send(canceled=True, compact_revision=99, cancel_reason="etcdserver: mvcc: required revision …")

    async with FakeEtcd() as etcd:
        etcd.plays = [play]
        with pytest.raises(Compacted) as raised:
            await watched(etcd.store, 10, 12)
    assert raised.value.oldest == 99


@pytest.mark.parametrize("version", ["3.4.23", "3.5.13"])
async def test_a_watch_that_is_denied_says_so(version: str) -> None:
    async def play(stream: Stream) -> None:
        await stream.created()
        await stream.send(canceled=True, cancel_reason="rpc error: code = PermissionDenied desc = permission denied")

    async with FakeEtcd(version) as etcd:
        etcd.plays = [play]
        with pytest.raises(StoreUnavailable, match="does not let this user watch") as raised:
            await watched(etcd.store, 10, 12)
    assert ("too old" in str(raised.value)) == (version == "3.4.23")


async def test_a_commit_that_etcd_cannot_take_now_is_tried_again() -> None:
    async with FakeEtcd() as etcd:
        etcd.errors = [
            (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader"),
            (grpc.StatusCode.UNAVAILABLE, "etcdserver: leader changed"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests"),
        ]
        assert await etcd.store.commit([Put("/a/1", b"x", expected=0)]) == 11
        assert etcd.transactions == 4


async def test_errors_say_what_to_do() -> None:
    code = grpc.StatusCode
    cases: list[tuple[grpc.StatusCode, str, type[Exception], str]] = [
        (code.INVALID_ARGUMENT, "etcdserver: request is too large", TooLarge, "--max-request-bytes"),
        (code.RESOURCE_EXHAUSTED, "grpc: received message larger than max (9 vs. 8)", TooLarge, "size"),
        (code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", StoreUnavailable, "alarm disarm"),
        (code.PERMISSION_DENIED, "etcdserver: permission denied", StoreUnavailable, "refuses a client without user"),
        (code.INVALID_ARGUMENT, "etcdserver: user name is empty", StoreUnavailable, "asks for a user"),
    ]
    async with FakeEtcd() as etcd:
        for status, details, error, words in cases:
            etcd.errors = [(status, details)]
            with pytest.raises(error, match=words):
                await etcd.store.commit([Put("/a/1", b"x")])


async def test_another_or_an_older_etcd_behind_the_same_address_is_noticed() -> None:
    async with FakeEtcd() as etcd:
        etcd.revision = 50
        await etcd.store.revision()
        etcd.revision = 40
        with pytest.raises(StoreUnavailable, match="restored or replaced"):
            await etcd.store.revision()
        etcd.revision, etcd.cluster = 60, 8
        with pytest.raises(StoreUnavailable, match="restored or replaced"):
            await etcd.store.revision()


async def test_a_full_etcd_is_not_ready() -> None:
    async with FakeEtcd() as etcd:
        await etcd.store.check()
        etcd.alarms = ["memberID:1 alarm:NOSPACE"]
        with pytest.raises(StoreUnavailable, match="NOSPACE"):
            await etcd.store.check()


async def test_reads_of_the_revision_at_one_moment_share_a_call_that_began_after_them() -> None:
    async with FakeEtcd() as etcd:
        etcd.reads, etcd.delay_s = 0, 0.02
        first = asyncio.create_task(etcd.store.revision())
        await asyncio.sleep(0.01)
        etcd.revision = 11
        later = [asyncio.create_task(etcd.store.revision()) for _ in range(100)]
        assert set(await asyncio.gather(*later)) == {11}
        await first
        assert etcd.reads == 2
        assert await etcd.store.revision() == 11
        assert etcd.reads == 3
