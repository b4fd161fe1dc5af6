"""Creating and deleting pods in the name of a controller, with the events that tell people about it.

In: a template, an owner, how many. Out: pods with a controller reference, and SuccessfulCreate, FailedCreate,
SuccessfulDelete or FailedDelete on the owner. Batches start slowly: one request, then two, four …, so that a template
that the API server refuses costs one refused request and not five hundred; once requests succeed, up to
`MAX_IN_FLIGHT` are under way at a time.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, controller_reference, name_of, namespace_of, uid_of
from navarch.client.base import Client
from navarch.client.events import EventRecorder
from navarch.client.resources import PODS
from navarch.controllers.base import is_namespace_terminating

MAX_IN_FLIGHT = 500


class Words(NamedTuple):
    """What events say; `{pod}` and `{owner}` are names, `{error}` what the API server answered."""

    created: str
    not_created: str
    deleted: str
    not_deleted: str


PLAIN = Words("Created pod: {pod}", "Error creating: {error}", "Deleted pod: {pod}", "Error deleting: {error}")


class PodControl:
    """Acts for one component, whose name events carry."""

    def __init__(self, client: Client, recorder: EventRecorder, words: Words = PLAIN) -> None:
        self._client = client
        self._recorder = recorder
        self._words = words

    async def create(
        self,
        owner: Obj,
        template: Obj,
        *,
        name: str = "",
        generate_name: str = "",
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        finalizers: Sequence[str] = (),
        change_spec: Callable[[Obj], None] | None = None,
    ) -> Obj:
        """Create one pod from `template`; raises StatusError, after saying so in an event."""
        pod = pod_from_template(
            owner, template, name=name, generate_name=generate_name or f"{name_of(owner)}-",
            labels=labels, annotations=annotations, finalizers=finalizers,
        )  # fmt: skip
        if change_spec is not None:
            pod["spec"] = copy.deepcopy(pod["spec"])
            change_spec(pod)
        return await self.send(owner, pod)

    async def send(self, owner: Obj, pod: Obj) -> Obj:
        """Create one pod as it is; raises StatusError, after saying so in an event."""
        try:
            created = await self._client.create(PODS, pod)
        except StatusError as error:
            # Of a fixed name that is taken nothing is told: it may be one's own, which the informer will show.
            if not is_namespace_terminating(error) and error.reason != "AlreadyExists":
                self.tell_not_created(owner, pod["metadata"].get("name") or "", error.message)
            raise
        self._tell(owner, "Normal", "SuccessfulCreate", self._words.created, name_of(created))
        return created

    async def delete(self, owner: Obj, pod: Obj) -> None:
        """Delete one pod; that it is gone already is no error."""
        name = name_of(pod)
        try:
            await self._client.delete(PODS, name, namespace_of(pod), uid=uid_of(pod))
        except StatusError as error:
            if error.code == 404:
                return
            if error.code == 409:
                # Another pod has taken the name; the one that was meant is gone.
                return
            self._tell(owner, "Warning", "FailedDelete", self._words.not_deleted, name, error.message)
            raise
        self._tell(owner, "Normal", "SuccessfulDelete", self._words.deleted, name)

    def tell_not_created(self, owner: Obj, pod: str, error: str) -> None:
        self._tell(owner, "Warning", "FailedCreate", self._words.not_created, pod, error)

    def _tell(self, owner: Obj, type: str, reason: str, words: str, pod: str, error: str = "") -> None:
        self._recorder.event(owner, type, reason, words.format(pod=pod, owner=name_of(owner), error=error))


def pod_from_template(
    owner: Obj,
    template: Obj,
    *,
    name: str = "",
    generate_name: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    finalizers: Sequence[str] = (),
) -> Obj:
    """The pod to send; shares `spec` with the template, so the receiver must not change it in place."""
    origin = template.get("metadata") or {}
    metadata: Obj = {
        "namespace": namespace_of(owner),
        "ownerReferences": [controller_reference(owner)],
        "labels": {**(origin.get("labels") or {}), **(labels or {})},
    }
    if name:
        metadata["name"] = name
    else:
        metadata["generateName"] = generate_name
    if merged := {**(origin.get("annotations") or {}), **(annotations or {})}:
        metadata["annotations"] = merged
    if both := [*(origin.get("finalizers") or ()), *finalizers]:
        metadata["finalizers"] = both
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec") or {}}


async def slow_start(count: int, act: Callable[[int], Awaitable[Any]], *, limit: int = MAX_IN_FLIGHT) -> int:
    """Call `act(0) … act(count - 1)`; returns how many succeeded. After a failure no further ones are begun, and the
    first failure is raised as `BatchError` with what came before it."""
    succeeded = 0
    begun = 0
    size = 1
    first: Exception | None = None
    while begun < count and first is None:
        size = min(size, count - begun, limit)
        results = await asyncio.gather(*(act(begun + offset) for offset in range(size)), return_exceptions=True)
        begun += size
        for result in results:
            if isinstance(result, Exception):
                first = first or result
            elif isinstance(result, BaseException):
                raise result
            else:
                succeeded += 1
        size *= 2
    if first is not None:
        raise BatchError(succeeded, count - begun, first) from first
    return succeeded


class BatchError(Exception):
    """Some of a batch failed: `succeeded` did not, `skipped` were not tried, `cause` is the first failure."""

    def __init__(self, succeeded: int, skipped: int, cause: Exception) -> None:
        super().__init__(str(cause))
        self.succeeded = succeeded
        self.skipped = skipped
        self.cause = cause


async def all_at_once(acts: Sequence[Awaitable[Any]]) -> None:
    """Await all, then raise the first failure if there was one."""
    results = await asyncio.gather(*acts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
