"""The DaemonSet controller.

In: the DaemonSet, its pods, all nodes, its ControllerRevisions. Out: a pod on every node that fits, none elsewhere, old
ones replaced by the update strategy, `status`. Nodes are looked at only when a label, a taint or their existence
changes, not at every heartbeat.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from navarch.api.meta import (
    Key,
    Obj,
    Resource,
    annotations_of,
    is_deleting,
    key_of,
    labels_of,
    name_of,
    uid_of,
)
from navarch.api.selectors import label_selector_of
from navarch.client.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from navarch.controllers.adoption import Claimer
from navarch.controllers.base import Context, Requeue, index_by_controller
from navarch.controllers.daemonset import placement, update
from navarch.controllers.daemonset.revisions import tidied
from navarch.controllers.history import Collision, History, Revisions
from navarch.controllers.pod_control import BatchError
from navarch.controllers.pod_owner import PodOwner
from navarch.controllers.pods import created_at, is_available, next_available_s, same_semantics
from navarch.kinds.core.pod_state import is_finished, is_ready, phase_of

_BURST = 250
_GENERATION = "deprecated.daemonset.template.generation"
_GENERATION_LABEL = "pod-template-generation"


class DaemonSetController(PodOwner):
    name: ClassVar[str] = "daemonset"
    component: ClassVar[str] = "daemonset-controller"
    resource: ClassVar[Resource] = DAEMON_SETS

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._revisions = self.informer(CONTROLLER_REVISIONS)
        index_by_controller(self._revisions)
        self._nodes = self.informer(NODES)
        self._nodes.add_handler(self._node_changed, self._node_updated, self._node_changed)
        self._history = History(self.client, self._revisions, DAEMON_SETS, update.HASH_LABEL, by_template=True)
        self._failures: dict[tuple[str, str], tuple[int, datetime]] = {}

    # Events.

    def _node_changed(self, _node: Obj) -> None:
        for daemon_set in self.owners.list():
            self._enqueue_for_nodes(daemon_set)

    def _enqueue_for_nodes(self, daemon_set: Obj) -> None:
        # Nodes come and go by the hundred, and one pass takes them all in.
        self.enqueue(key_of(daemon_set), max(self.calm_s(daemon_set), 0.02))

    def _node_updated(self, old: Obj, new: Obj) -> None:
        before, after = old.get("spec") or {}, new.get("spec") or {}
        if labels_of(old) != labels_of(new) or before.get("taints") != after.get("taints"):
            for daemon_set in self.owners.list():
                if placement.fit(daemon_set, old) != placement.fit(daemon_set, new):
                    self._enqueue_for_nodes(daemon_set)

    def calm_s(self, owner: Obj) -> float:
        # A pass looks at every node, so on large clusters passes are spaced out.
        return min(len(self._nodes) / 5000, 1.0) * 0.5 if len(self._nodes) > 50 else 0.0

    # Reconciling.

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self.owners.get(*key)
        if cached is None:
            self.expectations.forget(key)
            return None
        daemon_set = self.newest(DAEMON_SETS, cached)
        selector_text = daemon_set["spec"].get("selector") or {}
        if not selector_text.get("matchLabels") and not selector_text.get("matchExpressions"):
            message = "This daemon set is selecting all pods. A non-empty selector is required."
            self.recorder.event(daemon_set, "Warning", "SelectingAll", message)
            return None
        if is_deleting(daemon_set):
            return None
        may_manage = self.expectations.satisfied(key)
        selector = label_selector_of(selector_text)
        claimer = Claimer(self.client, DAEMON_SETS, daemon_set, PODS, selector)
        pods = await claimer.claim(
            self.pods.by_index("controller", uid_of(daemon_set)), self.pods.by_index("orphan", key.namespace)
        )
        status = daemon_set.get("status") or {}
        try:
            revisions = await self._history.sync(daemon_set, selector, status.get("collisionCount"))
        except Collision:
            await self.count_collision(DAEMON_SETS, daemon_set)
            return Requeue(0.01)
        revisions, pods = await tidied(self.client, revisions, pods)
        digest = labels_of(revisions.current)[update.HASH_LABEL]
        failure: BatchError | None = None
        wait_s: float | None = None
        if may_manage:
            try:
                wait_s = await self._manage(key, daemon_set, pods, digest)
            except BatchError as error:
                failure = error
            await self._clean_up(daemon_set, revisions, pods)
        await self._sync_status(daemon_set, pods, digest)
        if failure is not None:
            raise failure.cause
        min_ready_s = int(daemon_set["spec"].get("minReadySeconds") or 0)
        waits = [w for w in (wait_s, next_available_s(pods, min_ready_s, self.clock.now())) if w is not None]
        return Requeue(min(waits)) if waits else None

    async def _manage(self, key: Key, daemon_set: Obj, pods: list[Obj], digest: str) -> float | None:
        create: list[str] = []
        delete: list[Obj] = []
        candidates: dict[str, list[Obj]] = {}
        desired = 0
        wait_s: float | None = None
        pods_by_node = placement.by_node(pods)
        surges = update.limits(daemon_set, 1)[0] > 0
        for node in self._nodes.list():
            name = name_of(node)
            fit = placement.fit(daemon_set, node)
            here = pods_by_node.pop(name, [])
            if not fit.start and not fit.stay:
                delete += [pod for pod in here if not is_deleting(pod)]
                continue
            if fit.start or here:
                candidates[name] = here
            alive, doomed, wait = self._sort_out(daemon_set, name, here, digest)
            delete += doomed
            if wait is not None:
                wait_s = wait if wait_s is None else min(wait_s, wait)
            if fit.start:
                desired += 1
                # Where a new pod may run beside an old one it need not wait for the old one's end either.
                if not here or (surges and not alive and wait is None):
                    create.append(name)
        # Pods of nodes that are gone are the pod garbage collector's, unless they were never bound.
        delete += [p for group in pods_by_node.values() for p in group
                   if not p["spec"].get("nodeName") and not is_deleting(p)]  # fmt: skip
        strategy = (daemon_set["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
        if strategy == "RollingUpdate" and not create and not delete:
            step = update.next_step(daemon_set, candidates, desired, digest, self.clock.now())
            create, delete = step.create_on, step.delete
        await self._act(key, daemon_set, create[:_BURST], delete[:_BURST], digest)
        return wait_s

    def _sort_out(
        self, daemon_set: Obj, node: str, pods: list[Obj], digest: str
    ) -> tuple[list[Obj], list[Obj], float | None]:
        """The live pods of a node that should have one, those to delete, and how long a failed one may still lie."""
        alive: list[Obj] = []
        doomed: list[Obj] = []
        wait_s: float | None = None
        for pod in pods:
            if is_deleting(pod):
                continue
            if not is_finished(pod):
                alive.append(pod)
                continue
            if phase_of(pod) == "Failed":
                wait_s = self._failure_wait_s(daemon_set, node)
                if wait_s is not None:
                    continue
                type, reason, word = "Warning", "FailedDaemonPod", "failed"
            else:
                type, reason, word = "Normal", "SucceededDaemonPod", "succeeded"
            message = f"Found {word} daemon pod {key_of(pod)} on node {node}, will try to "
            message += "kill it" if word == "failed" else "delete it"
            self.recorder.event(daemon_set, type, reason, message)
            doomed.append(pod)
        doomed += self._in_excess(daemon_set, sorted(alive, key=_precedence), digest)
        return alive, doomed, wait_s

    def _in_excess(self, daemon_set: Obj, alive: list[Obj], digest: str) -> list[Obj]:
        """All but the first of a node's pods; of an update that surges one of each revision may stay, until the new one
        is available or the old one is not ready."""
        surge, _ = update.limits(daemon_set, 1)
        if not surge:
            return alive[1:]
        old = [pod for pod in alive if labels_of(pod).get(update.HASH_LABEL) != digest]
        new = [pod for pod in alive if labels_of(pod).get(update.HASH_LABEL) == digest]
        min_ready_s = int(daemon_set["spec"].get("minReadySeconds") or 0)
        replaced = old and new and (not is_ready(old[0]) or is_available(new[0], min_ready_s, self.clock.now()))
        return old[0 if replaced else 1 :] + new[1:]

    def _failure_wait_s(self, daemon_set: Obj, node: str) -> float | None:
        """Failed pods are replaced after a back-off per node of 1 s to 15 min; None says now."""
        identity = (uid_of(daemon_set), node)
        now = self.clock.now()
        count, until = self._failures.get(identity, (0, now))
        if until > now:
            return (until - now).total_seconds()
        if now - until > timedelta(minutes=30):
            count = 0
        self._failures[identity] = (count + 1, now + timedelta(seconds=min(2.0**count, 900.0)))
        if len(self._failures) > 10_000:
            self._failures.pop(next(iter(self._failures)))
        return None

    async def _act(self, key: Key, daemon_set: Obj, create: list[str], delete: list[Obj], digest: str) -> None:
        labels = {update.HASH_LABEL: digest}
        if generation := annotations_of(daemon_set).get(_GENERATION):
            labels[_GENERATION_LABEL] = generation
        template = daemon_set["spec"]["template"]

        async def create_one(position: int) -> None:
            node = create[position]
            await self.control.create(
                daemon_set, template, labels=labels, change_spec=lambda pod: placement.tie_to(pod, node)
            )

        await self.create_pods(key, len(create), create_one)
        await self.delete_pods(key, daemon_set, delete)

    async def _clean_up(self, daemon_set: Obj, revisions: Revisions, pods: list[Obj]) -> None:
        live = {labels_of(pod).get(update.HASH_LABEL, "") for pod in pods}
        limit = int(daemon_set["spec"].get("revisionHistoryLimit", 10))
        if len(revisions.old) > limit:
            # Those in use stay, but count.
            used = sum(labels_of(revision).get(update.HASH_LABEL) in live for revision in revisions.old)
            await self._history.clean_up(revisions.old, max(limit - used, 0), live)

    async def _sync_status(self, daemon_set: Obj, pods: list[Obj], digest: str) -> None:
        now = self.clock.now()
        min_ready_s = int(daemon_set["spec"].get("minReadySeconds") or 0)
        pods_by_node = placement.by_node(pods)
        desired = current = misplaced = ready = updated = available = 0
        for node in self._nodes.list():
            here = pods_by_node.get(name_of(node))
            if not placement.fit(daemon_set, node).start:
                misplaced += bool(here)
                continue
            desired += 1
            if not here:
                continue
            current += 1
            first = min(here, key=_precedence)
            if is_ready(first):
                ready += 1
                available += is_available(first, min_ready_s, now)
            updated += labels_of(first).get(update.HASH_LABEL) == digest
        before = daemon_set.get("status") or {}
        status: Obj = {
            "currentNumberScheduled": current,
            "numberMisscheduled": misplaced,
            "desiredNumberScheduled": desired,
            "numberReady": ready,
            "observedGeneration": daemon_set["metadata"].get("generation", 0),
        }
        optional = {
            "updatedNumberScheduled": updated,
            "numberAvailable": available,
            "numberUnavailable": desired - available,
            "collisionCount": before.get("collisionCount"),
            "conditions": before.get("conditions"),
        }
        status |= {name: value for name, value in optional.items() if value}
        if not same_semantics(status, before):
            await self.write_status(DAEMON_SETS, daemon_set, status)


def _precedence(pod: Obj) -> tuple[bool, datetime, str]:
    """Which of a node's pods is the one that counts: one that is bound to it, the oldest."""
    return not pod["spec"].get("nodeName"), created_at(pod), name_of(pod)
