"""Event, in the form of `v1` and of `events.k8s.io/v1`: validation, columns, and what can be selected by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from navarch.api.errors import FieldError, invalid_value, required
from navarch.api.meta import Obj, Resource, get_path
from navarch.api.metadata_validation import validate_object_meta
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
# Where events of what is in no namespace may be: of the old form, and of the new one.
_CLUSTER_NAMESPACES: Final = ("", "default")
_NEW_CLUSTER_NAMESPACES: Final = ("default", "kube-system")
_FIXED: Final = (
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
)
_SHOWN: Final = {"reportingComponent": "reportingController"}


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
    # What the version calls who reports.
    reporter = "reportingComponent"

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
    selected_by = tuple(_OTHER_NAMES.values())
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
        """What both versions ask: that event and object are in one namespace, and who saw it if it is of the new form,
        which has an `eventTime`."""
        namespace = obj["metadata"].get("namespace", "")
        involved = (_field(obj, "involvedObject") or {}).get("namespace", "")
        new = bool(obj.get("eventTime"))
        if involved:
            wrong = not new and namespace != involved
        else:
            wrong = namespace not in (_NEW_CLUSTER_NAMESPACES if new else _CLUSTER_NAMESPACES)
        if wrong:
            yield invalid_value("involvedObject.namespace", involved, "does not match event.namespace")
        if new:
            yield from self._validate_reporter(obj)

    def _validate_reporter(self, obj: Obj) -> Iterator[FieldError]:
        controller, name = _field(obj, "reportingComponent") or "", self.reporter
        if not controller:
            yield required(name)
        for problem in qualified_name_problems(controller):
            yield invalid_value(name, controller, problem)
        for part, limit in (("reportingInstance", 128), ("action", 128), ("reason", 128)):
            value = obj.get(part) or ""
            if not value:
                yield required(part)
            elif len(value.encode()) > limit:
                yield invalid_value(part, "", f"can have at most {limit} characters")
        if len((_field(obj, "message") or "").encode()) > 1024:
            yield invalid_value("message", "", "can have at most 1024 characters")

    def selector_fields(self, resource: Resource) -> Mapping[str, str]:
        fields = super().selector_fields(resource)
        if not resource.group:
            return fields
        shared = {name: name for name in ("metadata.name", "metadata.namespace", "reason", "type")}
        regarding = {
            name.replace("involvedObject", "regarding"): name for name in fields if name.startswith("involvedObject.")
        }
        return {**shared, **regarding, "reportingController": "reportingComponent"}

    def field_value(self, obj: Obj, path: str) -> str:
        head, _, rest = path.partition(".")
        value = _field(obj, head)
        if path == "source":
            value = (value or {}).get("component") or _field(obj, "reportingComponent")
        elif rest:
            value = get_path(value or {}, rest)
        return "" if value is None else str(value)


def _series_errors(obj: Obj) -> Iterator[FieldError]:
    series = obj.get("series")
    if series is not None:
        if (series.get("count") or 0) < 2:
            yield invalid_value("series.count", "", "should be at least 2")
        if not series.get("lastObservedTime"):
            yield required("series.lastObservedTime")


@strategy("", "Event")
class CoreEventStrategy(EventStrategy):
    """`v1` Event, whose metadata Kubernetes does not look at."""

    name_rule = "path"
    metadata_first = False
    nulls = ("firstTimestamp", "lastTimestamp", "eventTime")

    def complete(self, obj: Obj) -> None:
        super().complete(obj)
        obj.setdefault("involvedObject", {})
        obj.setdefault("source", {})
        obj.setdefault("reportingComponent", "")
        obj.setdefault("reportingInstance", "")


@strategy("events.k8s.io", "Event")
class EventsEventStrategy(EventStrategy):
    """`events.k8s.io/v1` Event: of the new form, named like other objects, and changed in its series alone."""

    metadata_first = False
    reporter = "reportingController"

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from super().validate(obj, old)
        if old is None:
            yield from self._validate_new(obj)
            return
        if obj.get("series") != old.get("series"):
            yield from _series_errors(obj)
        for name in _FIXED:
            value = obj.get(name)
            if (value or None) != (old.get(name) or None):
                yield invalid_value(_SHOWN.get(name, name), value, "field is immutable")

    def _validate_new(self, obj: Obj) -> Iterator[FieldError]:
        yield from validate_object_meta(obj, namespaced=True, name_rule="subdomain")
        yield from _series_errors(obj)
        if not obj.get("eventTime"):
            yield required("eventTime")
        if obj.get("type") not in ("Normal", "Warning"):
            yield invalid_value("type", "", f"has invalid value: {obj.get('type') or ''}")
        source = obj.get("source") or {}
        old_form = {
            "firstTimestamp": obj.get("firstTimestamp"),
            "lastTimestamp": obj.get("lastTimestamp"),
            "count": obj.get("count"),
            "source": source.get("component") or source.get("host"),
        }
        for name, value in old_form.items():
            if value:
                yield invalid_value(name, "", "needs to be unset")
