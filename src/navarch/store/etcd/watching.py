"""One watch of etcd: a stream of its own, begun anew where it breaks off, and the revision up to which it is complete.

Events say how far a watch has come as long as there are any. When others write elsewhere, there are none, and a reader
who must have everything up to the revision that etcd is at would wait for nothing. From 3.4.31 and 3.5.13 on, etcd
tells its progress on request; before, its answers are not to be trusted (they overtook events). There the watch covers
all keys, so that each revision brings an event, and what is not under the prefix is left out here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc.aio

from navarch.store.base import Compacted, Event, Progress, StoreUnavailable
from navarch.store.etcd.client import Client, StaleToken, Unanswered
from navarch.store.etcd.proto import rpc_pb2 as rpc

log = logging.getLogger(__name__)

_ASK_EVERY_S: Final = 0.1
_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 2.0
_ALL: Final = b"\0"


class Watch:
    """`run` yields; `want` asks for progress meanwhile. `asks` says whether this etcd tells its progress on request."""

    def __init__(self, client: Client, root: str, prefix: str, since: int, asks: Callable[[], bool]) -> None:
        self._client = client
        self._root = root
        self._prefix = prefix
        self._asks = asks
        self.complete = since
        self._wanted = 0
        self._waker = asyncio.Event()

    def want(self, revision: int) -> None:
        """A Progress of at least `revision` is waited for."""
        if revision > self.complete:
            self._wanted = max(self._wanted, revision)
            self._waker.set()

    async def run(self) -> AsyncGenerator[Event | Progress]:
        """Never ends by itself.  Raises Compacted, StoreUnavailable (for what another try does not mend)."""
        delay_s = _RETRY_S
        while True:
            before = self.complete
            try:
                async with aclosing(self._stream()) as stream:
                    async for events in stream:
                        for event in events:
                            yield event
                        yield Progress(self.complete)
            except (Unanswered, StaleToken) as error:
                log.warning("the watch of %s broke off: %s; going on from revision %d", self._prefix, error, before)
            delay_s = _RETRY_S if self.complete > before else min(2 * delay_s, _RETRY_MAX_S)
            await asyncio.sleep(delay_s)

    async def _stream(self) -> AsyncGenerator[list[Event]]:
        """From `complete` on: whole commits, with `complete` moved on."""
        index = self._client.current
        call = self._client.stream(index)(metadata=await self._client.metadata(index))
        asking = None
        try:
            await call.write(self._creation())
            if self._asks():
                asking = asyncio.create_task(self._ask(call), name="etcd-progress")
            held: list[Event] = []
            async for response in call:
                held += self._events(response)
                if response.fragment:
                    continue
                if response.events:
                    self.complete = max(self.complete, response.events[-1].kv.mod_revision)
                elif not response.created and not response.canceled:
                    self.complete = max(self.complete, response.header.revision)
                if response.canceled:
                    raise self._canceled(response)
                yield held
                held = []
            raise Unanswered("the stream ended", sent=False)
        except grpc.aio.AioRpcError as error:
            judged = self._client.judge(error, index)
            self._client.leave(index)
            raise judged from error
        except asyncio.InvalidStateError as error:
            raise Unanswered("the stream was closed", sent=False) from error
        finally:
            if asking is not None:
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asking
            call.cancel()

    def _creation(self) -> rpc.WatchRequest:
        if self._asks():
            key = (self._root + self._prefix).encode()
            end = after(key)
        else:
            key, end = _ALL, _ALL
        create = rpc.WatchCreateRequest(key=key, range_end=end, start_revision=self.complete + 1, fragment=True)
        return rpc.WatchRequest(create_request=create)

    def _events(self, response: Any) -> list[Event]:
        full = (self._root + self._prefix).encode()
        start = len(self._root)
        found: list[Event] = []
        for event in response.events:
            kv = event.kv
            if not kv.key.startswith(full):
                continue
            key = kv.key.decode()[start:]
            if event.type == rpc.Event.DELETE:
                found.append(Event(key, None, kv.mod_revision, 0))
            else:
                found.append(Event(key, kv.value, kv.mod_revision, kv.create_revision))
        return found

    def _canceled(self, response: Any) -> Exception:
        if response.compact_revision:
            return Compacted(response.compact_revision)
        reason = response.cancel_reason or "no reason given"
        if "compacted" in reason:
            return Compacted(0)
        if "permission denied" in reason:
            what = self._root + self._prefix
            if not self._asks():
                what = "all keys (this etcd is too old to watch less: 3.4.31 or 3.5.13 can)"
            return StoreUnavailable(f"etcd does not let this user watch {what}: {reason}")
        if "token" in reason:
            return StaleToken(reason)
        return Unanswered(reason, sent=False)

    async def _ask(self, call: Any) -> None:
        """Request progress, again and again while somebody waits: a watch that is catching up gives no answer."""
        while True:
            self._waker.clear()
            while self._wanted > self.complete:
                try:
                    await call.write(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
                    # Whoever reads the stream learns of it.
                    return
                await asyncio.sleep(_ASK_EVERY_S)
            await self._waker.wait()


def after(key: bytes) -> bytes:
    """The end of the range of all keys that begin with `key`."""
    return key[:-1] + bytes([key[-1] + 1]) if key else _ALL
