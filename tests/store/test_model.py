"""Random histories against a model: a store agrees with a plain list of everything that ever happened."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from navarch.store.base import Compacted, Conflict, Delete, Event, Put, Store
from navarch.store.memory import MemoryStore
from navarch.store.sqlite import SQLiteStore

KEYS = st.sampled_from(["/a/1", "/a/2", "/a/22", "/b/1"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=3), st.sampled_from(["any", "new", "right", "wrong"])),
        st.tuples(st.just("delete"), KEYS, st.sampled_from(["any", "right", "wrong"])),
        st.tuples(st.just("compact"), st.integers(0, 30)),
        st.tuples(st.just("range"), st.sampled_from(["/a/", "/a/2", "/", "/c"]), st.integers(0, 30), st.integers(0, 3)),
    ),
    max_size=40,
)


class Model:
    """The whole history, and what follows from it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.compacted = 0

    def at(self, revision: int) -> dict[str, Event]:
        state: dict[str, Event] = {}
        for event in self.events[:revision]:
            if event.value is None:
                del state[event.key]
            else:
                state[event.key] = event
        return state

    def now(self) -> dict[str, Event]:
        return self.at(len(self.events))


async def play(store: Store, steps: list[Any]) -> None:
    model = Model()
    for step in steps:
        if step[0] == "compact":
            await store.compact(step[1])
            model.compacted = max(model.compacted, min(step[1], len(model.events)))
        elif step[0] == "range":
            await check_range(store, model, *step[1:])
        else:
            await check_commit(store, model, step)
    state = model.now()
    assert {key: entry.revision for key, entry in state.items()} == {
        entry.key: entry.mod_revision for entry in (await store.range("/")).entries
    }
    await check_watch(store, model)


async def check_commit(store: Store, model: Model, step: Any) -> None:
    key, how = step[1], step[-1]
    current = model.now().get(key)
    held = current.revision if current else 0
    expected = {"any": None, "new": 0, "right": held, "wrong": held + 1}[how]
    op = Put(key, step[2], expected) if step[0] == "put" else Delete(key, expected)
    fails = (expected is not None and expected != held) or (step[0] == "delete" and current is None)
    if fails:
        with pytest.raises(Conflict) as raised:
            await store.commit(op)
        assert (raised.value.current.mod_revision if raised.value.current else 0) == held
        return
    revision = await store.commit(op)
    assert revision == len(model.events) + 1
    created = current.create_revision if current else revision
    model.events.append(Event(key, step[2] if step[0] == "put" else None, revision, created))


async def check_range(store: Store, model: Model, prefix: str, revision: int, limit: int) -> None:
    revision = min(revision, len(model.events))
    if revision and revision < model.compacted:
        with pytest.raises(Compacted):
            await store.range(prefix, revision=revision)
        return
    state = model.at(revision or len(model.events))
    wanted = [event for key, event in sorted(state.items()) if key.startswith(prefix)]
    page = await store.range(prefix, revision=revision, limit=limit)
    shown = wanted[:limit] if limit else wanted
    assert [(e.key, e.value, e.mod_revision, e.create_revision) for e in page.entries] == [
        (e.key, e.value, e.revision, e.create_revision) for e in shown
    ]
    assert page.remaining == len(wanted) - len(shown)
    assert page.revision == (revision or len(model.events))


async def check_watch(store: Store, model: Model) -> None:
    wanted = model.events[model.compacted :]
    seen: list[Event] = []
    if wanted:
        async with asyncio.timeout(5), aclosing(store.watch("/", model.compacted)) as stream:  # type: ignore[type-var]
            async for event in stream:
                seen.append(event)
                if len(seen) == len(wanted):
                    break
    assert seen == wanted


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_memory_agrees_with_the_model(steps: list[Any]) -> None:
    asyncio.run(play(MemoryStore(), steps))


@given(STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_sqlite_agrees_with_the_model(steps: list[Any]) -> None:
    async def run(directory: str) -> None:
        store = SQLiteStore(Path(directory) / "state.db")
        await store.open()
        try:
            await play(store, steps)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(directory))
