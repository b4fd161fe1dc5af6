"""Keeps the flow control objects as they have to be: the default ones, and what each flow schema says of its level.

In: what is stored.  Out: defaults that are missing or were changed by nobody who may, written as Kubernetes' producer;
of every flow schema the condition `Dangling`, whether the level that it names is missing, written as its consumer.
Level-triggered: `ensure` and `tell` look at everything, and write what differs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource, name_of
from navarch.apiserver.admission.base import Reader
from navarch.apiserver.caches import Caches
from navarch.apiserver.flowcontrol.objects import AUTOUPDATE, Default, defaults
from navarch.client.following import Applier
from navarch.client.supervision import Failures
from navarch.kinds.core.pod_state import condition_of
from navarch.kinds.resources import FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS

EVERY_S: Final = 60.0
PRODUCER: Final = "api-priority-and-fairness-config-producer-v1"
CONSUMER: Final = "api-priority-and-fairness-config-consumer-v1"


class Writer(Protocol):
    async def create_all(self, objects: Sequence[tuple[Resource, Obj]], manager: str) -> None: ...

    async def update(self, resource: Resource, obj: Obj, subresource: str = "") -> Obj: ...

    async def apply(self, resource: Resource, obj: Obj, manager: str, subresource: str = "") -> Obj: ...


class FlowControlUpkeep:
    """One server's; several do no harm to each other."""

    def __init__(self, caches: Caches, reader: Reader, writer: Writer, now: Callable[[], str]) -> None:
        self._caches = caches
        self._reader = reader
        self._writer = writer
        self._now = now
        self._applier = Applier("flow schemas' conditions", self.tell, Failures())
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Tell of every change, until `stop`."""
        for resource in (FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS):
            self._caches.of(resource).listeners.append(lambda _change: self._applier.changed())
        self._task = asyncio.create_task(self._applier.run(), name="flow schemas")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def ensure(self) -> None:
        """The default objects.  Raises StatusError, StoreUnavailable."""
        missing, changed = [], []
        for default in defaults():
            stored = self._reader.get(default.resource, "", name_of(default.obj))
            if stored is None:
                missing.append((default.resource, default.obj))
            elif stored["spec"] != default.obj["spec"] and _is_ours(default, stored):
                changed.append((default.resource, {**stored, "spec": default.obj["spec"]}))
        await self._writer.create_all(missing, PRODUCER)
        for resource, obj in changed:
            await self._writer.update(resource, obj)

    async def tell(self) -> None:
        """What each flow schema says of its priority level.  Raises StatusError, StoreUnavailable."""
        levels = self._caches.of(PRIORITY_LEVEL_CONFIGURATIONS)
        async with asyncio.TaskGroup() as tasks:
            for schema in self._reader.list(FLOW_SCHEMAS):
                level = schema["spec"]["priorityLevelConfiguration"]["name"]
                wanted = _dangling(level, found=levels.get("", level) is not None)
                current = condition_of(schema, "Dangling") or {}
                if wanted.items() <= current.items():
                    continue
                same = current.get("status") == wanted["status"]
                since = current["lastTransitionTime"] if same else self._now()
                tasks.create_task(self._say(name_of(schema), {**wanted, "lastTransitionTime": since}))

    async def _say(self, name: str, condition: Obj) -> None:
        status = {"metadata": {"name": name}, "status": {"conditions": [condition]}}
        try:
            await self._writer.apply(FLOW_SCHEMAS, status, CONSUMER, "status")
        except StatusError as error:
            # Deleted meanwhile.
            if error.code != 404:
                raise


def _is_ours(default: Default, stored: Obj) -> bool:
    """Whether a default object's specification is the server's to put right."""
    said = (stored["metadata"].get("annotations") or {}).get(AUTOUPDATE)
    if default.mandatory or said == "true":
        return True
    return said is None and stored["metadata"].get("generation") == 1


def _dangling(level: str, *, found: bool) -> Obj:
    names = f'This FlowSchema references the PriorityLevelConfiguration object named "{level}"'
    if found:
        return {"type": "Dangling", "status": "False", "reason": "Found", "message": f"{names} and it exists"}
    message = f"{names} but there is no such object"
    return {"type": "Dangling", "status": "True", "reason": "NotFound", "message": message}
