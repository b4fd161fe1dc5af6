"""Ending the pods of a node whose kubelet has ended: what is known of them is what the runtime shows.

In: a containerd that runs, or else the configuration by which one is started for the purpose. Out: hooks have run,
containers were told to stop and had their grace, sandboxes are stopped and removed, and with them their networks: CNI
takes down what it made.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from navarch.api.version import DEFAULT_VERSION
from navarch.node.containerd import (
    ContainerdConfig,
    ContainerdPaths,
    ensure_pause_image,
    purge,
    shims_of,
    started,
)
from navarch.node.probes.handlers import HTTPCaller, run_hook
from navarch.node.runtime.base import (
    CONTAINER_NAME,
    GRACE_PERIOD,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    PORTS,
    PRE_STOP,
    Container,
    RuntimeFailure,
    Sandbox,
    State,
)
from navarch.node.runtime.cri import CRIRuntime
from navarch.world import MACHINE

log = logging.getLogger(__name__)

# What containerd needs besides the pods' grace: to start, and to remove some hundred sandboxes.
_LIMIT_S: Final = 60.0
_DEFAULT_GRACE_S: Final = 30
_LEAST_GRACE_S: Final = 2.0


async def end_pods(paths: ContainerdPaths, grace_s: float, version: str) -> None:
    """End every pod, each within its own grace period and `grace_s` at most. What could not be ended in order is logged
    and left to who removes the rest."""
    if not _anything_left(paths):
        return
    try:
        async with asyncio.timeout(grace_s + _LIMIT_S):
            # Written anew: an older version may have left it.
            await MACHINE.in_thread(ContainerdConfig.of_this_machine(paths).write)
            async with started(paths, paths.run / "ending.log"):
                await end_pods_of(paths.socket, grace_s, version)
    except (OSError, TimeoutError, RuntimeFailure) as error:
        log.warning("pods could not be ended in order: %s", error or "it took too long")


def _anything_left(paths: ContainerdPaths) -> bool:
    sandboxes = paths.root / "io.containerd.grpc.v1.cri" / "sandboxes"
    return bool(shims_of(paths)) or (sandboxes.is_dir() and any(sandboxes.iterdir()))


async def end_pods_of(socket: Path, grace_s: float, version: str) -> None:
    """The same where a containerd listens.  Raises ConnectionError."""
    runtime, caller = CRIRuntime(socket), HTTPCaller(version)
    try:
        containers: dict[str, list[Container]] = {}
        for container in await runtime.list_containers():
            containers.setdefault(container.sandbox_id, []).append(container)
        async with asyncio.TaskGroup() as tasks:
            for sandbox in await runtime.list_sandboxes():
                own = containers.get(sandbox.id, [])
                tasks.create_task(_end_pod(runtime, caller, sandbox, own, grace_s))
    finally:
        await caller.close()
        await runtime.close()


async def _end_pod(
    runtime: CRIRuntime, caller: HTTPCaller, sandbox: Sandbox, containers: list[Container], grace_s: float
) -> None:
    own_grace_s = float(sandbox.annotations.get(GRACE_PERIOD) or _DEFAULT_GRACE_S)
    grace_s = min(own_grace_s, grace_s)
    running = [container for container in containers if container.state == State.RUNNING]
    try:
        address = "".join((await runtime.sandbox_status(sandbox.id)).ips[:1]) if running else ""
        async with asyncio.TaskGroup() as tasks:
            for container in running:
                tasks.create_task(_end_container(runtime, caller, sandbox, container, address, grace_s))
        await runtime.stop_sandbox(sandbox.id)
        await runtime.remove_sandbox(sandbox.id)
    except (RuntimeFailure, ConnectionError) as error:
        log.warning("pod %s: %s", sandbox.labels.get(POD_NAME, sandbox.id), error)


async def _end_container(
    runtime: CRIRuntime, caller: HTTPCaller, sandbox: Sandbox, container: Container, address: str, grace_s: float
) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        status = await runtime.container_status(container.id)
        hook = status.annotations.get(PRE_STOP)
        if hook and grace_s > 0:
            labels = sandbox.labels
            metadata = {
                "name": labels.get(POD_NAME), "namespace": labels.get(POD_NAMESPACE), "uid": labels.get(POD_UID)
            }  # fmt: skip
            ports = json.loads(status.annotations.get(PORTS) or "[]")
            told = {"name": status.labels.get(CONTAINER_NAME), "ports": ports}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    outcome = await run_hook(
                        runtime, caller, {"metadata": metadata}, told, json.loads(hook), container.id, address
                    )
                    if not outcome.ok:
                        log.warning("preStop hook of %s: %s", status.name, outcome.output)
            grace_s = max(grace_s - (loop.time() - began_s), _LEAST_GRACE_S)
        await runtime.stop_container(container.id, round(grace_s))
    except (RuntimeFailure, ConnectionError) as error:
        # Its sandbox is stopped all the same, which kills what is in it.
        log.warning("container %s: %s", container.id, error)


@asynccontextmanager
async def running_containerd(directory: Path) -> AsyncIterator[ContainerdConfig]:
    """A containerd of its own below `directory`, with the pause image; nothing of it is left afterwards."""
    paths = ContainerdPaths(directory / "data", directory / "run")
    config = ContainerdConfig.of_this_machine(paths)
    config.write()
    try:
        async with started(paths, directory / "containerd.log"):
            await ensure_pause_image(paths, snapshotter=config.snapshotter)
            try:
                yield config
            finally:
                with contextlib.suppress(ConnectionError, TimeoutError):
                    await end_pods_of(paths.socket, 0, DEFAULT_VERSION)
    finally:
        purge(paths)
