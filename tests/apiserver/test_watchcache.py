"""Random histories: the cache, its past and its watchers agree with a plain list of everything that happened."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.apiserver import watchcache
from navarch.apiserver.changes import MODIFIED, Cached
from navarch.apiserver.codec import Codec
from navarch.apiserver.watchcache import SortedKeys, WatchCache
from navarch.apiserver.watchers import EVERYTHING, Backlogs, Watcher
from navarch.kinds.base import Strategy
from navarch.kinds.resources import CONFIG_MAPS
from navarch.store.base import Event

CODEC = Codec(CONFIG_MAPS)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "delete"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["x", "y", "yy"]),
        st.sampled_from(["on", "off"]),
    ),
    max_size=30,
)


def value_of(namespace: str, name: str, light: str) -> bytes:
    return CODEC.encode({"metadata": {"name": name, "namespace": namespace, "labels": {"light": light}}})


def play(cache: WatchCache, steps: list[Any]) -> list[dict[str, tuple[int, str]]]:
    """Apply the steps; returns the state (key to revision and label) after each revision."""
    states: list[dict[str, tuple[int, str]]] = [{}]
    for kind, namespace, name, light in steps:
        key = CODEC.key(namespace, name)
        state = dict(states[-1])
        if kind == "delete" and key not in state:
            continue
        revision = len(states)
        if kind == "put":
            state[key] = (revision, light)
            cache.apply(Event(key, value_of(namespace, name, light), revision, revision), 0.0)
        else:
            del state[key]
            cache.apply(Event(key, None, revision, revision), 0.0)
        states.append(state)
    return states


def shown(items: list[Cached]) -> list[tuple[str, tuple[int, str]]]:
    for cached in items:
        obj = orjson.loads(cached.data)
        assert obj["metadata"]["resourceVersion"] == str(cached.revision)
    return [(cached.key, (cached.revision, cached.labels["light"])) for cached in items]


@given(STEPS, st.integers(0, 30), st.sampled_from(["", "a"]), st.sampled_from(["", "a/x", "a/y", "b/x"]))
@settings(max_examples=200, deadline=None)
def test_every_recent_revision_can_be_listed(steps: list[Any], back: int, namespace: str, after: str) -> None:
    cache = WatchCache(CODEC, Strategy())
    states = play(cache, steps)
    revision = max(0, len(states) - 1 - back)
    start = CODEC.prefix + after if after else ""
    wanted = sorted(
        (key, entry)
        for key, entry in states[revision].items()
        if key.startswith(CODEC.prefix + (f"{namespace}/" if namespace else "")) and key > start
    )

    items = cache.items_at(revision, namespace, after=start)

    assert items is not None
    assert shown(items) == wanted


@given(STEPS, st.integers(0, 30), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_watcher_can_rebuild_what_it_selects(steps: list[Any], since: int, selective: bool) -> None:
    async def run() -> None:
        cache = WatchCache(CODEC, Strategy())
        half = len(steps) // 2
        states = play(cache, steps[:half])
        since_revision = min(since, len(states) - 1)
        lit = (lambda cached: cached.labels["light"] == "on") if selective else None
        watcher = Watcher(("metadata.namespace", "a"), lit, since_revision)
        cache.watch(watcher)
        mirror = {
            key: entry
            for key, entry in states[since_revision].items()
            if key.startswith(CODEC.prefix + "a/") and (not selective or entry[1] == "on")
        }
        later = play_on(cache, steps[half:], states)
        watcher.close()
        for notice in await watcher.take():
            assert notice.change is not None
            seen = notice.change.shown(notice.type)
            line = orjson.loads(notice.change.line(notice.type))
            assert line["object"]["metadata"]["resourceVersion"] == str(notice.revision)
            if notice.type == "DELETED":
                del mirror[seen.key]
            else:
                assert (notice.type == "ADDED") == (seen.key not in mirror)
                mirror[seen.key] = (seen.revision, seen.labels["light"])
        assert mirror == {
            key: entry
            for key, entry in later.items()
            if key.startswith(CODEC.prefix + "a/") and (not selective or entry[1] == "on")
        }

    asyncio.run(run())


def play_on(cache: WatchCache, steps: list[Any], states: list[Any]) -> dict[str, tuple[int, str]]:
    state: dict[str, tuple[int, str]] = dict(states[-1])
    revision = len(states) - 1
    for kind, namespace, name, light in steps:
        key = CODEC.key(namespace, name)
        if kind == "delete" and key not in state:
            continue
        revision += 1
        if kind == "put":
            state[key] = (revision, light)
            cache.apply(Event(key, value_of(namespace, name, light), revision, revision), 0.0)
        else:
            del state[key]
            cache.apply(Event(key, None, revision, revision), 0.0)
    return state


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 120)), max_size=200), st.integers(0, 120), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_sorted_keys_stay_sorted(steps: list[tuple[bool, int]], after: int, look_every: int) -> None:
    keys, model = SortedKeys(), set[str]()
    for index, (add, number) in enumerate(steps):
        key = f"/r/{number:03}"
        if add and key not in model:
            model.add(key)
            keys.add(key)
        elif not add and key in model:
            model.remove(key)
            keys.remove(key)
        if index % look_every == 0:
            assert keys.under("/r/") == sorted(model)
    start = f"/r/{after:03}"
    assert keys.under("/r/", start) == sorted(key for key in model if key > start)


def test_old_changes_are_dropped_by_age_and_number() -> None:
    cache = WatchCache(CODEC, Strategy())
    for revision in range(1, watchcache.RING_MIN + 11):
        now = 0.0 if revision <= 5 else 1000.0
        cache.apply(Event(CODEC.key("a", "x"), value_of("a", "x", "on"), revision, 1), now)

    assert cache.oldest == 5
    assert cache.items_at(4) is None
    assert cache.items_at(5) is not None


def test_a_hint_must_be_of_the_very_value() -> None:
    cache = WatchCache(CODEC, Strategy())
    key, value = CODEC.key("a", "x"), value_of("a", "x", "on")
    cache.expect(key, value, {"metadata": {"labels": {"light": "hinted"}}})
    cache.apply(Event(key, bytes(bytearray(value)), 1, 1), 0.0)

    found = cache.get("a", "x")

    assert found is not None
    assert found.labels == {"light": "on"}


def big(name: str, light: str, size: int = 10_000) -> bytes:
    return value_of("a", name, light)[:-1] + b',"text":"' + b"x" * size + b'"}'


def test_what_nobody_but_recent_changes_holds_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchcache, "RING_BYTES", 2_000_000)
    cache = WatchCache(CODEC, Strategy())
    for revision in range(1, 401):
        cache.apply(Event(CODEC.key("a", "x"), big("x", "on"), revision, 1), 0.0)

    kept = cache.changes_since(0)

    assert 100 < len(kept) <= 200
    assert cache.oldest == kept[0].revision - 1


def test_a_few_big_changes_are_as_bounded_as_many_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchcache, "RING_BYTES", 200_000)
    cache = WatchCache(CODEC, Strategy())
    for revision in range(1, watchcache.RING_MIN):
        cache.apply(Event(CODEC.key("a", "x"), big("x", "on"), revision, 1), 0.0)
    assert watchcache.RING_LEAST < len(cache.changes_since(cache.oldest)) <= 20

    monkeypatch.setattr(watchcache, "RING_BYTES", 1)
    cache.rest(0.0)

    assert len(cache.changes_since(cache.oldest)) == watchcache.RING_LEAST


def test_objects_that_are_there_anyway_do_not_count_as_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchcache, "RING_BYTES", 2_000_000)
    cache = WatchCache(CODEC, Strategy())
    for revision in range(1, 401):
        cache.apply(Event(CODEC.key("a", f"x{revision}"), big(f"x{revision}", "on"), revision, revision), 0.0)

    assert len(cache.changes_since(0)) == 400


def test_what_was_made_for_watchers_is_kept_for_the_newest_changes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchcache, "WARM_BYTES", 100_000)
    cache = WatchCache(CODEC, Strategy())
    for revision in range(1, 51):
        cache.apply(Event(CODEC.key("a", "x"), big("x", "on"), revision, 1), 0.0)
        cache.changes_since(revision - 1)[0].line(MODIFIED)
    changes = cache.changes_since(0)
    lines = [change.line(MODIFIED) for change in changes]

    warm = [change for change in changes if change.kept(MODIFIED)]

    assert changes[-len(warm) :] == warm
    assert 5 < len(warm) < 15
    assert [orjson.loads(line)["object"]["metadata"]["resourceVersion"] for line in lines] == [
        str(change.revision) for change in changes
    ]


def test_old_changes_go_although_nothing_new_comes() -> None:
    cache = WatchCache(CODEC, Strategy())
    for revision in range(1, watchcache.RING_MIN + 11):
        cache.apply(Event(CODEC.key("a", "x"), value_of("a", "x", "on"), revision, 1), 0.0)
        cache.changes_since(revision - 1)[0].line(MODIFIED)

    cache.rest(1000.0)

    kept = cache.changes_since(0)
    assert len(kept) == watchcache.RING_MIN
    assert not any(change.kept(MODIFIED) for change in kept)


def test_a_cache_that_was_fitted_anew_remembers_as_much_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchcache, "RING_BYTES", 2_000_000)
    cache = WatchCache(CODEC, Strategy())
    for revision in range(1, 200):
        cache.apply(Event(CODEC.key("a", "x"), big("x", "on"), revision, 1), 0.0)
    for _ in cache.refitted((), lambda obj: {}, None):
        pass
    for revision in range(200, 350):
        cache.apply(Event(CODEC.key("a", "x"), big("x", "on"), revision, 1), 0.0)

    assert cache.changes_since(0)[0].revision == 200


def test_versions_of_an_object_share_what_they_are_found_by() -> None:
    cache = WatchCache(CODEC, Strategy())
    for revision in range(1, 4):
        light = "on" if revision < 3 else "off"
        cache.apply(Event(CODEC.key("a", "x"), value_of("a", "x", light), revision, 1), 0.0)

    first, second, third = (change.new for change in cache.changes_since(0))

    assert first is not None
    assert second is not None
    assert third is not None
    assert first.key is second.key is third.key
    assert first.labels is second.labels
    assert third.labels == {"light": "off"}


def test_of_watchers_that_are_equally_slow_those_that_came_first_are_cut_off() -> None:
    backlogs = Backlogs(limit=31)
    watchers = [Watcher(EVERYTHING, None, 0) for _ in range(32)]
    for watcher in watchers:
        watcher.join(backlogs)

    for revision, watcher in enumerate(watchers, 1):
        watcher.bookmark(revision)

    count = sum(watcher.closed for watcher in watchers)
    assert 0 < count < 32
    assert [watcher.closed for watcher in watchers] == [True] * count + [False] * (32 - count)
