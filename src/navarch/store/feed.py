"""Live events from a store's commits to its watchers.

In: each batch of events that became durable, in revision order, whole commits only.  Out: per subscription, the events
under its prefix, and up to which revision it has them all. Everything happens on the event loop; publishing wakes each
waiting subscriber once per batch, not once per event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from navarch.store.base import Event


class Subscription:
    """One watcher's place in the feed."""

    __slots__ = ("_pending", "_revision", "_taken", "_waiter", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._pending: list[Event] = []
        self._revision = 0
        self._taken = 0
        self._waiter: asyncio.Future[None] | None = None

    def push(self, events: Sequence[Event], revision: int) -> None:
        self._pending.extend(events)
        self._revision = revision
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def take(self) -> tuple[list[Event], int]:
        """All events since the last call, and the revision up to which they are all; waits for news."""
        while self._revision == self._taken:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        taken, self._pending = self._pending, []
        self._taken = self._revision
        return taken, self._revision


class Feed:
    """All subscriptions of one store."""

    def __init__(self) -> None:
        self._subscriptions: dict[Subscription, None] = {}

    def subscribe(self, prefix: str) -> Subscription:
        subscription = Subscription(prefix)
        self._subscriptions[subscription] = None
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription, None)

    def publish(self, events: Sequence[Event], revision: int) -> None:
        """`events` are all there are up to `revision` since the last call."""
        for subscription in self._subscriptions:
            prefix = subscription.prefix
            subscription.push([event for event in events if event.key.startswith(prefix)], revision)
