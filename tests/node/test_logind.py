"""logind's end of D-Bus, on a bus of our own: signals, the lock, and how long it holds."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dbus_fast.aio import MessageBus
from dbus_fast.constants import PropertyAccess
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property, dbus_signal

from navarch.node.logind import Logind


class Manager(ServiceInterface):
    """What of logind's manager is asked; `locks` are our ends of those that were given out."""

    def __init__(self) -> None:
        super().__init__("org.freedesktop.login1.Manager")
        self.asked: list[tuple[str, str, str, str]] = []
        self.locks: list[int] = []

    @dbus_method()
    def Inhibit(self, what: "s", who: "s", why: "s", mode: "s") -> "h":  # type: ignore[name-defined]  # noqa: F821, UP037
        reading, writing = os.pipe()
        self.asked.append((what, who, why, mode))
        self.locks += [reading, writing]
        return writing

    @dbus_property(access=PropertyAccess.READ)
    def InhibitDelayMaxUSec(self) -> "t":  # type: ignore[name-defined]  # noqa: F821, UP037
        return 5_000_000

    @dbus_signal()
    def PrepareForShutdown(self, start: bool) -> "b":  # type: ignore[name-defined]  # noqa: F821, UP037
        return start


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    place = f"unix:path={tmp_path / 'bus'}"
    daemon = await asyncio.create_subprocess_exec(
        "dbus-daemon", "--session", "--nofork", f"--address={place}", "--print-address", stdout=asyncio.subprocess.PIPE
    )
    assert daemon.stdout is not None
    try:
        assert (await daemon.stdout.readline()).startswith(b"unix:")
        yield place
    finally:
        if daemon.returncode is None:
            daemon.terminate()
        await daemon.wait()


@pytest.fixture
async def manager(address: str) -> AsyncIterator[Manager]:
    bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    made = Manager()
    bus.export("/org/freedesktop/login1", made)
    await bus.request_name("org.freedesktop.login1")
    yield made
    bus.disconnect()
    for lock in made.locks:
        os.close(lock)


async def test_a_lock_delays_the_end_for_as_long_as_logind_allows(address: str, manager: Manager) -> None:
    async with Logind.connected(address) as logind:
        assert await logind.longest_delay_s() == 5.0
        lock = await logind.inhibit()

    assert manager.asked == [("shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay")]
    os.close(manager.locks.pop())
    assert not select.select([manager.locks[0]], [], [], 0)[0]
    os.close(lock)
    # The bus may close what it handed on only after it arrived.
    assert select.select([manager.locks[0]], [], [], 20)[0]
    assert os.read(manager.locks[0], 1) == b""


async def test_the_machines_end_is_told_and_that_it_is_none(address: str, manager: Manager) -> None:
    async with Logind.connected(address) as logind:
        told = logind.shutdowns()
        for leaving in (True, False):
            manager.PrepareForShutdown(leaving)
            assert await asyncio.wait_for(anext(told), 10) is leaving
        await told.aclose()


async def test_without_a_bus_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no system bus"):
        async with Logind.connected(f"unix:path={tmp_path / 'none'}"):
            pass
