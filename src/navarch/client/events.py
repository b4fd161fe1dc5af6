"""Events: what `kubectl describe` and `kubectl events` tell people, written and aggregated as Kubernetes does.

`event()` never waits: it correlates at once and queues the write; `run` sends the queue. A full queue drops the event,
as events are a report, never a means. One that cannot be written now (the server is away, or its disk is full: what
happens then is what people ask for afterwards) is tried again for about as long as client-go does. Rules (client-go's
event correlator): an event equal to an earlier one raises its count; more than ten events in ten minutes that differ in
the message only are combined into one; per object and component 25 at once and then one every five minutes get through.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import NamedTuple

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource, object_reference
from navarch.api.time import format_micro_time, format_time
from navarch.client.base import Client, PatchKind
from navarch.client.supervision import Delay, Failures
from navarch.records import mutable
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)

_EVENTS = Resource("", "v1", "events", "Event", True)
_NEW_EVENTS = Resource("events.k8s.io", "v1", "events", "Event", True)
_QUEUE_LIMIT = 10_000
_KNOWN_LIMIT = 4096
_SIMILAR_LIMIT = 10
_SIMILAR_WINDOW_S = 600.0
_BURST = 25.0
_REFILL_PER_S = 1 / 300
_SENDERS = 8
_ATTEMPTS = 12
_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 10.0
_MESSAGE_LIMIT = 1024


class _Series(NamedTuple):
    """Events that are alike: same source, object, type and reason."""

    uid: str
    path: str
    type: str
    reason: str


@mutable
class _Similar:
    messages: set[str] = field(default_factory=set)
    last_s: float = 0.0


@mutable
class _Sent:
    name: str
    namespace: str
    count: int
    resource: Resource = _EVENTS


@mutable
class _Bucket:
    tokens: float = _BURST
    at_s: float = 0.0


class EventRecorder:
    """Records events as `component` (and `host`, for a node's components)."""

    def __init__(self, client: Client, component: str, *, host: str = "", world: World | None = None) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._world = world or RealWorld()
        # Names carry the time; where two components speak of one object at one instant, chance tells them apart.
        self._moment = 0
        self._random = self._world.random("events", f"{component}\0{host}")
        self._failures = Failures()
        self._queue: asyncio.Queue[Obj | tuple[_Sent, Obj]] = asyncio.Queue(_QUEUE_LIMIT)
        self._sent: OrderedDict[tuple[_Series, str], _Sent] = OrderedDict()
        self._similar: OrderedDict[_Series, _Similar] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def event(
        self,
        obj: Obj,
        type: str,
        reason: str,
        message: str,
        *,
        field_path: str = "",
        action: str = "",
        annotations: Mapping[str, str] | None = None,
        related: Obj | None = None,
    ) -> None:
        """Report `reason` ("Scheduled") with `message` about `obj`; `type` is "Normal" or "Warning"; `field_path`
        names a part of it (`spec.containers{web}`). With an `action` ("Binding") the event is one of events.k8s.io;
        `related` is an object that has to do with it."""
        now = self._world.now()
        reference = object_reference(obj)
        if field_path:
            reference["fieldPath"] = field_path
        if not self._allowed(reference, now):
            return
        series = _Series(reference.get("uid", "") or reference.get("name", ""), field_path, type, reason)
        message = self._combined(series, message[:_MESSAGE_LIMIT], now)
        item = self._correlate(series, reference, message, now, action)
        if annotations and isinstance(item, dict):
            item["metadata"]["annotations"] = dict(annotations)
        if related is not None and isinstance(item, dict):
            item["related"] = object_reference(related)
        try:
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            log.debug("event dropped, the queue is full: %s %s", reason, message)

    async def run(self) -> None:
        """Send queued events until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_SENDERS):
                tasks.create_task(self._send_all(), name="event sender")

    def _allowed(self, reference: Obj, now: datetime) -> bool:
        identity = (
            reference.get("uid") or f"{reference.get('kind')}/{reference.get('namespace')}/{reference.get('name')}"
        )
        bucket = self._buckets.get(identity)
        now_s = now.timestamp()
        if bucket is None:
            bucket = self._buckets[identity] = _Bucket(at_s=now_s)
            _trim(self._buckets)
        bucket.tokens = min(_BURST, bucket.tokens + (now_s - bucket.at_s) * _REFILL_PER_S)
        bucket.at_s = now_s
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _combined(self, series: _Series, message: str, now: datetime) -> str:
        similar = self._similar.get(series)
        now_s = now.timestamp()
        if similar is None or now_s - similar.last_s > _SIMILAR_WINDOW_S:
            similar = self._similar[series] = _Similar()
            _trim(self._similar)
        similar.last_s = now_s
        if len(similar.messages) < _SIMILAR_LIMIT or message in similar.messages:
            similar.messages.add(message)
            return message
        return f"(combined from similar events): {message}"

    def _correlate(
        self, series: _Series, reference: Obj, message: str, now: datetime, action: str
    ) -> Obj | tuple[_Sent, Obj]:
        # Combined events share one object whatever their text, so the text is no part of their identity.
        identity = (series, message if not message.startswith("(combined") else "(combined)")
        sent = self._sent.get(identity)
        stamp = format_time(now)
        if sent is not None:
            self._sent.move_to_end(identity)
            sent.count += 1
            if sent.resource is _NEW_EVENTS:
                return sent, {"series": {"count": sent.count, "lastObservedTime": format_micro_time(now)}}
            return sent, {"count": sent.count, "lastTimestamp": stamp, "message": message}
        namespace = reference.get("namespace") or "default"
        # One after the other, so that a list of events, which is in the order of their names, is in that of time.
        self._moment = max(self._moment + 1, int(now.timestamp() * 1_000_000) * 1000 + self._random.getrandbits(9))
        name = f"{reference.get('name', '')[:200]}.{self._moment:x}"
        self._sent[identity] = _Sent(name, namespace, 1, _NEW_EVENTS if action else _EVENTS)
        _trim(self._sent)
        metadata = {"name": name, "namespace": namespace}
        if action:
            return self._new_event(series, metadata, reference, message, now, action)
        source = {"component": self._component}
        if self._host:
            source["host"] = self._host
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": metadata,
            "involvedObject": reference,
            "type": series.type,
            "reason": series.reason,
            "message": message,
            "source": source,
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "reportingComponent": self._component,
            **({"reportingInstance": self._host} if self._host else {}),
        }

    def _new_event(
        self, series: _Series, metadata: Obj, reference: Obj, message: str, now: datetime, action: str
    ) -> Obj:
        """The form of events.k8s.io, which says who did what, and when to the microsecond."""
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": metadata,
            "eventTime": format_micro_time(now),
            "reportingController": self._component,
            "reportingInstance": f"{self._component}-{self._host or platform.node()}",
            "action": action,
            "reason": series.reason,
            "regarding": reference,
            "note": message,
            "type": series.type,
        }

    async def _send_all(self) -> None:
        while True:
            item = await self._queue.get()
            try:
                await self._send_at_last(item)
            except (StatusError, OSError) as error:
                # The namespace went away, or the event itself expired: there is nobody left to tell.
                log.debug("event not written: %s", error)
            except Exception as error:
                self._failures.note("sending an event", error)

    async def _send_at_last(self, item: Obj | tuple[_Sent, Obj]) -> None:
        """Raises StatusError, OSError."""
        delay = Delay(_FIRST_RETRY_S, _LAST_RETRY_S)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._send(item)
            except (StatusError, OSError) as error:
                final = isinstance(error, StatusError) and error.reason != "ServiceUnavailable"
                if final or attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(delay.failed())
            else:
                return

    async def _send(self, item: Obj | tuple[_Sent, Obj]) -> None:
        if isinstance(item, tuple):
            sent, patch = item
            await self._client.patch(sent.resource, sent.name, sent.namespace, patch, kind=PatchKind.MERGE)
        else:
            resource = _EVENTS if item["apiVersion"] == "v1" else _NEW_EVENTS
            try:
                await self._client.create(resource, item)
            except StatusError as error:
                if error.reason != "AlreadyExists":
                    raise
                await self._client.create(resource, self._renamed(item))

    def _renamed(self, event: Obj) -> Obj:
        """For an event of another component that was named first."""
        metadata = event["metadata"]
        name = f"{metadata['name']}{self._random.getrandbits(16):04x}"
        for sent in self._sent.values():
            if sent.name == metadata["name"] and sent.namespace == metadata["namespace"]:
                sent.name = name
        return {**event, "metadata": {**metadata, "name": name}}


def _trim(known: OrderedDict) -> None:  # type: ignore[type-arg]
    while len(known) > _KNOWN_LIMIT:
        known.popitem(last=False)
