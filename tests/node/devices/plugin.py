"""A small device plugin, complete: what a vendor would write, over gRPC, on a Unix socket.

Its devices are the host's `/dev/null`, under names of their own. `set_health` tells the kubelet of a device that is
ill, `calls` notes what was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from navarch.node.devices.proto import deviceplugin_pb2 as v1

RESOURCE = "example.com/widget"


class WidgetPlugin:
    """`refuse` makes Allocate fail."""

    def __init__(
        self,
        folder: Path,
        ids: Sequence[str],
        *,
        resource: str = RESOURCE,
        prefers: Sequence[str] = (),
        pre_start: bool = False,
    ) -> None:
        self.folder = folder
        self.resource = resource
        self.health = dict.fromkeys(ids, "Healthy")
        self.options = v1.DevicePluginOptions(
            pre_start_required=pre_start, get_preferred_allocation_available=bool(prefers)
        )
        self.prefers = list(prefers)
        self.calls: list[tuple[str, list[str]]] = []
        self.refuse = ""
        self._changed = asyncio.Condition()
        self._server: Any = None

    @property
    def endpoint(self) -> str:
        return f"{self.resource.rpartition('/')[2]}.sock"

    async def start(self) -> None:
        """Serve; `register` makes the kubelet know."""
        self._server = grpc.aio.server()
        unary = grpc.unary_unary_rpc_method_handler
        empty = v1.Empty.FromString
        handlers = {
            "GetDevicePluginOptions": unary(
                self._options, request_deserializer=empty, response_serializer=v1.DevicePluginOptions.SerializeToString
            ),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                self._list, request_deserializer=empty, response_serializer=v1.ListAndWatchResponse.SerializeToString
            ),
            "GetPreferredAllocation": unary(
                self._preferred,
                request_deserializer=v1.PreferredAllocationRequest.FromString,
                response_serializer=v1.PreferredAllocationResponse.SerializeToString,
            ),
            "Allocate": unary(
                self._allocate,
                request_deserializer=v1.AllocateRequest.FromString,
                response_serializer=v1.AllocateResponse.SerializeToString,
            ),
            "PreStartContainer": unary(
                self._pre_start,
                request_deserializer=v1.PreStartContainerRequest.FromString,
                response_serializer=v1.PreStartContainerResponse.SerializeToString,
            ),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", handlers),))
        self._server.add_insecure_port(f"unix://{self.folder / self.endpoint}")
        await self._server.start()

    async def register(self, *, version: str = "v1beta1", resource: str = "") -> None:
        """Raises AioRpcError where the kubelet refuses."""
        socket = self.folder / "kubelet.sock"
        options = [("grpc.default_authority", "localhost")]
        async with grpc.aio.insecure_channel(f"unix://{socket}", options=options) as channel:
            call = channel.unary_unary(
                "/v1beta1.Registration/Register",
                request_serializer=v1.RegisterRequest.SerializeToString,
                response_deserializer=v1.Empty.FromString,
            )
            request = v1.RegisterRequest(
                version=version, endpoint=self.endpoint, resource_name=resource or self.resource, options=self.options
            )
            await call(request, wait_for_ready=True, timeout=15)

    async def stop(self) -> None:
        await self._server.stop(None)

    async def set_health(self, device: str, health: str) -> None:
        async with self._changed:
            self.health[device] = health
            self._changed.notify_all()

    async def _options(self, request: Any, context: Any) -> Any:
        return self.options

    async def _list(self, request: Any, context: Any) -> AsyncIterator[Any]:
        while True:
            devices = [v1.Device(ID=name, health=health) for name, health in self.health.items()]
            yield v1.ListAndWatchResponse(devices=devices)
            async with self._changed:
                await self._changed.wait()

    async def _preferred(self, request: Any, context: Any) -> Any:
        asked = request.container_requests[0]
        self.calls.append(("GetPreferredAllocation", sorted(asked.available_device_ids)))
        ids = [one for one in self.prefers if one in asked.available_device_ids][: asked.allocation_size]
        answer = v1.PreferredAllocationResponse()
        answer.container_responses.add(device_ids=ids)
        return answer

    async def _allocate(self, request: Any, context: Any) -> Any:
        ids = sorted(request.container_requests[0].devices_ids)
        self.calls.append(("Allocate", ids))
        if self.refuse:
            await context.abort(grpc.StatusCode.UNKNOWN, self.refuse)
        answer = v1.AllocateResponse()
        one = answer.container_responses.add(
            envs={"WIDGETS": ",".join(ids)}, annotations={"example.com/widgets": "yes"}
        )
        for name in ids:
            one.devices.add(container_path=f"/dev/{name}", host_path="/dev/null", permissions="rw")
        one.mounts.add(container_path="/etc/widgets", host_path="/etc/hostname", read_only=True)
        return answer

    async def _pre_start(self, request: Any, context: Any) -> Any:
        self.calls.append(("PreStartContainer", sorted(request.devices_ids)))
        return v1.PreStartContainerResponse()
