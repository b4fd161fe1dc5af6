"""`PluginRegistry`: the plugins that have a socket in the kubelet's `plugins_registry`.

In: sockets that come and go in a folder. Each is asked who it is, and the handler of its type is told; the plugin hears
whether it was taken. One that was refused is asked again after a growing delay; a socket that was made anew is a plugin
that was started again.
Out: `register` and `deregister` of the handlers, for a name one at a time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from navarch.client.supervision import Delay, Failures
from navarch.node.plugins.proto import registration_pb2 as registration
from navarch.node.plugins.sockets import PluginChannel, PluginError
from navarch.world import World

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
_CALL_TIMEOUT_S: Final = 10.0
_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 122.0
_SERVICE: Final = "/pluginregistration.Registration/"


class PluginRefused(Exception):
    """The plugin is not taken, and why."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """What a plugin says of itself; `endpoint` is the socket that it serves at."""

    name: str
    endpoint: str
    versions: tuple[str, ...]


class PluginHandler(Protocol):
    """What a type of plugin is to the kubelet. `register` raises PluginRefused, or lets a PluginError pass."""

    async def register(self, plugin: Plugin) -> None: ...

    async def deregister(self, plugin: Plugin) -> None: ...


@dataclass(slots=True)
class _Socket:
    """A socket of the folder: which file it was, and the plugin that was taken behind it."""

    identity: tuple[int, int]
    delay: Delay = field(default_factory=lambda: Delay(_FIRST_RETRY_S, _LAST_RETRY_S))
    again_s: float = 0.0
    kind: str = ""
    plugin: Plugin | None = None


class PluginRegistry:
    """`handlers` by the type that plugins state: `CSIPlugin`, `DRAPlugin`, `DevicePlugin`."""

    def __init__(self, folder: Path, handlers: Mapping[str, PluginHandler], world: World, failures: Failures) -> None:
        self._folder = folder
        self._handlers = handlers
        self._in_thread = world.in_thread
        self._failures = failures
        self._sockets: dict[Path, _Socket] = {}

    async def run(self) -> None:
        """Look after the folder until cancelled. Plugins stay registered when this ends: their volumes are in use."""
        await self._in_thread(self._folder.mkdir, mode=0o750, parents=True, exist_ok=True)
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Bring what is registered in line with the sockets that are there."""
        present = await self._in_thread(_sockets_below, self._folder)
        for path, known in list(self._sockets.items()):
            if present.get(path) != known.identity:
                del self._sockets[path]
                await self._forget(known)
        now_s = asyncio.get_running_loop().time()
        due = []
        for path, identity in present.items():
            known = self._sockets.setdefault(path, _Socket(identity))
            if known.plugin is None and now_s >= known.again_s:
                due.append(self._try(path, known))
        await asyncio.gather(*due)

    async def _forget(self, known: _Socket) -> None:
        if known.plugin is None:
            return
        plugin = known.plugin
        if any(other.kind == known.kind and other.plugin == plugin for other in self._sockets.values()):
            # It has registered at another socket by now.
            return
        try:
            await self._handlers[known.kind].deregister(plugin)
        except Exception as error:
            self._failures.note(f"plugin {plugin.name}", error)

    async def _try(self, path: Path, known: _Socket) -> None:
        channel = PluginChannel(path)
        try:
            await self._register(channel, path, known)
            known.delay.succeeded()
        except Exception as error:
            known.again_s = asyncio.get_running_loop().time() + known.delay.failed()
            if isinstance(error, PluginRefused | PluginError):
                log.warning("plugin at %s: %s", path, error)
            else:
                self._failures.note(f"plugin at {path}", error)
        finally:
            await channel.close()

    async def _register(self, channel: PluginChannel, path: Path, known: _Socket) -> None:
        info = await channel.call(
            f"{_SERVICE}GetInfo",
            registration.InfoRequest(),
            registration.PluginInfo.FromString,
            timeout_s=_CALL_TIMEOUT_S,
        )
        plugin = Plugin(info.name, info.endpoint or str(path), tuple(info.supported_versions))
        try:
            handler = self._handlers.get(info.type)
            if handler is None:
                raise PluginRefused(f"no handler registered for plugin type: {info.type} at socket {path}")
            await handler.register(plugin)
        except (PluginRefused, PluginError) as error:
            await self._notify(channel, registration.RegistrationStatus(plugin_registered=False, error=str(error)))
            raise
        known.kind, known.plugin = info.type, plugin
        await self._notify(channel, registration.RegistrationStatus(plugin_registered=True))

    @staticmethod
    async def _notify(channel: PluginChannel, status: registration.RegistrationStatus) -> None:
        try:
            await channel.call(
                f"{_SERVICE}NotifyRegistrationStatus",
                status,
                registration.RegistrationStatusResponse.FromString,
                timeout_s=_CALL_TIMEOUT_S,
            )
        except PluginError as error:
            # It is registered all the same: what it makes of the news is its own affair.
            log.debug("telling a plugin of its registration: %s", error)


def supports(versions: Sequence[str], major: int) -> bool:
    """Whether one of a plugin's versions (`1.0.0`, `v1`) is of that major version."""
    return any(version.lstrip("v").partition(".")[0] == str(major) for version in versions)


def _sockets_below(folder: Path) -> dict[Path, tuple[int, int]]:
    """Sockets by path, with what tells a new one at the same path from the old; what is hidden does not count."""
    found: dict[Path, tuple[int, int]] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if name.startswith("."):
                continue
            try:
                status = path.lstat()
            except OSError:
                continue
            if stat.S_ISSOCK(status.st_mode):
                found[path] = (status.st_ino, status.st_ctime_ns)
    return found
