"""A commit whose caller is cancelled is finished, and the caller learns how it ended."""

from __future__ import annotations

import asyncio

import pytest

from navarch.store.base import Conflict, Put, Store


async def test_a_cancelled_caller_learns_the_revision_and_is_cancelled_then(store: Store) -> None:
    learnt: list[int] = []

    async def write() -> None:
        learnt.append(await store.commit([Put("/a", b"x")]))
        await asyncio.sleep(60)
        learnt.append(0)

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    entry = await store.get("/a")
    assert entry is not None
    assert learnt == [entry.mod_revision]


async def test_a_cancelled_caller_learns_that_it_lost(store: Store) -> None:
    await store.commit([Put("/a", b"x")])
    learnt: list[object] = []

    async def write() -> None:
        try:
            await store.commit([Put("/a", b"y", expected=0)])
        except Conflict as conflict:
            learnt.append(conflict.key)
        await asyncio.sleep(60)
        learnt.append("went on")

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert learnt == ["/a"]


async def test_a_time_limit_around_a_commit_is_still_one(store: Store) -> None:
    learnt: list[int] = []

    async def write() -> None:
        async with asyncio.timeout(0):
            learnt.append(await store.commit([Put("/a", b"x")]))
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await write()

    assert len(learnt) <= 1
    assert (await store.get("/a") is not None) == bool(learnt)
