"""A small DRA driver, complete as far as a node goes: what a vendor would write, over gRPC, on Unix sockets.

It publishes a ResourceSlice when it is asked to, registers at the kubelet's `plugins_registry`, and gives each device
that is allocated to a claim a CDI name. Every call is noted in `calls`; `refusals` are errors for claims by name.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
import grpc
import grpc.aio

from navarch.client.base import Client
from navarch.client.resources import RESOURCE_CLAIMS, RESOURCE_SLICES
from navarch.node.dra.proto import dra_pb2 as dra
from navarch.node.plugins.proto import registration_pb2 as registration

NAME = "gpu.example.com"
_PACKAGE = "k8s.io.kubelet.pkg.apis.dra"


class DeviceDriver:
    """`kubelet` is the kubelet's folder; `client` reads claims."""

    def __init__(self, kubelet: Path, client: Client, *, versions: Sequence[str] = ("v1.DRAPlugin",)) -> None:
        self._client = client
        self._versions = list(versions)
        self.endpoint = kubelet / "plugins" / NAME / "dra.sock"
        self.registration = kubelet / "plugins_registry" / f"{NAME}-reg.sock"
        self.calls: list[tuple[str, list[str]]] = []
        self.refusals: dict[str, str] = {}
        self.skips = False
        # What it says of the health of devices, by name, and to those who listen.
        self.health: dict[str, tuple[int, str]] = {}
        self._said = asyncio.Event()
        self.told: list[tuple[bool, str]] = []
        self._servers: list[grpc.aio.Server] = []

    async def publish(self, node: str, *devices: str) -> None:
        pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
        spec = {"driver": NAME, "nodeName": node, "pool": pool, "devices": [{"name": name} for name in devices]}
        slices = {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": f"{node}-{NAME}"},
            "spec": spec,
        }
        await self._client.create(RESOURCE_SLICES, slices)

    async def __aenter__(self) -> DeviceDriver:
        versions = {each.partition(".")[0] for each in self._versions} & {"v1", "v1beta1"}
        plugin = [
            grpc.method_handlers_generic_handler(
                f"{_PACKAGE}.{version}.DRAPlugin",
                {
                    "NodePrepareResources": _handler(self._prepare, dra.NodePrepareResourcesRequest),
                    "NodeUnprepareResources": _handler(self._unprepare, dra.NodeUnprepareResourcesRequest),
                },
            )
            for version in versions
        ]
        plugin.append(
            grpc.method_handlers_generic_handler(
                "v1alpha1.DRAResourceHealth",
                {
                    "NodeWatchResources": grpc.unary_stream_rpc_method_handler(
                        self._watch,
                        request_deserializer=dra.NodeWatchResourcesRequest.FromString,
                        response_serializer=lambda answer: answer.SerializeToString(),
                    )
                },
            )
        )
        registering = grpc.method_handlers_generic_handler(
            "pluginregistration.Registration",
            {
                "GetInfo": _handler(self._info, registration.InfoRequest),
                "NotifyRegistrationStatus": _handler(self._notified, registration.RegistrationStatus),
            },
        )
        for socket, handlers in ((self.endpoint, plugin), (self.registration, [registering])):
            socket.parent.mkdir(parents=True, exist_ok=True)
            socket.unlink(missing_ok=True)
            server = grpc.aio.server()
            server.add_generic_rpc_handlers(tuple(handlers))
            server.add_insecure_port(f"unix://{socket}")
            await server.start()
            self._servers.append(server)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            await server.stop(None)
        self._servers.clear()
        self.registration.unlink(missing_ok=True)

    def says(self, device: str, health: int, message: str = "") -> None:
        self.health[device] = (health, message)
        self._said.set()

    async def _watch(self, request: Any, _: Any) -> AsyncIterator[Any]:
        while True:
            said = dra.NodeWatchResourcesResponse()
            for name, (health, message) in self.health.items():
                device = dra.DeviceIdentifier(pool_name="n1", device_name=name)
                said.devices.add(device=device, health=health, message=message)
            yield said
            self._said.clear()
            await self._said.wait()

    async def _info(self, request: Any, _: Any) -> Any:
        return registration.PluginInfo(
            # As a driver in a container says it, which sees the kubelet's folder where that usually is.
            type="DRAPlugin",
            name=NAME,
            endpoint=f"/var/lib/kubelet/plugins/{NAME}/dra.sock",
            supported_versions=self._versions,
        )

    async def _notified(self, request: Any, _: Any) -> Any:
        self.told.append((request.plugin_registered, request.error))
        return registration.RegistrationStatusResponse()

    async def _prepare(self, request: Any, _: Any) -> Any:
        self.calls.append(("prepare", [claim.name for claim in request.claims]))
        answer = dra.NodePrepareResourcesResponse()
        for claim in request.claims:
            if self.skips:
                continue
            if claim.name in self.refusals:
                answer.claims[claim.uid].error = self.refusals[claim.name]
                continue
            known = await self._client.get(RESOURCE_CLAIMS, claim.name, claim.namespace)
            answer.claims[claim.uid].SetInParent()
            for result in known["status"]["allocation"]["devices"]["results"]:
                answer.claims[claim.uid].devices.add(
                    request_names=[result["request"]],
                    pool_name=result["pool"],
                    device_name=result["device"],
                    cdi_device_ids=[f"{NAME}/gpu={result['device']}"],
                )
        return answer

    async def _unprepare(self, request: Any, _: Any) -> Any:
        self.calls.append(("unprepare", [claim.name for claim in request.claims]))
        answer = dra.NodeUnprepareResourcesResponse()
        for claim in request.claims:
            answer.claims[claim.uid].error = self.refusals.get(claim.name, "")
        return answer


def _handler(method: Any, request: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        method, request_deserializer=request.FromString, response_serializer=lambda answer: answer.SerializeToString()
    )
