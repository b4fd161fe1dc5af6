"""Watches: a stream of lines, one per event, in the form that the client asked for.

In: a list's selection and where to start.  Out: an iterator of chunks; what has gathered while the last chunk was being
sent goes into the next together. A watch ends by its deadline, by its client, or because it fell too far behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import orjson

from navarch.api.errors import StatusError, forbidden_field, invalid, unexplained
from navarch.apiserver import converted
from navarch.apiserver.caches import too_old
from navarch.apiserver.changes import ADDED, BOOKMARK, Cached, Notice, bookmark_metadata, watch_line
from navarch.apiserver.core import Core
from navarch.apiserver.encodings import Encodings, Rendering
from navarch.apiserver.list_options import EVERYTHING, list_options_of, wrong_version
from navarch.apiserver.negotiation import Form
from navarch.apiserver.renderings import enclosed
from navarch.apiserver.selecting import Selection, selection_of
from navarch.apiserver.served import ServedKind
from navarch.apiserver.watchcache import WatchCache
from navarch.apiserver.watchers import Watcher
from navarch.client.transport import Request
from navarch.records import mutable

_MIN_TIMEOUT_S = 1800
_MAX_TIMEOUT_S = 7 * 86_400
_INITIAL_CHUNK = 64
# Before the end of a watch, as in Kubernetes.
_LAST_BOOKMARK_S = 2.0


@mutable
class WatchOptions:
    """A watch's parameters. `initial` says to begin with everything there is; `announce_end` to mark where that
    ends."""

    selection: Selection
    since: int
    initial: bool
    announce_end: bool
    bookmarks: bool
    timeout_s: float


def watch_options_of(request: Request, kind: ServedKind, namespace: str, name: str, core: Core) -> WatchOptions:
    """Raises StatusError 400, 422, 500 (for a version that is none)."""
    options = list_options_of(request.query) if request.query else EVERYTHING
    if not core.features.on("WatchList") and any(key == "sendInitialEvents" for key, _ in request.query):
        why = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
        raise invalid("ListOptions", "meta.k8s.io", "", [forbidden_field("sendInitialEvents", why)])
    selection = selection_of(options, kind, namespace, name)
    version = options.version
    if why := wrong_version(version or "0"):
        raise unexplained(why)
    timeout_s = float(min(options.timeout_s, _MAX_TIMEOUT_S))
    if timeout_s <= 0:
        timeout_s = _MIN_TIMEOUT_S * (1.0 + core.world.random("apiserver", "watches").random())
    since = int(version or "0")
    initial = options.send_initial if options.send_initial is not None else not since
    announce_end = bool(options.send_initial) and options.bookmarks
    return WatchOptions(selection, since, initial, announce_end, options.bookmarks, timeout_s)


class Watching:
    """Watches of any stored resource."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def start(self, kind: ServedKind, options: WatchOptions, lines: Events) -> AsyncIterator[bytes]:
        """The watch's stream.  Raises StatusError 504."""
        core = self._core
        caches, cache = core.caches, kind.cache
        if not options.since:
            await caches.sync()
        elif options.initial:
            await caches.wait(options.since)
        # Both of one moment: while the objects are looked through, others change.
        since = caches.revision if options.initial or not options.since else options.since
        items = cache.items(options.selection.namespace) if options.initial else []
        initial = await options.selection.of(items, core.work)
        if options.selection.shown is not None:
            initial = await converted.wanted_of(core.encodings, kind, options.selection, initial)
        return self._stream(kind, cache, options, initial, since, lines)

    async def _stream(
        self,
        kind: ServedKind,
        cache: WatchCache,
        options: WatchOptions,
        initial: list[Cached],
        since: int,
        lines: Events,
    ) -> AsyncIterator[bytes]:
        core, resource = self._core, kind.resource
        if since < cache.oldest:
            yield lines.error(too_old(since, cache.oldest))
            return
        # Registered here, where `finally` is sure to undo it; what came since the call is replayed from the ring.
        wanted = options.selection
        watcher = Watcher(wanted.scope, wanted.wanted, since, namespace=wanted.namespace, labels=wanted.labels)
        cache.watch(watcher)
        core.metrics.watches += 1
        timers = _Timers(core, watcher, options)
        try:
            for start in range(0, len(initial), _INITIAL_CHUNK):
                yield await lines.of_objects(ADDED, initial[start : start + _INITIAL_CHUNK])
                # Others are served before the next chunk, however fast this one was taken.
                await asyncio.sleep(0)
            if options.announce_end:
                yield lines.bookmark(since, initial_end=True)
            while True:
                notices = await watcher.take()
                if notices and wanted.shown is not None:
                    notices = await converted.notices_of(core.encodings, kind, wanted, notices)
                    if not notices:
                        continue
                if notices:
                    core.metrics.sent_events(resource.group, resource.version, resource.kind, len(notices))
                    yield await lines.of_notices(notices)
                elif watcher.closed:
                    return
        except StatusError as error:
            # What cannot be converted cannot be left out either.
            yield lines.error(error)
        finally:
            timers.stop()
            cache.unwatch(watcher)
            core.metrics.watches -= 1


class _Timers:
    """A watch's bookmarks, and its end. No closures: those that hold themselves would keep all of a watch until the
    collector comes by."""

    def __init__(self, core: Core, watcher: Watcher, options: WatchOptions) -> None:
        self._core = core
        self._watcher = watcher
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.call_later(options.timeout_s, watcher.close)
        self._next = self._following() if options.bookmarks else None

    def _following(self) -> asyncio.TimerHandle | None:
        """The next bookmark: some time before the end at the latest, so that whoever asks again asks from there."""
        left_s = self._end.when() - _LAST_BOOKMARK_S - self._loop.time()
        wait_s = min(self._core.on_bookmark_s, left_s)
        return self._loop.call_later(wait_s, self._bookmark) if wait_s > 0 else None

    def _bookmark(self) -> None:
        self._watcher.bookmark(self._core.caches.revision)
        self._next = self._following()

    def stop(self) -> None:
        self._end.cancel()
        if self._next is not None:
            self._next.cancel()


class Events(Protocol):
    """What a stream is made of, in the form that the client asked for."""

    async def of_notices(self, notices: Sequence[Notice]) -> bytes: ...

    async def of_objects(self, type_: str, items: Sequence[Cached]) -> bytes: ...

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes: ...

    def error(self, error: StatusError) -> bytes: ...


class Lines:
    """Notices to lines of the stream, in the form that the client asked for. `rendering` is asked for at each turn: a
    Table tells ages."""

    def __init__(
        self, kind: ServedKind, encodings: Encodings, rendering: Callable[[], Rendering | None], form: Form
    ) -> None:
        self._kind = kind
        self._encodings = encodings
        self._rendering = rendering
        self._form = form
        self._first = True

    async def of_notices(self, notices: Sequence[Notice]) -> bytes:
        """Raises StatusError where an object cannot be converted."""
        kind = self._kind
        if not self._form.transform and kind.is_storage and not kind.cache.mixed:
            return b"".join([
                notice.change.line(notice.type) if notice.change is not None else self.bookmark(notice.revision)
                for notice in notices
            ])  # fmt: skip
        shown = [notice.change.shown(notice.type) for notice in notices if notice.change is not None]
        parts = iter(await self._encodings.all(kind, shown, self._rendering()))
        return b"".join([
            self._line(notice.type, next(parts), notice.revision)
            if notice.change is not None
            else self.bookmark(notice.revision)
            for notice in notices
        ])  # fmt: skip

    async def of_objects(self, type_: str, items: Sequence[Cached]) -> bytes:
        """Raises StatusError where an object cannot be converted."""
        parts = await self._encodings.all(self._kind, items, self._rendering())
        return b"".join([
            self._line(type_, part, cached.revision) for part, cached in zip(parts, items, strict=True)
        ])  # fmt: skip

    def _line(self, type_: str, part: bytes, revision: int) -> bytes:
        first, self._first = self._first, False
        return watch_line(type_, enclosed(self._kind, self._form, part, revision, first=first))

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        resource = self._kind.resource
        metadata = bookmark_metadata(revision, initial_end=initial_end)
        data = orjson.dumps({"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata})
        rendering = self._rendering()
        return self._line(BOOKMARK, data if rendering is None else rendering.make(data), revision)

    def error(self, error: StatusError) -> bytes:
        """A failure inside a running stream."""
        return watch_line("ERROR", orjson.dumps(error.status()))
