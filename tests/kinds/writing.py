"""What a write does to an object, as far as its kind's strategy goes."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from navarch.kinds.registry import builtin
from navarch.kinds.strategies import lookup

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CONTAINER = {"name": "web", "image": "nginx"}

builtin()


def created(group: str, kind: str, obj: Any) -> tuple[Any, list[str]]:
    """The object as it would be stored, and what is wrong with it."""
    strategy = lookup(group, kind)
    obj = {"metadata": {"name": "web", "namespace": "default", "uid": "u-1"}, **copy.deepcopy(obj)}
    strategy.defaults(obj)
    strategy.prepare_create(obj)
    return obj, [str(error) for error in strategy.validate(obj, None)]


def refused(group: str, kind: str, obj: Any) -> list[str]:
    return created(group, kind, obj)[1]


def updated(group: str, kind: str, old: Any, new: Any, subresource: str = "") -> tuple[Any, list[str]]:
    """The object as it would be stored after an update, and what is wrong with it."""
    strategy = lookup(group, kind)
    new = copy.deepcopy(new)
    strategy.defaults(new)
    through = strategy.through(subresource)
    through.prepare(strategy, new, old)
    errors = through.validate(strategy, new, old)
    return new, [str(error) for error in errors]


def row(group: str, kind: str, obj: Any, *, wide: bool = False) -> list[Any]:
    """The cells that kubectl shows."""
    from navarch.api.table import render

    columns = [column for column in lookup(group, kind).columns if wide or not column.wide]
    cells: list[Any] = render(columns, [(obj, None)], NOW, "None")["rows"][0]["cells"]
    return cells


def headings(group: str, kind: str) -> tuple[list[str], list[str]]:
    """The columns' names: those that always show, and those that `-o wide` adds."""
    columns = lookup(group, kind).columns
    return [c.name for c in columns if not c.wide], [c.name for c in columns if c.wide]


def template(labels: Any = None, **spec: Any) -> Any:
    return {"metadata": {"labels": labels or {"app": "web"}}, "spec": {"containers": [dict(CONTAINER)], **spec}}


def workload(**spec: Any) -> Any:
    return {"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template(), **spec}}
