"""ReplicaSet and ReplicationController: keep as many pods of one template as `spec.replicas` says.

In: the object, the pods that it owns, orphans that its selector matches. Out: pods created or deleted, and `status`.
Invariant: what was asked for but is not yet seen counts (`expectations`), so no pod is created or deleted twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import (
    Key,
    Obj,
    Resource,
    controller_of,
    is_deleting,
    key_of,
    labels_of,
    uid_of,
)
from navarch.api.selectors import LabelSelector, from_map
from navarch.api.time import format_time
from navarch.client.resources import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS
from navarch.controllers.adoption import Claimer
from navarch.controllers.base import Context, Requeue, index_by_controller
from navarch.controllers.pod_control import BatchError
from navarch.controllers.pod_owner import PodOwner
from navarch.controllers.pods import deletion_order, is_available, next_available_s, same_semantics
from navarch.kinds.core.pod_state import condition_of, is_active, is_finished, is_ready

_BURST = 500
"""Pods created or deleted in one go, so that the status keeps up with a large scale-up."""


class ReplicaSetController(PodOwner):
    name: ClassVar[str] = "replicaset"
    component: ClassVar[str] = "replicaset-controller"
    resource: ClassVar[Resource] = REPLICA_SETS

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        index_by_controller(self.owners)

    def is_news(self, owner: Obj) -> bool:
        return not self.is_own_write(self.resource, owner)

    def calm_s(self, owner: Obj) -> float:
        # One pod in thousands changes the counts only; a moment's wait joins many such changes in one status write.
        replicas = int(owner["spec"].get("replicas") or 0)
        return 0.0 if replicas < 100 else min(replicas / 5000, 1.0) * 0.3

    def wait_s(self, owner: Obj, old: Obj, pod: Obj) -> float | None:
        if is_active(old) != is_active(pod) or labels_of(old) != labels_of(pod):
            return 0.0
        return self.calm_s(owner) if old.get("status") != pod.get("status") else None

    # Reconciling.

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self.owners.get(*key)
        if cached is None:
            self.expectations.forget(key)
            return None
        owner = self.newest(self.resource, cached)
        may_manage = self.expectations.satisfied(key)
        mine = self.pods.by_index("controller", uid_of(owner))
        selector = self.selector(owner)
        terminating = sum(
            1 for pod in mine if is_deleting(pod) and not is_finished(pod) and selector.matches(labels_of(pod))
        )
        claimer = Claimer(self.client, self.resource, owner, PODS, selector)
        pods = await claimer.claim(
            [pod for pod in mine if is_active(pod)],
            [pod for pod in self.pods.by_index("orphan", key.namespace) if is_active(pod)],
        )
        failure: BatchError | None = None
        if may_manage and not is_deleting(owner):
            try:
                await self._manage(key, owner, pods)
            except BatchError as error:
                failure = error
        status = self._status(owner, pods, terminating, failure)
        current = owner.get("status") or {}
        if not same_semantics(current, status):
            await self.write_status(self.resource, owner, status)
        if failure is not None:
            raise failure.cause
        wait_s = next_available_s(pods, int(owner["spec"].get("minReadySeconds") or 0), self.clock.now())
        return Requeue(wait_s) if wait_s is not None else None

    async def _manage(self, key: Key, owner: Obj, pods: list[Obj]) -> None:
        surplus = len(pods) - int(owner["spec"].get("replicas") or 0)
        if surplus < 0:
            template = owner["spec"].get("template") or {}
            await self.create_pods(key, min(-surplus, _BURST), lambda _number: self.control.create(owner, template))
        elif surplus > 0:
            ordered = deletion_order(pods, self.clock.now(), self._related_on_node(owner))
            await self.delete_pods(key, owner, ordered[: min(surplus, _BURST)])

    def _related_on_node(self, owner: Obj) -> Callable[[str], int]:
        """How many active pods of this set and of the sets beside it (same Deployment) a node has."""
        deployment = controller_of(owner)
        siblings = self.owners.by_index("controller", deployment["uid"]) if deployment else [owner]
        counts: dict[str, int] = {}
        for sibling in siblings:
            for pod in self.pods.by_index("controller", uid_of(sibling)):
                if is_active(pod):
                    node = pod["spec"].get("nodeName") or ""
                    counts[node] = counts.get(node, 0) + 1
        return lambda node: counts.get(node, 0)

    def _status(self, owner: Obj, pods: list[Obj], terminating: int, failure: BatchError | None) -> Obj:
        now = self.clock.now()
        spec = owner["spec"]
        template_labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
        min_ready_s = int(spec.get("minReadySeconds") or 0)
        labelled = ready = available = 0
        for pod in pods:
            labels = labels_of(pod)
            if all(labels.get(name) == value for name, value in template_labels.items()):
                labelled += 1
            if is_ready(pod):
                ready += 1
                if is_available(pod, min_ready_s, now):
                    available += 1
        status: Obj = {
            "replicas": len(pods),
            "fullyLabeledReplicas": labelled,
            "readyReplicas": ready,
            "availableReplicas": available,
            "observedGeneration": owner["metadata"].get("generation", 0),
        }
        if self.resource is REPLICA_SETS and self.context.config.terminating_replicas:
            status["terminatingReplicas"] = terminating
        if conditions := self._conditions(owner, pods, failure):
            status["conditions"] = conditions
        # Zero is left out, as Kubernetes does, but for the fields that are always there.
        always = ("replicas", "conditions", "observedGeneration", "terminatingReplicas")
        return {name: value for name, value in status.items() if value or name in always}

    def _conditions(self, owner: Obj, pods: list[Obj], failure: BatchError | None) -> list[Obj]:
        current = (owner.get("status") or {}).get("conditions") or []
        others = [condition for condition in current if condition.get("type") != "ReplicaFailure"]
        existing = condition_of(owner, "ReplicaFailure")
        if failure is None:
            # A failure stays until a sync has put it right.
            settled = len(pods) == int(owner["spec"].get("replicas") or 0) or self._expectations_clear(owner)
            return others if existing is None or settled else [*others, existing]
        if existing is not None:
            return list(current)
        reason = "FailedCreate" if len(pods) < int(owner["spec"].get("replicas") or 0) else "FailedDelete"
        message = failure.cause.message if isinstance(failure.cause, StatusError) else str(failure.cause)
        if reason == "FailedDelete":
            message = f"unable to delete pods: {message}"
        condition = {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": format_time(self.clock.now()),
        }
        return [*others, condition]

    def _expectations_clear(self, owner: Obj) -> bool:
        return self.expectations.satisfied(key_of(owner))


class ReplicationControllerController(ReplicaSetController):
    """The same by another name: its selector is a plain map of labels, and defaults to those of its template."""

    name: ClassVar[str] = "replicationcontroller"
    component: ClassVar[str] = "replication-controller"
    resource: ClassVar[Resource] = REPLICATION_CONTROLLERS

    def selector(self, owner: Obj) -> LabelSelector:
        return from_map(owner["spec"].get("selector") or {})
