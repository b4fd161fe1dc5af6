"""What every store must do; see the invariants in navarch.store.base."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from navarch.store.base import Compacted, Conflict, Delete, Event, Progress, Put, Store


async def events_of(store: Store, prefix: str, since: int, count: int) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(5), aclosing(store.watch(prefix, since)) as stream:  # type: ignore[type-var]
        async for event in stream:
            if isinstance(event, Event):
                found.append(event)
            if len(found) == count:
                break
    return found


async def test_a_commit_is_visible_once_it_returns(store: Store) -> None:
    revision = await store.commit([Put("/a/1", b"one")])

    entry = await store.get("/a/1")
    assert entry is not None
    assert (entry.value, entry.create_revision, entry.mod_revision) == (b"one", revision, revision)
    assert await store.revision() == revision


async def test_an_update_keeps_the_create_revision(store: Store) -> None:
    first = await store.commit([Put("/a/1", b"one")])
    second = await store.commit([Put("/a/1", b"two", expected=first)])

    entry = await store.get("/a/1")
    assert entry is not None
    assert (entry.value, entry.create_revision, entry.mod_revision) == (b"two", first, second)


async def test_a_create_of_an_existing_key_conflicts_and_shows_it(store: Store) -> None:
    first = await store.commit([Put("/a/1", b"one", expected=0)])

    with pytest.raises(Conflict) as raised:
        await store.commit([Put("/a/1", b"two", expected=0)])

    assert raised.value.current is not None
    assert raised.value.current.value == b"one"
    assert await store.revision() == first


async def test_a_stale_update_changes_nothing(store: Store) -> None:
    first = await store.commit([Put("/a/1", b"one")])
    await store.commit([Put("/a/1", b"two")])

    with pytest.raises(Conflict):
        await store.commit([Put("/a/1", b"three", expected=first)])

    entry = await store.get("/a/1")
    assert entry is not None
    assert entry.value == b"two"


async def test_deleting_needs_the_key_and_the_right_revision(store: Store) -> None:
    with pytest.raises(Conflict) as raised:
        await store.commit([Delete("/a/1")])
    assert raised.value.current is None
    first = await store.commit([Put("/a/1", b"one")])
    with pytest.raises(Conflict):
        await store.commit([Delete("/a/1", expected=first + 7)])

    deleted = await store.commit([Delete("/a/1", expected=first)])

    assert deleted > first
    assert await store.get("/a/1") is None


async def test_of_racing_creates_one_wins(store: Store) -> None:
    results = await asyncio.gather(
        *(store.commit([Put("/a/1", str(i).encode(), expected=0)]) for i in range(20)), return_exceptions=True
    )

    assert [isinstance(result, Conflict) for result in results].count(False) == 1


async def test_concurrent_commits_get_distinct_revisions(store: Store) -> None:
    before = await store.revision()
    revisions = await asyncio.gather(*(store.commit([Put(f"/a/{i:03}", b"x")]) for i in range(300)))

    # Not always the next 300: who hears nothing of a write that needs no revision repeats it.
    assert len(set(revisions)) == 300
    assert min(revisions) > before
    stored = (await store.range("/a/")).entries
    assert [entry.mod_revision for entry in stored] == revisions


async def test_a_range_is_in_key_order_and_pages(store: Store) -> None:
    for name in ("c", "a", "b"):
        await store.commit([Put(f"/p/{name}", name.encode())])
    await store.commit([Put("/q/z", b"other")])

    first = await store.range("/p/", limit=2)
    rest = await store.range("/p/", limit=2, after=first.entries[-1].key)

    assert [entry.value for entry in first.entries] == [b"a", b"b"]
    assert (first.more, first.remaining) == (True, 1)
    assert [entry.value for entry in rest.entries] == [b"c"]
    assert not rest.more


async def test_a_range_at_a_revision_shows_the_past(store: Store) -> None:
    await store.commit([Put("/p/changed", b"old")])
    await store.commit([Put("/p/deleted", b"here")])
    past = await store.commit([Put("/p/kept", b"same")])
    await store.commit([Put("/p/changed", b"new")])
    await store.commit([Put("/p/changed", b"newer")])
    await store.commit([Delete("/p/deleted")])
    await store.commit([Put("/p/added", b"later")])

    page = await store.range("/p/", revision=past)

    assert [(entry.key, entry.value) for entry in page.entries] == [
        ("/p/changed", b"old"),
        ("/p/deleted", b"here"),
        ("/p/kept", b"same"),
    ]
    assert page.revision == past


async def test_a_watch_shows_past_then_live_commits_once(store: Store) -> None:
    since = await store.commit([Put("/a/0", b"before")])
    past = await store.commit([Put("/a/1", b"one")])
    watching = asyncio.create_task(events_of(store, "/a/", since, 3))
    await asyncio.sleep(0)
    changed = await store.commit([Put("/a/1", b"two")])
    await store.commit([Put("/b/1", b"elsewhere")])
    deleted = await store.commit([Delete("/a/1")])

    assert await watching == [
        Event("/a/1", b"one", past, past),
        Event("/a/1", b"two", changed, past),
        Event("/a/1", None, deleted, 0),
    ]


async def test_many_watchers_see_the_same_order(store: Store) -> None:
    since = await store.revision()
    watching = [asyncio.create_task(events_of(store, "/a/", since, 100)) for _ in range(3)]
    await asyncio.gather(*(store.commit([Put(f"/a/{i % 7}", str(i).encode())]) for i in range(100)))

    seen = [await task for task in watching]

    assert seen[0] == seen[1] == seen[2]
    assert [event.revision for event in seen[0]] == sorted(event.revision for event in seen[0])


async def test_compaction_forgets_history_and_keeps_what_is_current(store: Store) -> None:
    await store.commit([Put("/a/kept", b"k")])
    old = await store.commit([Put("/a/changed", b"old")])
    await store.commit([Put("/a/gone", b"x")])
    await store.commit([Delete("/a/gone")])
    current = await store.commit([Put("/a/changed", b"new")])

    await store.compact(current)

    with pytest.raises(Compacted) as raised:
        await store.range("/a/", revision=old)
    assert raised.value.oldest == current
    with pytest.raises(Compacted):
        await events_of(store, "/a/", old, 1)
    assert [entry.value for entry in (await store.range("/a/")).entries] == [b"new", b"k"]
    assert [entry.value for entry in (await store.range("/a/", revision=current)).entries] == [b"new", b"k"]


async def test_a_watch_from_the_compacted_revision_itself_goes_on(store: Store) -> None:
    at = await store.commit([Put("/a/1", b"one")])
    await store.compact(at)
    later = await store.commit([Put("/a/1", b"two")])

    assert await events_of(store, "/a/", at, 1) == [Event("/a/1", b"two", later, at)]


async def test_revisions_rise_past_a_compacted_delete(store: Store) -> None:
    await store.commit([Put("/a/1", b"one")])
    deleted = await store.commit([Delete("/a/1")])
    await store.compact(deleted)

    assert await store.commit([Put("/a/1", b"again", expected=0)]) > deleted


async def test_the_operations_of_a_commit_share_one_revision(store: Store) -> None:
    old = await store.commit([Put("/a/old", b"x")])

    revision = await store.commit([Put("/a/new", b"n", expected=0), Delete("/a/old", expected=old), Put("/b/1", b"b")])

    assert revision == old + 1
    assert await events_of(store, "/", old, 3) == [
        Event("/a/new", b"n", revision, revision),
        Event("/a/old", None, revision, 0),
        Event("/b/1", b"b", revision, revision),
    ]
    past = await store.range("/", revision=old)
    assert [entry.key for entry in past.entries] == ["/a/old"]
    now = await store.range("/")
    assert [(entry.key, entry.mod_revision) for entry in now.entries] == [("/a/new", revision), ("/b/1", revision)]
    assert await store.commit([Put("/a/new", b"m", expected=revision)]) == revision + 1


async def test_a_commit_of_which_one_operation_fails_changes_nothing(store: Store) -> None:
    first = await store.commit([Put("/a/1", b"one")])

    with pytest.raises(Conflict) as raised:
        await store.commit([Put("/a/2", b"two", expected=0), Put("/a/1", b"mine", expected=0), Delete("/a/3")])

    assert raised.value.key == "/a/1"
    assert raised.value.current is not None
    assert raised.value.current.value == b"one"
    assert [entry.key for entry in (await store.range("/")).entries] == ["/a/1"]
    assert await store.revision() == first


async def test_a_failing_commit_does_not_fail_its_neighbours(store: Store) -> None:
    await store.commit([Put("/taken", b"x")])

    results = await asyncio.gather(
        *(
            store.commit([Put(f"/a/{i}", b"a", expected=0), Put("/taken" if i % 3 == 0 else f"/b/{i}", b"b", 0)])
            for i in range(30)
        ),
        return_exceptions=True,
    )

    assert [isinstance(result, Conflict) for result in results] == [i % 3 == 0 for i in range(30)]
    kept = {entry.key for entry in (await store.range("/a/")).entries}
    assert kept == {f"/a/{i}" for i in range(30) if i % 3}


async def test_of_commits_that_want_the_same_two_keys_one_wins_both(store: Store) -> None:
    results = await asyncio.gather(
        *(
            store.commit([Put(key, str(i).encode(), expected=0) for key in ("/a", "/b")[:: 1 - 2 * (i % 2)]])
            for i in range(10)
        ),
        return_exceptions=True,
    )

    values = [entry.value for entry in (await store.range("/")).entries]
    assert values[0] == values[1]
    assert [isinstance(result, Conflict) for result in results].count(False) == 1


async def test_a_commit_names_a_key_once_and_has_a_bounded_size(store: Store) -> None:
    for ops in ([], [Put("/a", b"1"), Delete("/a")], [Put(f"/{i}", b"x") for i in range(store.max_ops + 1)]):
        with pytest.raises(ValueError, match="a commit"):
            await store.commit(ops)

    assert await store.commit([Put(f"/{i}", b"x") for i in range(store.max_ops)])


async def test_a_watch_in_the_midst_of_large_commits_never_sees_half_of_one(store: Store) -> None:
    revisions = [await store.commit([Put(f"/a/{i}", str(n).encode()) for i in range(100)]) for n in range(12)]

    events = await events_of(store, "/a/", revisions[0], 1100)

    assert [event.revision for event in events] == [revision for revision in revisions[1:] for _ in range(100)]


async def progress_to(store: Store, prefix: str, since: int, revision: int) -> list[Event]:
    """The events before a watch says that it is complete up to the revision."""
    found: list[Event] = []
    async with asyncio.timeout(5), aclosing(store.watch(prefix, since)) as stream:  # type: ignore[type-var]
        async for event in stream:
            if isinstance(event, Event):
                found.append(event)
            elif event.revision >= revision:
                break
    return found


async def test_a_watch_says_how_far_it_is_complete_also_when_all_happens_elsewhere(store: Store) -> None:
    first = await store.commit([Put("/a/1", b"x")])
    watching = asyncio.create_task(progress_to(store, "/a/", first, first + 3))
    await asyncio.sleep(0)
    for i in range(3):
        await store.commit([Put(f"/b/{i}", b"elsewhere")])

    assert await store.revision() == first + 3
    assert await watching == []
    assert await progress_to(store, "/a/", first - 1, first + 3) == [Event("/a/1", b"x", first, first)]


async def test_progress_comes_behind_all_events_of_its_commit(store: Store) -> None:
    seen: list[Event | Progress] = []
    before = await store.revision()
    last = before + 20

    async def follow() -> None:
        async with aclosing(store.watch("/a/", before)) as stream:  # type: ignore[type-var]
            async for event in stream:
                seen.append(event)
                if event.revision >= last and isinstance(event, Progress):
                    return

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(follow())
        for n in range(20):
            await store.commit([Put(f"/a/{i}", str(n).encode()) for i in range(3)])

    complete = 0
    for event in seen:
        if isinstance(event, Progress):
            assert event.revision >= complete
            complete = event.revision
        else:
            assert event.revision > complete
    assert len([event for event in seen if isinstance(event, Event)]) == 60
