"""A transport that answers from a script: lists and watch streams in the order in which they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson

from navarch.client.transport import Request, Response


def pod(name: str, revision: int, namespace: str = "default", **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(revision), "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


class ScriptedTransport:
    """`lists` are bodies of list answers; `watches` are lists of events, each stream ending after its last."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self.lists = lists
        self.watches = watches
        self.requests: list[Request] = []

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        self.requests.append(request)
        if request.arg("watch"):
            if not self.watches:
                await asyncio.Event().wait()
            return Response(200, _stream(self.watches.pop(0)))
        answer = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(answer, Exception):
            raise answer
        return Response(200, orjson.dumps(answer))

    async def close(self) -> None:
        pass


def list_of(revision: int, *items: Any) -> dict[str, Any]:
    return {"kind": "PodList", "metadata": {"resourceVersion": str(revision)}, "items": list(items)}


async def _stream(events: list[Any]) -> AsyncIterator[bytes]:
    data = b"".join(orjson.dumps({"type": kind, "object": obj}) + b"\n" for kind, obj in events)
    # Cut at odd places: a reader of lines must not depend on chunks.
    for start in range(0, len(data), 37):
        yield data[start : start + 37]
        await asyncio.sleep(0)
