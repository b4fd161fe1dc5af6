"""Event (core/v1): the stored form of both event APIs; columns, and the selectors that `kubectl describe` uses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from navarch.api.errors import FieldError, invalid_value
from navarch.api.meta import Obj, get_path
from navarch.api.time import human_duration, parse_time
from navarch.kinds.base import Column, Strategy
from navarch.kinds.strategies import strategy


def _ago(text: str | None, now: datetime) -> str:
    return human_duration(now - parse_time(text)) if text else "<unknown>"


def _count(event: Obj) -> int:
    series = event.get("series")
    return int(series.get("count") or 0) if series else int(event.get("count") or 1)


def _first_seen_cell(event: Obj, now: datetime) -> str:
    return _ago(event.get("firstTimestamp") or event.get("eventTime"), now)


def _last_seen_cell(event: Obj, now: datetime) -> str:
    series = event.get("series")
    if series:
        return _ago(series.get("lastObservedTime"), now)
    return _ago(event.get("lastTimestamp") or event.get("firstTimestamp") or event.get("eventTime"), now)


def _object_cell(event: Obj, now: datetime) -> str:
    involved = event.get("involvedObject") or {}
    return f"{(involved.get('kind') or '').lower()}/{involved.get('name') or ''}"


def _source_cell(event: Obj, now: datetime) -> str:
    source = event.get("source") or {}
    component = source.get("component") or event.get("reportingComponent") or ""
    host = source.get("host") or event.get("reportingInstance") or ""
    return ", ".join(part for part in (component, host) if part)


def _message_cell(event: Obj, now: datetime) -> str:
    return (event.get("message") or "").strip()


def _count_cell(event: Obj, now: datetime) -> int:
    return _count(event)


@strategy("", "Event")
class EventStrategy(Strategy):
    columns = (
        Column("Last Seen", _last_seen_cell, description="When it was last seen"),
        Column("Type", ".type", description="Normal or Warning"),
        Column("Reason", ".reason", description="Why, in one word"),
        Column("Object", _object_cell, description="What it is about"),
        Column("Subobject", ".involvedObject.fieldPath", wide=True, description="Which part of it"),
        Column("Source", _source_cell, wide=True, description="Who says so"),
        Column("Message", _message_cell, description="What happened"),
        Column("First Seen", _first_seen_cell, wide=True, description="When it was first seen"),
        Column("Count", _count_cell, wide=True, description="How often it was seen"),
        Column("Name", ".metadata.name", format="name", wide=True, description="Name of the event"),
    )
    selectable = (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    )
    allow_create_on_update = True

    def field_value(self, obj: Obj, path: str) -> str:
        if path == "source":
            return str((obj.get("source") or {}).get("component") or obj.get("reportingComponent") or "")
        return str(get_path(obj, path, "") or "")

    def prepare_create(self, obj: Obj) -> None:
        """Events have no status."""

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        """Events have no status."""

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        involved = obj.get("involvedObject") or {}
        namespace, own = involved.get("namespace") or "", obj["metadata"].get("namespace")
        # Events about cluster-scoped objects live in the default namespace (or in kube-system).
        if namespace != own and (namespace or own not in ("default", "kube-system")):
            yield invalid_value("involvedObject.namespace", namespace, "does not match event.namespace")
