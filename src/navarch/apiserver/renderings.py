"""How one object looks in the forms that are not the object itself: a row of kubectl's Table, or its metadata only.

In: the kind, the form that the client asked for, the time.  Out: a `Rendering`, by which `encodings` makes each
object's part once; and what is put around the parts, in a list (`heading`) or in each event of a watch (`enclosed`).
"""

from __future__ import annotations

from datetime import datetime

import orjson

from navarch.api.meta import Obj
from navarch.api.table import INCLUDE_OBJECT, column_definitions, row_function
from navarch.apiserver.codec import decode
from navarch.apiserver.encodings import Rendering
from navarch.apiserver.negotiation import Form, partial_metadata
from navarch.apiserver.served import ServedKind

TABLE = "Table"


def rendering_of(kind: ServedKind, form: Form, include: str, now: datetime) -> Rendering | None:
    """None for the object itself. Rows tell ages: those of one second are the same."""
    if form.transform == TABLE:
        row = row_function(kind.strategy.columns, now, include)
        whole = include == INCLUDE_OBJECT

        def as_row(data: bytes) -> bytes:
            return orjson.dumps(row(decode(data), data if whole else None))

        return Rendering(f"{TABLE} {include} {int(now.timestamp())}", as_row)
    if form.transform:
        version = form.version
        return Rendering(f"Metadata {version}", lambda data: orjson.dumps(partial_metadata(decode(data), version)))
    return None


def heading(kind: ServedKind, form: Form, metadata: Obj, *, columns: bool = True) -> tuple[Obj, str]:
    """All of a list but its parts, and the name of the field that these are in."""
    version = f"meta.k8s.io/{form.version}"
    if form.transform == TABLE:
        definitions = column_definitions(kind.strategy.columns) if columns else None
        return {"kind": TABLE, "apiVersion": version, "metadata": metadata, "columnDefinitions": definitions}, "rows"
    if form.transform:
        return {"kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": metadata}, "items"
    if kind.own_schemas is not None:
        # As what has no type of its own in Go says it.
        metadata = {"continue": "", **metadata}
    name = kind.list_kind or kind.resource.kind + "List"
    return {"kind": name, "apiVersion": kind.resource.api_version, "metadata": metadata}, "items"


def enclosed(kind: ServedKind, form: Form, part: bytes, revision: int | str, *, first: bool) -> bytes:
    """What a watch sends of an object: a Table has one row, and says its columns with the first event only."""
    if form.transform != TABLE:
        return part
    head, name = heading(kind, form, {"resourceVersion": str(revision)}, columns=first)
    return orjson.dumps(head)[:-1] + b',"' + name.encode() + b'":[' + part + b"]}"
