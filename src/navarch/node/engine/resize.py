"""Resizing in place: containers' CPU and memory changed while they run, as the pod's `resize` subresource allows.

What each running container was last given is kept in a file of the pod's, so that a restarted kubelet knows it too. A
change whose resize policy is RestartContainer restarts the container instead.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.engine.podstate import PodState
from navarch.node.resources.amounts import container_resources
from navarch.node.runtime.base import NotFound, RuntimeFailure


class Resizer:
    """Owned by a PodWorker. `given` answers the resources that a container runs with, for its status."""

    def __init__(self, worker: PodState) -> None:
        self._worker = worker
        self._given: dict[str, Obj] | None = None

    def _file(self) -> Path:
        return self._worker.parts.config.pod_directory(self._worker.uid) / "resources.json"

    def _load(self) -> dict[str, Obj]:
        if self._given is None:
            try:
                self._given = json.loads(self._file().read_text())
            except (OSError, ValueError):
                self._given = {}
        return self._given

    def record(self, container: Obj, container_id: str) -> None:
        """A container has been made with the resources of its specification."""
        given = self._load()
        given[container["name"]] = {"id": container_id, "resources": container.get("resources") or {}}
        self._file().parent.mkdir(parents=True, exist_ok=True)
        self._file().write_text(json.dumps(given))

    def given(self, name: str) -> Obj | None:
        """What a container was last given; None where that is not known."""
        entry = self._load().get(name)
        return entry["resources"] if entry else None

    async def apply(self) -> None:
        """Give every running container what its specification says now."""
        worker = self._worker
        changed = []
        for container in [*podspec.init_containers(worker.pod), *podspec.containers(worker.pod)]:
            instance = worker.observed.current(container["name"])
            entry = self._load().get(container["name"])
            if instance is None or not instance.running or entry is None or entry["id"] != instance.id:
                continue
            if entry["resources"] != (container.get("resources") or {}):
                changed.append((container, instance.id, entry["resources"]))
        if not changed:
            return
        await worker.parts.resources.publish(worker.pod)
        for container, container_id, before in changed:
            if _needs_restart(container, before):
                state = worker.memory[container["name"]]
                state.doomed = f"Container {container['name']} resize requires restart"
            else:
                await self._update(container, container_id)

    async def _update(self, container: Obj, container_id: str) -> None:
        worker = self._worker
        node = worker.parts.node
        wanted = container_resources(
            worker.pod, container, memory_capacity=node.memory_capacity, unified=node.unified_cgroups
        )
        # Zero means "as it is": taking a limit away is said with -1.
        if not wanted.cpu_quota_us:
            wanted = replace(wanted, cpu_period_us=100_000, cpu_quota_us=-1)
        if not wanted.memory_limit_bytes:
            wanted = replace(wanted, memory_limit_bytes=-1)
        try:
            await worker.parts.runtime.update_resources(container_id, wanted)
        except NotFound:
            return
        except RuntimeFailure as error:
            worker.event("Warning", "ResizeError", f"Error resizing container: {error}", container["name"])
            return
        self.record(container, container_id)
        worker.event("Normal", "ResizeCompleted", "Container resized", container["name"])


def _needs_restart(container: Obj, before: Obj) -> bool:
    policies = {policy["resourceName"]: policy["restartPolicy"] for policy in container.get("resizePolicy") or []}
    now = container.get("resources") or {}
    return any(
        policies.get(name) == "RestartContainer" and _amounts(before, name) != _amounts(now, name)
        for name in ("cpu", "memory")
    )


def _amounts(resources: Obj, name: str) -> tuple[Any, Any]:
    return (resources.get("requests") or {}).get(name), (resources.get("limits") or {}).get(name)
