"""`Logind`: what systemd's logind says of the machine's end, over D-Bus, and the lock that delays it.

In: signals that the machine is about to shut down, or that it is not after all. Out: an inhibitor lock, held as a file
descriptor; while anybody holds one, logind waits, for as long as its `InhibitDelayMaxSec` says.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

_NAME: Final = "org.freedesktop.login1"
_PATH: Final = "/org/freedesktop/login1"
_MANAGER: Final = "org.freedesktop.login1.Manager"
_SIGNAL: Final = "PrepareForShutdown"
_MICROSECONDS: Final = 1_000_000


class Logind:
    """One connection. Every call raises OSError where logind does not answer."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._told: asyncio.Queue[bool] = asyncio.Queue()

    @classmethod
    @asynccontextmanager
    async def connected(cls, address: str | None = None) -> AsyncIterator[Logind]:
        """To the system's bus, or to the one at `address`."""
        try:
            # Some versions open the socket here, others when they connect.
            bus = MessageBus(bus_address=address, bus_type=BusType.SYSTEM, negotiate_unix_fd=True)
            await bus.connect()
        except Exception as error:
            # The library raises what it likes: without a bus, without rights.
            raise OSError(f"no system bus: {error}") from error
        try:
            found = cls(bus)
            await found._listen()
            yield found
        finally:
            bus.disconnect()

    async def _listen(self) -> None:
        self._bus.add_message_handler(self._take)
        rule = f"type='signal',interface='{_MANAGER}',member='{_SIGNAL}',path='{_PATH}'"
        await self._call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", rule)

    def _take(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.member == _SIGNAL and message.interface == _MANAGER:
            self._told.put_nowait(bool(message.body[0]))

    async def shutdowns(self) -> AsyncIterator[bool]:
        """True when the machine is about to go, False when it stays after all; ends with OSError."""
        gone = asyncio.ensure_future(self._bus.wait_for_disconnect())  # type: ignore[no-untyped-call]
        try:
            while True:
                told = asyncio.ensure_future(self._told.get())
                await asyncio.wait({gone, told}, return_when=asyncio.FIRST_COMPLETED)
                if not told.done():
                    told.cancel()
                    raise OSError("the system bus has gone")
                yield told.result()
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def longest_delay_s(self) -> float:
        """How long logind waits for whoever holds a lock."""
        answer = await self._call(
            _NAME, _PATH, "org.freedesktop.DBus.Properties", "Get", "ss", _MANAGER, "InhibitDelayMaxUSec"
        )
        return float(answer.body[0].value) / _MICROSECONDS

    async def inhibit(self) -> int:
        """A lock: the descriptor to close when the machine may go."""
        why = ("shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay")
        answer = await self._call(_NAME, _PATH, _MANAGER, "Inhibit", "ssss", *why)
        lock: int = answer.unix_fds[answer.body[0]]
        os.set_inheritable(lock, False)
        return lock

    async def _call(self, name: str, path: str, interface: str, member: str, signature: str, *body: Any) -> Message:
        message = Message(
            destination=name, path=path, interface=interface, member=member, signature=signature, body=list(body)
        )
        answer = await self._bus.call(message)
        if answer is None or answer.message_type is MessageType.ERROR:
            raise OSError(f"{member}: {answer.body[0] if answer is not None and answer.body else 'no answer'}")
        return answer
