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

# About what one of each takes beside the bytes of an object.
_CHANGE_BYTES: Final = 300
_CACHED_BYTES: Final = 700


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
    """One commit to one object. Its wire forms are made when first asked for, once for all watchers that are up to
    date: `cool` forgets them, and who comes later has them made anew."""

    __slots__ = (
        "_codec",
        "_cold",
        "_lines",
        "_notice",
        "_others",
        "_removed",
        "held",
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
        # Versions that are alike share both (`watchcache`).
        self.steady = old is not None and new is not None and old.labels is new.labels and old.fields is new.fields
        # About the bytes of its line.
        self.size = len(new.data if new is not None else old.data if old is not None else b"") + 50
        # About the bytes that nobody would hold without it: itself, and what it replaced.
        self.held = _CHANGE_BYTES if old is None else len(old.data) + _CHANGE_BYTES + _CACHED_BYTES
        # Most changes are looked at by few, or by nobody: there are no dictionaries until something is in them.
        self._lines: dict[str, bytes] | None = None
        self._notice: Notice | None = None
        self._others: dict[str, Notice] | None = None
        self._removed: Cached | None = None
        self._cold = False

    def notice(self, type_: str) -> Notice:
        """One object for all watchers to which this is a change of this type: what waits for them is a reference."""
        notice = self._notice
        if notice is None:
            notice = self._notice = Notice(type_, self, self.revision, self.size)
        if notice.type == type_:
            return notice
        others = self._others
        if others is None:
            others = self._others = {}
        notice = others.get(type_)
        if notice is None:
            notice = others[type_] = Notice(type_, self, self.revision, self.size)
        return notice

    def release(self) -> None:
        """Nobody asks for its notices any more: they and the change hold each other."""
        self._notice = self._others = None

    def cool(self) -> None:
        """Those who are up to date have been told: forms are copies of the object, and kept no longer."""
        self._cold = True
        self._lines = self._removed = None

    def shown(self, type_: str) -> Cached:
        """The object that an event of this type shows: a removal shows the last state with the removal's revision."""
        if type_ != DELETED:
            assert self.new is not None
            return self.new
        removed = self._removed
        if removed is None:
            old = self.old
            assert old is not None
            data = self._codec.restamp(old.data, old.revision, self.revision)
            removed = Cached(old.key, old.namespace, old.name, self.revision, data, old.labels, old.fields)
            if not self._cold:
                self._removed = removed
        return removed

    def line(self, type_: str) -> bytes:
        """The watch stream's line for this change."""
        lines = self._lines
        line = None if lines is None else lines.get(type_)
        if line is None:
            line = watch_line(type_, self.shown(type_).data)
            self.keep(type_, line)
        return line

    def kept(self, key: str) -> bytes | None:
        """An event in another form, if there is one yet."""
        return None if self._lines is None else self._lines.get(key)

    def keep(self, key: str, event: bytes) -> None:
        if self._cold:
            return
        if self._lines is None:
            self._lines = {}
        self._lines[key] = event


def bookmark_metadata(revision: int, *, initial_end: bool) -> Obj:
    """The metadata of the object that a bookmark shows."""
    metadata: Obj = {"resourceVersion": str(revision)}
    if initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return metadata


def watch_line(type_: str, data: bytes) -> bytes:
    return b'{"type":"' + type_.encode() + b'","object":' + data + b"}\n"
