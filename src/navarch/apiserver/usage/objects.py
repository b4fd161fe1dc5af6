"""NodeMetrics and PodMetrics: the objects, their lists, and the rows that are printed of them.

In: usages.  Out: JSON as metrics-server shows it. Items of lists do not say what they are; the list does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

from navarch.api import quantity
from navarch.api.meta import Obj
from navarch.api.table import INCLUDE_METADATA, INCLUDE_NONE
from navarch.api.time import format_time
from navarch.apiserver.changes import Cached
from navarch.apiserver.usage.points import Usage

API_VERSION: Final = "metrics.k8s.io/v1beta1"
_RESOURCES: Final = ("cpu", "memory")


def node_metrics(cached: Cached, usage: Usage, now: str) -> Obj:
    """What a node uses; `now` is when it was asked."""
    return {**_head(cached, now), **_time(usage), "usage": _amounts(usage)}


def pod_metrics(cached: Cached, used: Mapping[str, Usage], now: str) -> Obj:
    """What a pod uses. Its time is that of the container that was looked at first."""
    earliest = min(used.values(), key=lambda usage: usage.at_ns)
    containers = [{"name": name, "usage": _amounts(used[name])} for name in sorted(used)]
    return {**_head(cached, now), **_time(earliest), "containers": containers}


def _head(cached: Cached, now: str) -> Obj:
    metadata: Obj = {"name": cached.name}
    if cached.namespace:
        metadata["namespace"] = cached.namespace
    metadata["creationTimestamp"] = now
    if cached.labels:
        metadata["labels"] = dict(cached.labels)
    return {"metadata": metadata}


def _time(usage: Usage) -> Obj:
    at = datetime.fromtimestamp(usage.at_ns // 10**9, UTC)
    return {"timestamp": format_time(at), "window": go_window(usage.window_ns)}


def _amounts(usage: Usage) -> Obj:
    cpu = quantity.render(Fraction(usage.cpu_nano, 10**9))
    return {"cpu": cpu, "memory": quantity.render(usage.memory, "binary")}


def go_window(nanoseconds: int) -> str:
    """As Go prints a duration of a second or more."""
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    whole, fraction = divmod(rest, 10**9)
    seconds = f"{whole}.{fraction:09}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{seconds}" if minutes else seconds


# Tables


def table(objects: Sequence[Obj], include: str, version: str) -> Obj:
    """The rows of some objects; where there are none, the columns are not known either."""
    shown: Obj = {"kind": "Table", "apiVersion": f"meta.k8s.io/{version}", "metadata": {}}
    shown["columnDefinitions"] = list(_columns()) if objects else None
    shown["rows"] = [_row(obj, include, version) for obj in objects]
    return shown


def _columns() -> Iterable[Obj]:
    yield _column("Name", "name", "Name of the resource")
    for name in _RESOURCES:
        yield _column(name, "quantity")
    yield _column("Window", "duration")


def _column(name: str, format: str, description: str = "") -> Obj:
    return {"name": name, "type": "string", "format": format, "description": description, "priority": 0}


def _row(obj: Obj, include: str, version: str) -> Obj:
    used = [obj["usage"]] if "usage" in obj else [container["usage"] for container in obj["containers"]]
    cells: list[Any] = [obj["metadata"]["name"], *(_total(name, used) for name in _RESOURCES), obj["window"]]
    if include == INCLUDE_NONE:
        return {"cells": cells, "object": None}
    if include != INCLUDE_METADATA:
        return {"cells": cells, "object": obj}
    metadata = {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"]}
    return {"cells": cells, "object": metadata}


def _total(name: str, used: Sequence[Obj]) -> str:
    total = sum((quantity.parse(usage[name]) for usage in used), Fraction())
    return quantity.render(total, "binary" if name == "memory" else "decimal")
