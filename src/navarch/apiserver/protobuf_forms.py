"""Objects, lists and watches in Kubernetes' protobuf encoding, put together of parts that are kept.

In: an object's canonical bytes, once.  Out: its *part*, the object's message as a field numbered two. Such a field is
an object both in a list (`items`) and alone (`raw` of the `Unknown` around it), so that an answer is a few bytes, the
parts as they are, and a few bytes. An event of a watch is made once for all watchers, too (`Frames`), and kept with its
change.

A kind that has no message, a custom one, has its metadata in this encoding, nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache, partial
from typing import Final

from navarch.api import protobuf
from navarch.api.errors import StatusError, internal
from navarch.api.meta import Obj
from navarch.api.protobuf_wire import delimited, varint
from navarch.apiserver.changes import ADDED, BOOKMARK, DELETED, MODIFIED, Cached, Notice, bookmark_metadata
from navarch.apiserver.codec import decode
from navarch.apiserver.encodings import Encodings, Rendering
from navarch.apiserver.longwork import LongWork
from navarch.apiserver.negotiation import Form
from navarch.apiserver.pieces import LONG, Parts, Pieces, assembled
from navarch.apiserver.served import ServedKind

MEDIA_TYPE: Final = protobuf.MEDIA_TYPE
WATCH_TYPE: Final = f"{MEDIA_TYPE};stream=watch"

_METADATA: Final = "PartialObjectMetadata"
_TYPES: Final = (ADDED, MODIFIED, DELETED)
_PART: Final = 2


def of_object(obj: Obj) -> bytes:
    """Any object.  Raises StatusError 406 where it has no such form."""
    try:
        return protobuf.encode(obj)
    except ValueError as error:
        raise StatusError(406, "NotAcceptable", str(error)) from None


def of_json(data: bytes) -> bytes:
    return of_object(decode(data))


def rendering_of(kind: ServedKind, form: Form) -> Rendering:
    """How an object becomes its part."""
    api_version, shown = _shown(kind, form)
    message = protobuf.message_of(api_version, shown)
    if form.transform and kind.strategy.fields_in_annotations:
        alone = kind.strategy.metadata_alone
        return Rendering(
            f"protobuf {api_version} {shown}", lambda data: _message(message, {"metadata": alone(decode(data))})
        )
    return Rendering(f"protobuf {api_version} {shown}", partial(_part, message))


def whole(kind: ServedKind, form: Form, part: bytes) -> bytes:
    """The object of a part."""
    return protobuf.enclosed(*_shown(kind, form), part)


def listed(work: LongWork, kind: ServedKind, form: Form, metadata: Obj, parts: Sequence[bytes]) -> bytes | Pieces:
    """The list of parts."""
    api_version, shown = _shown(kind, form)
    name = shown + "List" if form.transform else kind.list_kind or shown + "List"
    said = protobuf.message("meta/v1.ListMeta", metadata)
    if api_version == "meta.k8s.io/v1beta1":
        # There the items come first.
        before, after = b"", delimited(2, said)
        parts = [b"\x0a" + part[1:] for part in parts]
    else:
        before, after = delimited(1, said), b""
    size = len(before) + sum(map(len, parts)) + len(after)
    head = protobuf.head(api_version, name) + b"\x12" + varint(size)
    return assembled(work, head + before, Parts(parts, len(parts), size > LONG), b"", after + protobuf.TAIL)


def _shown(kind: ServedKind, form: Form) -> tuple[str, str]:
    """The version and kind that an object of the kind is sent as."""
    if form.transform:
        return f"meta.k8s.io/{form.version}", _METADATA
    return kind.resource.api_version, kind.resource.kind


def _part(message: str, data: bytes) -> bytes:
    return _message(message, decode(data))


def _message(message: str, obj: Obj) -> bytes:
    try:
        return delimited(_PART, protobuf.message(message, obj))
    except ValueError as error:
        raise internal(str(error)) from None


class Frames:
    """What `watching.Lines` is for JSON: notices to events of a stream, each with its length before it."""

    def __init__(self, kind: ServedKind, encodings: Encodings, form: Form) -> None:
        self._kind = kind
        self._encodings = encodings
        self._rendering = rendering_of(kind, form)
        self._head = protobuf.head(*_shown(kind, form))
        self._keys = {type_: f"{self._rendering.key} {type_}" for type_ in _TYPES}
        self._message = protobuf.message_of(*_shown(kind, form))

    async def of_notices(self, notices: Sequence[Notice]) -> bytes:
        """Raises StatusError where an object cannot be converted."""
        keys = self._keys
        frames = [
            notice.change.kept(keys[notice.type]) if notice.change is not None else self.bookmark(notice.revision)
            for notice in notices
        ]
        if None in frames:
            missing = [index for index, found in enumerate(frames) if found is None]
            made = await self._make([notices[index] for index in missing])
            for index, found in zip(missing, made, strict=True):
                frames[index] = found
        return b"".join(frames)  # type: ignore[arg-type]

    async def _make(self, notices: Sequence[Notice]) -> list[bytes]:
        shown = [notice.change.shown(notice.type) for notice in notices if notice.change is not None]
        parts = await self._encodings.all(self._kind, shown, self._rendering)
        frames = []
        for notice, part in zip(notices, parts, strict=True):
            made = frame(notice.type, self._head, part)
            assert notice.change is not None
            notice.change.keep(self._keys[notice.type], made)
            frames.append(made)
        return frames

    async def of_objects(self, type_: str, items: Sequence[Cached]) -> bytes:
        """Raises StatusError where an object cannot be converted."""
        parts = await self._encodings.all(self._kind, items, self._rendering)
        return b"".join([frame(type_, self._head, part) for part in parts])

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        metadata = bookmark_metadata(revision, initial_end=initial_end)
        part = delimited(_PART, protobuf.message(self._message, {"metadata": metadata}))
        return frame(BOOKMARK, self._head, part)

    def error(self, error: StatusError) -> bytes:
        """A failure inside a running stream."""
        part = delimited(_PART, protobuf.message("meta/v1.Status", error.status()))
        return frame("ERROR", protobuf.head("v1", "Status"), part)


def frame(type_: str, head: bytes, part: bytes) -> bytes:
    """A `WatchEvent` and, before it, its length in four bytes."""
    size = len(head) + len(part) + len(protobuf.TAIL)
    raw = b"\x0a" + varint(size)
    start = _stated(type_) + varint(len(raw) + size) + raw
    return b"".join((struct.pack(">I", len(start) + size), start, head, part, protobuf.TAIL))


@cache
def _stated(type_: str) -> bytes:
    """The type of an event, and the tag of its object."""
    return delimited(1, type_.encode()) + b"\x12"
