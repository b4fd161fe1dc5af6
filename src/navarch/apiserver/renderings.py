"""How one object looks in the forms that are not the object itself: a row of kubectl's Table, or its metadata only.

In: the kind, the form that the client asked for, the time.  Out: a `Rendering`, by which `encodings` makes each
object's part once; and what is put around the parts, in a list (`heading`) or in each event of a watch (`enclosed`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime

import orjson

from navarch.api.errors import bad_request
from navarch.api.go_text import go_package
from navarch.api.meta import Obj
from navarch.api.table import INCLUDE_METADATA, INCLUDE_NONE, INCLUDE_OBJECT, Column, column_definitions, row_function
from navarch.apiserver.changes import Cached
from navarch.apiserver.codec import decode
from navarch.apiserver.encodings import Rendering
from navarch.apiserver.longwork import LongWork
from navarch.apiserver.negotiation import TABLE, Form, no_such_form, partial_metadata
from navarch.apiserver.pieces import Parts, Pieces, assembled, in_blocks
from navarch.apiserver.served import ServedKind

_INCLUDES = (INCLUDE_METADATA, INCLUDE_OBJECT, INCLUDE_NONE)
# How an object begins that does not say what it is, as a list's do not: the list says it.
_UNTYPED = b'{"metadata":{'


def included(parameter: str) -> str:
    """The `includeObject` query parameter, checked; empty means Metadata.  Raises StatusError 400."""
    if not parameter or parameter in _INCLUDES:
        return parameter or INCLUDE_METADATA
    why = f"includeObject: Invalid value: \"{parameter}\": must be 'Metadata', 'Object', 'None', or empty"
    raise bad_request(f"Unable to convert to Table as requested: {why}")


def rendering_of(kind: ServedKind, form: Form, include: str, now: datetime) -> Rendering | None:
    """None for the object itself. Rows tell ages: those of one second are the same."""
    if form.transform == TABLE:
        strategy = kind.strategy
        row = row_function(
            strategy.columns, now, include, form.version, strategy.metadata_alone, strategy.row_conditions
        )
        whole = include == INCLUDE_OBJECT

        def as_row(data: bytes) -> bytes:
            return orjson.dumps(row(decode(data), data if whole else None))

        return Rendering(f"{TABLE} {form.version} {include} {int(now.timestamp())}", as_row, lasts=False)
    if form.transform:
        version, alone = form.version, kind.strategy.metadata_alone
        return Rendering(
            f"Metadata {version}", lambda data: orjson.dumps(partial_metadata(alone(decode(data)), version))
        )
    return None


def in_form(form: Form, obj: Obj, columns: Sequence[Column], include: str, now: datetime) -> Obj:
    """An object that is not one of the kind's (its Scale) in the form that was asked for."""
    if form.transform == TABLE:
        version = f"meta.k8s.io/{form.version}"
        listed = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        rows = [row_function(columns, now, include, form.version)(obj, None)]
        definitions = column_definitions(columns)
        return {
            "kind": TABLE,
            "apiVersion": version,
            "metadata": listed,
            "columnDefinitions": definitions,
            "rows": rows,
        }
    return partial_metadata(obj["metadata"], form.version) if form.transform else obj


def check_form(kind: ServedKind, form: Form, *, listed: bool) -> None:
    """Metadata of a list is a list of metadata, and nothing else is.  Raises StatusError 406."""
    if not form.transform or form.transform == TABLE or form.transform.endswith("List") == listed:
        return
    group, name = kind.resource.group, kind.list_kind or kind.resource.kind + "List" if listed else kind.resource.kind
    if kind.own_schemas is not None:
        go_type = "*unstructured.UnstructuredList" if listed else "*unstructured.Unstructured"
    else:
        go_type = f"*{go_package(group)}.{name}"
    raise no_such_form(form, go_type)


def in_row_order(kind: ServedKind, form: Form, items: list[Cached]) -> list[Cached]:
    """What is listed, as the rows of a Table are."""
    strategy = kind.strategy
    if not strategy.orders_rows or form.transform != TABLE:
        return items
    return sorted(items, key=lambda cached: strategy.row_order(decode(cached.data)))


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


def list_body(work: LongWork, kind: ServedKind, form: Form, head: Obj, name: str, parts: Parts) -> bytes | Pieces:
    """The list `head` with its parts. Items of built-in kinds state neither apiVersion nor kind: where canonical bytes
    say them is known, so it is a join all the same, which copies once."""
    start = _opened(head, name)
    if not parts.count:
        # Go's empty list, and the one that it never made.
        return start[:-1] + (b"null}" if form.transform.endswith("List") else b"[]}")
    if form.transform or kind.own_schemas is not None:
        return assembled(work, start, parts, b",", b"]}")
    return assembled(work, start + _UNTYPED, parts, b"," + _UNTYPED, b"]}", skipped=len(kind.head))


def list_of_blocks(work: LongWork, head: Obj, name: str, blocks: AsyncIterator[Sequence[bytes]]) -> Pieces:
    """The same, of rows of a Table or of metadata, which are made while others are sent."""
    return Pieces(in_blocks(work, _opened(head, name), blocks, b",", b"]}"))


def _opened(head: Obj, name: str) -> bytes:
    return b'%b,"%b":[' % (orjson.dumps(head)[:-1], name.encode())


def untyped(kind: ServedKind, form: Form, parts: Parts) -> Parts:
    """The same, part by part."""
    if form.transform or kind.own_schemas is not None:
        return parts
    start = len(kind.head)
    return replace(parts, all=(_UNTYPED + part[start:] for part in parts.all))


def enclosed(kind: ServedKind, form: Form, part: bytes, revision: int | str, *, first: bool) -> bytes:
    """What a watch sends of an object: a Table has one row, and says its columns with the first event only."""
    if form.transform != TABLE:
        return part
    head, name = heading(kind, form, {"resourceVersion": str(revision)}, columns=first)
    return orjson.dumps(head)[:-1] + b',"' + name.encode() + b'":[' + part + b"]}"
