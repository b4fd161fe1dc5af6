"""A write's objects in the version that a webhook or a policy looks at, and what they made of them brought back.

In: a write's attributes, a kind of the same objects.  Out: the objects in that kind's version, as bytes or decoded;
and, for an object that was changed there, the write's own object changed in place, with its defaults.
"""

from __future__ import annotations

from typing import Any

import orjson

from navarch.api.errors import StatusError, bad_request, internal
from navarch.api.meta import Obj
from navarch.api.schema import Compiled, SchemaSet
from navarch.apiserver.admission.base import Attributes
from navarch.apiserver.codec import decode
from navarch.apiserver.encodings import Encodings
from navarch.apiserver.served import ServedKind
from navarch.apiserver.webhooks import reviews
from navarch.kinds.base import Kind
from navarch.kinds.registry import definition_name
from navarch.records import frozen


@frozen
class Looked:
    """The objects of a write in the version of one kind, to be read only; None for one that there is none of."""

    kind: Kind
    obj: Obj | None
    old: Obj | None


class Versions:
    def __init__(self, encodings: Encodings, schemas: SchemaSet) -> None:
        self._encodings = encodings
        self._schemas = schemas

    async def shown(self, kind: Kind, attributes: Attributes) -> reviews.Shown:
        """As bytes.  Raises StatusError."""
        return reviews.Shown(
            kind,
            await self._bytes(kind, attributes, attributes.obj),
            await self._bytes(kind, attributes, attributes.old),
        )

    async def looked_at(self, kind: Kind, attributes: Attributes) -> Looked:
        """Decoded; the write's own where it is in that version already.  Raises StatusError."""
        return Looked(
            kind, await self._obj(kind, attributes, attributes.obj), await self._obj(kind, attributes, attributes.old)
        )

    async def _obj(self, kind: Kind, attributes: Attributes, obj: Obj | None) -> Obj | None:
        if obj is None:
            return None
        if kind is attributes.kind or not self.is_own(attributes):
            return _with_head(obj, attributes)
        found: Obj = decode(await self._bytes(kind, attributes, obj))
        return found

    async def _bytes(self, kind: Kind, attributes: Attributes, obj: Obj | None) -> bytes:
        if obj is None:
            return b"null"
        data = orjson.dumps(_with_head(obj, attributes))
        source = attributes.kind
        if not self.is_own(attributes) or not isinstance(kind, ServedKind) or not isinstance(source, ServedKind):
            return data
        return await self._converted(source, kind, data)

    async def _converted(self, source: ServedKind, target: ServedKind, data: bytes) -> bytes:
        """Bytes of an object of one kind as another version's."""
        if source is target:
            return data
        if target.is_storage:
            return _head_first(await self._encodings.stored(source, decode(data)))
        return await self._encodings.data(target, data)

    @staticmethod
    def is_own(attributes: Attributes) -> bool:
        """Whether what is written is an object of the kind, and none of another one by a subresource."""
        resource = attributes.kind.resource
        own = (resource.group, resource.version, resource.kind)
        return reviews.object_kind(attributes.kind, attributes.subresource) == own and attributes.operation != "CONNECT"

    async def adopt(self, attributes: Attributes, shown: reviews.Shown, made: Any) -> bool:
        """Make the write's object what was made of what was shown of it; whether that changes anything.  Raises
        StatusError 500."""
        obj, own, kind = attributes.obj, attributes.kind, shown.kind
        assert obj is not None
        foreign = self.is_own(attributes) and isinstance(own, ServedKind) and kind is not own
        before = await self._bytes(own, attributes, obj) if foreign else shown.obj
        try:
            if not isinstance(made, dict) or not isinstance(made.get("metadata", {}), dict):
                raise bad_request("the patched object is no object")
            compiled = self.schema(kind, attributes)
            if compiled is not None:
                compiled.decode(made)
        except StatusError as error:
            raise internal(error.message) from error
        if self.is_own(attributes) and isinstance(own, ServedKind):
            if isinstance(kind, ServedKind) and kind is not own:
                made = decode(await self._converted(kind, own, _head_first(made)))
            if own.compiled is not None:
                own.compiled.default(made)
            own.strategy.defaults(made)
        obj.clear()
        obj.update(made)
        after = await self._bytes(own, attributes, obj)
        # The same in another order is no change.
        return after != before and (len(after) != len(before) or _sorted(after) != _sorted(before))

    def schema(self, kind: Kind, attributes: Attributes) -> Compiled | None:
        """The schema of what is written, in a kind's version."""
        if self.is_own(attributes):
            return kind.compiled if isinstance(kind, ServedKind) else None
        definition = definition_name(*reviews.object_kind(kind, attributes.subresource))
        return self._schemas.compile(definition) if definition in self._schemas else None


def _with_head(obj: Obj, attributes: Attributes) -> Obj:
    """With the version and kind that it is of, first."""
    group, version, name = reviews.object_kind(attributes.kind, attributes.subresource)
    api_version = f"{group}/{version}" if group else version
    rest = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    return {"apiVersion": api_version, "kind": name, "metadata": obj.get("metadata"), **rest}


def _head_first(obj: Obj) -> bytes:
    rest = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}
    head = {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": obj["metadata"]}
    return orjson.dumps({**head, **rest})


def _sorted(data: bytes) -> bytes:
    return orjson.dumps(orjson.loads(data), option=orjson.OPT_SORT_KEYS)
