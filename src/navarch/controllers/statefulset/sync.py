"""The StatefulSet controller.

In: the StatefulSet, its pods, its revisions, its claims. Out: pods made in ascending and removed in descending order,
each waiting for the one before it (unless `podManagementPolicy` is Parallel), old revisions replaced from the highest
ordinal down to `partition`, `status`. Names are fixed, so a pod can never be made twice.
"""

from __future__ import annotations

from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, Resource, is_deleting, key_of, name_of, namespace_of, uid_of
from navarch.client.resources import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from navarch.controllers.adoption import Claimer
from navarch.controllers.base import (
    Context,
    Requeue,
    index_by_controller,
    is_namespace_terminating,
)
from navarch.controllers.history import Collision, History, Revisions
from navarch.controllers.pod_control import BatchError, Words, all_at_once
from navarch.controllers.pod_owner import PodOwner
from navarch.controllers.pods import int_or_percent, is_available, next_available_s, same_semantics
from navarch.controllers.statefulset import identity
from navarch.controllers.statefulset.claims import ClaimError, Claims
from navarch.kinds.core.pod_state import is_finished, is_ready, phase_of

_HASH_LABEL = "controller.kubernetes.io/hash"


class StatefulSetController(PodOwner):
    name: ClassVar[str] = "statefulset"
    component: ClassVar[str] = "statefulset-controller"
    resource: ClassVar[Resource] = STATEFUL_SETS
    words: ClassVar[Words] = Words(
        "create Pod {pod} in StatefulSet {owner} successful",
        "create Pod {pod} in StatefulSet {owner} failed error: {error}",
        "delete Pod {pod} in StatefulSet {owner} successful",
        "delete Pod {pod} in StatefulSet {owner} failed error: {error}",
    )

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._revisions = self.informer(CONTROLLER_REVISIONS)
        index_by_controller(self._revisions)
        self._claims = Claims(self.client, self.informer(PERSISTENT_VOLUME_CLAIMS), self.recorder)
        self._history = History(self.client, self._revisions, STATEFUL_SETS, _HASH_LABEL, by_template=False)

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self.owners.get(*key)
        if cached is None:
            self.expectations.forget(key)
            return None
        may_manage = self.expectations.satisfied(key)
        stateful_set = self.newest(STATEFUL_SETS, cached)
        selector = self.selector(stateful_set)
        claimer = Claimer(self.client, STATEFUL_SETS, stateful_set, PODS, selector)
        pods = await claimer.claim(
            self.pods.by_index("controller", uid_of(stateful_set)),
            self.pods.by_index("orphan", key.namespace),
            lambda pod: identity.ordinal_of(stateful_set, pod) is not None,
        )
        status = stateful_set.get("status") or {}
        try:
            revisions = await self._history.sync(stateful_set, selector, status.get("collisionCount"))
        except Collision:
            await self.count_collision(STATEFUL_SETS, stateful_set)
            return Requeue(0.01)
        sync = _Sync(self, stateful_set, revisions, pods)
        failure: Exception | None = None
        try:
            if may_manage and not is_deleting(stateful_set):
                await sync.act()
        except BatchError as error:
            failure = error.cause
        except StatusError as error:
            failure = error
        finally:
            observed = sync.status()
            if not same_semantics(observed, status):
                await self.write_status(STATEFUL_SETS, stateful_set, observed)
        if failure is not None:
            raise failure
        live = {identity.revision_of(pod) for pod in pods} | {observed["currentRevision"], observed["updateRevision"]}
        limit = int(stateful_set["spec"].get("revisionHistoryLimit", 10))
        await self._history.clean_up(revisions.old, limit, live)
        min_ready_s = int(stateful_set["spec"].get("minReadySeconds") or 0)
        wait_s = next_available_s(pods, min_ready_s, self.clock.now())
        return Requeue(wait_s) if wait_s is not None else None

    # One pod.

    async def create_pod(self, stateful_set: Obj, template: Obj, revision: str, ordinal: int) -> Obj | None:
        try:
            self._claims.check_fresh(stateful_set, ordinal)
            await self._claims.ensure(stateful_set, ordinal)
        except ClaimError as error:
            self.control.tell_not_created(stateful_set, identity.pod_name(stateful_set, ordinal), error.message)
            raise
        pod = identity.make_pod(stateful_set, template, revision, ordinal)
        created: list[Obj] = []

        async def create(_number: int) -> None:
            created.append(await self.control.send(stateful_set, pod))

        try:
            # A name that is taken is tried again: no event tells when another's pod goes.
            await self.create_pods(key_of(stateful_set), 1, create)
        except BatchError as error:
            if isinstance(error.cause, StatusError) and is_namespace_terminating(error.cause):
                return None
            raise
        await self._claims.sync_owners(stateful_set, ordinal, created[0], condemned=False)
        return created[0]

    async def delete_pod(self, stateful_set: Obj, pod: Obj) -> None:
        await self.delete_pods(key_of(stateful_set), stateful_set, [pod])

    async def restore_identity(self, stateful_set: Obj, pod: Obj) -> None:
        """Give a pod the labels of its place in the row, where it lacks them."""
        missing = identity.missing_labels(stateful_set, pod)
        if not missing:
            return
        patch = {"metadata": {"uid": uid_of(pod), "labels": missing}}
        await self.client.patch(PODS, name_of(pod), namespace_of(pod), patch)
        message = f"update Pod {name_of(pod)} in StatefulSet {name_of(stateful_set)} successful"
        self.recorder.event(stateful_set, "Normal", "SuccessfulUpdate", message)

    async def sync_claims(self, stateful_set: Obj, ordinal: int, pod: Obj, *, condemned: bool) -> None:
        if phase_of(pod) == "Pending" and not condemned:
            await self._claims.ensure(stateful_set, ordinal)
        await self._claims.sync_owners(stateful_set, ordinal, pod, condemned=condemned)


class _Sync:
    """One pass over one StatefulSet: what to do next, one step at a time where order matters."""

    def __init__(self, controller: StatefulSetController, owner: Obj, revisions: Revisions, pods: list[Obj]) -> None:
        self._controller = controller
        self._set = owner
        spec = owner["spec"]
        self._ordered = spec.get("podManagementPolicy", "OrderedReady") != "Parallel"
        self._min_ready_s = int(spec.get("minReadySeconds") or 0)
        self._now = controller.clock.now()
        self._first = identity.first_ordinal(owner)
        self._end = self._first + int(spec.get("replicas", 1))
        self._update = revisions.current
        named = {name_of(revision): revision for revision in revisions.old}
        current_name = (owner.get("status") or {}).get("currentRevision") or ""
        self._current = named.get(current_name, revisions.current)
        self._pods: dict[int, Obj] = {}
        for pod in pods:
            ordinal = identity.ordinal_of(owner, pod)
            if ordinal is not None:
                self._pods[ordinal] = pod
        self._made: list[Obj] = []

    async def act(self) -> None:
        if not await self._fill():
            return
        if not await self._shrink():
            return
        strategy = self._set["spec"].get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") == "RollingUpdate":
            await self._roll(strategy.get("rollingUpdate") or {})

    def _healthy(self, pod: Obj) -> bool:
        """Running, ready for long enough, and not about to go."""
        if is_deleting(pod) or phase_of(pod) != "Running":
            return False
        return is_available(pod, self._min_ready_s, self._now)

    def _template_for(self, ordinal: int) -> tuple[Obj, str]:
        """Below the partition pods come from the current revision, from the update revision above."""
        strategy = self._set["spec"].get("updateStrategy") or {}
        partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
        rolling = strategy.get("type", "RollingUpdate") == "RollingUpdate"
        revision = self._current if rolling and ordinal < self._first + partition else self._update
        template = {k: v for k, v in revision["data"]["spec"]["template"].items() if k != "$patch"}
        return template, name_of(revision)

    async def _fill(self) -> bool:
        """Make what is missing; False where the rest has to wait."""
        parallel = []
        for ordinal in range(self._first, self._end):
            pod = self._pods.get(ordinal)
            if pod is None:
                if self._ordered:
                    await self._create(ordinal)
                    return False
                parallel.append(self._create(ordinal))
            elif is_finished(pod):
                if not is_deleting(pod):
                    # So that another can take its name.
                    if self._ordered:
                        await self._controller.delete_pod(self._set, pod)
                        return False
                    parallel.append(self._controller.delete_pod(self._set, pod))
                elif self._ordered:
                    return False
            else:
                if not is_deleting(pod):
                    await self._controller.restore_identity(self._set, pod)
                    await self._controller.sync_claims(self._set, ordinal, pod, condemned=False)
                if self._ordered and not self._healthy(pod):
                    return False
        await all_at_once(parallel)
        return True

    async def _create(self, ordinal: int) -> None:
        template, revision = self._template_for(ordinal)
        made = await self._controller.create_pod(self._set, template, revision, ordinal)
        if made is not None:
            self._made.append(made)

    async def _shrink(self) -> bool:
        """Remove what is too much, highest first; False where the rest has to wait."""
        condemned = sorted((n for n in self._pods if not self._first <= n < self._end), reverse=True)
        unhealthy = [pod for _, pod in sorted(self._pods.items()) if not self._healthy(pod)]
        # Those that stay come first, then those that go, each from the lowest ordinal up.
        unhealthy.sort(key=lambda pod: identity.ordinal_of(self._set, pod) in condemned)
        parallel = []
        for ordinal in condemned:
            pod = self._pods[ordinal]
            if is_deleting(pod):
                if self._ordered:
                    return False
                continue
            if self._ordered and not self._healthy(pod) and pod is not unhealthy[0]:
                # Another pod is in trouble: taking one more away could break what is left of a quorum.
                return False
            await self._controller.sync_claims(self._set, ordinal, pod, condemned=True)
            if self._ordered:
                await self._controller.delete_pod(self._set, pod)
                return False
            parallel.append(self._controller.delete_pod(self._set, pod))
        await all_at_once(parallel)
        return True

    async def _roll(self, rolling: Obj) -> None:
        """Replace old pods from the top down to the partition while few enough are unavailable."""
        partition = self._first + int(rolling.get("partition") or 0)
        total = self._end - self._first
        # Rounded down, whatever the API's description says, as Kubernetes does.
        limit = max(int_or_percent(rolling.get("maxUnavailable", 1), total, round_up=False), 1)
        down = sum(1 for n in range(self._first, self._end) if n not in self._pods or not self._healthy(self._pods[n]))
        wanted = name_of(self._update)
        outdated = [
            pod
            for ordinal in range(self._end - 1, partition - 1, -1)
            if (pod := self._pods.get(ordinal)) is not None
            and not is_deleting(pod)
            and identity.revision_of(pod) != wanted
        ]
        # Those that are down already cost no availability, and may never be well again in their old revision.
        down_already = [pod for pod in outdated if not self._healthy(pod)]
        well = [pod for pod in outdated if self._healthy(pod)]
        for pod in down_already + well[: max(limit - down, 0)]:
            await self._controller.delete_pod(self._set, pod)

    def status(self) -> Obj:
        before = self._set.get("status") or {}
        update, current = name_of(self._update), name_of(self._current)
        # One that has ended counts until another takes its name.
        pods = list(self._pods.values()) + self._made
        live = [pod for pod in pods if not is_deleting(pod)]
        ready = sum(1 for pod in pods if phase_of(pod) == "Running" and is_ready(pod))
        available = sum(
            1 for pod in pods if phase_of(pod) == "Running" and is_available(pod, self._min_ready_s, self._now)
        )
        current_count = sum(1 for pod in live if identity.revision_of(pod) == current)
        updated = sum(1 for pod in live if identity.revision_of(pod) == update)
        strategy = (self._set["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
        total = self._end - self._first
        if strategy == "RollingUpdate" and updated == total == len(pods) == ready:
            current, current_count = update, updated
        status: Obj = {
            "observedGeneration": self._set["metadata"].get("generation", 0),
            "replicas": len(pods),
            "readyReplicas": ready,
            "currentReplicas": current_count,
            "updatedReplicas": updated,
            "currentRevision": current,
            "updateRevision": update,
            "collisionCount": before.get("collisionCount") or 0,
            "availableReplicas": available,
        }
        if before.get("conditions"):
            status["conditions"] = before["conditions"]
        always = ("replicas", "collisionCount", "availableReplicas", "currentRevision", "updateRevision")
        return {name: value for name, value in status.items() if value or name in always}
