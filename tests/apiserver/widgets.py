"""A made-up kind, in versions that differ: `Widget` of example.com, whose `spec.size` was called `spec.count` in v1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from navarch.api import schema
from navarch.api.errors import internal
from navarch.api.meta import Obj
from navarch.kinds.base import Column, Converter, Kind, ScaleSubresource
from navarch.kinds.custom import CustomResource, CustomVersion, kinds_of

V1 = "/apis/example.com/v1"
V2 = "/apis/example.com/v2"
WIDGETS_V1 = f"{V1}/namespaces/default/widgets"
WIDGETS_V2 = f"{V2}/namespaces/default/widgets"


def widget_schema(amount: str) -> Obj:
    return {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": [amount],
                "properties": {
                    amount: {"type": "integer", "minimum": 0, "maximum": 100},
                    "color": {"type": "string", "enum": ["red", "blue"], "default": "blue"},
                    "parts": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {
                                "name": {"type": "string", "minLength": 1},
                                "weight": {"type": "integer", "default": 1},
                            },
                        },
                    },
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
            "status": {"type": "object", "properties": {"ready": {"type": "integer"}, "selector": {"type": "string"}}},
        },
    }


COLUMNS = (
    Column("Color", ".spec.color", typed=True),
    Column("Weights", ".spec.parts[?(@.name=='main')].weight", type="integer", typed=True, wide=True),
    Column("Age", ".metadata.creationTimestamp", type="date", typed=True),
)


class Renaming(Converter):
    """What a conversion webhook would do; counts what it is asked."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.broken = False

    async def convert(self, objects: Sequence[Obj], api_version: str) -> Sequence[Obj]:
        self.calls.append(len(objects))
        if self.broken:
            raise internal("conversion webhook for example.com, Kind=Widget failed: nobody is there")
        old, new = ("size", "count") if api_version.endswith("/v1") else ("count", "size")
        for obj in objects:
            obj["apiVersion"] = api_version
            if old in obj["spec"]:
                obj["spec"][new] = obj["spec"].pop(old)
        return objects


def widgets(
    *, stored: str = "v2", converter: Converter | None = None, names: Sequence[str] = ("v2", "v1"), **options: Any
) -> list[Kind]:
    """The kinds of Widget. Without a converter all versions have the same schema."""
    amounts = {name: "count" if name == "v1" and converter is not None else "size" for name in names}
    versions = [
        CustomVersion(
            name,
            widget_schema(amounts[name]),
            stored=name == stored,
            has_status=True,
            scale=ScaleSubresource("spec.size", "status.ready", "status.selector"),
            columns=COLUMNS,
            selectable=("spec.color", f"spec.{amounts[name]}"),
            **options,
        )
        for name in names
    ]
    custom = CustomResource(
        "example.com",
        "widgets",
        "Widget",
        versions,
        short_names=("wd",),
        categories=("all", "toys"),
        converter=converter,
    )
    return kinds_of(custom, schema.load())


def widget(name: str, version: str = "v2", **spec: Any) -> Obj:
    return {"apiVersion": f"example.com/{version}", "kind": "Widget", "metadata": {"name": name}, "spec": spec}
