"""Calls to etcd: one channel per endpoint, the one that answered last first; TLS, passwords, and errors in words that
say what to do.

A call goes to one endpoint after the other until one answers or the time is up. What etcd says of the request itself
(compacted, too large, denied) is the answer; what it says of its own state (no leader, stopping, too busy) or what the
network says means another try. A write that was sent and not answered may have happened, which `Unanswered.sent` tells.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Final

# Children are started by fork and exec at once: gRPC need not prepare for a fork that goes on.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc
import grpc.aio

from navarch.store.base import Compacted, StoreUnavailable, TooLarge
from navarch.store.etcd.proto import rpc_pb2 as rpc
from navarch.store.etcd.target import Target

CALL_TIMEOUT_S = 10.0
_ATTEMPT_TIMEOUT_S: Final = 4.0
_PAUSE_S: Final = 0.1

_OPTIONS: Final = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A peer that is gone without a word (a machine without power) is noticed within seconds.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config", '{"methodConfig":[]}'),
]
_RESPONSES: Final[dict[str, Any]] = {
    "KV/Range": rpc.RangeResponse,
    "KV/Txn": rpc.TxnResponse,
    "KV/Compact": rpc.CompactionResponse,
    "Lease/LeaseGrant": rpc.LeaseGrantResponse,
    "Maintenance/Status": rpc.StatusResponse,
    "Auth/Authenticate": rpc.AuthenticateResponse,
}
# What etcd says while it cannot serve, with the gRPC code Unavailable or others.
_PASSING: Final = (
    "etcdserver: no leader",
    "etcdserver: not leader",
    "etcdserver: leader changed",
    "etcdserver: request timed out",
    "etcdserver: server stopped",
    "etcdserver: too many requests",
    "etcdserver: unhealthy cluster",
    "etcdserver: rpc not supported for learner",
)
_NOT_SENT: Final = ("failed to connect to all addresses", "DNS resolution failed", "name resolution")
_STALE_TOKEN: Final = ("invalid auth token", "revision of auth store is old")


class Unanswered(Exception):
    """An endpoint did not serve the call; `sent` if it may have done what it was asked all the same."""

    def __init__(self, why: str, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class StaleToken(Exception):
    """The password must be shown again."""


class LeaseGone(Exception):
    """The lease that a write names is over."""


class Client:
    """All calls to one etcd cluster."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._channels: list[grpc.aio.Channel] = []
        self._current = 0
        self._methods: dict[tuple[int, str], Any] = {}
        self._token = ""

    async def open(self) -> None:
        """Raises StoreUnavailable."""
        credentials = self._credentials()
        options = list(_OPTIONS)
        if self._target.server_name:
            options.append(("grpc.ssl_target_name_override", self._target.server_name))
        for endpoint in self._target.endpoints:
            if credentials is None:
                self._channels.append(grpc.aio.insecure_channel(endpoint, options=options))
            else:
                self._channels.append(grpc.aio.secure_channel(endpoint, credentials, options=options))

    def _credentials(self) -> grpc.ChannelCredentials | None:
        target = self._target
        if not target.tls:
            return None
        return grpc.ssl_channel_credentials(_pem(target.ca), _pem(target.key), _pem(target.cert))

    async def close(self) -> None:
        channels, self._channels = self._channels, []
        for channel in channels:
            await channel.close(None)

    # Calls

    async def call(self, method: str, request: Any) -> Any:
        """A call that may be made twice: reads.  Raises StoreUnavailable and what `attempt` raises."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + CALL_TIMEOUT_S
        while True:
            try:
                return await self.attempt(method, request, give_up_s)
            except Unanswered as error:
                if loop.time() + _PAUSE_S >= give_up_s:
                    raise self.unavailable(str(error)) from error
                await asyncio.sleep(_PAUSE_S)

    async def attempt(self, method: str, request: Any, give_up_s: float) -> Any:
        """One round over the endpoints, as long as nothing can have been done.  Raises Unanswered, StoreUnavailable,
        TooLarge, LeaseGone."""
        last = Unanswered("no time left", sent=False)
        for _ in self._target.endpoints:
            if not self._channels:
                raise StoreUnavailable("the store is closed")
            left_s = give_up_s - asyncio.get_running_loop().time()
            if left_s <= 0:
                break
            index = self._current
            try:
                return await self._once(index, method, request, min(left_s, _ATTEMPT_TIMEOUT_S))
            except Unanswered as error:
                last = error
                self.leave(index)
                if error.sent:
                    break
        raise last

    async def _once(self, index: int, method: str, request: Any, timeout_s: float) -> Any:
        for first in (True, False):
            try:
                return await self._method(index, method)(
                    request, timeout=timeout_s, metadata=await self.metadata(index)
                )
            except grpc.aio.AioRpcError as error:
                try:
                    raise self.judge(error, index) from error
                except StaleToken:
                    self._token = ""
                    if not first:
                        raise self.unavailable("it does not take its own token") from error
            except grpc.aio.UsageError as error:
                raise StoreUnavailable("the store is closed") from error
        raise AssertionError("unreachable")

    def _method(self, index: int, method: str) -> Any:
        made = self._methods.get((index, method))
        if made is None:
            made = self._methods[index, method] = self._channels[index].unary_unary(
                f"/etcdserverpb.{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=_RESPONSES[method].FromString,
            )
        return made

    @property
    def current(self) -> int:
        """The endpoint that is asked first."""
        return self._current

    def leave(self, index: int) -> None:
        """Ask another endpoint first from now on, unless that has happened already."""
        if self._current == index:
            self._current = (index + 1) % len(self._target.endpoints)

    def stream(self, index: int) -> Any:
        """The watch call of an endpoint."""
        return self._channels[index].stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=rpc.WatchRequest.SerializeToString,
            response_deserializer=rpc.WatchResponse.FromString,
        )

    async def metadata(self, index: int) -> tuple[tuple[str, str], ...]:
        """What goes with each call: answer only as long as there is a leader; the token of the password."""
        if not self._target.user:
            return (("hasleader", "true"),)
        if not self._token:
            request = rpc.AuthenticateRequest(name=self._target.user, password=self._target.password)
            try:
                answer = await self._method(index, "Auth/Authenticate")(request, timeout=_ATTEMPT_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                raise self.judge(error, index) from error
            self._token = answer.token
        return (("hasleader", "true"), ("token", self._token))

    # Errors

    def judge(self, error: grpc.aio.AioRpcError, index: int) -> Exception:
        """What a failed call means."""
        code, details = error.code(), error.details() or ""
        endpoint = self._target.endpoints[index]
        if any(text in details for text in _STALE_TOKEN):
            return StaleToken(details)
        if "compacted" in details:
            return Compacted(0)
        if "requested lease not found" in details:
            return LeaseGone(details)
        if "request is too large" in details or (
            code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
        ):
            return TooLarge(f"etcd takes no request of this size (its --max-request-bytes): {details}")
        if "database space exceeded" in details:
            return self.unavailable("its database is full: compact and defragment it, then `etcdctl alarm disarm`")
        if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED) or (
            "authentication failed" in details
        ):
            who = f"user {self._target.user!r}" if self._target.user else "a client without user"
            return self.unavailable(f"{endpoint} refuses {who}: {details}")
        if "user name is empty" in details:
            return self.unavailable(f"{endpoint} asks for a user: etcd://USER@…?password-file=FILE")
        if "authentication is not enabled" in details:
            return self.unavailable(f"{endpoint} has no authentication enabled, and the URL names a user")
        if code == grpc.StatusCode.UNAVAILABLE and any(text in details for text in _NOT_SENT):
            return Unanswered(f"{endpoint} cannot be reached: {_plain(details)}", sent=False)
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED) or any(
            text in details for text in _PASSING
        ):
            return Unanswered(f"{endpoint}: {_plain(details) or code.name}", sent=True)
        return self.unavailable(f"{endpoint}: {details} ({code.name})")

    def unavailable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"{self._target} cannot serve now: {why}")


def _plain(details: str) -> str:
    """gRPC's message without its nesting; what a failed handshake means in words."""
    if "CERTIFICATE_VERIFY_FAILED" in details or "certificate verify failed" in details:
        return f"its certificate does not check against the given CA ({details[:200]})"
    if any(word in details for word in ("SSL", "Ssl", "TSI_", "TLS", "tls")):
        return f"TLS failed: does it speak TLS, and does it ask for a client's certificate? ({details[:200]})"
    if details == "Deadline Exceeded":
        return "no answer in time (no quorum?)"
    return details[:300]


def _pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreUnavailable(f"cannot read {path}: {error.strerror}") from error
