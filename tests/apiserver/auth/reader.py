"""A reader over a plain list of objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from navarch.api.meta import Obj, Resource


class ListReader:
    def __init__(self, *objects: Any) -> None:
        self.objects = list(objects)

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        return next((obj for obj in self.list(resource, namespace) if obj["metadata"]["name"] == name), None)

    def list(self, resource: Resource, namespace: str = "") -> Iterable[Obj]:
        return [
            obj
            for obj in self.objects
            if obj["kind"] == resource.kind and (not namespace or obj["metadata"].get("namespace") == namespace)
        ]
