"""Event, in the form of `v1` and of `events.k8s.io/v1`: validation, columns, and what can be selected by field."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from navarch.api.errors import FieldError, invalid_value, required
from navarch.api.meta import Obj, get_path
from navarch.api.validation import qualified_name_problems
from navarch.kinds.base import NAME, Column, Strategy
from navarch.kinds.columns import age_of
from navarch.kinds.strategies import strategy

# Field of `v1` → field of `events.k8s.io/v1`, where they differ.
_OTHER_NAMES: Final = {
    "involvedObject": "regarding",
    "reportingComponent": "reportingController",
    "message": "note",
    "count": "deprecatedCount",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "source": "deprecatedSource",
}
# Where events about cluster-scoped objects are kept.
_CLUSTER_NAMESPACES: Final = ("default", "kube-system")
_FIXED: Final = ("involvedObject", "reason", "message", "source", "eventTime", "type", "action", "related")


def _field(obj: Obj, name: str) -> Any:
    value = obj.get(name)
    return obj.get(_OTHER_NAMES.get(name, name)) if value is None else value


def _first_seen(obj: Obj, now: datetime) -> str:
    return age_of(_field(obj, "firstTimestamp") or obj.get("eventTime"), now)


def _last_seen(obj: Obj, now: datetime) -> str:
    series = obj.get("series")
    if series:
        return age_of(series.get("lastObservedTime"), now)
    last = _field(obj, "lastTimestamp")
    return age_of(last, now) if last else _first_seen(obj, now)


def _target(obj: Obj, now: datetime) -> str:
    involved = _field(obj, "involvedObject") or {}
    kind, name = str(involved.get("kind", "")).lower(), involved.get("name")
    return f"{kind}/{name}" if name else kind


def _source(obj: Obj, now: datetime) -> str:
    source = _field(obj, "source") or {}
    component = source.get("component") or _field(obj, "reportingComponent") or ""
    host = source.get("host") or (obj.get("reportingInstance") or "")
    return f"{component}, {host}" if host else str(component)


def _count(obj: Obj, now: datetime) -> int:
    series = obj.get("series")
    return int(series.get("count", 0)) if series else int(_field(obj, "count") or 1)


class EventStrategy(Strategy):
    """Both groups' strategy. What both allow: create on update, no status, no generation."""

    finalizers_have_domains = False

    allow_create_on_update = True
    expires = True
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
    columns = (
        Column("Last Seen", _last_seen, description="Time when this event was last observed"),
        Column("Type", ".type"),
        Column("Reason", ".reason"),
        Column("Object", _target, description="The object that this event is about"),
        Column(
            "Subobject",
            lambda obj, now: (_field(obj, "involvedObject") or {}).get("fieldPath", ""),
            wide=True,
        ),
        Column("Source", _source, wide=True),
        Column("Message", lambda obj, now: str(_field(obj, "message") or "").strip()),
        Column("First Seen", _first_seen, wide=True),
        Column("Count", _count, wide=True),
        Column("Name", NAME.value, format="name", wide=True),
    )

    def prepare_create(self, obj: Obj) -> None:
        """Events have no status to clear."""

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        """Events have no status to restore."""

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        namespace = obj["metadata"].get("namespace", "")
        involved = (_field(obj, "involvedObject") or {}).get("namespace", "")
        allowed = (involved,) if involved else _CLUSTER_NAMESPACES
        if namespace not in allowed:
            name = "involvedObject" if "involvedObject" in obj else "regarding"
            yield invalid_value(f"{name}.namespace", involved, "does not match event.namespace")
        if obj.get("apiVersion") != "events.k8s.io/v1" and not obj.get("eventTime"):
            return
        yield from _validate_new_form(obj, old)

    def field_value(self, obj: Obj, path: str) -> str:
        head, _, rest = path.partition(".")
        value = _field(obj, head)
        if path == "source":
            value = (value or {}).get("component") or _field(obj, "reportingComponent")
        elif rest:
            value = get_path(value or {}, rest)
        return "" if value is None else str(value)


def _validate_new_form(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    """Events with an `eventTime` say who saw what, and change only in their series."""
    if old is not None:
        for name in _FIXED:
            if _field(obj, name) != _field(old, name):
                shown = name if name in obj else _OTHER_NAMES.get(name, name)
                yield invalid_value(shown, _field(obj, name), "field is immutable")
        return
    if not obj.get("eventTime"):
        yield required("eventTime")
    controller = _field(obj, "reportingComponent") or ""
    if not controller:
        yield required("reportingController")
    else:
        for problem in qualified_name_problems(controller):
            yield invalid_value("reportingController", controller, problem)
    for name, limit in (("reportingInstance", 128), ("action", 128), ("reason", 128)):
        value = obj.get(name) or ""
        if not value:
            yield required(name)
        elif len(value) > limit:
            yield invalid_value(name, "", f"can have at most {limit} characters")
    if len(_field(obj, "message") or "") > 1024:
        yield invalid_value("message", "", "can have at most 1024 characters")
    if obj.get("type") not in ("Normal", "Warning"):
        yield invalid_value("type", obj.get("type") or "", "has invalid value: " + str(obj.get("type") or ""))


@strategy("", "Event")
class CoreEventStrategy(EventStrategy):
    """`v1` Event, whose metadata Kubernetes does not look at."""

    name_rule = "path"
    nulls = ("firstTimestamp", "lastTimestamp", "eventTime")

    def complete(self, obj: Obj) -> None:
        super().complete(obj)
        obj.setdefault("involvedObject", {})
        obj.setdefault("source", {})
        obj.setdefault("reportingComponent", "")
        obj.setdefault("reportingInstance", "")


@strategy("events.k8s.io", "Event")
class EventsEventStrategy(EventStrategy):
    """`events.k8s.io/v1` Event."""
