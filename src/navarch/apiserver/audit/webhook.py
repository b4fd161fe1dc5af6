"""Audit events sent to a server of somebody's own, many at a time.

In: events.  Out: lists of events, each sent when it is long enough or old enough, and again, after growing delays,
where it did not arrive. No request waits for that; what comes while the buffer is full is lost, counted and logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.auth.outbound import OutboundError, ask
from navarch.client.config import Target
from navarch.records import frozen

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 5
_FACTOR: Final = 1.5
_LAST_S: Final = 2.0


@frozen
class WebhookSettings:
    target: Target
    buffer: int = 10_000
    most: int = 400
    wait_s: float = 30.0
    backoff_s: float = 10.0


class AuditWebhook:
    """A `trail.Sink`. Its task begins with the first event, in whose loop it is."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._waiting: list[Obj] = []
        self._enough = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self.failures = 0
        self._losing = False
        # What is on its way; it waits again if its sender is stopped.
        self._under_way: list[Obj] = []
        self._line = asyncio.Lock()

    def write(self, event: Obj) -> None:
        if len(self._waiting) >= self._settings.buffer:
            if not self._losing:
                # Once: a line for each would fill the disk as long as the other end is away.
                log.error("audit events are being lost: the webhook's buffer is full")
            self._losing = True
            self.failures += 1
            return
        self._waiting.append(event)
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._run(), name="audit webhook")
        if len(self._waiting) >= self._settings.most:
            self._enough.set()

    async def close(self) -> None:
        """Send what waits, once, within a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S), self._line:
                # Nothing is in the middle of being sent, so that nothing comes twice.
                if self._sending is not None:
                    self._sending.cancel()
                if last := [*self._under_way, *self._waiting]:
                    await self._sent(last)
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    async def _run(self) -> None:
        settings = self._settings
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.wait_s):
                    await self._enough.wait()
            batch, self._waiting = self._waiting[: settings.most], self._waiting[settings.most :]
            if len(self._waiting) < settings.most:
                self._enough.clear()
            self._under_way = batch
            if batch:
                await self._deliver(batch)
            self._under_way = []
            if self._losing:
                self._losing = False
                log.error("audit events are kept again; %d were lost so far", self.failures)

    async def _deliver(self, batch: Sequence[Obj]) -> None:
        delay_s = self._settings.backoff_s
        for _ in range(_ATTEMPTS):
            async with self._line:
                if await self._sent(batch):
                    self._under_way = []
                    return
            await asyncio.sleep(delay_s)
            delay_s *= _FACTOR
        self.failures += len(batch)
        log.error("%d audit events were lost: the webhook does not take them", len(batch))

    async def _sent(self, batch: Sequence[Obj]) -> bool:
        target = self._settings.target
        events = {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": list(batch)}
        headers = {"Authorization": f"Bearer {target.token()}"} if target.token is not None else None
        try:
            await ask(target.server, target.tls, events, headers)
        except OutboundError as error:
            log.warning("the audit webhook: %s", error)
            return False
        return True
