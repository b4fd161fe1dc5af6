"""gRPC with plugins: each listens on a Unix socket of its own, somewhere below the kubelet's folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

# Children are started by fork and exec at once: gRPC need not prepare for a fork that goes on.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
import grpc
import grpc.aio

_OPTIONS: Final = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A Unix socket has no host name; without this the path is sent as authority, which Go's server refuses.
    ("grpc.default_authority", "localhost"),
]


# Bytes of a socket's path that the kernel takes.
_LONGEST: Final = 107
_folders: dict[Path, int] = {}


def address_of(socket: Path) -> str:
    """What gRPC calls a socket. One whose path is longer than a socket's may be is reached by way of its folder, which
    this process keeps open for that: `/proc/self/fd/7/kubelet.sock`.  Raises OSError."""
    if len(os.fsencode(socket)) <= _LONGEST:
        return f"unix://{socket}"
    folder, known = socket.parent, _folders.get(socket.parent)
    if known is not None and not os.path.samestat(os.fstat(known), folder.stat()):
        # It was made anew.
        os.close(_folders.pop(folder))
        known = None
    if known is None:
        known = _folders[folder] = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"unix:///proc/self/fd/{known}/{socket.name}"


class PluginError(Exception):
    """A plugin refused or failed, in Go's words for it. `code` is gRPC's; one that is not `final` may have been carried
    out although the answer says that it failed."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        name = "".join(part.capitalize() for part in code.name.split("_"))
        super().__init__(f"rpc error: code = {name} desc = {details}")
        self.code = code

    @property
    def final(self) -> bool:
        return self.code not in _UNCERTAIN


_UNCERTAIN: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)


def _address_or_path(socket: Path) -> str:
    """A folder that is not there is a plugin that cannot be reached."""
    try:
        return address_of(socket)
    except OSError:
        return f"unix://{socket}"


class PluginChannel:
    """One plugin's socket."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.aio.insecure_channel(_address_or_path(socket), options=_OPTIONS)
        self._methods: dict[str, Any] = {}

    async def call(self, method: str, request: Any, decode: Callable[[bytes], Any], *, timeout_s: float) -> Any:
        """`method` is `/package.Service/Method`.  Raises PluginError."""
        known = self._methods.get(method)
        if known is None:
            known = self._channel.unary_unary(
                method, request_serializer=type(request).SerializeToString, response_deserializer=decode
            )
            self._methods[method] = known
        try:
            return await known(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise PluginError(error.code(), error.details() or "") from None

    def stream(self, method: str, request: Any, response: Any) -> Any:
        """The messages of a call that goes on. Iterating raises `AioRpcError`."""
        call = self._channel.unary_stream(
            method, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
        )
        return call(request)

    async def close(self) -> None:
        await self._channel.close(None)
