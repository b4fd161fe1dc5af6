"""Virtual time: it jumps, it stands still, and it says so when nothing can happen any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from navarch.sim.virtual import START, StandStill, VirtualWorld, run
from tests.growth import cpu_s


def test_a_day_of_sleep_takes_no_time() -> None:
    async def main(world: VirtualWorld) -> timedelta:
        await asyncio.sleep(86_400)
        return world.now() - START

    def sleep_a_day() -> None:
        assert run(main) == timedelta(days=1)

    assert cpu_s(sleep_a_day, enough_s=1) < 1


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def main(world: VirtualWorld) -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []

        async def note(name: str, after_s: float) -> None:
            await asyncio.sleep(after_s)
            seen.append((name, world.monotonic()))

        async with asyncio.TaskGroup() as tasks:
            for name, after_s in (("late", 30.0), ("soon", 0.5), ("between", 4.0)):
                tasks.create_task(note(name, after_s))
        return seen

    assert run(main) == [("soon", 0.5), ("between", 4.0), ("late", 30.0)]


def test_timers_of_one_moment_fire_in_the_order_of_their_setting() -> None:
    async def main(world: VirtualWorld) -> list[int]:
        seen: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(100):
            loop.call_later(30 if number % 7 else 10 + number, seen.append, number)
            # Others come and go, which turns a heap over.
            loop.call_later(1 + number % 3, seen.append, -1).cancel()
        await asyncio.sleep(200)
        return [number for number in seen if number % 7]

    assert run(main) == [number for number in range(100) if number % 7]


def test_a_timeout_is_one_of_virtual_time() -> None:
    async def main(world: VirtualWorld) -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600):
                await asyncio.sleep(3600)
        return world.monotonic()

    assert run(main) == 600


def test_waiting_for_what_never_comes_is_an_error_that_names_the_waiter() -> None:
    async def main(_world: VirtualWorld) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("the one who waits")
        await asyncio.Event().wait()

    with pytest.raises(StandStill, match="the one who waits"):
        run(main)


def test_what_would_go_to_a_thread_is_called_in_its_place() -> None:
    async def main(world: VirtualWorld) -> list[str]:
        seen: list[str] = []
        await world.in_thread(seen.append, "world")
        await asyncio.to_thread(seen.append, "asyncio")
        with pytest.raises(ZeroDivisionError):
            await asyncio.get_running_loop().run_in_executor(None, lambda: 1 // 0)
        return seen

    assert run(main) == ["world", "asyncio"]


def test_sockets_are_refused() -> None:
    async def main(_world: VirtualWorld) -> None:
        with pytest.raises(RuntimeError, match="no place in virtual time"):
            await asyncio.open_connection("127.0.0.1", 9)
        with pytest.raises(RuntimeError, match="no place in virtual time"):
            await asyncio.create_subprocess_exec("true")

    run(main)


def test_sockets_work_where_a_run_need_not_be_exact() -> None:
    async def main(world: VirtualWorld) -> tuple[bytes, float]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            heard = await reader.readline()
            writer.close()
        await asyncio.sleep(3600)
        return heard, world.monotonic()

    heard, passed_s = run(main, exact=False)
    assert heard == b"hello\n"
    assert passed_s == pytest.approx(3600)


def test_cancelled_tasks_of_a_group_end_in_the_order_of_their_making() -> None:
    async def main(_world: VirtualWorld) -> list[int]:
        ended: list[int] = []

        async def wait(number: int) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                ended.append(number)

        async def fail() -> None:
            await asyncio.sleep(1)
            raise ValueError

        async def together() -> None:
            async with asyncio.TaskGroup() as tasks:
                for number in range(50):
                    tasks.create_task(wait(number))
                tasks.create_task(fail())

        with pytest.raises(ExceptionGroup):
            await together()
        return ended

    assert run(main) == list(range(50))


def test_streams_and_identifiers_repeat_with_the_seed() -> None:
    async def draw(world: VirtualWorld) -> list[float]:
        return [world.random("scheduler").random(), world.identities("uids", "pods").random()]

    assert run(draw, seed=1) == run(draw, seed=1) != run(draw, seed=2)


def test_a_run_that_goes_on_from_stored_data_draws_other_identifiers_and_repeats_them() -> None:
    async def draw(world: VirtualWorld) -> tuple[float, float]:
        first = world.identities("uids", "pods").random()
        world.incarnate(17)
        return first, world.identities("uids", "pods").random()

    first, later = run(draw, seed=1)
    assert first != later
    assert run(draw, seed=1) == (first, later)


def test_who_waits_for_a_moment_finds_that_it_has_come() -> None:
    """However far between two numbers of the clock the moment lies: else it would be waited for again and again."""

    async def main(world: VirtualWorld) -> int:
        turns = 0
        for number in range(1, 2000):
            due_s = world.monotonic() + number / 7e5
            while world.monotonic() < due_s:
                turns += 1
                assert turns < 4000
                await asyncio.sleep(due_s - world.monotonic())
        return turns

    assert run(main) == 1999
