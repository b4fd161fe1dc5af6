"""Lists in chunks and at revisions; watches from anywhere, with selectors, bookmarks and initial events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from navarch.apiserver import watchcache
from navarch.client.transport import Response
from navarch.kinds.resources import CONFIG_MAPS as _CONFIG_MAPS
from tests.apiserver.conftest import CONFIG_MAPS, PODS, Api, config_map, pod

NODES = "/api/v1/nodes"
Stream = AsyncIterator[bytes]


async def events(response: Response, count: int) -> list[Any]:
    """The next events of a watch."""
    assert response.status == 200, response.body
    body = response.body
    assert not isinstance(body, bytes)
    found: list[Any] = []
    async with asyncio.timeout(3):
        while len(found) < count:
            found += [orjson.loads(line) for line in (await anext(body)).splitlines()]
    return found


def brief(found: list[Any]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"].get("name", "")) for event in found]


def names(listed: Any) -> list[str]:
    return [item["metadata"]["name"] for item in listed["items"]]


async def fill(api: Api, *wanted: str) -> None:
    for name in wanted:
        await api.ok("POST", CONFIG_MAPS, config_map(name))


async def test_a_list_in_chunks_is_one_consistent_list(api: Api) -> None:
    await fill(api, "a", "b", "c", "d", "e")

    first = await api.ok("GET", f"{CONFIG_MAPS}?limit=2")
    assert names(first) == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 3

    await fill(api, "bb")
    await api.ok("DELETE", f"{CONFIG_MAPS}/c")
    second = await api.ok("GET", f"{CONFIG_MAPS}?limit=2&continue={first['metadata']['continue']}")
    third = await api.ok("GET", f"{CONFIG_MAPS}?limit=2&continue={second['metadata']['continue']}")

    assert names(second) + names(third) == ["c", "d", "e"]
    assert third["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in third["metadata"]


async def test_lists_of_objects_without_namespace_go_on_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        await api.ok("POST", NODES, {"metadata": {"name": name}})
    first = await api.ok("GET", f"{NODES}?limit=1")
    rest = f"{NODES}?limit=1&continue={first['metadata']['continue']}"
    second = await api.ok("GET", rest)
    third = await api.ok("GET", f"{NODES}?limit=1&continue={second['metadata']['continue']}")

    assert [names(chunk) for chunk in (first, second, third)] == [["a"], ["b"], ["c"]]
    assert "continue" not in third["metadata"]

    monkeypatch.setattr(watchcache, "RING_MIN", 0)
    monkeypatch.setattr(watchcache, "RING_MAX", 1)
    await api.ok("POST", NODES, {"metadata": {"name": "bb"}})
    await api.ok("POST", NODES, {"metadata": {"name": "d"}})
    assert names(await api.ok("GET", rest)) == ["b"]

    await api.server.store.compact(await api.server.store.revision())
    _, expired = await api("GET", rest)
    gone_on = await api.ok("GET", f"{NODES}?continue={expired['metadata']['continue']}")
    assert names(gone_on) == ["b", "bb", "c", "d"]


async def test_an_expired_chunk_can_be_continued_inconsistently(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchcache, "RING_MIN", 0)
    monkeypatch.setattr(watchcache, "RING_MAX", 1)
    await fill(api, "a", "b", "c")
    first = await api.ok("GET", f"{CONFIG_MAPS}?limit=1")
    await fill(api, "bb", "d")
    await api.server.store.compact(await api.server.store.revision())

    status, expired = await api("GET", f"{CONFIG_MAPS}?limit=1&continue={first['metadata']['continue']}")
    assert (status, expired["reason"]) == (410, "Expired")

    rest = await api.ok("GET", f"{CONFIG_MAPS}?continue={expired['metadata']['continue']}")
    assert names(rest) == ["b", "bb", "c", "d"]


async def test_a_chunk_that_only_the_store_remembers(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchcache, "RING_MIN", 0)
    monkeypatch.setattr(watchcache, "RING_MAX", 1)
    await fill(api, "a", "b", "c")
    first = await api.ok("GET", f"{CONFIG_MAPS}?limit=1")
    await fill(api, "bb", "d")

    rest = await api.ok("GET", f"{CONFIG_MAPS}?continue={first['metadata']['continue']}")

    assert names(rest) == ["b", "c"]


async def test_an_exact_list_shows_the_past(api: Api) -> None:
    await fill(api, "a")
    then = (await api.ok("GET", CONFIG_MAPS))["metadata"]["resourceVersion"]
    await fill(api, "b")

    past = await api.ok("GET", f"{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact")
    newer = await api.ok("GET", f"{CONFIG_MAPS}?resourceVersion={then}")

    assert names(past) == ["a"]
    assert names(newer) == ["a", "b"]


async def test_a_version_from_the_future_is_too_large(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from navarch.apiserver import caches

    monkeypatch.setattr(caches.Caches.wait, "__defaults__", (0.01,))
    status, answer = await api("GET", f"{CONFIG_MAPS}?resourceVersion=999999")

    assert (status, answer["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")


async def test_selectors_choose_by_label_and_field(api: Api) -> None:
    await api.ok("POST", PODS, pod("a", node="n1", app="web"))
    await api.ok("POST", PODS, pod("b", node="n2", app="web"))
    await api.ok("POST", PODS, pod("c", node="n1"))

    assert names(await api.ok("GET", f"{PODS}?labelSelector=app=web")) == ["a", "b"]
    assert names(await api.ok("GET", "/api/v1/pods?fieldSelector=spec.nodeName=n1")) == ["a", "c"]
    assert names(await api.ok("GET", f"{PODS}?fieldSelector=metadata.name=b")) == ["b"]
    status, answer = await api("GET", f"{PODS}?fieldSelector=spec.colour=red")
    assert (status, answer["message"]) == (400, "field label not supported: spec.colour")


async def test_a_watch_without_a_version_begins_with_what_is_there(api: Api) -> None:
    await fill(api, "a")

    stream = await api.send("GET", f"{CONFIG_MAPS}?watch=true")
    await fill(api, "b")
    await api.ok("DELETE", f"{CONFIG_MAPS}/a")

    assert brief(await events(stream, 3)) == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


async def test_a_watch_from_a_version_shows_only_what_came_after(api: Api) -> None:
    await fill(api, "a")
    since = (await api.ok("GET", CONFIG_MAPS))["metadata"]["resourceVersion"]
    await fill(api, "b")

    stream = await api.send("GET", f"{CONFIG_MAPS}?watch=true&resourceVersion={since}")
    await fill(api, "c")

    assert brief(await events(stream, 2)) == [("ADDED", "b"), ("ADDED", "c")]


async def test_a_deleted_object_carries_the_revision_of_its_deletion(api: Api) -> None:
    await fill(api, "a")
    made = await api.ok("GET", f"{CONFIG_MAPS}/a")
    version = made["metadata"]["resourceVersion"]
    await api.ok("DELETE", f"{CONFIG_MAPS}/a")

    stream = await api.send("GET", f"{CONFIG_MAPS}?watch=true&resourceVersion={version}")
    (event,) = await events(stream, 1)

    assert int(event["object"]["metadata"]["resourceVersion"]) > int(version)
    assert event["object"]["metadata"]["uid"] == made["metadata"]["uid"]


async def test_an_object_that_enters_and_leaves_a_selector(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a", k="1"))
    stream = await api.send("GET", f"{CONFIG_MAPS}?watch=true&labelSelector=on=yes")

    await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"labels": {"on": "yes"}}})
    await api.patch(f"{CONFIG_MAPS}/a", {"data": {"k": "2"}})
    await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"labels": {"on": "no"}}})
    await api.patch(f"{CONFIG_MAPS}/a", {"data": {"k": "3"}})
    await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"labels": {"on": "yes"}}})

    found = await events(stream, 4)
    assert brief(found) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "a")]
    assert found[2]["object"]["metadata"]["labels"] == {"on": "yes"}


async def test_a_kubelets_watch_sees_pods_come_to_its_node(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))
    await api.ok("POST", PODS, pod("b"))
    stream = await api.send("GET", "/api/v1/pods?watch=true&fieldSelector=spec.nodeName=n1")

    for name, node in (("a", "n1"), ("b", "n2")):
        binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
        await api.ok("POST", f"{PODS}/{name}/binding", binding)
    await api.ok("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0})

    assert brief(await events(stream, 2)) == [("ADDED", "a"), ("DELETED", "a")]


async def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    await fill(api, "a", "b")

    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    stream = await api.send("GET", f"{CONFIG_MAPS}?{query}")
    found = await events(stream, 3)

    assert brief(found) == [("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", "")]
    assert found[2]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_bookmarks_tell_the_revision(api: Api) -> None:
    api.server.core.on_bookmark_s = 0.01
    since = (await api.ok("GET", CONFIG_MAPS))["metadata"]["resourceVersion"]
    stream = await api.send("GET", f"{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={since}")
    await api.ok("POST", PODS, pod("elsewhere"))

    (event,) = (await events(stream, 1))[-1:]

    assert event["type"] == "BOOKMARK"
    assert int(event["object"]["metadata"]["resourceVersion"]) >= int(since)


async def test_a_short_watch_has_no_time_for_a_bookmark(api: Api) -> None:
    since = (await api.ok("GET", CONFIG_MAPS))["metadata"]["resourceVersion"]

    stream = await api.send(
        "GET", f"{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={since}&timeoutSeconds=1"
    )

    assert [chunk async for chunk in stream.body] == []  # type: ignore[union-attr]


async def test_a_watch_from_too_far_back_is_expired(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchcache, "RING_MIN", 0)
    monkeypatch.setattr(watchcache, "RING_MAX", 1)
    await fill(api, "a", "b", "c")

    stream = await api.send("GET", f"{CONFIG_MAPS}?watch=true&resourceVersion=1")

    assert stream.status == 200
    [event] = [orjson.loads(line) async for line in stream.body]  # type: ignore[union-attr]
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    assert event["object"]["message"].startswith("too old resource version: 1 (")


async def test_a_reader_that_falls_too_far_behind_is_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchcache, "RING_MIN", 0)
    monkeypatch.setattr(watchcache, "RING_MAX", 5)
    stream = await api.send("GET", f"{CONFIG_MAPS}?watch=true")
    await fill(api, "a")
    await events(stream, 1)

    await fill(api, *(f"x{i}" for i in range(10)))

    async with asyncio.timeout(3):
        assert [chunk async for chunk in stream.body] == []  # type: ignore[union-attr]


async def test_of_all_readers_the_slowest_are_cut_off_first(api: Api) -> None:
    api.server.core.caches.backlogs.limit = 30
    slow = await api.send("GET", f"{CONFIG_MAPS}?watch=true")
    slower = await api.send("GET", f"{CONFIG_MAPS}?watch=true&labelSelector=!none")
    other = await api.send("GET", f"{PODS}?watch=true")
    await fill(api, "first")
    for stream in (slow, slower):
        await events(stream, 1)
    await api.ok("POST", PODS, pod("p"))
    await events(other, 1)

    for n in range(12):
        await fill(api, f"x{n}")
        await events(slow, 1)
    await fill(api, *(f"y{n}" for n in range(20)))
    await api.ok("POST", PODS, pod("q"))

    async with asyncio.timeout(3):
        assert [chunk async for chunk in slower.body] == []  # type: ignore[union-attr]
    assert len(await events(slow, 20)) == 20
    assert len(await events(other, 1)) == 1
    assert api.server.core.caches.backlogs.cut == 1
    for stream in (slow, other):
        await stream.body.aclose()  # type: ignore[union-attr]
    assert api.server.core.caches.backlogs.waiting == 0


async def test_a_watch_ends_at_its_timeout(api: Api) -> None:
    stream = await api.send("GET", f"{CONFIG_MAPS}?watch=true&timeoutSeconds=1")
    body = stream.body
    assert not isinstance(body, bytes)

    async with asyncio.timeout(3):
        assert [chunk async for chunk in body] == []


async def test_closing_a_watch_leaves_nothing_behind(api: Api) -> None:
    cache = api.server.core.caches.of(_CONFIG_MAPS)
    stream = await api.send("GET", f"{CONFIG_MAPS}?watch=true")
    await fill(api, "a")
    await events(stream, 1)
    assert len(list(cache.watchers())) == 1

    await stream.body.aclose()  # type: ignore[union-attr]

    assert not list(cache.watchers())
