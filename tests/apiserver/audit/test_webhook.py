"""Audit events sent to a server of somebody's own: together, again where they did not arrive, and never waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from navarch.apiserver.audit.webhook import AuditWebhook, WebhookSettings
from navarch.client.config import Target


class Receiver:
    """A server that takes events, after it has failed so many times."""

    def __init__(self) -> None:
        self.url = ""
        self.failures = 0
        self.lists: list[Any] = []
        self.came = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        self.lists.append(await request.json())
        self.came.set()
        return web.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/audit", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/audit"
    yield made
    await runner.cleanup()


def webhook(receiver: Receiver, **settings: Any) -> AuditWebhook:
    return AuditWebhook(WebhookSettings(Target(receiver.url, None, None), **settings))


async def test_a_list_is_sent_when_it_is_long_enough(receiver: Receiver) -> None:
    sink = webhook(receiver, most=2, wait_s=3600.0)
    for name in ("a", "b"):
        sink.write({"auditID": name})

    async with asyncio.timeout(30):
        await receiver.came.wait()
    await sink.close()

    assert receiver.lists == [
        {
            "kind": "EventList",
            "apiVersion": "audit.k8s.io/v1",
            "metadata": {},
            "items": [{"auditID": "a"}, {"auditID": "b"}],
        }
    ]


async def test_a_list_is_sent_when_it_is_old_enough_and_again_where_it_failed(receiver: Receiver) -> None:
    receiver.failures = 2
    sink = webhook(receiver, wait_s=0.01, backoff_s=0.01)
    sink.write({"auditID": "a"})

    async with asyncio.timeout(30):
        await receiver.came.wait()
    await sink.close()

    assert [event["auditID"] for event in receiver.lists[0]["items"]] == ["a"]
    assert sink.failures == 0


async def test_what_waits_at_the_end_is_sent(receiver: Receiver) -> None:
    sink = webhook(receiver, wait_s=3600.0)
    sink.write({"auditID": "a"})

    await sink.close()

    assert [event["auditID"] for event in receiver.lists[0]["items"]] == ["a"]


async def test_what_there_is_no_room_for_is_counted(receiver: Receiver) -> None:
    sink = webhook(receiver, buffer=1, wait_s=3600.0)
    for _ in range(3):
        sink.write({})

    assert sink.failures == 2
    await sink.close()


async def test_what_does_not_fit_is_counted_and_told_once(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    sink = webhook(receiver, buffer=2, wait_s=3600.0)
    for number in range(50):
        sink.write({"auditID": str(number)})
    await sink.close()

    assert sink.failures == 48
    assert caplog.text.count("are being lost") == 1
    assert [event["auditID"] for event in receiver.lists[0]["items"]] == ["0", "1"]


async def test_what_is_on_its_way_when_the_server_stops_is_sent_once_more(receiver: Receiver) -> None:
    receiver.failures = 1
    sink = webhook(receiver, wait_s=0.0, backoff_s=3600.0)
    sink.write({"auditID": "a"})
    while receiver.failures:
        await asyncio.sleep(0.01)
    sink.write({"auditID": "b"})
    await sink.close()

    assert [event["auditID"] for events in receiver.lists for event in events["items"]] == ["a", "b"]
