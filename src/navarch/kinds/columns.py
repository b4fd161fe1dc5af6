"""Cells that the tables of many kinds share, as kubectl's users know them.

Everything here is a function `(obj, now) -> cell` or makes one from a path. Invariant: a cell never raises on an object
that lacks what it shows; it is `<none>`, `<unset>`, `<unknown>` or 0, as Kubernetes prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, get_path
from navarch.api.selectors import label_selector_of
from navarch.api.time import human_duration, parse_time
from navarch.kinds.base import Column

Cell = Callable[[Obj, datetime], Any]
LIST_LIMIT = 3


def count(path: str, default: int = 0) -> Cell:
    """The integer at a path."""
    return lambda obj, now: get_path(obj, path, default)


def text(path: str, default: str = "<none>") -> Cell:
    """The value at a path as text, or `default` where there is none."""

    def cell(obj: Obj, now: datetime) -> str:
        value = get_path(obj, path)
        return default if value is None or value == "" else str(value)

    return cell


def flag(path: str, default: str = "<unset>") -> Cell:
    """A boolean as `True` or `False`."""

    def cell(obj: Obj, now: datetime) -> str:
        value = get_path(obj, path)
        return default if value is None else str(bool(value))

    return cell


def ratio(part: str, whole: str, default_whole: int = 0) -> Cell:
    """`ready/desired`."""
    return lambda obj, now: f"{get_path(obj, part, 0)}/{get_path(obj, whole, default_whole)}"


def since(path: str, default: str = "<unknown>") -> Cell:
    """The time since a timestamp."""
    return lambda obj, now: age_of(get_path(obj, path), now, default)


def age_of(stamp: str | None, now: datetime, default: str = "<unknown>") -> str:
    if not stamp:
        return default
    try:
        return human_duration(now - parse_time(stamp))
    except ValueError:
        return default


def labels(pairs: Mapping[str, Any] | None) -> str:
    """`a=b,c=d` in order, or `<none>`."""
    return ",".join(f"{key}={pairs[key]}" for key in sorted(pairs)) if pairs else "<none>"


def selector(value: Any) -> str:
    """A `metav1.LabelSelector` on one line, or `<none>`."""
    if not value:
        return "<none>"
    try:
        return str(label_selector_of(value)) or "<none>"
    except (StatusError, ValueError):
        return "<error>"


def some(items: Iterable[str], limit: int = LIST_LIMIT, none: str = "<unset>") -> str:
    """The first few items, and how many more there are."""
    listed = list(items)
    shown = ",".join(listed[:limit])
    if len(listed) > limit:
        return f"{shown} + {len(listed) - limit} more..."
    return shown or none


def container_names(pod_spec: Obj | None) -> str:
    return ",".join(str(container.get("name", "")) for container in (pod_spec or {}).get("containers") or ())


def container_images(pod_spec: Obj | None) -> str:
    return ",".join(str(container.get("image", "")) for container in (pod_spec or {}).get("containers") or ())


def pod_template_columns(path: str, selector_path: str = "", *, selector_is_map: bool = False) -> Sequence[Column]:
    """The wide columns of a workload: its containers, their images and (where `selector_path` is given) its
    selector. `path` leads to the pod spec."""
    columns = [
        Column(
            "Containers",
            lambda obj, now: container_names(get_path(obj, path)),
            wide=True,
            description="Names of each container in the template.",
        ),
        Column(
            "Images",
            lambda obj, now: container_images(get_path(obj, path)),
            wide=True,
            description="Images referenced by each container in the template.",
        ),
    ]
    if selector_path:
        show = labels if selector_is_map else selector
        columns.append(
            Column(
                "Selector",
                lambda obj, now: show(get_path(obj, selector_path)),
                wide=True,
                description="Label selector that the pods match.",
            )
        )
    return columns


def load_balancer(path: str = "status.loadBalancer") -> Cell:
    """The addresses of a load balancer."""

    def cell(obj: Obj, now: datetime) -> str:
        points = (get_path(obj, path) or {}).get("ingress") or ()
        return ",".join(sorted({str(point.get("ip") or point.get("hostname") or "") for point in points} - {""}))

    return cell
