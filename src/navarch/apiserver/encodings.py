"""The forms in which objects are sent, each derived from an object's canonical bytes, once.

In: objects as the caches have them, the kind (which says the version) and a `Rendering` (a row of a Table, metadata
only; none for the object itself).  Out: their bytes, in order. What was made is kept with the object that it was made
of, by kind and rendering, while it is hot: however many watchers and lists ask for a form of an event or an object,
it is made once. Reading in the stored version with no rendering, nearly every request, makes nothing.

An object whose bytes are in another version is converted: built-in kinds by functions, others by rewriting apiVersion
or, where the kind has a converter (a webhook), by asking it, for all objects of a request at once. Those that ask for
the same conversion at the same time share it.

Invariant: the bytes kept are at most `limit` in all; what was kept longest goes first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from operator import attrgetter

import orjson

from navarch.api.errors import internal
from navarch.api.meta import Obj
from navarch.apiserver.changes import Cached, Kept
from navarch.apiserver.codec import decode, exact, rewritten, version_of
from navarch.apiserver.longwork import SHORT, LongWork
from navarch.apiserver.pieces import LONG, Parts
from navarch.apiserver.served import ServedKind
from navarch.records import frozen

# Room for 15,000 pods in protobuf.
LIMIT = 64 << 20
_Key = tuple[ServedKind, str]
# Objects whose forms are made before the first of them are sent: some milliseconds of work.
_BLOCK = 64
# However small they are.
_MANY = 2_000
# What an entry costs beside its bytes.
_OVERHEAD = 200
_data_of: Callable[[Cached], bytes] = attrgetter("data")


@frozen
class Rendering:
    """`make` turns an object's bytes, in the version that was asked for, into what is sent; `key` names the form. What
    says the time is soon another: of a long list nobody asks for it again."""

    key: str
    make: Callable[[bytes], bytes]
    lasts: bool = True


class Encodings:
    """One server's; `work` lets others be served during long work."""

    def __init__(self, work: LongWork, limit: int = LIMIT) -> None:
        self._work = work
        self._limit = limit
        self._hot: deque[tuple[Kept, _Key, int]] = deque()
        self.size = 0

    # Reading

    async def all(self, kind: ServedKind, items: Sequence[Cached], rendering: Rendering | None = None) -> list[bytes]:
        """The objects in the kind's version, rendered.  Raises StatusError where they cannot be converted."""
        if kind.is_storage and not kind.cache.mixed:
            if rendering is None:
                return [cached.data for cached in items]
            return await self._rendered(kind, items, None, rendering)
        datas = await self._in_version(kind, items)
        return datas if rendering is None else await self._rendered(kind, items, datas, rendering)

    async def parts(self, kind: ServedKind, items: Sequence[Cached], rendering: Rendering | None) -> Parts:
        """As `all`, for a list.  Raises StatusError where they cannot be converted."""
        if rendering is None and kind.is_storage and not kind.cache.mixed:
            # A long list's are not even looked at before they are sent.
            return Parts(map(_data_of, items), len(items), is_long(items))
        return Parts(await self.all(kind, items, rendering), len(items), is_long(items))

    async def blocks(
        self, kind: ServedKind, items: Sequence[Cached], rendering: Rendering
    ) -> AsyncGenerator[Sequence[bytes], None]:
        """As `all`, block by block.  Raises StatusError at once where they cannot be converted."""
        if not kind.is_storage or kind.cache.mixed:
            await self.all(kind, items)

        async def made() -> AsyncGenerator[Sequence[bytes], None]:
            for start in range(0, len(items), _BLOCK):
                block = items[start : start + _BLOCK]
                datas = await self.all(kind, block)
                yield await self._rendered(kind, block, datas, rendering, keep=rendering.lasts)

        return made()

    async def one(self, kind: ServedKind, cached: Cached, rendering: Rendering | None = None) -> bytes:
        if rendering is None and cached.data.startswith(kind.head):
            return cached.data
        return (await self.all(kind, [cached], rendering))[0]

    async def obj(self, kind: ServedKind, cached: Cached) -> Obj:
        """The object in the kind's version; the caller's own copy."""
        data = await self.one(kind, cached)
        return decode(data) if len(data) <= SHORT else await self._work.apart(len(data), decode, data)

    async def data(self, kind: ServedKind, data: bytes) -> bytes:
        """Bytes of an object of any of its versions, in the kind's: the answer to a write."""
        if data.startswith(kind.head):
            return data
        return await self.one(kind, Cached("", "", "", 0, data, {}, {}))

    async def stored(self, kind: ServedKind, obj: Obj, size: int = 0) -> Obj:
        """An object of the kind, of about `size` bytes, in the version in which it is stored."""
        if kind.is_storage:
            return obj
        own = await self._work.apart(size, _own_copy, kind, obj)
        storage = kind.storage_kind
        if (converter := kind.converter) is not None:
            found = list(await converter.convert([own], storage.resource.api_version))
            return _checked(found, [obj], storage)[0]
        if kind.to_storage is not None:
            own = await self._work.apart(size, kind.to_storage, own)
        own["apiVersion"] = storage.resource.api_version
        return own

    # Versions

    async def _in_version(self, kind: ServedKind, items: Sequence[Cached]) -> list[bytes]:
        head, key = kind.head, _key(kind, None)
        found: list[bytes] = []
        missing: list[Cached] = []
        # In this order, which says whose error is told where several fail.
        waiting: dict[asyncio.Task[None], None] = {}
        for cached in items:
            if cached.data.startswith(head):
                continue
            known = cached.kept.get(key) if cached.kept is not None else None
            if known is None:
                missing.append(cached)
            elif not isinstance(known, bytes):
                waiting[known] = None
        if missing and kind.converter is None:
            await self._convert_here(kind, missing, key)
        elif missing:
            waiting[self._convert_there(kind, missing, key)] = None
        for task in waiting:
            # Somebody else may be waiting for it, too: it is not ended with who gives up.
            await asyncio.shield(task)
        for cached in items:
            if cached.data.startswith(head):
                found.append(cached.data)
            else:
                known = cached.kept.get(key) if cached.kept is not None else None
                # Gone from what is kept already, where one request is for more than that may be.
                found.append(known if isinstance(known, bytes) else await self._once_more(kind, cached))
        return found

    async def _convert_here(self, kind: ServedKind, items: Sequence[Cached], key: _Key) -> None:
        big: list[Cached] = []

        def steps() -> Iterator[None]:
            for cached in items:
                if len(cached.data) > SHORT:
                    big.append(cached)
                else:
                    self._keep(cached, key, convert(kind, cached.data))
                yield

        await self._work.do(steps())
        for cached in big:
            self._keep(cached, key, await self._work.apart(len(cached.data), convert, kind, cached.data))

    def _convert_there(self, kind: ServedKind, items: Sequence[Cached], key: _Key) -> asyncio.Task[None]:
        task = asyncio.create_task(self._ask(kind, items, key), name=f"convert-{kind.resource.group_resource}")
        for cached in items:
            if cached.kept is None:
                cached.kept = {}
            cached.kept[key] = task
        task.add_done_callback(_seen)
        return task

    async def _ask(self, kind: ServedKind, items: Sequence[Cached], key: _Key) -> None:
        try:
            made = await self._converted_there(kind, [cached.data for cached in items])
        except BaseException:
            for cached in items:
                if cached.kept is not None:
                    cached.kept.pop(key, None)
            raise
        for cached, data in zip(items, made, strict=True):
            self._keep(cached, key, data)

    async def _once_more(self, kind: ServedKind, cached: Cached) -> bytes:
        if kind.converter is None:
            return await self._work.apart(len(cached.data), convert, kind, cached.data)
        return (await self._converted_there(kind, [cached.data]))[0]

    async def _converted_there(self, kind: ServedKind, datas: Sequence[bytes]) -> list[bytes]:
        converter = kind.converter
        assert converter is not None
        apart, size = self._work.apart, sum(map(len, datas))
        before = await apart(size, _decoded, datas)
        # The converter's own copies: what it returns is checked against what it was given.
        given = await apart(size, _decoded, datas)
        found = list(await converter.convert(given, kind.resource.api_version))
        return await apart(size, _checked_and_ordered, found, before, kind)

    # Renderings

    async def _rendered(
        self,
        kind: ServedKind,
        items: Sequence[Cached],
        datas: Sequence[bytes] | None,
        rendering: Rendering,
        *,
        keep: bool = True,
    ) -> list[bytes]:
        key = _key(kind, rendering)
        found: list[bytes] = []
        big: list[int] = []

        def steps() -> Iterator[None]:
            for index, cached in enumerate(items):
                known = cached.kept.get(key) if cached.kept is not None else None
                if not isinstance(known, bytes):
                    data = cached.data if datas is None else datas[index]
                    if len(data) > SHORT:
                        big.append(index)
                        known = b""
                    else:
                        known = rendering.make(data)
                        if keep:
                            self._keep(cached, key, known)
                found.append(known)
                yield

        kept = [cached.kept.get(key) if cached.kept is not None else None for cached in items]
        if set(map(type, kept)) == {bytes}:
            return kept  # type: ignore[return-value]
        await self._work.do(steps())
        for index in big:
            cached = items[index]
            found[index] = await self._apart(cached, cached.data if datas is None else datas[index], key, rendering)
        return found

    async def _apart(self, cached: Cached, data: bytes, key: _Key, rendering: Rendering) -> bytes:
        """A big object's form, made beside the loop, once for all who wait for it."""
        if cached.kept is None:
            cached.kept = {}
        known = cached.kept.get(key)
        if known is None:
            known = asyncio.create_task(self._make_apart(cached, data, key, rendering), name=f"encode-{cached.key}")
            known.add_done_callback(_seen)
            cached.kept[key] = known
        if isinstance(known, bytes):
            return known
        await asyncio.shield(known)
        made = cached.kept.get(key)
        # Gone from what is kept already, where it alone is more than that may be.
        return made if isinstance(made, bytes) else await self._work.apart(len(data), rendering.make, data)

    async def _make_apart(self, cached: Cached, data: bytes, key: _Key, rendering: Rendering) -> None:
        try:
            made = await self._work.apart(len(data), rendering.make, data)
        except BaseException:
            if cached.kept is not None:
                cached.kept.pop(key, None)
            raise
        self._keep(cached, key, made)

    # What is kept

    def _keep(self, cached: Cached, key: _Key, data: bytes) -> None:
        kept = cached.kept
        if kept is None:
            kept = cached.kept = {}
        data = kept[key] = exact(data)
        size = len(data) + _OVERHEAD
        self._hot.append((kept, key, size))
        self.size += size
        while self.size > self._limit:
            old, old_key, old_size = self._hot.popleft()
            old.pop(old_key, None)
            self.size -= old_size


def is_long(items: Sequence[Cached]) -> bool:
    """Whether these are more than what is made and sent at once."""
    return len(items) > _MANY or sum(map(len, map(_data_of, items))) > LONG


def _key(kind: ServedKind, rendering: Rendering | None) -> _Key:
    """The kind itself, not its name: when a kind changes, what was made for it as it was is of no use."""
    return (kind, "" if rendering is None else rendering.key)


def _seen(task: asyncio.Task[None]) -> None:
    """Those who wait raise what a conversion raised; where nobody waits any more, nobody has to know."""
    if not task.cancelled():
        task.exception()


def convert(kind: ServedKind, data: bytes) -> bytes:
    """Stored bytes of any version as the kind's, by functions or by rewriting apiVersion."""
    storage = kind.storage_kind
    version = version_of(data)
    source = kind.versions.get(version)
    if not any(each.from_storage or each.to_storage for each in kind.versions.values()):
        return rewritten(data, kind.head)
    obj = decode(data)
    if source is not None and source.to_storage is not None:
        obj = source.to_storage(obj)
    if kind is not storage and kind.from_storage is not None:
        obj = kind.from_storage(obj)
    return _ordered(kind, obj)


def _ordered(kind: ServedKind, obj: Obj) -> bytes:
    rest = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}
    head = {"apiVersion": kind.resource.api_version, "kind": kind.resource.kind, "metadata": obj["metadata"]}
    return orjson.dumps({**head, **rest})


def _own_copy(kind: ServedKind, obj: Obj) -> Obj:
    return decode(orjson.dumps({**obj, "apiVersion": kind.resource.api_version, "kind": kind.resource.kind}))


def _decoded(datas: Sequence[bytes]) -> list[Obj]:
    return [decode(data) for data in datas]


def _checked_and_ordered(found: Sequence[Obj], before: Sequence[Obj], kind: ServedKind) -> list[bytes]:
    return [_ordered(kind, obj) for obj in _checked(found, before, kind)]


def _checked(found: Sequence[Obj], before: Sequence[Obj], kind: ServedKind) -> Sequence[Obj]:
    """What a converter gave back: as many objects as it got, in the version asked for, and the same objects.  Raises
    StatusError 500."""
    wanted, name = kind.resource.api_version, kind.resource.group_resource
    if len(found) != len(before):
        raise internal(f"conversion of {name} returned {len(found)} objects, expected {len(before)}")
    for new, old in zip(found, before, strict=True):
        if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
            raise internal(f"conversion of {name} returned something that is no object")
        if new.get("apiVersion") != wanted:
            raise internal(f"conversion of {name} returned version {new.get('apiVersion')!r}, expected {wanted!r}")
        for field in ("name", "namespace", "uid"):
            if new["metadata"].get(field) != old["metadata"].get(field):
                raise internal(f"conversion of {name} must not change metadata.{field}")
        # Only labels and annotations are the converter's to change, as in Kubernetes.
        own = {part: new["metadata"][part] for part in ("labels", "annotations") if part in new["metadata"]}
        kept = {part: said for part, said in old["metadata"].items() if part not in ("labels", "annotations")}
        new["metadata"] = {**kept, **own}
    return found
