"""`DeviceDrivers`: the DRA drivers that are registered on this node, and what is left of those that are not any more.

In: plugins that register and go (`plugins/registry.py`). Out: calls to a driver in the newest version of the API
that both speak; the ResourceSlices of this node deleted when the kubelet starts (drivers publish them again) and
when a driver has been away for a while: what nobody can prepare must not be allocated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from navarch.api.errors import StatusError
from navarch.client.base import Client
from navarch.client.resources import RESOURCE_SLICES
from navarch.client.supervision import Delay
from navarch.node.dra.health import HealthBook
from navarch.node.dra.proto import dra_pb2 as dra
from navarch.node.plugins.registry import Plugin, PluginRefused
from navarch.node.plugins.sockets import PluginChannel
from navarch.node.volumes.base import on_this_node

log = logging.getLogger(__name__)

# Newest first, by the name under which a plugin states that it speaks it.
_SERVICES: Final = {
    "v1.DRAPlugin": "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/",
    "v1beta1.DRAPlugin": "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/",
}
_HEALTH: Final = {
    "v1beta1.DRAResourceHealth": "/v1beta1.DRAResourceHealth/NodeWatchResources",
    "v1alpha1.DRAResourceHealth": "/v1alpha1.DRAResourceHealth/NodeWatchResources",
}
_CALL_TIMEOUT_S: Final = 45.0
_AWAY_S: Final = 30.0


class DeviceDriver:
    """One instance of a driver."""

    def __init__(self, plugin: Plugin, service: str, root: Path) -> None:
        self.name = plugin.name
        self.endpoint = plugin.endpoint
        self._service = service
        self._health = next((path for name, path in _HEALTH.items() if name in plugin.versions), "")
        self._channel = PluginChannel(on_this_node(Path(plugin.endpoint), root))

    async def prepare(self, claims: Sequence[Any]) -> Any:
        """Raises PluginError."""
        request = dra.NodePrepareResourcesRequest(claims=claims)
        return await self._call("NodePrepareResources", request, dra.NodePrepareResourcesResponse)

    async def unprepare(self, claims: Sequence[Any]) -> Any:
        """Raises PluginError."""
        request = dra.NodeUnprepareResourcesRequest(claims=claims)
        return await self._call("NodeUnprepareResources", request, dra.NodeUnprepareResourcesResponse)

    @property
    def tells_health(self) -> bool:
        return bool(self._health)

    def watch_health(self) -> Any:
        """What it says of its devices' health, as long as it does."""
        return self._channel.stream(self._health, dra.NodeWatchResourcesRequest(), dra.NodeWatchResourcesResponse)

    async def _call(self, method: str, request: Any, answer: Any) -> Any:
        return await self._channel.call(self._service + method, request, answer.FromString, timeout_s=_CALL_TIMEOUT_S)

    async def close(self) -> None:
        await self._channel.close()


class DeviceDrivers:
    """A `PluginHandler`. `root` is the kubelet's folder, `away_s` long a driver may be away before its slices go."""

    def __init__(self, client: Client, node_name: str, root: Path, *, away_s: float = _AWAY_S) -> None:
        self._client = client
        self._node_name = node_name
        self._root = root
        self._away_s = away_s
        # By name the instances that are there, the newest last: for a while there are two when one is replaced.
        self._drivers: dict[str, list[DeviceDriver]] = {}
        self._away: dict[str, asyncio.TimerHandle] = {}
        self._due: asyncio.Queue[str] = asyncio.Queue()
        self.health = HealthBook()
        self._following: dict[DeviceDriver, asyncio.Task[None]] = {}

    def get(self, name: str) -> DeviceDriver | None:
        found = self._drivers.get(name)
        return found[-1] if found else None

    async def run(self) -> None:
        """Delete slices that nobody stands for any more, until cancelled."""
        await self._wipe("")
        while True:
            name = await self._due.get()
            if name not in self._drivers:
                await self._wipe(name)

    # Registration.

    async def register(self, plugin: Plugin) -> None:
        where = f"invalid supported gRPC versions of DRA driver plugin {plugin.name} at endpoint {plugin.endpoint}"
        if not plugin.versions:
            raise PluginRefused(f"{where}: empty list of supported gRPC services (aka supported versions)")
        service = next((each for each in plugin.versions if each in _SERVICES), None)
        if service is None:
            stated, known = (_quoted(each) for each in (plugin.versions, _SERVICES))
            what = f"none of services supported by the plugin ({stated}) are supported by the kubelet ({known})"
            raise PluginRefused(f"{where}: {what}")
        instances = self._drivers.get(plugin.name, [])
        if any(driver.endpoint == plugin.endpoint for driver in instances):
            what = f"endpoint {plugin.endpoint} already registered for DRA driver plugin {plugin.name}"
            raise PluginRefused(what)
        driver = DeviceDriver(plugin, _SERVICES[service], self._root)
        self._drivers[plugin.name] = [*instances, driver]
        if driver.tells_health:
            following = self.health.follow(driver.name, driver.watch_health)
            self._following[driver] = asyncio.create_task(following, name=f"health of devices of {driver.name}")
        if (timer := self._away.pop(plugin.name, None)) is not None:
            timer.cancel()
        log.info("DRA driver %s at %s", plugin.name, plugin.endpoint)

    async def deregister(self, plugin: Plugin) -> None:
        instances = self._drivers.get(plugin.name, [])
        gone = [driver for driver in instances if driver.endpoint == plugin.endpoint]
        staying = [driver for driver in instances if driver.endpoint != plugin.endpoint]
        if staying:
            self._drivers[plugin.name] = staying
        elif gone:
            del self._drivers[plugin.name]
            later = asyncio.get_running_loop().call_later
            self._away[plugin.name] = later(self._away_s, self._due.put_nowait, plugin.name)
        for driver in gone:
            await self._let_go(driver)

    async def _let_go(self, driver: DeviceDriver) -> None:
        following = self._following.pop(driver, None)
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await driver.close()

    async def close(self) -> None:
        for timer in self._away.values():
            timer.cancel()
        for instances in self._drivers.values():
            for driver in instances:
                await self._let_go(driver)

    async def _wipe(self, driver: str) -> None:
        selector = f"spec.nodeName={self._node_name}" + (f",spec.driver={driver}" if driver else "")
        delay = Delay(1.0, 300.0)
        while True:
            try:
                await self._client.delete_collection(RESOURCE_SLICES, fields=selector)
                return
            except (StatusError, OSError) as error:
                if isinstance(error, StatusError) and error.code == 404:
                    # They are not served.
                    return
                log.debug("deleting ResourceSlices of %s: %s", driver or "all drivers", error)
            await asyncio.sleep(delay.failed())


def _quoted(names: Iterable[str]) -> str:
    return "[" + " ".join(f'"{name}"' for name in names) + "]"
