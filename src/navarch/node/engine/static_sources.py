"""Static pods: pods that a node runs by itself, from manifests in a folder or at a URL, with or without an API server.

`FilePods` and `URLPods` look again every now and then; what they find replaces what they found before. What a manifest
becomes is in `manifests.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp

from navarch.api import yaml_reader
from navarch.api.meta import Obj, uid_of
from navarch.node.engine.manifests import ManifestError, static_pod
from navarch.node.engine.sources import PodSink
from navarch.world import World

log = logging.getLogger(__name__)

_LONGEST_MANIFEST: Final = 10 << 20
_URL_TIMEOUT_S: Final = 10.0


class _Told:
    """What a source has told its sink, by where each pod comes from."""

    def __init__(self) -> None:
        self.pods: dict[str, Obj] = {}
        self._synced = asyncio.Event()

    def uids(self) -> set[str]:
        return {uid_of(pod) for pod in self.pods.values()}

    async def synced(self) -> None:
        await self._synced.wait()

    def tell(self, found: Mapping[str, Obj], sink: PodSink) -> None:
        """`found` is all that there is now."""
        fresh = {uid_of(pod) for pod in found.values()}
        gone = [pod for pod in self.pods.values() if uid_of(pod) not in fresh]
        known = self.uids()
        self.pods = dict(found)
        for pod in gone:
            sink.pod_gone(pod)
        for pod in found.values():
            if uid_of(pod) not in known:
                sink.pod_set(pod)
        self._synced.set()


class _Stamp(NamedTuple):
    """By which a file is known to have changed."""

    modified_ns: int
    size: int
    inode: int


class FilePods(_Told):
    """The manifests in a folder, one pod in each file; or one file. Hidden files do not count. A manifest that is no
    pod any more is a pod that is gone."""

    def __init__(self, place: Path, node_name: str, world: World, *, look_every_s: float) -> None:
        super().__init__()
        self._place = place
        self._node_name = node_name
        self._world = world
        self._look_every_s = look_every_s
        self._stamps: dict[Path, _Stamp] = {}

    async def run(self, sink: PodSink) -> None:
        while True:
            stamps = await self._world.in_thread(_stamps_of, self._place)
            if stamps != self._stamps or not self._synced.is_set():
                await self._read(stamps, sink)
            await asyncio.sleep(self._look_every_s)

    async def _read(self, stamps: dict[Path, _Stamp], sink: PodSink) -> None:
        found: dict[str, Obj] = {}
        for path, stamp in stamps.items():
            before = self.pods.get(str(path))
            if self._stamps.get(path) == stamp:
                if before is not None:
                    found[str(path)] = before
                continue
            try:
                pod = await self._world.in_thread(self._pod_of, path)
            except (OSError, ValueError) as error:
                log.error("static pod %s: %s", path, error)
                continue
            # Written anew with the same content it is still the same pod.
            found[str(path)] = before if before is not None and uid_of(before) == uid_of(pod) else pod
        self._stamps = stamps
        self.tell(found, sink)

    def _pod_of(self, path: Path) -> Obj:
        with path.open("rb") as file:
            text = file.read(_LONGEST_MANIFEST + 1)
        document = _parse(text)
        now = self._world.now()
        return static_pod(document, source="file", origin=str(path), node_name=self._node_name, now=now)


def _stamps_of(place: Path) -> dict[Path, _Stamp]:
    """The manifests that there are, in the order of their names; none where the place does not exist."""
    try:
        paths = sorted(place.iterdir()) if place.is_dir() else [place]
    except OSError:
        return {}
    found = {}
    for path in paths:
        if path.name.startswith("."):
            continue
        try:
            about = path.stat()
        except OSError:
            continue
        if path.is_file():
            found[path] = _Stamp(about.st_mtime_ns, about.st_size, about.st_ino)
    return found


def _parse(text: bytes) -> Any:
    """Raises ManifestError."""
    if len(text) > _LONGEST_MANIFEST:
        raise ManifestError(f"the manifest is longer than {_LONGEST_MANIFEST} bytes")
    try:
        return yaml_reader.load(text).value
    except ValueError as error:
        raise ManifestError(str(error)) from None


class URLPods(_Told):
    """A Pod or a PodList at a URL. While the URL cannot be read, what it said last holds."""

    def __init__(
        self, url: str, node_name: str, world: World, *, look_every_s: float, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self._url = url
        self._headers = dict(headers or {})
        self._node_name = node_name
        self._world = world
        self._look_every_s = look_every_s
        self._said = b""

    async def run(self, sink: PodSink) -> None:
        timeout = aiohttp.ClientTimeout(total=_URL_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as session:
            while True:
                try:
                    async with session.get(self._url) as answer:
                        answer.raise_for_status()
                        said = await answer.content.read(_LONGEST_MANIFEST + 1)
                        while chunk := await answer.content.read(_LONGEST_MANIFEST + 1):
                            said += chunk
                            if len(said) > _LONGEST_MANIFEST:
                                raise ManifestError(f"the answer is longer than {_LONGEST_MANIFEST} bytes")
                    if said != self._said or not self._synced.is_set():
                        found = await self._world.in_thread(self._pods_of, said)
                        self._said = said
                        self.tell(found, sink)
                except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                    log.error("static pods at %s: %s", self._url, error)
                    # The node's other pods must not wait for a server that is away.
                    self._synced.set()
                await asyncio.sleep(self._look_every_s)

    def _pods_of(self, said: bytes) -> dict[str, Obj]:
        document = _parse(said)
        items: Sequence[Any] = [document]
        if isinstance(document, dict) and document.get("kind") == "PodList":
            items = [{"apiVersion": "v1", "kind": "Pod", **item} for item in document.get("items") or []]
        found: dict[str, Obj] = {}
        for item in items:
            pod = static_pod(item, source="http", origin=self._url, node_name=self._node_name, now=self._world.now())
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            if name in found:
                raise ManifestError(f"two pods are named {name}")
            before = self.pods.get(name)
            found[name] = before if before is not None and uid_of(before) == uid_of(pod) else pod
        return found
