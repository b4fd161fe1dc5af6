"""Watchers that go on where they were: after each loss they ask from the last revision that they were told, and begin
anew only when the server says that this is too old."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from .connection import Lost, NotSent
from .history import Following, Seen
from .workload import COLLECTION, Client, listed, shown_items


class Watcher:
    """`parity` selects by label, `key` by name; with `streams` it begins with a streamed list in place of a list."""

    def __init__(self, name: str, client: Client, *, parity: str = "", key: str = "", streams: bool = False) -> None:
        self.name = name
        self._client = client
        self._parity = parity
        self.key = key
        self._streams = streams
        self._following: Following | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    if self._following is None:
                        await self._begin()
                    else:
                        await self._follow(self._following)
                except (NotSent, Lost):
                    await self._client.turn_away()
        finally:
            self._client.close()

    @property
    def reached(self) -> int:
        return self._following.reached if self._following is not None else 0

    def _query(self) -> str:
        query = "watch=true&allowWatchBookmarks=true"
        if self._parity:
            query += f"&labelSelector=parity%3D{self._parity}"
        if self.key:
            query += f"&fieldSelector=metadata.name%3D{self.key}"
        # Some of the watches end by themselves, most are cut.
        return query + f"&timeoutSeconds={self._client.chance.choice([1, 2, 600])}"

    async def _begin(self) -> None:
        if self._streams:
            await self._begin_streaming()
            return
        listing = await listed(self._client, fresh=True)
        if listing is not None:
            self._take(Following(self.name, listing.revision, self._parity, self.key))

    def _take(self, following: Following) -> None:
        self._following = following
        self._client.session.recorder.followings.append(following)

    async def _begin_streaming(self) -> None:
        query = f"{self._query()}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        items: list[dict[str, Any]] = []
        prefix = self._client.session.prefix
        async with aclosing(self._client.connection().stream(f"{COLLECTION}?{query}")) as events:  # type: ignore[type-var]
            async for event in events:
                metadata = event["object"]["metadata"]
                if self._following is not None:
                    if not self._see(self._following, event):
                        return
                elif event["type"] == "ADDED":
                    items.append(event["object"])
                elif event["type"] == "BOOKMARK" and "k8s.io/initial-events-end" in metadata.get("annotations", {}):
                    until = int(metadata["resourceVersion"])
                    initial = shown_items(items, prefix)
                    self._take(Following(self.name, 0, self._parity, self.key, initial=initial, initial_until=until))
                else:
                    self._client.session.recorder.oddities.append(f"{self.name}: {event} among the initial events")
                    return

    async def _follow(self, following: Following) -> None:
        path = f"{COLLECTION}?{self._query()}&resourceVersion={following.reached}"
        resumed = False
        async with aclosing(self._client.connection().stream(path)) as events:  # type: ignore[type-var]
            async for event in events:
                if not resumed and event["type"] != "ERROR":
                    resumed = True
                    following.resumed += 1
                if not self._see(following, event):
                    return

    def _see(self, following: Following, event: dict[str, Any]) -> bool:
        """Write it down; False where the watch is over."""
        if event["type"] == "ERROR":
            status = event["object"]
            if status["code"] == 410:
                self._following = None
            elif status["code"] not in (429, 503, 504):
                self._client.session.recorder.oddities.append(f"{self.name}: {status}")
            return False
        metadata = event["object"]["metadata"]
        revision = int(metadata["resourceVersion"])
        if event["type"] == "BOOKMARK":
            following.seen.append(Seen("BOOKMARK", revision))
        elif metadata["name"].startswith(self._client.session.prefix):
            token = event["object"]["data"]["token"]
            following.seen.append(Seen(event["type"], revision, metadata["name"], token))
        return True
