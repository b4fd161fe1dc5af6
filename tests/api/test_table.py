"""Tables: the columns and cells that kubectl prints."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from navarch.api.table import render
from navarch.kinds.base import AGE, NAME, Column

NOW = datetime(2024, 5, 1, 12, 5, tzinfo=UTC)
OBJ = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "creationTimestamp": "2024-05-01T12:00:00Z"},
    "spec": {"type": "ClusterIP"},
}
COLUMNS = (
    NAME,
    Column("Type", ".spec.type"),
    Column("External-IP", ".spec.externalIP", none=True),
    Column("Missing", ".status.x.y"),
    AGE,
    Column("Selector", ".spec.selector", wide=True),
)


def test_cells_follow_the_columns() -> None:
    table = render(COLUMNS, [(OBJ, None)], NOW)

    assert table["rows"][0]["cells"] == ["web", "ClusterIP", "<none>", "", "5m", ""]
    assert [column["priority"] for column in table["columnDefinitions"]] == [0, 0, 0, 0, 0, 1]
    assert table["columnDefinitions"][0] == {
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": "Name of the object",
        "priority": 0,
    }


def test_a_row_carries_what_was_asked_for() -> None:
    data = orjson.dumps(OBJ)
    rows = {
        include: orjson.loads(orjson.dumps(render(COLUMNS, [(OBJ, data)], NOW, include)))["rows"][0]
        for include in ("Metadata", "Object", "None")
    }

    assert rows["Metadata"]["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": OBJ["metadata"],
    }
    assert rows["Object"]["object"] == OBJ
    assert rows["None"]["object"] is None
