"""Random histories against a model: a store agrees with a plain list of everything that ever happened."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from navarch.store.base import Compacted, Conflict, Delete, Event, Put, Store
from navarch.store.etcd.store import EtcdStore
from navarch.store.etcd.target import parse
from navarch.store.memory import MemoryStore
from navarch.store.sqlite import SQLiteStore

KEYS = st.sampled_from(["/a/1", "/a/2", "/a/22", "/b/1"])
HOWS = st.sampled_from(["any", "new", "right", "wrong"])
HOWS_OF_DELETE = st.sampled_from(["any", "right", "wrong"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=3), HOWS),
        st.tuples(st.just("delete"), KEYS, HOWS_OF_DELETE),
        st.tuples(
            st.just("many"),
            st.lists(
                st.one_of(
                    st.tuples(st.just("put"), KEYS, st.binary(max_size=3), HOWS),
                    st.tuples(st.just("delete"), KEYS, HOWS_OF_DELETE),
                ),
                min_size=1,
                max_size=4,
                unique_by=lambda step: step[1],
            ),
        ),
        st.tuples(st.just("compact"), st.integers(0, 30)),
        st.tuples(st.just("range"), st.sampled_from(["/a/", "/a/2", "/", "/c"]), st.integers(0, 30), st.integers(0, 3)),
    ),
    max_size=40,
)


class Model:
    """The whole history, one list of events per revision, and what follows from it."""

    def __init__(self, base: int = 0) -> None:
        # What the store was at before: etcd serves others, too.
        self.base = base
        self.compacted = base
        self.commits: list[list[Event]] = []

    @property
    def newest(self) -> int:
        return self.base + len(self.commits)

    def since(self, revision: int) -> list[Event]:
        return [event for commit in self.commits[revision - self.base :] for event in commit]

    def at(self, revision: int) -> dict[str, Event]:
        state: dict[str, Event] = {}
        for commit in self.commits[: revision - self.base]:
            for event in commit:
                if event.value is None:
                    del state[event.key]
                else:
                    state[event.key] = event
        return state

    def now(self) -> dict[str, Event]:
        return self.at(self.newest)


async def play(store: Store, steps: list[Any]) -> None:
    model = Model(await store.revision())
    for step in steps:
        if step[0] == "compact":
            revision = model.base + step[1]
            await store.compact(revision)
            model.compacted = max(model.compacted, min(revision, model.newest))
        elif step[0] == "range":
            await check_range(store, model, *step[1:])
        else:
            await check_commit(store, model, step[1] if step[0] == "many" else [step])
    state = model.now()
    assert {key: entry.revision for key, entry in state.items()} == {
        entry.key: entry.mod_revision for entry in (await store.range("/")).entries
    }
    await check_watch(store, model)


async def check_commit(store: Store, model: Model, steps: list[Any]) -> None:
    ops: list[Put | Delete] = []
    events: list[Event] = []
    failing: dict[str, int] = {}
    state = model.now()
    revision = model.newest + 1
    for step in steps:
        key, how = step[1], step[-1]
        current = state.get(key)
        held = current.revision if current else 0
        expected = {"any": None, "new": 0, "right": held, "wrong": held + 1}[how]
        value = step[2] if step[0] == "put" else None
        ops.append(Put(key, value, expected) if value is not None else Delete(key, expected))
        created = current.create_revision if current else revision
        events.append(Event(key, value, revision, created if value is not None else 0))
        if (expected is not None and expected != held) or (value is None and current is None):
            failing[key] = held
    if failing:
        with pytest.raises(Conflict) as raised:
            await store.commit(ops)
        assert (raised.value.current.mod_revision if raised.value.current else 0) == failing[raised.value.key]
        return
    assert await store.commit(ops) == revision
    model.commits.append(events)


async def check_range(store: Store, model: Model, prefix: str, revision: int, limit: int) -> None:
    revision = min(model.base + revision, model.newest) if revision else 0
    if revision and revision < model.compacted:
        with pytest.raises(Compacted):
            await store.range(prefix, revision=revision)
        return
    state = model.at(revision or model.newest)
    wanted = [event for key, event in sorted(state.items()) if key.startswith(prefix)]
    page = await store.range(prefix, revision=revision, limit=limit)
    shown = wanted[:limit] if limit else wanted
    assert [(e.key, e.value, e.mod_revision, e.create_revision) for e in page.entries] == [
        (e.key, e.value, e.revision, e.create_revision) for e in shown
    ]
    assert page.remaining == len(wanted) - len(shown)
    assert page.revision == (revision or model.newest)


async def check_watch(store: Store, model: Model) -> None:
    wanted = model.since(model.compacted)
    seen: list[Event] = []
    if wanted:
        async with asyncio.timeout(10), aclosing(store.watch("/", model.compacted)) as stream:  # type: ignore[type-var]
            async for event in stream:
                if isinstance(event, Event):
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


@pytest.mark.parametrize("server", ["etcd_url", "envtest_etcd_url"])
def test_etcd_agrees_with_the_model(server: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(server)
    # One event loop for all: gRPC keeps to the one that it saw first.
    with asyncio.Runner() as runner:

        @given(STEPS)
        @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        def check(steps: list[Any]) -> None:
            runner.run(on_etcd(url, steps))

        check()


async def on_etcd(url: str, steps: list[Any]) -> None:
    store = EtcdStore(parse(f"{url}-model-{uuid4().hex}"))
    await store.open()
    try:
        await play(store, steps)
    finally:
        await store.close()
