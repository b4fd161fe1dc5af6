"""A small CSI driver, complete: what a vendor would write, over gRPC, on Unix sockets, with real mounts.

A volume is a directory below `store` (for block volumes a loop device on a file). Staging binds it to the staging path,
publishing binds that to the target. It registers at the kubelet's `plugins_registry` as node-driver-registrar does.
Every call is noted in `calls`; `refuse` makes calls of a method fail.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from navarch.node.plugins.proto import registration_pb2 as registration
from navarch.node.volumes.csi.proto import csi_pb2 as csi

NAME = "dirs.csi.example.com"
_NODE = csi.NodeServiceCapability.RPC
_CONTROLLER = csi.ControllerServiceCapability.RPC
_PLUGIN = csi.PluginCapability.Service


class Refused(Exception):
    def __init__(self, code: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.code = code


@dataclass(slots=True)
class Made:
    """A volume of the store."""

    size: int
    source: str = ""
    published: set[str] = field(default_factory=set)


class DirectoryDriver:
    """`kubelet` is the kubelet's folder; `topology` what the node is said to be at; `limit` volumes fit on it."""

    def __init__(
        self,
        store: Path,
        kubelet: Path,
        *,
        name: str = NAME,
        node_id: str = "node-1",
        topology: Mapping[str, str] | None = None,
        limit: int = 0,
        stages: bool = True,
        expands: bool = True,
        groups: bool = False,
        versions: tuple[str, ...] = ("1.0.0",),
        endpoint: str = "",
        kind: str = "CSIPlugin",
    ) -> None:
        self.name = name
        self.node_id = node_id
        self.topology = dict(topology or {})
        self.limit = limit
        self.stages = stages
        self.expands = expands
        self.groups = groups
        self.versions = versions
        self.kind = kind
        self.store = store
        self.socket = kubelet / "plugins" / name / "csi.sock"
        self.registration = kubelet / "plugins_registry" / f"{name}-reg.sock"
        self.endpoint = endpoint or str(self.socket)
        self.calls: list[tuple[str, Any]] = []
        self.refuse: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.volumes: dict[str, Made] = {}
        self.snapshots: dict[str, str] = {}
        self.told: list[tuple[bool, str]] = []
        self.abnormal = ""
        self.capacity = 1 << 40
        self._servers: list[grpc.aio.Server] = []

    # Running.

    async def start(self) -> None:
        for socket, handlers in (
            (self.socket, self._handlers("csi.v1", csi, ("Identity", "Controller", "Node"))),
            (self.registration, self._handlers("pluginregistration", registration, ("Registration",))),
        ):
            socket.parent.mkdir(parents=True, exist_ok=True)
            socket.unlink(missing_ok=True)
            server = grpc.aio.server()
            server.add_generic_rpc_handlers(tuple(handlers))
            server.add_insecure_port(f"unix://{socket}")
            await server.start()
            self._servers.append(server)

    async def stop(self) -> None:
        for server in self._servers:
            await server.stop(None)
        self._servers.clear()
        self.registration.unlink(missing_ok=True)

    async def __aenter__(self) -> DirectoryDriver:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def named(self, method: str) -> list[Any]:
        """The requests of one method, the first first."""
        return [request for name, request in self.calls if name == method]

    def _handlers(self, package: str, messages: Any, services: tuple[str, ...]) -> list[grpc.GenericRpcHandler]:
        return [
            grpc.method_handlers_generic_handler(
                f"{package}.{service}",
                {method: self._method(method, call, messages) for method, call in self._methods(service).items()},
            )
            for service in services
        ]

    def _methods(self, service: str) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        names = {
            "Registration": ("GetInfo", "NotifyRegistrationStatus"),
            "Identity": ("GetPluginInfo", "GetPluginCapabilities", "Probe"),
            "Node": (
                "NodeGetInfo",
                "NodeGetCapabilities",
                "NodeStageVolume",
                "NodeUnstageVolume",
                "NodePublishVolume",
                "NodeUnpublishVolume",
                "NodeGetVolumeStats",
                "NodeExpandVolume",
            ),
            "Controller": (
                "ControllerGetCapabilities",
                "CreateVolume",
                "DeleteVolume",
                "ControllerPublishVolume",
                "ControllerUnpublishVolume",
                "ControllerExpandVolume",
                "ControllerModifyVolume",
                "GetCapacity",
                "CreateSnapshot",
                "DeleteSnapshot",
            ),
        }
        return {name: getattr(self, name) for name in names[service]}

    def _method(self, name: str, call: Callable[[Any], Awaitable[Any]], messages: Any) -> grpc.RpcMethodHandler:
        request_type = _REQUESTS.get(name) or getattr(messages, f"{name}Request")

        async def handle(request: Any, context: grpc.aio.ServicerContext) -> Any:
            self.calls.append((name, request))
            if name in self.refuse:
                await context.abort(*self.refuse[name])
            try:
                return await call(request)
            except Refused as error:
                await context.abort(error.code, str(error))

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=request_type.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    # Registration and identity.

    async def GetInfo(self, request: Any) -> Any:
        return registration.PluginInfo(
            type=self.kind, name=self.name, endpoint=self.endpoint, supported_versions=self.versions
        )

    async def NotifyRegistrationStatus(self, request: Any) -> Any:
        self.told.append((request.plugin_registered, request.error))
        return registration.RegistrationStatusResponse()

    async def GetPluginInfo(self, request: Any) -> Any:
        return csi.GetPluginInfoResponse(name=self.name, vendor_version="1")

    async def GetPluginCapabilities(self, request: Any) -> Any:
        types = [_PLUGIN.CONTROLLER_SERVICE, *([_PLUGIN.VOLUME_ACCESSIBILITY_CONSTRAINTS] if self.topology else [])]
        made = [csi.PluginCapability(service=_PLUGIN(type=one)) for one in types]
        return csi.GetPluginCapabilitiesResponse(capabilities=made)

    async def Probe(self, request: Any) -> Any:
        return csi.ProbeResponse()

    # The node.

    async def NodeGetInfo(self, request: Any) -> Any:
        topology = csi.Topology(segments=self.topology) if self.topology else None
        return csi.NodeGetInfoResponse(
            node_id=self.node_id, max_volumes_per_node=self.limit, accessible_topology=topology
        )

    async def NodeGetCapabilities(self, request: Any) -> Any:
        types = [_NODE.GET_VOLUME_STATS, _NODE.VOLUME_CONDITION, _NODE.SINGLE_NODE_MULTI_WRITER]
        types += [_NODE.STAGE_UNSTAGE_VOLUME] * self.stages
        types += [_NODE.EXPAND_VOLUME] * self.expands
        types += [_NODE.VOLUME_MOUNT_GROUP] * self.groups
        made = [csi.NodeServiceCapability(rpc=_NODE(type=one)) for one in types]
        return csi.NodeGetCapabilitiesResponse(capabilities=made)

    async def NodeStageVolume(self, request: Any) -> Any:
        place = Path(request.staging_target_path)
        if not request.volume_capability.HasField("block") and not _is_mounted(place):
            _bind(self._data(request.volume_id), place)
        return csi.NodeStageVolumeResponse()

    async def NodeUnstageVolume(self, request: Any) -> Any:
        _unmount(Path(request.staging_target_path))
        return csi.NodeUnstageVolumeResponse()

    async def NodePublishVolume(self, request: Any) -> Any:
        target = Path(request.target_path)
        if _is_mounted(target):
            return csi.NodePublishVolumeResponse()
        if request.volume_capability.HasField("block"):
            target.touch()
            _bind(self._device(request.volume_id), target)
            return csi.NodePublishVolumeResponse()
        target.mkdir(exist_ok=True)
        staged = request.staging_target_path
        _bind(Path(staged) if staged else self._data(request.volume_id), target, read_only=request.readonly)
        return csi.NodePublishVolumeResponse()

    async def NodeUnpublishVolume(self, request: Any) -> Any:
        target = Path(request.target_path)
        _unmount(target)
        if target.is_dir():
            target.rmdir()
        else:
            target.unlink(missing_ok=True)
        return csi.NodeUnpublishVolumeResponse()

    async def NodeGetVolumeStats(self, request: Any) -> Any:
        made = self.volumes.get(request.volume_id)
        total = made.size if made else 1 << 30
        condition = csi.VolumeCondition(abnormal=bool(self.abnormal), message=self.abnormal)
        usage = [
            csi.VolumeUsage(unit=csi.VolumeUsage.BYTES, total=total, used=4096, available=total - 4096),
            csi.VolumeUsage(unit=csi.VolumeUsage.INODES, total=100, used=1, available=99),
        ]
        return csi.NodeGetVolumeStatsResponse(usage=usage, volume_condition=condition)

    async def NodeExpandVolume(self, request: Any) -> Any:
        return csi.NodeExpandVolumeResponse(capacity_bytes=request.capacity_range.required_bytes)

    # The controller.

    async def ControllerGetCapabilities(self, request: Any) -> Any:
        types = [
            _CONTROLLER.CREATE_DELETE_VOLUME,
            _CONTROLLER.PUBLISH_UNPUBLISH_VOLUME,
            _CONTROLLER.GET_CAPACITY,
            _CONTROLLER.CREATE_DELETE_SNAPSHOT,
            _CONTROLLER.CLONE_VOLUME,
            _CONTROLLER.EXPAND_VOLUME,
            _CONTROLLER.MODIFY_VOLUME,
        ]
        made = [csi.ControllerServiceCapability(rpc=_CONTROLLER(type=one)) for one in types]
        return csi.ControllerGetCapabilitiesResponse(capabilities=made)

    async def CreateVolume(self, request: Any) -> Any:
        size = request.capacity_range.required_bytes
        if size > self.capacity:
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, f"no room for {size} bytes")
        handle = f"vol-{request.name}"
        if handle not in self.volumes:
            self.volumes[handle] = Made(size)
            source = request.volume_content_source
            origin = source.volume.volume_id or self.snapshots.get(source.snapshot.snapshot_id, "")
            if origin:
                shutil.copytree(self._data(origin), self._data(handle), dirs_exist_ok=True)
        volume = csi.Volume(volume_id=handle, capacity_bytes=size, volume_context=request.parameters)
        volume.content_source.CopyFrom(request.volume_content_source)
        if self.topology:
            volume.accessible_topology.append(csi.Topology(segments=self.topology))
        return csi.CreateVolumeResponse(volume=volume)

    async def DeleteVolume(self, request: Any) -> Any:
        self.volumes.pop(request.volume_id, None)
        shutil.rmtree(self.store / request.volume_id, ignore_errors=True)
        return csi.DeleteVolumeResponse()

    async def ControllerPublishVolume(self, request: Any) -> Any:
        made = self.volumes.setdefault(request.volume_id, Made(1 << 30))
        made.published.add(request.node_id)
        return csi.ControllerPublishVolumeResponse(publish_context={"device": f"dev-{request.volume_id}"})

    async def ControllerUnpublishVolume(self, request: Any) -> Any:
        made = self.volumes.get(request.volume_id)
        if made is not None:
            made.published.discard(request.node_id)
        return csi.ControllerUnpublishVolumeResponse()

    async def ControllerExpandVolume(self, request: Any) -> Any:
        size = request.capacity_range.required_bytes
        self.volumes.setdefault(request.volume_id, Made(size)).size = size
        return csi.ControllerExpandVolumeResponse(capacity_bytes=size, node_expansion_required=self.expands)

    async def ControllerModifyVolume(self, request: Any) -> Any:
        return csi.ControllerModifyVolumeResponse()

    async def GetCapacity(self, request: Any) -> Any:
        return csi.GetCapacityResponse(available_capacity=self.capacity)

    async def CreateSnapshot(self, request: Any) -> Any:
        taken = f"snap-{request.name}"
        shutil.copytree(self._data(request.source_volume_id), self._data(taken), dirs_exist_ok=True)
        self.snapshots[taken] = taken
        return csi.CreateSnapshotResponse(
            snapshot=csi.Snapshot(snapshot_id=taken, source_volume_id=request.source_volume_id, ready_to_use=True)
        )

    async def DeleteSnapshot(self, request: Any) -> Any:
        self.snapshots.pop(request.snapshot_id, None)
        return csi.DeleteSnapshotResponse()

    # What volumes are.

    def _data(self, handle: str) -> Path:
        place = self.store / handle
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _device(self, handle: str) -> Path:
        """The loop device of a block volume."""
        file = self.store / f"{handle}.img"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            os.truncate(os.open(file, os.O_CREAT | os.O_RDWR), 1 << 20)
        shown = subprocess.run(["losetup", "-j", file], capture_output=True, text=True, check=True).stdout
        if not shown:
            subprocess.run(["losetup", "-f", file], check=True)
            shown = subprocess.run(["losetup", "-j", file], capture_output=True, text=True, check=True).stdout
        return Path(shown.partition(":")[0])

    def free_devices(self) -> None:
        for file in self.store.glob("*.img"):
            shown = subprocess.run(["losetup", "-j", file], capture_output=True, text=True, check=True).stdout
            for line in shown.splitlines():
                subprocess.run(["losetup", "-d", line.partition(":")[0]], check=True)


_REQUESTS = {"GetInfo": registration.InfoRequest, "NotifyRegistrationStatus": registration.RegistrationStatus}


def _bind(source: Path, place: Path, *, read_only: bool = False) -> None:
    subprocess.run(["mount", "--bind", source, place], check=True)
    if read_only:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)


def _is_mounted(place: Path) -> bool:
    return any(line.split()[4] == str(place) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _unmount(place: Path) -> None:
    while _is_mounted(place):
        subprocess.run(["umount", place], check=True)


async def serve_for_ever(driver: DirectoryDriver) -> None:
    async with driver:
        await asyncio.Event().wait()
