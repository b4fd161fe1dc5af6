"""The pod resources API: monitoring agents ask, on a Unix socket of the node's, which container has which devices.

`pod-resources/kubelet.sock` below the kubelet's folder; gRPC, service `v1.PodResourcesLister`. Read alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.devices.ledger import DeviceState
from navarch.node.devices.manager import DeviceManager
from navarch.node.devices.proto import podresources_pb2 as v1
from navarch.node.plugins.sockets import address_of

log = logging.getLogger(__name__)

_SERVICE: Final = "v1.PodResourcesLister"


UsedClaim = tuple[str, str, Sequence[tuple[str, Obj]]]
"""Namespace and name of a claim, and the devices that a container has of it, each with its driver."""


class PodResources:
    """`pods` are those that the node runs. `cpus` says which CPUs a container has for itself, by pod and container,
    `memory` which parts of memory; the others, what can be given at all;
    `claims` which claims of devices a container uses."""

    def __init__(
        self,
        socket: Path,
        pods: Callable[[], Iterable[Obj]],
        devices: DeviceManager,
        cpus: Callable[[str, str], Iterable[int]] = lambda uid, container: (),
        allocatable_cpus: Callable[[], Iterable[int]] = lambda: (),
        memory: Callable[[str, str], Sequence[Mapping[str, Any]]] = lambda uid, container: (),
        allocatable_memory: Callable[[], Sequence[Mapping[str, Any]]] = lambda: (),
        claims: Callable[[Obj, Obj], Iterable[UsedClaim]] = lambda pod, container: (),
    ) -> None:
        self._socket = socket
        self._pods = pods
        self._devices = devices
        self._cpus = cpus
        self._allocatable_cpus = allocatable_cpus
        self._memory = memory
        self._allocatable_memory = allocatable_memory
        self._claims = claims

    async def run(self) -> None:
        """Serve until cancelled."""
        self._socket.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        server = grpc.aio.server()
        methods = {
            "List": (self._list, v1.ListPodResourcesRequest, v1.ListPodResourcesResponse),
            "Get": (self._get, v1.GetPodResourcesRequest, v1.GetPodResourcesResponse),
            "GetAllocatableResources": (
                self._allocatable,
                v1.AllocatableResourcesRequest,
                v1.AllocatableResourcesResponse,
            ),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                answer, request_deserializer=request.FromString, response_serializer=response.SerializeToString
            )
            for name, (answer, request, response) in methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        try:
            server.add_insecure_port(address_of(self._socket))
        except RuntimeError as error:
            log.error("nobody can ask which pod has which devices: %s", error)
            await asyncio.Event().wait()
        await server.start()
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(None)

    async def _list(self, request: Any, context: Any) -> Any:
        return v1.ListPodResourcesResponse(pod_resources=[self._of(pod) for pod in self._pods()])

    async def _get(self, request: Any, context: Any) -> Any:
        for pod in self._pods():
            metadata = pod["metadata"]
            if (metadata["name"], metadata["namespace"]) == (request.pod_name, request.pod_namespace):
                return v1.GetPodResourcesResponse(pod_resources=self._of(pod))
        name = f"{request.pod_name} in namespace {request.pod_namespace}"
        return await context.abort(grpc.StatusCode.UNKNOWN, f"pod {name} not found")

    async def _allocatable(self, request: Any, context: Any) -> Any:
        devices = [
            _devices(resource, [name], known)
            for resource, known in self._devices.ledger.devices.items()
            for name, state in known.items()
            if state.healthy
        ]
        return v1.AllocatableResourcesResponse(
            devices=devices,
            cpu_ids=sorted(self._allocatable_cpus()),
            memory=[_memory(one) for one in self._allocatable_memory()],
        )

    def _of(self, pod: Obj) -> Any:
        metadata = pod["metadata"]
        held = self._devices.of_pod(pod)
        sidecars = [one for one in podspec.init_containers(pod) if podspec.is_sidecar(one)]
        containers = []
        for container in [*sidecars, *podspec.containers(pod)]:
            name = container["name"]
            devices = [
                _devices(resource, ids, self._devices.ledger.devices.get(resource, {}))
                for resource, ids in held[name].items()
            ]
            memory = [_memory(one) for one in self._memory(metadata["uid"], name)]
            cpus = sorted(self._cpus(metadata["uid"], name))
            claims = [_claim(*used) for used in self._claims(pod, container)]
            containers.append(
                v1.ContainerResources(name=name, devices=devices, cpu_ids=cpus, memory=memory, dynamic_resources=claims)
            )
        return v1.PodResources(name=metadata["name"], namespace=metadata["namespace"], containers=containers)


def _claim(namespace: str, name: str, devices: Iterable[tuple[str, Obj]]) -> Any:
    given = [
        v1.ClaimResource(
            CDI_devices=[v1.CDIDevice(name=one) for one in device["cdi"]],
            driver_name=driver,
            pool_name=device["pool"],
            device_name=device["device"],
        )
        for driver, device in devices
    ]
    return v1.DynamicResource(claim_name=name, claim_namespace=namespace, claim_resources=given)


def _devices(resource: str, ids: Sequence[str], known: Mapping[str, DeviceState]) -> Any:
    nodes = sorted({node for one in ids if one in known for node in known[one].nodes})
    return v1.ContainerDevices(resource_name=resource, device_ids=sorted(ids), topology=_topology(nodes))


def _topology(nodes: Iterable[int]) -> Any:
    listed = [v1.NUMANode(ID=node) for node in nodes]
    return v1.TopologyInfo(nodes=listed) if listed else None


def _memory(stated: Mapping[str, Any]) -> Any:
    return v1.ContainerMemory(
        memory_type=stated["type"], size=stated["size"], topology=_topology(sorted(stated["nodes"]))
    )
