"""Who runs, who waits and who is turned away at a priority level."""

from __future__ import annotations

import asyncio
import random

import pytest

from navarch.api.errors import StatusError
from navarch.apiserver.flowcontrol import levels as levels_module
from navarch.apiserver.flowcontrol.levels import Counts, Level, Running
from navarch.apiserver.flowcontrol.queues import hand_of
from navarch.apiserver.flowcontrol.seats import LevelConfig, Queuing


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def level(limit: int, queuing: Queuing | None = None, *, exempt: bool = False, clock: Clock | None = None) -> Level:
    return Level(LevelConfig("l", "", exempt, 10, queuing=queuing), limit, clock or Clock())


async def enter(at: Level, flow: str = "f", seats: int = 1, counts: Counts | None = None) -> Running:
    counts = counts or Counts()
    return at.begin(seats, counts) or await at.wait(flow, seats, counts)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_beyond_its_seats_a_level_that_rejects_rejects() -> None:
    at, counts = level(2), Counts()
    first = await enter(at, counts=counts)
    await enter(at, counts=counts)

    with pytest.raises(StatusError) as refused:
        await enter(at, counts=counts)
    at.leave(first)
    await enter(at, counts=counts)

    assert (refused.value.code, refused.value.headers) == (429, {"Retry-After": "1"})
    assert (counts.dispatched, counts.rejected_limit) == (3, 1)


async def test_an_exempt_level_has_no_end() -> None:
    at = level(0, exempt=True)

    for _ in range(1000):
        await enter(at)

    assert at.running == 1000


async def test_who_waits_runs_when_somebody_ends() -> None:
    at = level(1, Queuing(4, 2, 10))
    first = await enter(at)
    waiting = asyncio.create_task(enter(at))
    await settled()
    assert not waiting.done()

    at.leave(first)

    assert (await waiting).seats == 1
    assert at.running == 1


async def test_a_queue_takes_no_more_than_it_may() -> None:
    at, counts = level(1, Queuing(1, 1, 2)), Counts()
    await enter(at)
    waiting = [asyncio.create_task(enter(at, counts=counts)) for _ in range(2)]
    await settled()

    with pytest.raises(StatusError):
        await enter(at, counts=counts)

    assert counts.rejected_full == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert at.queues is not None
    assert at.queues.length == 0


async def test_who_waits_too_long_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels_module, "WAIT_S", 0.0)
    at, counts = level(1, Queuing(4, 2, 10)), Counts()
    await enter(at)

    with pytest.raises(StatusError) as refused:
        await enter(at, counts=counts)

    assert refused.value.code == 429
    assert counts.rejected_late == 1
    assert at.demand.now == 1


async def test_a_flow_that_floods_does_not_keep_others_from_their_turn() -> None:
    clock = Clock()
    at = level(1, Queuing(64, 4, 500), clock=clock)
    order: list[str] = []

    async def request(flow: str) -> None:
        running = await enter(at, flow)
        order.append(flow)
        clock.now_s += 1.0
        await asyncio.sleep(0)
        at.leave(running)

    flood = [asyncio.create_task(request("flood")) for _ in range(100)]
    await settled()
    few = [asyncio.create_task(request("few")) for _ in range(3)]
    await asyncio.gather(*flood, *few)

    # With a quarter of the flood in each of four queues, a few requests are through after a few rounds.
    assert max(index for index, flow in enumerate(order) if flow == "few") < 30


async def test_requests_of_many_seats_wait_until_there_are_as_many() -> None:
    at = level(4, Queuing(4, 2, 10))
    small = [await enter(at) for _ in range(3)]
    big = asyncio.create_task(enter(at, "big", 3))
    await settled()

    at.leave(small[0])
    await settled()
    assert not big.done()
    at.leave(small[1])

    assert (await big).seats == 3
    assert at.running_seats == 4


async def test_what_needs_more_than_there_is_runs_alone() -> None:
    at = level(2, Queuing(4, 2, 10))

    running = await enter(at, seats=10)
    waiting = asyncio.create_task(enter(at))
    await settled()
    assert not waiting.done()
    at.leave(running)
    await waiting


async def test_who_waits_runs_when_a_level_is_configured_otherwise() -> None:
    at = level(1, Queuing(4, 2, 10))
    first = await enter(at)
    waiting = asyncio.create_task(enter(at))
    await settled()

    at.configure(LevelConfig("l", "", False, 10))

    second = await waiting
    at.leave(first)
    at.leave(second)
    assert (at.running, at.running_seats, at.demand.now) == (0, 0, 0)


async def test_seats_are_counted_right_whoever_gives_up_when() -> None:
    choose = random.Random(7)
    at = level(3, Queuing(8, 3, 5))

    async def request() -> None:
        try:
            running = await enter(at, choose.choice("abcdef"), choose.choice((1, 1, 2, 5)))
        except StatusError:
            return
        try:
            for _ in range(choose.randrange(4)):
                await asyncio.sleep(0)
        finally:
            at.leave(running)

    tasks = []
    for _ in range(600):
        tasks.append(asyncio.create_task(request()))
        if choose.random() < 0.5:
            await asyncio.sleep(0)
        if choose.random() < 0.3:
            choose.choice(tasks).cancel()
        assert at.running_seats <= 5
    await asyncio.gather(*tasks, return_exceptions=True)

    assert at.queues is not None
    assert (at.running, at.running_seats, at.demand.now, at.queues.length) == (0, 0, 0, 0)
    assert await enter(at)


def test_a_hand_has_different_queues_and_is_the_same_again() -> None:
    hands = {hand_of(f"flow{index}", 64, 8) for index in range(50)}

    assert len(hands) == 50
    assert all(len(set(hand)) == 8 and max(hand) < 64 for hand in hands)
    assert hand_of("flow1", 64, 8) in hands
