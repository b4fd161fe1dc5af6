"""Device plugins: they register on the kubelet's socket, tell which devices there are and how they are, and say what a
container needs to use one.

The socket is `device-plugins/kubelet.sock` below the kubelet's folder; plugins put theirs beside it. It is made anew at
each start of the kubelet, by which plugins notice that they have to register again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from navarch.client.supervision import Failures
from navarch.kinds.core.pod_validation_resources import container_resource_problems, is_native_resource
from navarch.node.devices.ledger import HEALTHY, DeviceState
from navarch.node.devices.proto import deviceplugin_pb2 as plugin
from navarch.node.plugins.sockets import PluginChannel, PluginError, address_of

log = logging.getLogger(__name__)

VERSIONS: Final = ("v1beta1",)
_SERVICE: Final = "/v1beta1.DevicePlugin/"
_CALL_S: Final = 30.0


class Endpoint:
    """One plugin that has registered. `stopped` once its stream has ended."""

    def __init__(self, resource: str, socket: Path, options: Any) -> None:
        self.resource = resource
        self.socket = socket
        self.channel = PluginChannel(socket)
        self.pre_start = bool(options.pre_start_required)
        self.prefers = bool(options.get_preferred_allocation_available)
        self.stopped = False

    async def read_options(self) -> None:
        """Ask again: not every plugin says them when it registers."""
        found = await self.channel.call(
            f"{_SERVICE}GetDevicePluginOptions",
            plugin.Empty(),
            plugin.DevicePluginOptions.FromString,
            timeout_s=_CALL_S,
        )
        self.pre_start = self.pre_start or found.pre_start_required
        self.prefers = self.prefers or found.get_preferred_allocation_available

    async def watch(self) -> AsyncIterator[dict[str, DeviceState]]:
        """The devices, each time that something about them changes.  Raises PluginError."""
        try:
            async for said in self.channel.stream(
                f"{_SERVICE}ListAndWatch", plugin.Empty(), plugin.ListAndWatchResponse
            ):
                yield {
                    one.ID: DeviceState(one.health == HEALTHY, frozenset(node.ID for node in one.topology.nodes))
                    for one in said.devices
                }
        except grpc.aio.AioRpcError as error:
            raise PluginError(error.code(), error.details() or "") from None

    async def preferred(self, free: Sequence[str], wanted: int) -> Sequence[str]:
        """Which of the free devices the plugin would take; none where it has no opinion.  Raises PluginError."""
        request = plugin.PreferredAllocationRequest()
        request.container_requests.add(available_device_ids=free, allocation_size=wanted)
        answer = await self._call("GetPreferredAllocation", request, plugin.PreferredAllocationResponse)
        return list(answer.container_responses[0].device_ids) if answer.container_responses else []

    async def allocate(self, ids: Sequence[str]) -> Any:
        """What a container needs to use devices.  Raises PluginError."""
        request = plugin.AllocateRequest()
        request.container_requests.add(devices_ids=ids)
        answer = await self._call("Allocate", request, plugin.AllocateResponse)
        return answer.container_responses[0] if answer.container_responses else plugin.ContainerAllocateResponse()

    async def pre_start_container(self, ids: Sequence[str]) -> None:
        """A container with these devices is about to start.  Raises PluginError."""
        request = plugin.PreStartContainerRequest(devices_ids=ids)
        await self._call("PreStartContainer", request, plugin.PreStartContainerResponse)

    async def _call(self, method: str, request: Any, response: Any) -> Any:
        return await self.channel.call(f"{_SERVICE}{method}", request, response.FromString, timeout_s=_CALL_S)


class DevicePlugins:
    """`on_devices` is told of the devices of a resource, `on_stop` that its plugin has gone."""

    def __init__(
        self,
        folder: Path,
        failures: Failures,
        on_devices: Callable[[str, dict[str, DeviceState]], None],
        on_stop: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._failures = failures
        self._on_devices = on_devices
        self._on_stop = on_stop
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.endpoints: dict[str, Endpoint] = {}

    async def run(self) -> None:
        """Take plugins until cancelled."""
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        for left in self._folder.iterdir():
            # Sockets of an earlier time: whoever served there registers again, under a new one.
            if left.is_socket():
                left.unlink(missing_ok=True)
        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(
            self._register,
            request_deserializer=plugin.RegisterRequest.FromString,
            response_serializer=plugin.Empty.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("v1beta1.Registration", {"Register": handler}),)
        )
        try:
            server.add_insecure_port(address_of(self._folder / "kubelet.sock"))
        except RuntimeError as error:
            log.error("device plugins cannot register: %s", error)
            await asyncio.Event().wait()
        await server.start()
        try:
            await server.wait_for_termination()
        finally:
            await self._close(server)

    async def _close(self, server: Any) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for endpoint in self.endpoints.values():
            await endpoint.channel.close()
        await server.stop(None)

    async def _register(self, request: Any, context: Any) -> Any:
        why = _objection(request)
        if why:
            log.warning("device plugin for %s is refused: %s", request.resource_name, why)
            await context.abort(grpc.StatusCode.UNKNOWN, why)
        self.add(request.resource_name, self._folder / request.endpoint, request.options)
        return plugin.Empty()

    def add(self, resource: str, socket: Path, options: Any) -> None:
        """A plugin serves a resource at a socket; one that served it before is forgotten."""
        before = self._tasks.pop(resource, None)
        if before is not None:
            before.cancel()
        endpoint = self.endpoints[resource] = Endpoint(resource, socket, options)
        self._tasks[resource] = asyncio.create_task(self._follow(endpoint), name=f"devices of {resource}")
        log.info("device plugin for %s at %s", resource, socket)

    async def _follow(self, endpoint: Endpoint) -> None:
        try:
            with contextlib.suppress(PluginError):
                await endpoint.read_options()
            async for devices in endpoint.watch():
                self._on_devices(endpoint.resource, devices)
        except PluginError as error:
            log.info("device plugin for %s ended: %s", endpoint.resource, error)
        except Exception as error:
            self._failures.note(f"devices of {endpoint.resource}", error)
        finally:
            endpoint.stopped = True
            await endpoint.channel.close()
        if self.endpoints.get(endpoint.resource) is endpoint:
            self._on_stop(endpoint.resource)


def _objection(request: Any) -> str:
    """Why a plugin is not taken, in Kubernetes' words; empty where it is."""
    if request.version not in VERSIONS:
        supported = f"[{' '.join(VERSIONS)}]"
        return (
            f'requested API version "{request.version}" is not supported by kubelet. Supported version is "{supported}"'
        )
    name = request.resource_name
    if is_native_resource(name) or container_resource_problems(name):
        return f'the ResourceName "{request.resource_name}" is invalid'
    return ""
