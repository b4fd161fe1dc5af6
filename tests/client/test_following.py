"""Keeping something in line with objects, and going on whatever fails. In virtual time, so that waits cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.client.base import Client, PatchKind
from navarch.client.following import Applier, follow
from navarch.client.informer import Informer
from navarch.client.local import LocalTransport
from navarch.client.resources import CONFIG_MAPS, NAMESPACES
from navarch.client.supervision import Failures, supervised, until_done
from navarch.sim.virtual import VirtualWorld, run
from navarch.store.memory import MemoryStore


def config_map(name: str, text: str = "") -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "default"}, "data": {"text": text}}


def with_a_server(play: Callable[[Client], Awaitable[None]]) -> None:
    async def main(world: VirtualWorld) -> None:
        server = ApiServer(MemoryStore(clock=world), world=world)
        await server.start()
        client = Client(LocalTransport(server.as_user(User("admin", ("system:masters",)))))
        await client.create(NAMESPACES, {"metadata": {"name": "default"}})
        try:
            await play(client)
        finally:
            await server.stop()

    run(main)


def test_what_follows_sees_every_change_and_survives_what_it_raises() -> None:
    async def play(client: Client) -> None:
        informer = Informer(client, CONFIG_MAPS)
        seen: list[list[str]] = []
        failures = Failures()
        broken = False

        async def write() -> None:
            if broken:
                raise ValueError("a defect")
            seen.append(sorted(obj["metadata"]["name"] for obj in informer.list()))

        await client.create(CONFIG_MAPS, config_map("a"))
        following = asyncio.create_task(follow("test", [informer], write, failures))
        await asyncio.sleep(1)
        assert seen == [["a"]]

        broken = True
        await client.create(CONFIG_MAPS, config_map("b"))
        await asyncio.sleep(60)
        assert seen == [["a"]]
        assert 3 < failures.counts["ValueError"] < 20

        broken = False
        await asyncio.sleep(60)
        assert seen == [["a"], ["a", "b"]]
        await client.delete(CONFIG_MAPS, "a", "default")
        await asyncio.sleep(1)
        assert seen[-1] == ["b"]
        following.cancel()

    with_a_server(play)


def test_changes_that_do_not_matter_call_for_nothing_and_many_are_one() -> None:
    async def play(client: Client) -> None:
        informer = Informer(client, CONFIG_MAPS)
        calls = 0

        async def write() -> None:
            nonlocal calls
            calls += 1

        def same_text(old: dict[str, object], new: dict[str, object]) -> bool:
            return old["data"] != new["data"]

        await client.create(CONFIG_MAPS, config_map("a"))
        following = asyncio.create_task(follow("test", [informer], write, matters=same_text, calm_s=5))
        await asyncio.sleep(60)
        assert calls == 1

        labels = {"metadata": {"labels": {"x": "y"}}}
        await client.patch(CONFIG_MAPS, "a", "default", labels, kind=PatchKind.MERGE)
        await asyncio.sleep(60)
        assert calls == 1

        for number in range(20):
            text = {"data": {"text": str(number)}}
            await client.patch(CONFIG_MAPS, "a", "default", text, kind=PatchKind.MERGE)
        await asyncio.sleep(60)
        assert 2 <= calls <= 3
        following.cancel()

    with_a_server(play)


def test_what_was_written_is_looked_after_without_a_change() -> None:
    async def main(world: VirtualWorld) -> list[float]:
        calls: list[float] = []
        looked = 0

        async def write() -> None:
            calls.append(round(world.monotonic()))

        async def look() -> None:
            nonlocal looked
            looked += 1
            if looked == 2:
                raise ValueError("a look that fails")
            if looked == 3:
                applier.changed()

        applier = Applier("test", write, Failures(), check=look, check_every_s=10)
        task = asyncio.create_task(applier.run())
        applier.changed()
        await asyncio.sleep(65)
        task.cancel()
        return calls

    assert run(main) == [0, 30]


def test_what_is_supervised_goes_on_after_any_error_ever_more_slowly() -> None:
    async def main(world: VirtualWorld) -> tuple[list[float], dict[str, int]]:
        began: list[float] = []
        failures = Failures()

        async def work() -> None:
            began.append(round(world.monotonic()))
            raise [KeyError("x"), OSError("y"), TypeError("z")][len(began) % 3]

        task = asyncio.create_task(supervised("test", work, failures))
        await asyncio.sleep(40)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return began, failures.counts

    began, counts = run(main)
    assert began == [0, 1, 3, 7, 15, 31]
    assert counts == {"OSError": 2, "TypeError": 2, "KeyError": 2}


def test_what_ends_by_itself_is_not_begun_again() -> None:
    async def main(world: VirtualWorld) -> tuple[int, float]:
        turns = 0

        async def work() -> None:
            nonlocal turns
            turns += 1
            if turns < 3:
                raise ValueError("not yet")

        await until_done("test", work, Failures())
        return turns, world.monotonic()

    assert run(main) == (3, 3.0)
