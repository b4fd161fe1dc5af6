"""`HealthBook`: how the devices of this node are, as their drivers say.

In: the stream of each driver that has one. Out: `Healthy` or `Unhealthy`, and `Unknown` of a device of which nobody
says anything, or has not for longer than its driver allows; and news of a driver whose devices changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import grpc.aio

from navarch.node.dra.proto import dra_pb2 as dra

log = logging.getLogger(__name__)

UNKNOWN: Final = "Unknown"
_WORDS: Final = {dra.HEALTHY: "Healthy", dra.UNHEALTHY: "Unhealthy"}
_TIMEOUT_S: Final = 30.0
_RETRY_S: Final = 5.0
_LONGEST_MESSAGE: Final = 1024


class Health(NamedTuple):
    status: str = UNKNOWN
    message: str = ""


class HealthBook:
    """`changed` is told the name of a driver."""

    def __init__(self, changed: Callable[[str], None] = lambda driver: None) -> None:
        self.changed = changed
        self._known: dict[tuple[str, str, str], tuple[Health, float]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def of(self, driver: str, pool: str, device: str) -> Health:
        health, until_s = self._known.get((driver, pool, device), (Health(), 0.0))
        return health if until_s > asyncio.get_running_loop().time() else Health()

    async def follow(self, driver: str, watch: Callable[[], Any]) -> None:
        """Until cancelled; `watch` begins a stream."""
        try:
            while True:
                try:
                    async for said in watch():
                        self._take(driver, said.devices)
                except grpc.aio.AioRpcError as error:
                    log.debug("health of devices of %s: %s", driver, error.details())
                self._forget(driver)
                await asyncio.sleep(_RETRY_S)
        finally:
            self._forget(driver)

    def _take(self, driver: str, devices: Iterable[Any]) -> None:
        loop = asyncio.get_running_loop()
        ends = []
        news = False
        for each in devices:
            key = (driver, each.device.pool_name, each.device.device_name)
            message = each.message
            if len(message) > _LONGEST_MESSAGE:
                message = message[: _LONGEST_MESSAGE - 3] + "..."
            health = Health(_WORDS.get(each.health, UNKNOWN), message)
            seconds = each.health_check_timeout_seconds
            until_s = loop.time() + (seconds if seconds > 0 else _TIMEOUT_S)
            news = news or self.of(*key) != health
            self._known[key] = (health, until_s)
            ends.append(until_s)
        if ends:
            # What is not said again in time is told as unknown.
            self._stop_timer(driver)
            self._timers[driver] = loop.call_at(min(ends), self.changed, driver)
        if news:
            self.changed(driver)

    def _forget(self, driver: str) -> None:
        self._stop_timer(driver)
        gone = [key for key in self._known if key[0] == driver]
        for key in gone:
            del self._known[key]
        if gone:
            self.changed(driver)

    def _stop_timer(self, driver: str) -> None:
        if (timer := self._timers.pop(driver, None)) is not None:
            timer.cancel()
