"""What the scheduler writes: bindings, the PodScheduled condition, nominations, and the removal of victims."""

from __future__ import annotations

from typing import Any

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.api.time import format_time
from navarch.client import resources
from navarch.client.base import Client, PatchKind
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.preemption import PREEMPTED
from navarch.world import Clock


class Writer:
    """Writes through `client`."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def bind(self, pod: PodInfo, node_name: str) -> None:
        """Give the pod its node; the API server sets PodScheduled."""
        binding: Obj = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid},
            "target": {"kind": "Node", "name": node_name},
        }
        await self._client.create(resources.PODS, binding, subresource="binding", name=pod.key.name)

    async def unscheduled(self, pod: PodInfo, reason: str, message: str, nominated: str | None = None) -> None:
        """Set PodScheduled to False, and the nominated node where that changes (`""` takes it back)."""
        status = pod.obj.get("status") or {}
        old = next((c for c in status.get("conditions") or () if c.get("type") == "PodScheduled"), None)
        patch: dict[str, Any] = {}
        if old is None or (old.get("status"), old.get("reason"), old.get("message")) != ("False", reason, message):
            same_status = old is not None and old.get("status") == "False"
            since = old.get("lastTransitionTime") if old is not None and same_status else None
            patch["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": reason,
                    "message": message,
                    "lastProbeTime": None,
                    "lastTransitionTime": since or format_time(self._clock.now()),
                    "observedGeneration": pod.obj["metadata"].get("generation") or 0,
                }
            ]
        if nominated is not None and nominated != (status.get("nominatedNodeName") or ""):
            patch["nominatedNodeName"] = nominated or None
        if patch:
            await self._patch_status(pod, patch)

    async def forget_nomination(self, pod: PodInfo) -> None:
        await self._patch_status(pod, {"nominatedNodeName": None})

    async def evict(self, victim: PodInfo, scheduler_name: str) -> bool:
        """Mark a victim as disrupted and delete it with its own grace period; False where it is gone already."""
        message = f"{scheduler_name}: preempting to accommodate a higher priority pod"
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": PREEMPTED,
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": format_time(self._clock.now()),
            "observedGeneration": victim.obj["metadata"].get("generation") or 0,
        }
        try:
            await self._patch_status(victim, {"conditions": [condition]})
            await self._client.delete(resources.PODS, victim.key.name, victim.key.namespace, uid=victim.uid)
        except StatusError as error:
            if error.code not in (404, 409):
                raise
            return False
        return True

    async def _patch_status(self, pod: PodInfo, status: dict[str, Any]) -> None:
        await self._client.patch(
            resources.PODS,
            pod.key.name,
            pod.key.namespace,
            {"metadata": {"uid": pod.uid}, "status": status},
            kind=PatchKind.STRATEGIC,
            subresource="status",
        )
