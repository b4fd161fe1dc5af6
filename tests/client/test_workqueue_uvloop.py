"""Delays next to nothing, on the event loop that the components run on."""

from __future__ import annotations

import asyncio

import uvloop

from navarch.client.workqueue import WorkQueue


def test_a_key_may_be_delayed_twice_by_next_to_nothing() -> None:
    async def delayed_twice() -> str:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("web", 0.0001)
        queue.add_after("web", 0.00005)
        return await asyncio.wait_for(queue.get(), 1)

    assert uvloop.run(delayed_twice()) == "web"
