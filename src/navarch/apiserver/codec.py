"""Objects to stored bytes and back.

Canonical bytes begin `{"apiVersion":…,"kind":…,"metadata":{` and carry no resourceVersion: the store's revision is not
known before the commit. It is spliced in behind that beginning, once per commit; the result is what every reader of the
object receives. Bytes say themselves in which version they are: most are in the one in which the resource is stored
now, so that the offset is known; what an earlier configuration or another server has stored in another is found out
about per object. What is not canonical (another server's order of fields) is made so when it is read.
"""

from __future__ import annotations

import re
from typing import Any, cast

import orjson

from navarch.api.meta import Obj, Resource

_STAMP = b'"resourceVersion":"%d",'
_HEAD = re.compile(rb'\{"apiVersion":"([^"\\]*)","kind":"[^"\\]*","metadata":\{')

# Copying more than this takes longer than looking at it without.
_LARGE = 64 << 10

_STAMPED = re.compile(_HEAD.pattern + rb'"resourceVersion":"([0-9]+)"')


class Codec:
    """Encodes objects of one resource in the version in which it is stored."""

    __slots__ = ("api_version", "head", "kind", "prefix", "resource")

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.api_version = resource.api_version
        self.kind = resource.kind
        self.prefix = f"/registry/{resource.group or 'core'}/{resource.plural}/"
        self.head = head_of(resource)

    def key(self, namespace: str, name: str) -> str:
        return f"{self.prefix}{namespace}/{name}"

    def encode(self, obj: Obj) -> bytes:
        """Canonical bytes; `obj` is not changed."""
        metadata = obj["metadata"]
        if "resourceVersion" in metadata:
            metadata = dict(metadata)
            del metadata["resourceVersion"]
        ordered = {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}
        for name, value in obj.items():
            if name not in ordered:
                ordered[name] = value
        return exact(orjson.dumps(ordered))

    def offset(self, data: bytes) -> int:
        """Where the revision belongs in canonical bytes, or is in stamped ones."""
        return len(self.head) if data.startswith(self.head) else offset_of(data)

    def stamp(self, value: bytes, revision: int) -> bytes:
        """Canonical bytes with the revision spliced in."""
        offset = self.offset(value)
        return _spliced(value, offset, _STAMP % revision, offset)

    def unstamp(self, data: bytes, revision: int) -> bytes:
        """The canonical bytes behind stamped ones."""
        offset = self.offset(data)
        return _spliced(data, offset, b"", offset + len(_STAMP % revision))

    def restamp(self, data: bytes, old_revision: int, revision: int) -> bytes:
        """Stamped bytes with another revision."""
        offset = self.offset(data)
        return _spliced(data, offset, _STAMP % revision, offset + len(_STAMP % old_revision))


def _spliced(data: bytes, end: int, between: bytes, start: int) -> bytes:
    """The bytes up to `end`, others, and those from `start` on."""
    if len(data) > _LARGE:
        # Copied once, not twice.
        return b"".join((memoryview(data)[:end], between, memoryview(data)[start:]))
    return data[:end] + between + data[start:]


def head_of(resource: Resource) -> bytes:
    """How canonical bytes of the resource's version begin."""
    return orjson.dumps({"apiVersion": resource.api_version, "kind": resource.kind})[:-1] + b',"metadata":{'


def offset_of(data: bytes) -> int:
    """Where `metadata` begins inside, whatever the version.  Raises ValueError for what is not canonical."""
    matched = _HEAD.match(data)
    if matched is None:
        raise ValueError("the bytes do not begin with apiVersion, kind and metadata")
    return matched.end()


def version_of(data: bytes) -> str:
    """The apiVersion that canonical bytes state.  Raises ValueError for what is not canonical."""
    matched = _HEAD.match(data)
    if matched is None:
        raise ValueError("the bytes do not begin with apiVersion, kind and metadata")
    return matched[1].decode()


def revision_of(data: bytes) -> str:
    """What `resourceVersion` stamped bytes state; empty where none does. Others' order of fields costs a decoding."""
    matched = _STAMPED.match(data)
    return matched[2].decode() if matched is not None else decode(data)["metadata"].get("resourceVersion", "")


def canonical(value: bytes) -> bytes:
    """Any stored object's bytes, canonical and in the version that they are in.  Raises ValueError, TypeError,
    KeyError for what is no object."""
    if _HEAD.match(value):
        return value
    obj = orjson.loads(value)
    metadata = {name: said for name, said in obj["metadata"].items() if name != "resourceVersion"}
    rest = {name: said for name, said in obj.items() if name not in ("apiVersion", "kind", "metadata")}
    return orjson.dumps({"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata, **rest})


def rewritten(data: bytes, head: bytes) -> bytes:
    """The same object with another apiVersion: `head` is how that version's bytes begin."""
    return head + data[offset_of(data) :]


def exact(data: bytes) -> bytes:
    """The same bytes without room to grow: orjson's results keep up to sixteen times the memory that they need, which
    matters where they are kept."""
    return bytes(memoryview(data))


def decode(data: bytes) -> Obj:
    return cast(Obj, orjson.loads(data))


def encode_json(value: Any) -> bytes:
    return orjson.dumps(value)
