"""What the store itself says has happened: every commit to the objects of the test, in the order of revisions.

Read from the file or from etcd, never through the API server whose answers are judged by it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

from navarch.store.base import Event, Progress
from navarch.store.etcd.store import EtcdStore
from navarch.store.etcd.target import parse

PREFIX = "/registry/core/configmaps/default/"
_PLACE_BITS = 10


class Change(NamedTuple):
    """One event of the store: what a key became (an empty token: it went) and what it was."""

    revision: int
    key: str
    token: str
    uid: str
    parity: str
    before: Change | None


class Truth:
    """All changes of one session's keys."""

    def __init__(self, rows: Iterable[tuple[int, str, bytes | None]], prefix: str) -> None:
        self.changes: list[Change] = []
        latest: dict[str, Change] = {}
        for revision, key, value in rows:
            name = key.removeprefix(PREFIX)
            if key == name or not name.startswith(prefix):
                continue
            before = latest.get(name)
            change = _change(revision, name, value, before if before is not None and before.token else None)
            latest[name] = change
            self.changes.append(change)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)


def _change(revision: int, name: str, value: bytes | None, before: Change | None) -> Change:
    if value is None:
        return Change(revision, name, "", before.uid if before else "", "", before)
    stored = json.loads(value)
    metadata = stored["metadata"]
    parity = metadata.get("labels", {}).get("parity", "")
    return Change(revision, name, stored.get("data", {}).get("token", ""), metadata["uid"], parity, before)


def of_sqlite(database: Path) -> list[tuple[int, str, bytes | None]]:
    """Every row of the log."""
    uri = f"{database.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
        rows = connection.execute("SELECT position, key, value FROM log WHERE key >= ? AND key < ? ORDER BY position",
                                  (PREFIX, PREFIX + "\U0010ffff")).fetchall()  # fmt: skip
    return [(position >> _PLACE_BITS, key, value) for position, key, value in rows]


async def of_etcd(url: str, since: int) -> list[tuple[int, str, bytes | None]]:
    """Every event after a revision."""
    store = EtcdStore(parse(url))
    await store.open()
    try:
        newest = await store.revision()
        rows: list[tuple[int, str, bytes | None]] = []
        async with aclosing(store.watch(PREFIX, since)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Progress):
                    if event.revision >= newest:
                        break
                elif isinstance(event, Event):
                    rows.append((event.revision, event.key, event.value))
        return rows
    finally:
        await store.close()
