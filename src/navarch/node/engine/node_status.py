"""The node as the cluster sees it: registered, its capacity and conditions, its lease renewed, its images listed.

The lease says every ten seconds that the node lives; the status is written when it differs, and every few minutes in
any case. What is measured here (memory, disk, processes) also decides about pressure, and so about eviction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, labels_of, revision_of
from navarch.api.time import format_micro_time, format_time
from navarch.client.base import Client, PatchKind
from navarch.client.events import EventRecorder
from navarch.client.resources import LEASES, NODES
from navarch.kinds.core.declared_features import declared
from navarch.kinds.core.kubelets import ATTACHES
from navarch.node.config import KubeletConfig
from navarch.node.containerd import containerd_version
from navarch.node.engine.status_patch import node_status_patch
from navarch.node.resources.amounts import memory_capacity
from navarch.node.resources.capacity import Capacity, Provider, providers_of
from navarch.node.resources.pressure import Pressure
from navarch.node.runtime.base import Runtime, RuntimeFailure
from navarch.world import Clock

log = logging.getLogger(__name__)

_LEASE_NAMESPACE: Final = "kube-node-lease"
_RETRY_S: Final = 1.0
_RUNTIME_AWAY: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change while the machine runs."""

    machine_id: str
    system_uuid: str
    boot_id: str
    kernel: str
    os_image: str
    architecture: str
    cpus: int
    memory: int
    runtime: str


def this_machine() -> Machine:
    """Read from /proc, /etc and /sys."""
    names = dict(line.partition("=")[::2] for line in _read("/etc/os-release").splitlines())
    machine = platform.machine()
    try:
        runtime = "containerd://" + ".".join(str(part) for part in containerd_version())
    except (OSError, ValueError):
        runtime = "containerd://unknown"
    return Machine(
        machine_id=_read("/etc/machine-id"),
        system_uuid=_read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id"),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        kernel=platform.release(),
        os_image=names.get("PRETTY_NAME", "Linux").strip('"'),
        architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        cpus=len(os.sched_getaffinity(0)),
        memory=memory_capacity(),
        runtime=runtime,
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def default_address() -> str:
    """The address that this machine uses towards others: that of the interface of the default route, else loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: connecting a datagram socket only picks the route.
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


class NodeReporter:
    """Owned by the kubelet. `devices` provide what the machine has beside CPU, memory and disk. `on_pod_cidrs` is
    called with the node's pod CIDRs once it has them."""

    def __init__(
        self,
        config: KubeletConfig,
        client: Client,
        runtime: Runtime,
        clock: Clock,
        source: random.Random,
        recorder: EventRecorder,
        devices: Sequence[Provider] = (),
    ) -> None:
        self._config = config
        self._client = client
        self._runtime = runtime
        self._clock = clock
        self._random = source
        self._recorder = recorder
        self._machine = this_machine()
        own = providers_of(config, self._machine.cpus, self._machine.memory)
        self._capacity = Capacity([*own, *devices])
        self._addresses = tuple(filter(None, (config.node_ip or default_address(), config.other_ip)))
        self._node: Obj | None = None
        self.pressure = Pressure(config.eviction, clock, pods_enforced="pods" in config.reserved.enforced)
        self.pressure.on_change = self.look_again
        self._written_at = clock.now() - timedelta(days=1)
        self._runtime_seen = self._written_at
        self._lease: Obj | None = None
        self._pod_cidrs: list[str] = []
        self._look = asyncio.Event()
        # Names of volumes that must not be detached from here.
        self.volumes_in_use: Callable[[], list[str]] = list
        self._deleted = False
        self.shutting_down = False
        self.on_pod_cidrs: Callable[[Sequence[str]], None] | None = None
        # Where the kubelet's server listens, once it does.
        self.port = config.port

    def addresses(self) -> Sequence[str]:
        """The node's addresses, the main one first."""
        return self._addresses

    def pressures(self) -> list[str]:
        """The conditions of pressure that the node has."""
        return self.pressure.pressed()

    @property
    def is_registered(self) -> bool:
        return self._node is not None

    def event(self, kind: str, reason: str, message: str) -> None:
        """An event about the node."""
        name = self._config.node_name
        uid = self._node["metadata"]["uid"] if self._node else name
        reference = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": uid}}
        self._recorder.event(reference, kind, reason, message)

    def capacity(self) -> Obj:
        return self._capacity.capacity()

    def allocatable(self) -> Obj:
        """Capacity less what is reserved for the system and for eviction."""
        return self._capacity.allocatable()

    # The loop.

    async def run(self) -> None:
        """Register, then keep lease and status fresh, for ever."""
        while True:
            try:
                await self._register()
                break
            except (StatusError, OSError) as error:
                log.debug("registering: %s", error)
                await asyncio.sleep(_RETRY_S)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_lease(), name="node lease")
            tasks.create_task(self._keep_status(), name="node status")

    async def _register(self) -> None:
        name = self._config.node_name
        existing = await self._client.find(NODES, name)
        if existing is None and self._config.register_node:
            node = self._new_node()
            node["status"] = await self._status(None)
            try:
                existing = await self._client.create(NODES, node)
            except StatusError as error:
                if error.code != 409:
                    raise
                existing = await self._client.get(NODES, name)
        elif existing is None:
            raise ConnectionError(f"node {name} is not registered")
        else:
            existing = await self._reconcile_labels(existing)
        self._node = existing
        self.event("Normal", "Starting", "Starting kubelet.")

    def _labels(self) -> dict[str, str]:
        machine = self._machine
        return {
            "beta.kubernetes.io/arch": machine.architecture,
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": machine.architecture,
            "kubernetes.io/hostname": self._config.node_name,
            "kubernetes.io/os": "linux",
            **self._config.node_labels,
        }

    def _new_node(self) -> Obj:
        config = self._config
        node: Obj = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": config.node_name,
                "labels": self._labels(),
                "annotations": {ATTACHES: "true"},
            },
            "spec": {},
        }
        if config.provider_id:
            node["spec"]["providerID"] = config.provider_id
        if config.node_taints:
            node["spec"]["taints"] = [dict(taint) for taint in config.node_taints]
        return node

    async def _reconcile_labels(self, node: Obj) -> Obj:
        missing = {key: value for key, value in self._labels().items() if labels_of(node).get(key) != value}
        if not missing:
            return node
        return await self._client.patch(NODES, self._config.node_name, "", {"metadata": {"labels": missing}})

    # Lease.

    async def _keep_lease(self) -> None:
        period_s = self._config.lease_duration_s / 4
        while True:
            try:
                await self._renew()
            except (StatusError, OSError) as error:
                log.debug("renewing the lease: %s", error)
                self._lease = None
                await asyncio.sleep(_RETRY_S)
                continue
            await asyncio.sleep(period_s * (1 + 0.04 * self._random.random()))

    async def _renew(self) -> None:
        name = self._config.node_name
        if self._deleted:
            # A lease would be taken for the sign of life of a node that there is not, and belong to nobody.
            return
        now = format_micro_time(self._clock.now())
        lease = self._lease or await self._client.find(LEASES, name, _LEASE_NAMESPACE)
        spec = {"holderIdentity": name, "leaseDurationSeconds": self._config.lease_duration_s, "renewTime": now}
        if lease is None:
            metadata: Obj = {"name": name, "namespace": _LEASE_NAMESPACE}
            if self._node is not None:
                owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self._node["metadata"]["uid"]}
                metadata["ownerReferences"] = [owner]
            fresh = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            self._lease = await self._client.create(LEASES, fresh)
            return
        self._lease = await self._client.update(LEASES, {**lease, "spec": {**lease["spec"], **spec}})

    # Status.

    async def _keep_status(self) -> None:
        while True:
            try:
                await self._write_status()
            except (StatusError, OSError) as error:
                await asyncio.sleep(self._retry_after(error))
                continue
            # A node that is not ready yet is looked at often: people wait for it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.status_look_s if self._is_ready() else 0.25):
                    await self._look.wait()
            self._look.clear()

    def _retry_after(self, error: Exception) -> float:
        """A node that was deleted stays away until the kubelet starts again, or somebody makes it anew."""
        if not isinstance(error, StatusError) or error.code != 404:
            log.debug("node status: %s", error)
            return _RETRY_S
        self.deleted()
        return self._config.status_look_s

    def deleted(self) -> None:
        """There is no Node of this name any more."""
        if not self._deleted:
            log.warning(
                "the node %s was deleted; it is registered again when this starts again", self._config.node_name
            )
        self._deleted = True
        self._lease = None

    def seen(self, node: Obj) -> None:
        """The Node as the API server has it now."""
        if self._node is None:
            return
        if self._deleted or revision_of(node) > revision_of(self._node):
            self._node = node
            # Made anew, or given up for dead meanwhile: what it is in truth is said at once.
            if self._deleted or not self._is_ready():
                self._look.set()

    def look_again(self) -> None:
        """Something about the node has changed: see to its status now."""
        self._look.set()

    def says_in_use(self, volume: str) -> bool:
        """Whether the cluster has been told that this node uses a volume."""
        return volume in (((self._node or {}).get("status") or {}).get("volumesInUse") or ())

    def _is_ready(self) -> bool:
        conditions = ((self._node or {}).get("status") or {}).get("conditions") or []
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    async def _write_status(self) -> None:
        node = self._node
        assert node is not None
        if self._deleted or not node["spec"].get("podCIDR"):
            node = await self._client.get(NODES, self._config.node_name)
            self._deleted = False
        cidrs = node["spec"].get("podCIDRs") or []
        if cidrs and cidrs != self._pod_cidrs:
            self._pod_cidrs = cidrs
            if self.on_pod_cidrs is not None:
                self.on_pod_cidrs(cidrs)
        status = await self._status(node)
        now = self._clock.now()
        due = now - self._written_at >= timedelta(seconds=self._config.status_period_s)
        old = node.get("status") or {}
        if not due and _essence(status) == _essence({key: old.get(key) for key in status}):
            self._node = node
            return
        patch = {"status": node_status_patch(status)}
        answer = await self._client.patch(
            NODES, self._config.node_name, "", patch, kind=PatchKind.STRATEGIC, subresource="status"
        )
        self._announce(old, answer.get("status") or {})
        self._node = answer
        self._written_at = now

    def _announce(self, old: Obj, new: Obj) -> None:
        """Events for conditions that changed."""
        before = {one["type"]: one["status"] for one in old.get("conditions") or []}
        names = {
            ("Ready", "True"): "NodeReady",
            ("Ready", "False"): "NodeNotReady",
            ("MemoryPressure", "True"): "NodeHasInsufficientMemory",
            ("MemoryPressure", "False"): "NodeHasSufficientMemory",
            ("DiskPressure", "True"): "NodeHasDiskPressure",
            ("DiskPressure", "False"): "NodeHasNoDiskPressure",
            ("PIDPressure", "True"): "NodeHasInsufficientPID",
            ("PIDPressure", "False"): "NodeHasSufficientPID",
        }
        for condition in new.get("conditions") or []:
            key = (condition["type"], condition["status"])
            if key in names and before.get(condition["type"]) != condition["status"]:
                message = f"Node {self._config.node_name} status is now: {names[key]}"
                self.event("Normal", names[key], message)

    async def _status(self, node: Obj | None) -> Obj:
        machine = self._machine
        in_use = self.volumes_in_use()
        told = ((node or {}).get("status") or {}).get("volumesInUse") or []
        capacity = _with_foreign(node, self.capacity())
        return {
            **({"volumesInUse": in_use} if in_use or told else {}),
            "addresses": [
                *({"type": "InternalIP", "address": address} for address in self._addresses),
                {"type": "Hostname", "address": self._config.node_name},
            ],
            "capacity": capacity,
            "allocatable": _allocatable(node, capacity, self.allocatable()),
            "conditions": await self._conditions(node),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            "images": await self._images(),
            "nodeInfo": {
                "machineID": machine.machine_id,
                "systemUUID": machine.system_uuid,
                "bootID": machine.boot_id,
                "kernelVersion": machine.kernel,
                "osImage": machine.os_image,
                "containerRuntimeVersion": machine.runtime,
                "kubeletVersion": f"v{self._config.kubernetes_version}.0",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": machine.architecture,
            },
            **await self._features(),
            **declared(self._config.features),
        }

    async def _features(self) -> Obj:
        """What the runtime says that it can do, where it says anything."""
        try:
            features = await self._runtime.features()
        except (RuntimeFailure, ConnectionError):
            status = (self._node or {}).get("status") or {}
            return {key: status[key] for key in ("runtimeHandlers", "features") if key in status}
        if not features.handlers:
            return {}
        told = [
            {"name": name, "features": {"recursiveReadOnlyMounts": can[0], "userNamespaces": can[1]}}
            for name, can in sorted(features.handlers.items())
        ]
        groups = {"supplementalGroupsPolicy": features.supplemental_groups_policy}
        return {"runtimeHandlers": told, "features": groups}

    async def _images(self) -> list[Obj]:
        try:
            images = await self._runtime.list_images()
        except (RuntimeFailure, ConnectionError):
            return ((self._node or {}).get("status") or {}).get("images") or []
        most = self._config.status_images
        largest = sorted(images, key=lambda image: (-image.size_bytes, image.id))[: most if most >= 0 else None]
        listed = [{"names": [*image.digests, *image.tags][:5], "sizeBytes": image.size_bytes} for image in largest]
        return [entry for entry in listed if entry["names"]]

    async def _conditions(self, node: Obj | None) -> list[Obj]:
        old = {one["type"]: one for one in ((node or {}).get("status") or {}).get("conditions") or []}
        now = format_time(self._clock.now())
        found = [*self.pressure.conditions(), await self._ready()]
        for condition in found:
            was = old.get(condition["type"]) or {}
            same = was.get("status") == condition["status"]
            condition["lastHeartbeatTime"] = now
            condition["lastTransitionTime"] = was["lastTransitionTime"] if same else now
        return found

    async def _ready(self) -> Obj:
        problems = []
        try:
            conditions = await self._runtime.conditions()
        except (RuntimeFailure, ConnectionError) as error:
            # A runtime that is merely restarted leaves its containers alone; taking the node's pods out of their
            # services for that would lose requests.
            if self._clock.now() - self._runtime_seen > _RUNTIME_AWAY:
                problems.append(f"container runtime is down: {error}")
        else:
            self._runtime_seen = self._clock.now()
            for condition in conditions:
                if condition.status:
                    continue
                if condition.type == "NetworkReady":
                    words = f"reason:{condition.reason} message:{condition.message}"
                    problems.append(f"container runtime network not ready: NetworkReady=false {words}")
                elif condition.type == "RuntimeReady":
                    problems.append(f"container runtime not ready: {condition.reason} {condition.message}")
        if self.shutting_down:
            problems.append("node is shutting down")
        if problems:
            message = ", ".join(problems)
            return {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": message}
        return {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
        }


def _with_foreign(node: Obj | None, own: Obj) -> Obj:
    """What the node has, with what others say that it has: extended resources are anybody's to add."""
    stated = ((node or {}).get("status") or {}).get("capacity") or {}
    return {**stated, **own}


def _allocatable(node: Obj | None, capacity: Obj, own: Obj) -> Obj:
    """Nothing is reserved of what others have added; what they have taken away is no longer there (None)."""
    stated = ((node or {}).get("status") or {}).get("allocatable") or {}
    return {**{name: None for name in stated if name not in capacity}, **capacity, **own}


def _essence(status: Obj) -> Any:
    """A status without what changes by itself."""
    conditions = [
        {key: value for key, value in one.items() if key not in ("lastHeartbeatTime", "lastTransitionTime")}
        for one in status.get("conditions") or []
        if one["type"] in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
    ]
    return {**status, "conditions": sorted(conditions, key=lambda one: one["type"])}
