"""`Driver`: one registered CSI driver, as the kubelet asks it: stage, publish, grow, measure, and back again.

In: paths of this node, and what objects say of a volume. Out: calls to the driver's node service. What it can do is
asked once. A driver that named its socket below `/var/lib/kubelet` is told of all places in that way: its container has
the kubelet's folder there, wherever that is on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from navarch.node.plugins.sockets import PluginChannel, PluginError
from navarch.node.volumes.base import COMMON_ROOT, on_this_node
from navarch.node.volumes.csi.proto import csi_pb2 as csi

# As long as Kubernetes waits for each call.
_TIMEOUT_S: Final = 120.0
_NODE: Final = "/csi.v1.Node/"
_RPC: Final = csi.NodeServiceCapability.RPC
_MODE: Final = csi.VolumeCapability.AccessMode
_MODES: Final = {
    "ReadWriteOnce": _MODE.SINGLE_NODE_WRITER,
    "ReadOnlyMany": _MODE.MULTI_NODE_READER_ONLY,
    "ReadWriteMany": _MODE.MULTI_NODE_MULTI_WRITER,
    "ReadWriteOncePod": _MODE.SINGLE_NODE_WRITER,
}
# Of a driver that tells several writers on a node from one.
_FINE_MODES: Final = {
    **_MODES,
    "ReadWriteOnce": _MODE.SINGLE_NODE_MULTI_WRITER,
    "ReadWriteOncePod": _MODE.SINGLE_NODE_SINGLE_WRITER,
}


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a driver says of this node; 0 is no limit."""

    node_id: str
    max_volumes: int
    topology: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Use:
    """A volume and how it is to be used. `group` goes to a driver that gives volumes to groups itself."""

    handle: str
    access_mode: str
    block: bool = False
    fs_type: str = ""
    mount_options: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    publish_context: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What is measured of a volume; `problem` is empty for one that is well, None where nobody can say."""

    usage: Mapping[str, Mapping[str, int]]
    problem: str | None = None


class Driver:
    """`root` is the kubelet's folder."""

    def __init__(self, name: str, endpoint: str, root: Path) -> None:
        self.name = name
        self.endpoint = endpoint
        self._root = root
        self._contained = Path(endpoint).is_relative_to(COMMON_ROOT)
        self._channel = PluginChannel(on_this_node(Path(endpoint), root))
        self._capabilities: frozenset[int] | None = None

    async def close(self) -> None:
        await self._channel.close()

    def _told(self, path: Path | None) -> str:
        """A path as the driver knows it."""
        if path is None:
            return ""
        if self._contained and path.is_relative_to(self._root):
            return str(COMMON_ROOT / path.relative_to(self._root))
        return str(path)

    async def _call(self, method: str, request: Any) -> Any:
        answer = getattr(csi, f"{method}Response")
        return await self._channel.call(_NODE + method, request, answer.FromString, timeout_s=_TIMEOUT_S)

    async def info(self) -> NodeInfo:
        answer = await self._call("NodeGetInfo", csi.NodeGetInfoRequest())
        return NodeInfo(answer.node_id, answer.max_volumes_per_node, dict(answer.accessible_topology.segments))

    async def _can(self, capability: int) -> bool:
        if self._capabilities is None:
            answer = await self._call("NodeGetCapabilities", csi.NodeGetCapabilitiesRequest())
            self._capabilities = frozenset(one.rpc.type for one in answer.capabilities)
        return capability in self._capabilities

    async def stages(self) -> bool:
        """Whether a volume is set up once per node, before it is for a pod."""
        return await self._can(_RPC.STAGE_UNSTAGE_VOLUME)

    async def expands(self) -> bool:
        return await self._can(_RPC.EXPAND_VOLUME)

    async def measures(self) -> bool:
        return await self._can(_RPC.GET_VOLUME_STATS)

    async def sets_group(self) -> bool:
        return await self._can(_RPC.VOLUME_MOUNT_GROUP)

    async def _capability(self, use: Use) -> csi.VolumeCapability:
        modes = _FINE_MODES if await self._can(_RPC.SINGLE_NODE_MULTI_WRITER) else _MODES
        mode = csi.VolumeCapability.AccessMode(mode=modes[use.access_mode])
        if use.block:
            return csi.VolumeCapability(access_mode=mode, block=csi.VolumeCapability.BlockVolume())
        group = "" if use.group is None else str(use.group)
        mount = csi.VolumeCapability.MountVolume(
            fs_type=use.fs_type, mount_flags=use.mount_options, volume_mount_group=group
        )
        return csi.VolumeCapability(access_mode=mode, mount=mount)

    async def stage(self, use: Use, staging: Path, secrets: Mapping[str, str]) -> None:
        await self._call(
            "NodeStageVolume",
            csi.NodeStageVolumeRequest(
                volume_id=use.handle,
                publish_context=use.publish_context,
                staging_target_path=self._told(staging),
                volume_capability=await self._capability(use),
                secrets=secrets,
                volume_context=use.attributes,
            ),
        )

    async def publish(self, use: Use, target: Path, staging: Path | None, secrets: Mapping[str, str]) -> None:
        await self._call(
            "NodePublishVolume",
            csi.NodePublishVolumeRequest(
                volume_id=use.handle,
                publish_context=use.publish_context,
                staging_target_path=self._told(staging),
                target_path=self._told(target),
                volume_capability=await self._capability(use),
                readonly=use.read_only,
                secrets=secrets,
                volume_context=use.attributes,
            ),
        )

    async def unpublish(self, handle: str, target: Path) -> None:
        request = csi.NodeUnpublishVolumeRequest(volume_id=handle, target_path=self._told(target))
        await self._call("NodeUnpublishVolume", request)

    async def unstage(self, handle: str, staging: Path) -> None:
        request = csi.NodeUnstageVolumeRequest(volume_id=handle, staging_target_path=self._told(staging))
        await self._call("NodeUnstageVolume", request)

    async def expand(
        self, use: Use, path: Path, staging: Path | None, size_bytes: int, secrets: Mapping[str, str]
    ) -> int:
        """Make the file system as big as the volume has become; answers its size, 0 where the driver does not say."""
        answer = await self._call(
            "NodeExpandVolume",
            csi.NodeExpandVolumeRequest(
                volume_id=use.handle,
                volume_path=self._told(path),
                staging_target_path=self._told(staging),
                capacity_range=csi.CapacityRange(required_bytes=size_bytes),
                volume_capability=await self._capability(use),
                secrets=secrets,
            ),
        )
        return int(answer.capacity_bytes)

    async def health(self, handle: str, path: Path) -> Health | None:
        """What is used and free, and how the volume is; None of a driver that does not measure."""
        if not await self.measures():
            return None
        request = csi.NodeGetVolumeStatsRequest(volume_id=handle, volume_path=self._told(path))
        answer = await self._call("NodeGetVolumeStats", request)
        units = {csi.VolumeUsage.BYTES: "bytes", csi.VolumeUsage.INODES: "inodes"}
        usage = {
            units[one.unit]: {"available": one.available, "total": one.total, "used": one.used}
            for one in answer.usage
            if one.unit in units
        }
        if not await self._can(_RPC.VOLUME_CONDITION):
            return Health(usage)
        condition = answer.volume_condition
        return Health(usage, (condition.message or "abnormal") if condition.abnormal else "")


def is_gone(error: PluginError) -> bool:
    """Whether the driver says that it does not know the volume."""
    return error.code.name == "NOT_FOUND"
