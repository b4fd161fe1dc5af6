"""Watchers are found by what they select, and woken together while there is much to send."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.selectors import parse_label_selector
from navarch.apiserver import watchers
from navarch.apiserver.changes import Cached
from navarch.apiserver.codec import Codec
from navarch.apiserver.list_options import ListOptions
from navarch.apiserver.selecting import selection_of
from navarch.apiserver.watchcache import WatchCache
from navarch.apiserver.watchers import Watcher
from navarch.kinds.base import Strategy
from navarch.kinds.registry import builtin
from navarch.kinds.resources import CONFIG_MAPS
from navarch.store.base import Event

CODEC = Codec(CONFIG_MAPS)
KIND = next(kind for kind in builtin().kinds() if kind.resource == CONFIG_MAPS)
SELECTORS = ("a=1", "a!=1", "a in (1,2)", "a", "!a", "a=1,b=1", "b in (1,2),a in (2,3)", "b=1,a!=2", "")
LABELS = st.dictionaries(st.sampled_from("ab"), st.sampled_from("123"))
HISTORY = st.lists(st.tuples(st.sampled_from("nm"), st.sampled_from("xy"), st.none() | LABELS), max_size=25)


def event(revision: int, namespace: str, name: str, labels: dict[str, str] | None) -> Event:
    key = CODEC.key(namespace, name)
    if labels is None:
        return Event(key, None, revision, revision)
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return Event(key, CODEC.encode({"metadata": metadata}), revision, revision)


def selecting(selector: str, namespace: str) -> Watcher:
    chosen = selection_of(ListOptions(labels=selector), KIND, namespace)
    return Watcher(chosen.scope, chosen.wanted, 0, namespace=chosen.namespace, labels=chosen.labels)


@given(HISTORY, st.lists(st.tuples(st.sampled_from(SELECTORS), st.sampled_from(["", "n"])), max_size=6))
@settings(max_examples=200, deadline=None)
def test_who_selects_sees_what_looking_at_everything_would_show(
    history: list[tuple[str, str, dict[str, str] | None]], wanted: list[tuple[str, str]]
) -> None:
    async def run() -> None:
        cache = WatchCache(CODEC, Strategy())
        found = [selecting(*each) for each in wanted]
        asked_all = [Watcher(("", ""), each.wanted or in_namespace(each.namespace), 0) for each in found]
        for watcher in [*found, *asked_all]:
            cache.watch(watcher)
        for revision, (namespace, name, labels) in enumerate(history, start=1):
            cache.apply(event(revision, namespace, name, labels), 0.0)
        for watcher in [*found, *asked_all]:
            watcher.close()
        for one, other in zip(found, asked_all, strict=True):
            seen = [(notice.type, notice.revision) for notice in await one.take()]
            assert seen == [(notice.type, notice.revision) for notice in await other.take()]
        for watcher in [*found, *asked_all]:
            cache.unwatch(watcher)
        assert list(cache.watchers()) == []

    asyncio.run(run())


def in_namespace(namespace: str) -> Any:
    return lambda cached: not namespace or cached.namespace == namespace


async def test_of_a_thousand_watchers_two_look_at_what_concerns_two() -> None:
    cache = WatchCache(CODEC, Strategy())
    looked: list[int] = []

    def wanted(number: int) -> Any:
        selector = parse_label_selector(f"app=web,id={number}")

        def wants(cached: Cached) -> bool:
            looked.append(number)
            return selector.matches(cached.labels)

        return wants

    for number in range(1000):
        labels = (("app", frozenset({"web"})), ("id", frozenset({str(number)})))
        cache.watch(Watcher(("metadata.namespace", "n"), wanted(number), 0, namespace="n", labels=labels))

    cache.apply(event(1, "n", "x", {"app": "web", "id": "7"}), 0.0)
    cache.apply(event(2, "n", "x", {"app": "web", "id": "8"}), 0.0)

    # The very first had the choice between two empty places.
    assert set(looked) <= {0, 7, 8}
    assert looked.count(7) == 2 + 1
    assert looked.count(8) == 2


async def watching(cache: WatchCache) -> tuple[Watcher, asyncio.Task[Any]]:
    watcher = Watcher(("", ""), None, 0)
    cache.watch(watcher)
    taking = asyncio.create_task(watcher.take())
    await asyncio.sleep(0)
    return watcher, taking


async def test_at_rest_a_watcher_is_woken_by_the_change_itself() -> None:
    cache = WatchCache(CODEC, Strategy())
    _, taking = await watching(cache)

    cache.apply(event(1, "n", "x", {}), 0.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [notice.revision for notice in taking.result()] == [1]


async def test_under_load_what_gathers_in_some_milliseconds_is_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "_WAKES_AT_ONCE", 0)
    cache = WatchCache(CODEC, Strategy())
    _, taking = await watching(cache)

    for revision in (1, 2, 3):
        cache.apply(event(revision, "n", "x", {}), 0.0)
        await asyncio.sleep(0)

    async with asyncio.timeout(30):
        assert [notice.revision for notice in await taking] == [1, 2, 3]


async def test_after_load_a_watcher_is_woken_at_once_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = WatchCache(CODEC, Strategy())
    with monkeypatch.context() as loaded:
        loaded.setattr(watchers, "_WAKES_AT_ONCE", 0)
        watcher, taking = await watching(cache)
        cache.apply(event(1, "n", "x", {}), 0.0)
        async with asyncio.timeout(30):
            await taking
    monkeypatch.setattr(watchers, "_WAKES_PER_S", 1e9)
    taking = asyncio.create_task(watcher.take())
    await asyncio.sleep(0)

    cache.apply(event(2, "n", "x", {}), 0.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [notice.revision for notice in taking.result()] == [2]


async def test_the_end_of_a_watch_does_not_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "_WAKES_AT_ONCE", 0)
    cache = WatchCache(CODEC, Strategy())
    watcher, taking = await watching(cache)

    cache.apply(event(1, "n", "x", {}), 0.0)
    watcher.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [notice.revision for notice in taking.result()] == [1]
