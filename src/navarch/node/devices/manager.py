"""`DeviceManager`: what device plugins offer, given to containers.

In: plugins' devices, and pods. Out: the node's capacity of each resource (all devices) and what of it can be had (the
healthy ones); for a container its device nodes, mounts, environment and annotations. Which devices a pod gets is
settled when it is admitted, what it needs to use them is asked of the plugin before its containers are made, and both
are kept in a file, so that containers can be started again while a plugin is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from navarch.api.meta import Obj, uid_of
from navarch.client.supervision import Failures
from navarch.node import podspec
from navarch.node.devices import checkpoint
from navarch.node.devices.ledger import DeviceState, Ledger, NotEnough, Share
from navarch.node.devices.plugins import DevicePlugins
from navarch.node.devices.proto import deviceplugin_pb2 as plugin
from navarch.node.plugins.sockets import PluginError
from navarch.node.resources.capacity import Amount
from navarch.node.resources.numa import mask_of
from navarch.node.resources.topology_manager import Hint, Hints, NotAdmitted
from navarch.node.runtime.base import ContainerConfig, Device, Mount
from navarch.world import World

log = logging.getLogger(__name__)

# How long a resource is still the node's after its plugin has gone.
_PLUGIN_AWAY_S: Final = 300.0


class AllocationRefused(NotAdmitted):
    """A plugin would not give a container its devices."""


class DeviceManager:
    """`folder` is where plugins find the kubelet. `on_change` is called when the node's resources have changed,
    `on_health` with the pods whose devices have."""

    def __init__(self, folder: Path, world: World, failures: Failures) -> None:
        self._folder = folder
        self._in_thread = world.in_thread
        self.ledger = Ledger()
        self.plugins = DevicePlugins(folder, failures, self._devices, self._stopped)
        self.on_change: Callable[[], None] = lambda: None
        self.on_health: Callable[[Collection[str]], None] = lambda uids: None
        self._needs: dict[Share, bytes] = {}
        # The NUMA nodes that a container's devices are to be near.
        self._near: dict[tuple[str, str], int | None] = {}
        self._away: dict[str, asyncio.TimerHandle] = {}
        self.ledger.given, self._needs, resources = checkpoint.read(folder)
        # Until their plugins are back there is nothing of these.
        self.ledger.devices = {name: {} for name in resources}

    # What there is.

    def amounts(self) -> Mapping[str, Amount]:
        """As a provider of capacity."""
        found = {}
        for resource, devices in self.ledger.devices.items():
            ill = sum(1 for one in devices.values() if not one.healthy)
            found[resource] = Amount(Fraction(len(devices)), Fraction(ill))
        return found

    def _devices(self, resource: str, devices: dict[str, DeviceState]) -> None:
        if (timer := self._away.pop(resource, None)) is not None:
            timer.cancel()
        before = self.ledger.devices.get(resource)
        self.ledger.devices[resource] = devices
        if before is None:
            self._remember()
        self._tell(resource, before or {}, devices)

    def _stopped(self, resource: str) -> None:
        before = self.ledger.devices.get(resource, {})
        ill = {name: state._replace(healthy=False) for name, state in before.items()}
        self.ledger.devices[resource] = ill
        self._away[resource] = asyncio.get_running_loop().call_later(_PLUGIN_AWAY_S, self._forget, resource)
        self._tell(resource, before, ill)

    def _forget(self, resource: str) -> None:
        self._away.pop(resource, None)
        self.ledger.devices[resource] = {}
        self.on_change()

    def _tell(self, resource: str, before: Mapping[str, DeviceState], after: Mapping[str, DeviceState]) -> None:
        changed = {one for one in {*before, *after} if before.get(one) != after.get(one)}
        concerned = {
            share.uid
            for share, ids in self.ledger.given.items()
            if share.resource == resource and changed.intersection(ids)
        }
        if changed:
            self.on_change()
        if concerned:
            self.on_health(concerned)

    def health(self, resource: str, device: str) -> str:
        """`Healthy`, `Unhealthy`, or `Unknown` while its plugin does not say."""
        state = self.ledger.devices.get(resource, {}).get(device)
        endpoint = self.plugins.endpoints.get(resource)
        if state is None or endpoint is None or endpoint.stopped:
            return "Unknown"
        return "Healthy" if state.healthy else "Unhealthy"

    def statuses(self, pod: Obj, container: Obj) -> list[Obj]:
        """`allocatedResourcesStatus` of a container."""
        return [
            {
                "name": resource,
                "resources": [{"resourceID": one, "health": self.health(resource, one)} for one in sorted(ids)],
            }
            for resource, ids in sorted(self.ledger.of(uid_of(pod), container["name"]).items())
        ]

    # Giving.

    def holders(self) -> set[str]:
        """The pods that have devices."""
        return {share.uid for share in self.ledger.given}

    def hints(self, pod: Obj, container: Obj) -> Hints:
        """What the topology manager is told."""
        return self.ledger.hints(pod, container)

    def pod_hints(self, pod: Obj) -> Hints:
        return self.ledger.pod_hints(pod)

    def allocate(self, pod: Obj, container: Obj, near: Hint) -> None:
        """Settle which devices a container gets.  Raises NotEnough."""
        if self.ledger.reserve(pod, container, near.nodes):
            self._near[uid_of(pod), container["name"]] = near.nodes
            self._remember()

    def keep_only(self, uids: Collection[str]) -> None:
        """Take back what all pods but these have."""
        if self.ledger.keep_only(uids):
            self._forget_gone(uids)

    def release(self, uid: str) -> None:
        """A pod has gone."""
        others = {share.uid for share in self.ledger.given} - {uid}
        if self.ledger.keep_only(others):
            self._forget_gone(others)

    def _forget_gone(self, uids: Collection[str]) -> None:
        self._needs = {share: needs for share, needs in self._needs.items() if share.uid in uids}
        self._near = {key: near for key, near in self._near.items() if key[0] in uids}
        self._remember()

    async def prepare(self, pod: Obj) -> None:
        """Ask the plugins what the pod's containers need. Asks once.  Raises AllocationRefused."""
        uid = uid_of(pod)
        missing = [share for share in self.ledger.given if share.uid == uid and share not in self._needs]
        if not missing:
            return
        for share in missing:
            await self._prepare(share)
        self._remember()

    async def _prepare(self, share: Share) -> None:
        endpoint = self.plugins.endpoints.get(share.resource)
        if endpoint is None:
            raise AllocationRefused(f"endpoint not found in cache for a registered resource: {share.resource}")
        try:
            if endpoint.prefers:
                await self._reconsider(share)
            self._needs[share] = (await endpoint.allocate(self.ledger.given[share])).SerializeToString()
        except PluginError as error:
            raise AllocationRefused(str(error)) from None

    async def _reconsider(self, share: Share) -> None:
        """Take the devices that the plugin would take, of those that are free and that the container has alone."""
        ids = self.ledger.given[share]
        shared = {
            one
            for other, theirs in self.ledger.given.items()
            if other != share and other.resource == share.resource
            for one in theirs
        }
        if shared.intersection(ids):
            # An init container has them too.
            return
        free = [*ids, *self.ledger.free(share.resource)]
        near = self._near.get((share.uid, share.container))
        known = self.ledger.devices[share.resource]
        if near is not None:
            # As near as what it has already.
            close = [one for one in free if one in known and mask_of(known[one].nodes) & near]
            free = close if set(ids) <= set(close) else list(ids)
        chosen = tuple(await self.plugins.endpoints[share.resource].preferred(free, len(ids)))
        still = set(self.ledger.free(share.resource)) | set(ids)
        if len(set(chosen)) == len(ids) and still.issuperset(chosen):
            self.ledger.given[share] = chosen

    async def starting(self, pod: Obj, container: Obj) -> None:
        """A container is about to start.  Raises AllocationRefused."""
        for resource, ids in self.ledger.of(uid_of(pod), container["name"]).items():
            endpoint = self.plugins.endpoints.get(resource)
            if endpoint is None or not endpoint.pre_start:
                continue
            try:
                await endpoint.pre_start_container(ids)
            except PluginError as error:
                raise AllocationRefused(f"device plugin PreStartContainer rpc failed with err: {error}") from None

    def dressed(self, pod: Obj, container: Obj, config: ContainerConfig) -> ContainerConfig:
        """The container's configuration with its devices. What the pod says itself wins."""
        uid, name = uid_of(pod), container["name"]
        said = [self._needs.get(Share(uid, name, one), b"") for one in self.ledger.of(uid, name)]
        needs = [plugin.ContainerAllocateResponse.FromString(each) for each in said]
        return _dressed(config, needs) if needs else config

    def _remember(self) -> None:
        try:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            checkpoint.write(self._folder, self.ledger.given, self._needs, list(self.ledger.devices))
        except OSError as error:
            log.error("which container has which device could not be written down: %s", error)

    # For whoever asks.

    def of_pod(self, pod: Obj) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """The devices of each container, by container and resource."""
        return {one["name"]: self.ledger.of(uid_of(pod), one["name"]) for one in podspec.all_containers(pod)}


def _dressed(config: ContainerConfig, needs: Sequence[Any]) -> ContainerConfig:
    devices, mounts = list(config.devices), list(config.mounts)
    env: dict[str, str] = {}
    annotations: dict[str, str] = {}
    taken = {one.container_path for one in devices}
    mounted = {one.container_path for one in mounts}
    for one in needs:
        env.update(one.envs)
        annotations.update(one.annotations)
        for device in one.devices:
            if device.container_path not in taken:
                taken.add(device.container_path)
                devices.append(Device(device.container_path, device.host_path, device.permissions or "rwm"))
        for mount in one.mounts:
            if mount.container_path not in mounted:
                mounted.add(mount.container_path)
                mounts.append(Mount(mount.container_path, mount.host_path, mount.read_only))
    return replace(
        config,
        devices=tuple(devices),
        mounts=tuple(mounts),
        env={**env, **config.env},
        annotations={**annotations, **config.annotations},
    )


__all__ = ["AllocationRefused", "DeviceManager", "NotEnough"]
