"""`PodOwner`: what the controllers share that make pods from a template and count them by expectations.

In: events of pods. Out: the key of the owner, or of those that might adopt the pod; pods made and deleted in batches.
Invariant: every pod that is asked for or given up is expected until its event comes or the request fails, so that a
pass over an informer that is behind makes nothing twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from navarch.api.meta import Key, Obj, Resource, controller_of, is_deleting, key_of, labels_of, name_of, uid_of
from navarch.api.selectors import LabelSelector, label_selector_of
from navarch.client.resources import PODS
from navarch.controllers.adoption import candidates_for, manager_of
from navarch.controllers.base import Context, Controller, index_by_controller
from navarch.controllers.expectations import Expectations
from navarch.controllers.pod_control import BatchError, PodControl, slow_start


class PodOwner(Controller):
    """Subclasses name the `resource` that owns the pods and the `component` in whose name events are told."""

    resource: ClassVar[Resource]
    component: ClassVar[str]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.owners = self.watch_primary(self.resource, self.is_news)
        self.pods = self.informer(PODS)
        index_by_controller(self.pods)
        self.pods.add_handler(self._pod_added, self._pod_updated, self._pod_deleted)
        self.expectations = Expectations(context.world)
        self.recorder = context.recorder(self.component)
        self.control = PodControl(context.client, self.recorder)

    # What subclasses may change.

    def selector(self, owner: Obj) -> LabelSelector:
        return label_selector_of(owner["spec"].get("selector"))

    def is_news(self, owner: Obj) -> bool:
        """Whether an event of the owner itself asks for a pass."""
        return True

    def calm_s(self, owner: Obj) -> float:
        """How long to wait for more changes of the same kind, so that one pass takes them all in."""
        return 0.0

    def wait_s(self, owner: Obj, old: Obj, pod: Obj) -> float | None:
        """How long a pass over the owner may wait after a pod's change; None where the change asks for none."""
        return self.calm_s(owner)

    # Pod events.

    def owner_of(self, pod: Obj) -> Obj | None:
        return manager_of(self.owners, self.resource, pod)

    def _pod_added(self, pod: Obj) -> None:
        if is_deleting(pod):
            self._pod_deleted(pod)
            return
        owner = self.owner_of(pod)
        if owner is not None:
            fulfilled = self.expectations.creation_observed(key_of(owner))
            self.enqueue(key_of(owner), 0.0 if fulfilled else self.calm_s(owner))
        else:
            self._enqueue_candidates(pod)

    def _enqueue_candidates(self, pod: Obj) -> None:
        for owner in candidates_for(self.owners, pod, self.selector):
            self.enqueue(key_of(owner))

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        if is_deleting(pod) and not is_deleting(old):
            self._pod_deleted(pod)
            return
        before, after = controller_of(old), controller_of(pod)
        if before is not None and (after is None or after["uid"] != before["uid"]):
            former = self.owner_of(old)
            if former is not None:
                self.enqueue(key_of(former))
        owner = self.owner_of(pod)
        if owner is not None:
            wait_s = self.wait_s(owner, old, pod)
            if wait_s is not None:
                self.enqueue(key_of(owner), wait_s)
        elif before is not None or labels_of(old) != labels_of(pod):
            self._enqueue_candidates(pod)

    def _pod_deleted(self, pod: Obj) -> None:
        owner = self.owner_of(pod)
        if owner is not None:
            self.expectations.deletion_observed(key_of(owner), uid_of(pod))
            self.enqueue(key_of(owner))

    # Writing.

    async def create_pods(self, key: Key, count: int, create: Callable[[int], Awaitable[Any]]) -> None:
        """Call `create(0) … create(count - 1)`, each of which makes one pod; raises BatchError."""
        if not count:
            return
        self.expectations.expect_creations(key, count)

        async def create_one(number: int) -> None:
            try:
                await create(number)
            except BaseException:
                self.expectations.creation_observed(key)
                raise

        try:
            await slow_start(count, create_one)
        except BatchError as error:
            self.expectations.creation_observed(key, error.skipped)
            raise

    async def delete_pods(self, key: Key, owner: Obj, pods: Sequence[Obj]) -> None:
        """Delete pods; raises BatchError."""
        if not pods:
            return
        self.expectations.expect_deletions(key, [uid_of(pod) for pod in pods])

        async def delete_one(number: int) -> None:
            pod = pods[number]
            try:
                await self.control.delete(owner, pod)
            except BaseException:
                self.expectations.deletion_observed(key, uid_of(pod))
                raise
            live = self.pods.get(key.namespace, name_of(pod))
            if live is None or uid_of(live) != uid_of(pod):
                # It went before the request came; no event will tell.
                self.expectations.deletion_observed(key, uid_of(pod))

        try:
            await slow_start(len(pods), delete_one)
        except BatchError as error:
            for pod in pods[len(pods) - error.skipped :]:
                self.expectations.deletion_observed(key, uid_of(pod))
            raise
