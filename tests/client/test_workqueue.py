"""The work queue's promises: once waiting, one worker per key, back again if added meanwhile, back-off on failure."""

from __future__ import annotations

import asyncio

import pytest

from navarch.client.workqueue import WorkQueue


async def test_a_key_added_twice_is_handed_out_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")

    assert await queue.get() == "a"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.01)


async def test_a_key_added_during_its_work_comes_back_after_done_and_not_before() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")

    assert len(queue) == 0
    queue.done(key)
    assert await queue.get() == "a"


async def test_failures_double_the_delay_until_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue(base_delay_s=0.01)
    loop = asyncio.get_running_loop()
    delays = []
    for _ in range(3):
        started = loop.time()
        queue.add_rate_limited("a")
        queue.done(await queue.get())
        delays.append(loop.time() - started)

    assert delays[0] >= 0.009
    assert delays[1] >= 0.019
    assert delays[2] >= 0.039
    assert queue.failures("a") == 3
    queue.forget("a")
    assert queue.failures("a") == 0


async def test_of_two_delays_the_earlier_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 30)
    queue.add_after("a", 0.01)

    assert await asyncio.wait_for(queue.get(), 1) == "a"
    queue.close()


async def test_a_cancelled_getter_loses_no_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first = asyncio.ensure_future(queue.get())
    second = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()

    assert await asyncio.wait_for(second, 1) == "a"
