"""Events are correlated as Kubernetes does: repeated ones counted, similar ones combined, floods cut."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from navarch.client import events
from navarch.client.base import Client
from navarch.client.events import EventRecorder
from navarch.client.transport import Request, Response

from .fake import pod


class _Sink:
    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        self.requests.append((request.method, orjson.loads(request.body)))
        return Response(200, b"{}")

    async def close(self) -> None:
        pass


async def _record(*messages: str, action: str = "") -> list[tuple[str, dict[str, Any]]]:
    sink = _Sink()
    recorder = EventRecorder(Client(sink), "kubelet", host="node-1")
    for message in messages:
        recorder.event(pod("web", 3), "Normal", "Pulled", message, action=action)
    task = asyncio.ensure_future(recorder.run())
    await asyncio.sleep(0.02)
    task.cancel()
    return sink.requests


async def test_an_event_names_its_object_and_its_source() -> None:
    [(method, event)] = await _record("done")

    assert method == "POST"
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "web", "resourceVersion": "3",
    }  # fmt: skip
    assert event["source"] == {"component": "kubelet", "host": "node-1"}
    assert event["count"] == 1
    assert event["metadata"]["name"].startswith("web.")


async def test_a_repeated_event_raises_the_count_of_the_first() -> None:
    requests = await _record("done", "done", "done")

    assert [method for method, _ in requests] == ["POST", "PATCH", "PATCH"]
    assert requests[-1][1]["count"] == 3


async def test_an_event_with_an_action_is_of_the_new_form_and_goes_on_as_a_series() -> None:
    (_, event), (_, patch) = await _record("done", "done", action="Binding")

    assert event["apiVersion"] == "events.k8s.io/v1"
    assert (event["reportingController"], event["reportingInstance"]) == ("kubelet", "kubelet-node-1")
    assert (event["action"], event["note"], event["regarding"]["name"]) == ("Binding", "done", "web")
    assert "count" not in event
    assert patch["series"]["count"] == 2


async def test_many_similar_events_are_combined() -> None:
    requests = await _record(*(f"message {number}" for number in range(14)))

    posted = [body["message"] for method, body in requests if method == "POST"]
    assert len(posted) == 11
    assert posted[-1].startswith("(combined from similar events): ")


async def test_a_flood_about_one_object_is_cut() -> None:
    requests = await _record(*("again" for _ in range(100)))

    assert len(requests) == 25


class _FullSink(_Sink):
    """Refuses the first requests: `answers` says with what."""

    def __init__(self, *answers: int | OSError) -> None:
        super().__init__()
        self._answers = list(answers)

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        await super().send(request)
        answer = self._answers.pop(0) if self._answers else 201
        if isinstance(answer, OSError):
            raise answer
        reasons = {503: "ServiceUnavailable", 403: "Forbidden"}
        refused = {"kind": "Status", "status": "Failure", "code": answer, "reason": reasons.get(answer, "")}
        return Response(answer, orjson.dumps(refused) if answer in reasons else b"{}")


@pytest.mark.parametrize(
    ("answers", "sent"),
    [
        ((503, 503), ["first", "first", "first"]),
        ((ConnectionRefusedError(),), ["first", "first"]),
        # Nobody will allow it later.
        ((403,), ["first"]),
    ],
)
async def test_an_event_that_cannot_be_written_now_is_written_later(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[int | OSError, ...], sent: list[str]
) -> None:
    monkeypatch.setattr(events, "_FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(events, "_SENDERS", 1)
    sink = _FullSink(*answers)
    recorder = EventRecorder(Client(sink), "kubelet")
    recorder.event(pod("web", 3), "Warning", "Evicted", "first")
    recorder.event(pod("web", 3), "Normal", "Killing", "second")
    task = asyncio.ensure_future(recorder.run())
    async with asyncio.timeout(10):
        while not sink.requests or sink.requests[-1][1]["message"] != "second":
            await asyncio.sleep(0.01)
    task.cancel()

    assert [event["message"] for _, event in sink.requests] == [*sent, "second"]
