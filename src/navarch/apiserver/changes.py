"""An object at one revision, a change from one to the next, and what a watcher is told of it: data alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.codec import Codec, decode

ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
DELETED: Final = "DELETED"
BOOKMARK: Final = "BOOKMARK"
INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"


class Notice:
    """What a watcher is handed: a change with the type it has for this watcher, or a bookmark (no change)."""

    __slots__ = ("change", "revision", "size", "type")

    def __init__(self, type_: str, change: Change | None, revision: int, size: int = 200) -> None:
        self.type = type_
        self.change = change
        self.revision = revision
        self.size = size


# Forms of an object by the kind that it is shown as and the form's name; what is still being made is a task.
Kept = dict[tuple[object, str], "bytes | asyncio.Task[None]"]


class Cached:
    """One object at one revision."""

    __slots__ = ("_shared", "data", "fields", "kept", "key", "labels", "name", "namespace", "revision")

    def __init__(
        self,
        key: str,
        namespace: str,
        name: str,
        revision: int,
        data: bytes,
        labels: Mapping[str, str],
        fields: Mapping[str, str],
    ) -> None:
        self.key = key
        self.namespace = namespace
        self.name = name
        self.revision = revision
        self.data = data
        self.labels = labels
        self.fields = fields
        # Other forms made of the bytes, see `encodings`.
        self.kept: Kept | None = None
        self._shared: Obj | None = None

    def field(self, path: str) -> str:
        """A selectable field's value; empty where the object has none."""
        if path == "metadata.name":
            return self.name
        if path == "metadata.namespace":
            return self.namespace
        return self.fields.get(path, "")

    def obj(self) -> Obj:
        """The object; the caller's own copy."""
        return decode(self.data)

    def shared(self) -> Obj:
        """The object, kept once decoded, for those who only look: for the few that every request looks at."""
        if self._shared is None:
            self._shared = decode(self.data)
        return self._shared


class Change:
    """One commit to one object. Its wire forms are made when first asked for, once for all watchers."""

    __slots__ = (
        "_codec",
        "_lines",
        "_notices",
        "_removed",
        "key",
        "new",
        "old",
        "revision",
        "size",
        "steady",
        "time",
        "type",
    )

    def __init__(
        self, codec: Codec, key: str, revision: int, old: Cached | None, new: Cached | None, time: float
    ) -> None:
        self._codec = codec
        self.key = key
        self.revision = revision
        self.old = old
        self.new = new
        self.time = time
        self.type = DELETED if new is None else ADDED if old is None else MODIFIED
        # Whether selectors see the same before and after.
        self.steady = old is not None and new is not None and old.labels == new.labels and old.fields == new.fields
        # About the bytes of its line.
        self.size = len(new.data if new is not None else old.data if old is not None else b"") + 50
        self._lines: dict[str, bytes] = {}
        self._notices: dict[str, Notice] = {}
        self._removed: Cached | None = None

    def notice(self, type_: str) -> Notice:
        """One object for all watchers to which this is a change of this type: what waits for them is a reference."""
        notice = self._notices.get(type_)
        if notice is None:
            notice = self._notices[type_] = Notice(type_, self, self.revision, self.size)
        return notice

    def release(self) -> None:
        """Nobody asks for its notices any more: they and the change hold each other."""
        self._notices.clear()

    def shown(self, type_: str) -> Cached:
        """The object that an event of this type shows: a removal shows the last state with the removal's revision."""
        if type_ != DELETED:
            assert self.new is not None
            return self.new
        if self._removed is None:
            old = self.old
            assert old is not None
            data = self._codec.restamp(old.data, old.revision, self.revision)
            self._removed = Cached(old.key, old.namespace, old.name, self.revision, data, old.labels, old.fields)
        return self._removed

    def line(self, type_: str) -> bytes:
        """The watch stream's line for this change."""
        line = self._lines.get(type_)
        if line is None:
            line = self._lines[type_] = watch_line(type_, self.shown(type_).data)
        return line

    def kept(self, key: str) -> bytes | None:
        """An event in another form, if there is one yet."""
        return self._lines.get(key)

    def keep(self, key: str, event: bytes) -> None:
        self._lines[key] = event


def bookmark_metadata(revision: int, *, initial_end: bool) -> Obj:
    """The metadata of the object that a bookmark shows."""
    metadata: Obj = {"resourceVersion": str(revision)}
    if initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return metadata


def watch_line(type_: str, data: bytes) -> bytes:
    return b'{"type":"' + type_.encode() + b'","object":' + data + b"}\n"
