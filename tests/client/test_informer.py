"""Informers: what they hold and whom they tell, through lists, watches, expiry and lost connections."""

from __future__ import annotations

import asyncio
from typing import Any

from navarch.api.meta import Resource
from navarch.client.base import Client
from navarch.client.informer import Informer

from .fake import ScriptedTransport, list_of, pod

PODS = Resource("", "v1", "pods", "Pod", True)
EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old", "metadata": {}}


async def _run(transport: ScriptedTransport, until: Any, **options: Any) -> tuple[Informer, list[Any]]:
    """Run an informer until the condition holds; returns it and what its handler was told."""
    informer = Informer(Client(transport), PODS, **options)
    told: list[Any] = []
    informer.add_handler(
        lambda obj: told.append(("added", obj["metadata"]["name"])),
        lambda old, new: told.append(("updated", new["metadata"]["name"])),
        lambda obj: told.append(("deleted", obj["metadata"]["name"])),
    )
    task = asyncio.ensure_future(informer.run())
    async with asyncio.timeout(5):
        while not until(informer):
            await asyncio.sleep(0.001)
    task.cancel()
    return informer, told


async def test_it_lists_then_follows_the_watch() -> None:
    watch = [("ADDED", pod("b", 6)), ("MODIFIED", pod("a", 7)), ("DELETED", pod("b", 8))]
    transport = ScriptedTransport([list_of(5, pod("a", 4))], [watch])

    _, told = await _run(
        transport, lambda informer: informer.get("default", "b") is None and len(told_of(transport)) > 2
    )

    assert told == [("added", "a"), ("added", "b"), ("updated", "a"), ("deleted", "b")]


def told_of(transport: ScriptedTransport) -> list[Any]:
    return transport.requests


async def test_it_resumes_from_the_last_revision_after_a_stream_ends() -> None:
    bookmark = {"kind": "Pod", "metadata": {"resourceVersion": "9"}}
    transport = ScriptedTransport([list_of(5)], [[("BOOKMARK", bookmark)], []])

    await _run(transport, lambda _: len(transport.requests) >= 3)

    assert transport.requests[2].arg("resourceVersion") == "9"
    assert [bool(request.arg("watch")) for request in transport.requests[:3]] == [False, True, True]


async def test_it_lists_again_when_its_revision_has_expired_and_reports_what_vanished() -> None:
    transport = ScriptedTransport([list_of(5, pod("a", 4)), list_of(20, pod("b", 19))], [[("ERROR", EXPIRED)]])

    informer, told = await _run(transport, lambda informer: informer.get("default", "b") is not None)

    assert informer.get("default", "a") is None
    assert told == [("added", "a"), ("deleted", "a"), ("added", "b")]


async def test_it_survives_a_server_that_is_away() -> None:
    transport = ScriptedTransport([ConnectionRefusedError("away"), list_of(5, pod("a", 4))], [])

    informer, _ = await _run(transport, lambda informer: informer.has_synced)

    assert informer.get("default", "a") is not None


async def test_indexes_follow_changes() -> None:
    watch = [("MODIFIED", pod("a", 7, app="new"))]
    transport = ScriptedTransport([list_of(5, pod("a", 4, app="old"))], [watch])
    indexers = {"app": lambda obj: [obj["metadata"]["labels"]["app"]]}

    informer, _ = await _run(transport, lambda informer: informer.by_index("app", "new"), indexers=indexers)

    assert informer.by_index("app", "old") == []
    assert [obj["metadata"]["name"] for obj in informer.list("default")] == ["a"]


async def test_it_begins_anew_after_an_answer_that_makes_no_sense() -> None:
    nonsense: Any = {"kind": "Pod", "metadata": "none"}
    transport = ScriptedTransport(
        [list_of(5, pod("a", 4)), list_of(9, pod("b", 8))], [[("ADDED", pod("c", 6)), ("ADDED", nonsense)]]
    )

    informer, told = await _run(transport, lambda informer: informer.get("default", "b") is not None)

    assert [obj["metadata"]["name"] for obj in informer.list()] == ["b"]
    assert told == [("added", "a"), ("added", "c"), ("deleted", "a"), ("deleted", "c"), ("added", "b")]


async def test_a_list_that_makes_no_sense_is_asked_for_again() -> None:
    transport = ScriptedTransport([{"items": [{"no": "metadata"}]}, list_of(9, pod("b", 8))], [])

    informer, _ = await _run(transport, lambda informer: informer.has_synced)

    assert [obj["metadata"]["name"] for obj in informer.list()] == ["b"]
