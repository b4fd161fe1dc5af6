"""A container runtime that speaks today's CRI, more of it than the one that is installed may: containers are entries in
a table. What it was told is kept as it came over the wire."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from navarch.node.runtime.proto import cri_pb2 as cri

_STREAM = "GetContainerEvents"


class CRIServer:
    """`sandboxes` and `containers` are the configurations that it was asked to make, by id. `user_namespaces` says what
    its default handler can do."""

    def __init__(self, *, user_namespaces: bool = True, events: bool = True) -> None:
        self.user_namespaces = user_namespaces
        self.events = events
        self.sandboxes: dict[str, Any] = {}
        self.containers: dict[str, Any] = {}
        self.subscribed = 0
        # How often each call came.
        self.asked: Counter[str] = Counter()
        self._ready: dict[str, bool] = {}
        self._statuses: dict[str, Any] = {}
        self._owners: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._listeners: set[asyncio.Queue[Any]] = set()

    @contextlib.asynccontextmanager
    async def serving(self, socket: Path) -> AsyncIterator[CRIServer]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Handler(self),))
        server.add_insecure_port(f"unix://{socket}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    def exit(self, name: str, code: int) -> None:
        """The running container of this name ends."""
        for container_id, status in self._statuses.items():
            if status.metadata.name == name and status.state == cri.CONTAINER_RUNNING:
                self._ended(container_id, code)

    def running(self, name: str) -> int:
        """How many containers of this name run."""
        return sum(one.metadata.name == name and one.state == cri.CONTAINER_RUNNING for one in self._statuses.values())

    # What can be asked; by name.

    async def Version(self, request: Any) -> Any:
        return cri.VersionResponse(runtime_name="test", runtime_version="9.9.9", runtime_api_version="v1")

    async def Status(self, request: Any) -> Any:
        conditions = [cri.RuntimeCondition(type=kind, status=True) for kind in ("RuntimeReady", "NetworkReady")]
        features = cri.RuntimeHandlerFeatures(recursive_read_only_mounts=True, user_namespaces=self.user_namespaces)
        return cri.StatusResponse(
            status=cri.RuntimeStatus(conditions=conditions),
            runtime_handlers=[cri.RuntimeHandler(name="", features=features)],
            features=cri.RuntimeFeatures(supplemental_groups_policy=True),
        )

    async def RunPodSandbox(self, request: Any) -> Any:
        sandbox_id = f"{next(self._numbers):064x}"
        self.sandboxes[sandbox_id], self._ready[sandbox_id] = request.config, True
        return cri.RunPodSandboxResponse(pod_sandbox_id=sandbox_id)

    async def StopPodSandbox(self, request: Any) -> Any:
        self._ready[request.pod_sandbox_id] = False
        return cri.StopPodSandboxResponse()

    async def RemovePodSandbox(self, request: Any) -> Any:
        self._ready.pop(request.pod_sandbox_id, None)
        return cri.RemovePodSandboxResponse()

    async def PodSandboxStatus(self, request: Any) -> Any:
        sandbox_id = request.pod_sandbox_id
        config = self.sandboxes[sandbox_id]
        status = cri.PodSandboxStatus(
            id=sandbox_id,
            metadata=config.metadata,
            state=self._state(sandbox_id),
            network=cri.PodSandboxNetworkStatus(ip="100.64.0.9"),
            labels=config.labels,
            annotations=config.annotations,
        )
        return cri.PodSandboxStatusResponse(status=status)

    def _state(self, sandbox_id: str) -> Any:
        return cri.SANDBOX_READY if self._ready[sandbox_id] else cri.SANDBOX_NOTREADY

    async def ListPodSandbox(self, request: Any) -> Any:
        found = [
            cri.PodSandbox(id=one, metadata=self.sandboxes[one].metadata, state=self._state(one))
            for one in self._ready
            if _has(self.sandboxes[one].labels, request.filter.label_selector)
        ]
        return cri.ListPodSandboxResponse(items=found)

    async def CreateContainer(self, request: Any) -> Any:
        container_id = f"{next(self._numbers):064x}"
        config = request.config
        self.containers[container_id], self._owners[container_id] = config, request.pod_sandbox_id
        self._statuses[container_id] = cri.ContainerStatus(
            id=container_id,
            metadata=config.metadata,
            state=cri.CONTAINER_CREATED,
            created_at=time.time_ns(),
            image=config.image,
            labels=config.labels,
            annotations=config.annotations,
            mounts=config.mounts,
            user=_user(config.linux.security_context),
        )
        return cri.CreateContainerResponse(container_id=container_id)

    async def StartContainer(self, request: Any) -> Any:
        status = self._statuses[request.container_id]
        status.state, status.started_at = cri.CONTAINER_RUNNING, time.time_ns()
        self._tell(request.container_id, cri.CONTAINER_STARTED_EVENT)
        return cri.StartContainerResponse()

    async def StopContainer(self, request: Any) -> Any:
        self._ended(request.container_id, 143)
        return cri.StopContainerResponse()

    async def RemoveContainer(self, request: Any) -> Any:
        self._statuses.pop(request.container_id, None)
        return cri.RemoveContainerResponse()

    async def ContainerStatus(self, request: Any) -> Any:
        return cri.ContainerStatusResponse(status=self._statuses[request.container_id])

    async def ListContainers(self, request: Any) -> Any:
        found = [
            cri.Container(
                id=one.id, pod_sandbox_id=self._owners[one.id], metadata=one.metadata, state=one.state, image=one.image
            )
            for one in self._statuses.values()
            if _has(one.labels, request.filter.label_selector)
        ]
        return cri.ListContainersResponse(containers=found)

    async def ListContainerStats(self, request: Any) -> Any:
        return cri.ListContainerStatsResponse()

    async def ListImages(self, request: Any) -> Any:
        return cri.ListImagesResponse()

    async def ImageStatus(self, request: Any) -> Any:
        image = cri.Image(id="sha256:1", repo_tags=[request.image.image])
        return cri.ImageStatusResponse(image=image)

    async def ImageFsInfo(self, request: Any) -> Any:
        return cri.ImageFsInfoResponse()

    # Events.

    async def subscribe(self, request: Any, context: Any) -> AsyncIterator[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._listeners.add(queue)
        self.subscribed += 1
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    def _ended(self, container_id: str, code: int) -> None:
        status = self._statuses[container_id]
        if status.state == cri.CONTAINER_RUNNING:
            status.state, status.exit_code, status.finished_at = cri.CONTAINER_EXITED, code, time.time_ns()
            self._tell(container_id, cri.CONTAINER_STOPPED_EVENT)

    def _tell(self, container_id: str, kind: Any) -> None:
        for queue in self._listeners:
            queue.put_nowait(cri.ContainerEventResponse(container_id=container_id, container_event_type=kind))


class _Handler(grpc.GenericRpcHandler):
    """Finds what is asked for by its name; the rest is not implemented."""

    def __init__(self, server: CRIServer) -> None:
        self._server = server

    def service(self, details: Any) -> Any:
        service, _, name = details.method.strip("/").partition("/")
        if not service.startswith("runtime.v1."):
            return None
        if name == _STREAM:
            if not self._server.events:
                return None
            return grpc.unary_stream_rpc_method_handler(
                self._server.subscribe,
                request_deserializer=cri.GetEventsRequest.FromString,
                response_serializer=cri.ContainerEventResponse.SerializeToString,
            )
        answer = getattr(self._server, name, None)
        if answer is None:
            return None

        async def method(request: Any, context: Any) -> Any:
            self._server.asked[name] += 1
            try:
                return await answer(request)
            except KeyError as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"{error} not found")

        return grpc.unary_unary_rpc_method_handler(
            method,
            request_deserializer=getattr(cri, f"{name}Request").FromString,
            response_serializer=getattr(cri, f"{name}Response").SerializeToString,
        )


def _user(context: Any) -> Any:
    groups = [context.run_as_group.value, *context.supplemental_groups]
    user = cri.LinuxContainerUser(
        uid=context.run_as_user.value, gid=context.run_as_group.value, supplemental_groups=groups
    )
    return cri.ContainerUser(linux=user)


def _has(labels: Any, wanted: Any) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())
