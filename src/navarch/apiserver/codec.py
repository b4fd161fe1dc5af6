"""Objects to stored bytes and back.

Stored bytes begin `{"apiVersion":…,"kind":…,"metadata":{` and carry no resourceVersion: the store's revision is not
known before the commit. It is spliced in behind that prefix, whose length is constant for a kind, once per commit; the
result is what every reader of the object receives.
"""

from __future__ import annotations

from typing import Any, cast

import orjson

from navarch.api.meta import Obj, Resource

_STAMP = b'"resourceVersion":"%d",'


class Codec:
    """Encodes objects of one stored resource."""

    __slots__ = ("api_version", "kind", "offset", "prefix", "resource")

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.api_version = resource.api_version
        self.kind = resource.kind
        self.prefix = f"/registry/{resource.group or 'core'}/{resource.plural}/"
        self.offset = len(orjson.dumps({"apiVersion": self.api_version, "kind": self.kind})) + len(b',"metadata":{') - 1

    def key(self, namespace: str, name: str) -> str:
        return f"{self.prefix}{namespace}/{name}"

    def encode(self, obj: Obj) -> bytes:
        """Canonical bytes; `obj` is not changed."""
        metadata = obj["metadata"]
        if "resourceVersion" in metadata:
            metadata = {name: value for name, value in metadata.items() if name != "resourceVersion"}
        ordered = {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}
        for name, value in obj.items():
            if name not in ordered:
                ordered[name] = value
        return orjson.dumps(ordered)

    def stamp(self, value: bytes, revision: int) -> bytes:
        """Stored bytes with the revision spliced in."""
        offset = self.offset
        return value[:offset] + _STAMP % revision + value[offset:]

    def unstamp(self, data: bytes, revision: int) -> bytes:
        """The stored bytes behind stamped ones."""
        offset = self.offset
        return data[:offset] + data[offset + len(_STAMP % revision) :]

    def restamp(self, data: bytes, old_revision: int, revision: int) -> bytes:
        """Stamped bytes with another revision."""
        offset = self.offset
        return data[:offset] + _STAMP % revision + data[offset + len(_STAMP % old_revision) :]


def decode(data: bytes) -> Obj:
    return cast(Obj, orjson.loads(data))


def encode_json(value: Any) -> bytes:
    return orjson.dumps(value)
