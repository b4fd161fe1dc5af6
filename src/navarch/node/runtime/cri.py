"""`CRIRuntime`: the `Runtime` that is a containerd, over CRI (gRPC on a Unix socket).

Errors of gRPC become the seam's own; messages are translated in `translate.py` and go no further than this.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

# Children are started by fork and exec at once: gRPC need not prepare for a fork that goes on.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
import grpc
import grpc.aio

from navarch.node.runtime import translate
from navarch.node.runtime.base import (
    Condition,
    Container,
    ContainerConfig,
    ContainerEvent,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    Features,
    Filesystem,
    Image,
    Login,
    NotFound,
    Resources,
    Runtime,
    RuntimeFailure,
    Sandbox,
    SandboxConfig,
    State,
    Streams,
    TimedOut,
)
from navarch.node.runtime.operations import Operations
from navarch.node.runtime.proto import cri_pb2 as cri
from navarch.node.runtime.proto import events_pb2 as events

log = logging.getLogger(__name__)

_CALL_TIMEOUT_S: Final = 120.0
# Pulling is bounded by progress, which only the runtime sees; this is the last resort against one that hangs.
_PULL_TIMEOUT_S: Final = 3600.0
_RUNTIME: Final = "/runtime.v1.RuntimeService/"
_IMAGES: Final = "/runtime.v1.ImageService/"
_LEASES: Final = "/containerd.services.leases.v1.Leases/"
_LEASE_ID: Final = b"navarch-collect"
# A request with the lease's name, as both methods take it.
_LEASE: Final = bytes((0x0A, len(_LEASE_ID))) + _LEASE_ID
_COLLECT_S: Final = 5.0
_SUBSCRIBE: Final = "/containerd.services.events.v1.Events/Subscribe"


_KINDS: Final = {
    "/tasks/start": "start",
    "/tasks/exit": "exit",
    "/tasks/oom": "oom",
    "/tasks/delete": "delete",
}


_CRI_KINDS: Final = {
    cri.CONTAINER_STARTED_EVENT: "start",
    cri.CONTAINER_STOPPED_EVENT: "exit",
    cri.CONTAINER_DELETED_EVENT: "delete",
}


class CRIRuntime:
    """CRI over gRPC on a Unix socket, with containerd's event service beside it."""

    def __init__(self, socket: Path) -> None:
        options = [
            ("grpc.max_receive_message_length", 16 << 20),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # A Unix socket has no host name; without this the path is sent as authority, which Go's server refuses.
            ("grpc.default_authority", "localhost"),
        ]
        self._channel = grpc.aio.insecure_channel(f"unix://{socket}", options=options)
        self._methods: dict[str, Any] = {}
        self.operations = Operations()
        # Since the last collection.
        self._removed = False

    async def _call(self, service: str, method: str, request: Any, *, timeout_s: float = _CALL_TIMEOUT_S) -> Any:
        call = self._methods.get(method)
        if call is None:
            response = getattr(cri, f"{method}Response")
            call = self._channel.unary_unary(
                service + method,
                request_serializer=type(request).SerializeToString,
                response_deserializer=response.FromString,
            )
            self._methods[method] = call
        loop = asyncio.get_running_loop()
        began_s, failed = loop.time(), True
        try:
            answer = await call(request, timeout=timeout_s)
            failed = False
            return answer
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        finally:
            self.operations.note(method, loop.time() - began_s, failed=failed)

    async def version(self) -> str:
        """The runtime's own version."""
        answer = await self._call(_RUNTIME, "Version", cri.VersionRequest(version="v1"), timeout_s=5)
        return str(answer.runtime_version)

    async def conditions(self) -> Sequence[Condition]:
        """RuntimeReady and NetworkReady."""
        status = (await self._call(_RUNTIME, "Status", cri.StatusRequest(), timeout_s=10)).status
        return [Condition(one.type, one.status, one.reason, one.message) for one in status.conditions]

    async def features(self) -> Features:
        """What the runtime can do."""
        return translate.features_of(await self._call(_RUNTIME, "Status", cri.StatusRequest(), timeout_s=10))

    async def run_sandbox(self, config: SandboxConfig, handler: str = "") -> str:
        request = cri.RunPodSandboxRequest(config=translate.sandbox_message(config), runtime_handler=handler)
        return str((await self._call(_RUNTIME, "RunPodSandbox", request, timeout_s=240)).pod_sandbox_id)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._call(_RUNTIME, "StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._call(_RUNTIME, "RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))
        self._removed = True

    async def sandbox_status(self, sandbox_id: str) -> Sandbox:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)
        return translate.sandbox_of((await self._call(_RUNTIME, "PodSandboxStatus", request)).status)

    async def sandbox_info(self, sandbox_id: str) -> Mapping[str, str]:
        """The runtime's own, verbose view of a sandbox (its process, its network namespace)."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        info: Mapping[str, str] = (await self._call(_RUNTIME, "PodSandboxStatus", request)).info
        return info

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[Sandbox]:
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=labels or {}))
        return [translate.sandbox_of(item) for item in (await self._call(_RUNTIME, "ListPodSandbox", request)).items]

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        request = cri.CreateContainerRequest(
            pod_sandbox_id=sandbox_id,
            config=translate.container_message(config),
            sandbox_config=translate.sandbox_message(sandbox),
        )
        return str((await self._call(_RUNTIME, "CreateContainer", request)).container_id)

    async def start_container(self, container_id: str) -> None:
        await self._call(_RUNTIME, "StartContainer", cri.StartContainerRequest(container_id=container_id))

    async def stop_container(self, container_id: str, grace_s: int) -> None:
        request = cri.StopContainerRequest(container_id=container_id, timeout=grace_s)
        await self._call(_RUNTIME, "StopContainer", request, timeout_s=grace_s + _CALL_TIMEOUT_S)

    async def remove_container(self, container_id: str) -> None:
        await self._call(_RUNTIME, "RemoveContainer", cri.RemoveContainerRequest(container_id=container_id))
        self._removed = True

    async def container_status(self, container_id: str) -> ContainerStatus:
        request = cri.ContainerStatusRequest(container_id=container_id)
        return translate.status_of((await self._call(_RUNTIME, "ContainerStatus", request)).status)

    async def container_info(self, container_id: str) -> Mapping[str, str]:
        """The runtime's own, verbose view of a container (its process id, its OCI configuration)."""
        request = cri.ContainerStatusRequest(container_id=container_id, verbose=True)
        info: Mapping[str, str] = (await self._call(_RUNTIME, "ContainerStatus", request)).info
        return info

    async def list_containers(self, labels: Mapping[str, str] | None = None) -> Sequence[Container]:
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(label_selector=labels or {}))
        listed = (await self._call(_RUNTIME, "ListContainers", request)).containers
        return [translate.container_of(item) for item in listed]

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        message = translate.resources_message(resources)
        request = cri.UpdateContainerResourcesRequest(container_id=container_id, linux=message)
        await self._call(_RUNTIME, "UpdateContainerResources", request)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        request = cri.ExecSyncRequest(container_id=container_id, cmd=command, timeout=max(1, round(timeout_s)))
        answer = await self._call(_RUNTIME, "ExecSync", request, timeout_s=timeout_s + 15)
        return ExecResult(answer.exit_code, answer.stdout + answer.stderr)

    async def exec_url(self, container_id: str, command: Sequence[str], streams: Streams) -> str:
        request = cri.ExecRequest(container_id=container_id, cmd=command, **streams._asdict())
        return str((await self._call(_RUNTIME, "Exec", request)).url)

    async def attach_url(self, container_id: str, streams: Streams) -> str:
        request = cri.AttachRequest(container_id=container_id, **streams._asdict())
        return str((await self._call(_RUNTIME, "Attach", request)).url)

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        request = cri.PortForwardRequest(pod_sandbox_id=sandbox_id, port=ports)
        return str((await self._call(_RUNTIME, "PortForward", request)).url)

    async def reopen_log(self, container_id: str) -> None:
        await self._call(_RUNTIME, "ReopenContainerLog", cri.ReopenContainerLogRequest(container_id=container_id))

    async def checkpoint(self, container_id: str, file: Path, timeout_s: int) -> None:
        """Write a running container down, with its memory, to go on elsewhere; not every runtime can."""
        request = cri.CheckpointContainerRequest(container_id=container_id, location=str(file), timeout=timeout_s)
        limit_s = timeout_s + _CALL_TIMEOUT_S
        await self._call(_RUNTIME, "CheckpointContainer", request, timeout_s=limit_s)

    async def stats(self) -> Sequence[ContainerStats]:
        """CPU, memory and writable layer of every running container."""
        listed = (await self._call(_RUNTIME, "ListContainerStats", cri.ListContainerStatsRequest())).stats
        return [translate.stats_of(item) for item in listed]

    async def list_images(self) -> Sequence[Image]:
        listed = (await self._call(_IMAGES, "ListImages", cri.ListImagesRequest())).images
        return [translate.image_of(item) for item in listed]

    async def image_status(self, image: str) -> Image | None:
        """The image, or None where it is not on the node."""
        answer = await self._call(_IMAGES, "ImageStatus", cri.ImageStatusRequest(image=cri.ImageSpec(image=image)))
        return translate.image_of(answer.image) if answer.HasField("image") else None

    async def pull_image(self, image: str, login: Login | None) -> str:
        auth = translate.login_message(login) if login is not None else None
        request = cri.PullImageRequest(image=cri.ImageSpec(image=image), auth=auth)
        return str((await self._call(_IMAGES, "PullImage", request, timeout_s=_PULL_TIMEOUT_S)).image_ref)

    async def remove_image(self, image: str) -> None:
        await self._call(_IMAGES, "RemoveImage", cri.RemoveImageRequest(image=cri.ImageSpec(image=image)))

    async def image_filesystem(self) -> Filesystem:
        """Where images are kept, and what they use there."""
        answer = await self._call(_IMAGES, "ImageFsInfo", cri.ImageFsInfoRequest())
        if not answer.image_filesystems:
            return Filesystem("/", 0, 0)
        usage = answer.image_filesystems[0]
        return Filesystem(usage.fs_id.mountpoint or "/", usage.used_bytes.value, usage.inodes_used.value)

    async def collect(self) -> None:
        """Have the runtime look for what removed containers have left, if any were since the last time. containerd does
        that after each removal, but passes over those that come while it is at it, until the next: what they had
        written stays. Any lease that ends has it look again. Other runtimes know no leases."""
        removed, self._removed = self._removed, False
        if not removed:
            return
        for method in ("Create", "Delete"):
            call = self._channel.unary_unary(f"{_LEASES}{method}", bytes, bytes)
            try:
                await call(_LEASE, timeout=_COLLECT_S, metadata=(("containerd-namespace", "k8s.io"),))
            except grpc.aio.AioRpcError as error:
                log.debug("asking for a collection: %s", error.details())

    async def events(self) -> AsyncIterator[ContainerEvent]:
        """Container events until the connection ends; raises ConnectionError then. CRI's own, where the runtime has
        them."""
        subscribe = self._channel.unary_stream(
            f"{_RUNTIME}GetContainerEvents",
            request_serializer=cri.GetEventsRequest.SerializeToString,
            response_deserializer=cri.ContainerEventResponse.FromString,
        )
        try:
            async for event in subscribe(cri.GetEventsRequest()):
                kind = _CRI_KINDS.get(event.container_event_type)
                if kind is not None:
                    yield ContainerEvent(event.container_id, kind)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNIMPLEMENTED:
                raise _failure(error) from None
        else:
            raise ConnectionError("the runtime ended the event stream")
        async for event in self._containerd_events():
            yield event

    async def _containerd_events(self) -> AsyncIterator[ContainerEvent]:
        """The same from a containerd that has no events in CRI.

        These come from containerd's event service. The CRI plugin learns of an exit from the same stream, so that CRI
        may still say "running" for a moment after the event: who acts on it must look again until CRI agrees."""
        subscribe = self._channel.unary_stream(
            _SUBSCRIBE,
            request_serializer=events.SubscribeRequest.SerializeToString,
            response_deserializer=events.Envelope.FromString,
        )
        filters = [f'namespace==k8s.io,topic=="{topic}"' for topic in _KINDS]
        try:
            async for envelope in subscribe(events.SubscribeRequest(filters=filters)):
                event = _event(envelope)
                if event is not None:
                    yield event
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        raise ConnectionError("the runtime ended the event stream")

    async def close(self) -> None:
        await self._channel.close(None)


def _event(envelope: Any) -> ContainerEvent | None:
    kind = _KINDS.get(envelope.topic)
    if kind is None:
        return None
    if kind == "exit":
        ended = events.TaskExit.FromString(envelope.event.value)
        # An exec'd process ends too; only the container's first process has the container's id.
        return ContainerEvent(ended.container_id, kind) if ended.id == ended.container_id else None
    return ContainerEvent(events.TaskEvent.FromString(envelope.event.value).container_id, kind)


def _failure(error: grpc.aio.AioRpcError) -> Exception:
    code, message = error.code(), error.details() or ""
    if code == grpc.StatusCode.UNAVAILABLE:
        return ConnectionError(message)
    text = f"rpc error: code = {_go_name(code)} desc = {message}"
    kinds = {grpc.StatusCode.NOT_FOUND: NotFound, grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut}
    return kinds.get(code, RuntimeFailure)(text)


def _go_name(code: grpc.StatusCode) -> str:
    """`Unknown`, `InvalidArgument`: status codes as Go prints them, which is how users know these messages."""
    return "".join(word.capitalize() for word in code.name.split("_"))


async def settled_exit(runtime: Runtime, container_id: str) -> None:
    """Wait until CRI agrees that a container or sandbox whose exit event came has exited (for ten seconds at most).

    Where a process ends at once, CRI says first "created" and then "running" although the exit has been told."""
    for delay_s in (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 6.0):
        await asyncio.sleep(delay_s)
        try:
            if await _has_exited(runtime, container_id):
                return
        except RuntimeFailure:
            return


async def _has_exited(runtime: Runtime, container_id: str) -> bool:
    """Raises RuntimeFailure, of what is not there as well."""
    try:
        status = await runtime.container_status(container_id)
    except NotFound:
        return not (await runtime.sandbox_status(container_id)).ready
    return status.state not in (State.CREATED, State.RUNNING)
