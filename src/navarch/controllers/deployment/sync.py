"""The Deployment controller: one reconciliation reads the Deployment and its ReplicaSets and takes the next step.

In: the Deployment, the ReplicaSets that it owns or may adopt, for Recreate their pods. Out: ReplicaSets created,
resized or deleted, and `status`. A step is small: after a change it ends, and the event of that change brings the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import (
    Key,
    Obj,
    Resource,
    annotations_of,
    controller_of,
    is_deleting,
    key_of,
    name_of,
    namespace_of,
    uid_of,
)
from navarch.api.selectors import label_selector_of
from navarch.client.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from navarch.controllers.adoption import Claimer
from navarch.controllers.base import Context, Requeue, index_by_controller, is_namespace_terminating
from navarch.controllers.deployment import progress, recreate, revisions, rollback, rolling, scaling
from navarch.controllers.deployment.revisions import replicas
from navarch.controllers.owner import Owner
from navarch.controllers.pods import same_semantics
from navarch.kinds.core.pod_state import condition_of


class DeploymentController(Owner):
    name: ClassVar[str] = "deployment"
    component: ClassVar[str] = "deployment-controller"
    resource: ClassVar[Resource] = DEPLOYMENTS
    owned: ClassVar[Resource] = REPLICA_SETS

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._pods = self.informer(PODS)
        index_by_controller(self._pods)
        self._pods.add_handler(deleted=self._pod_deleted)

    def _pod_deleted(self, pod: Obj) -> None:
        """The last pod of an old revision is gone: Recreate may go on."""
        reference = controller_of(pod)
        if reference is None or reference["kind"] != "ReplicaSet":
            return
        rs = self.dependents.get(namespace_of(pod), reference["name"])
        owner = self.owner_of(rs) if rs is not None else None
        if owner is not None and (owner["spec"].get("strategy") or {}).get("type") == "Recreate":
            self.enqueue(key_of(owner))

    # Reconciling.

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self.owners.get(*key)
        if cached is None:
            return None
        deployment = self.newest(DEPLOYMENTS, cached)
        selector = deployment["spec"].get("selector") or {}
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            message = "This deployment is selecting all pods. A non-empty selector is required."
            self.recorder.event(deployment, "Warning", "SelectingAll", message)
            return None
        claimer = Claimer(self.client, DEPLOYMENTS, deployment, REPLICA_SETS, label_selector_of(selector))
        claimed = await claimer.claim(
            self.dependents.by_index("controller", uid_of(deployment)),
            self.dependents.by_index("orphan", key.namespace),
        )
        sets = [self.newest(REPLICA_SETS, rs) for rs in claimed]
        if is_deleting(deployment):
            return await self._sync_status(deployment, sets)
        deployment = await self._sync_paused(deployment)
        if deployment["spec"].get("paused"):
            return await self._resize(deployment, sets)
        if rollback.wanted(deployment):
            outcome = rollback.roll_back(deployment, sets)
            await self.write(DEPLOYMENTS, outcome.deployment)
            self.recorder.event(deployment, *outcome.event)
            return None
        if scaling.is_scaling(deployment, sets):
            return await self._resize(deployment, sets)
        if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            return await self._recreate(deployment, sets)
        return await self._roll(deployment, sets)

    async def _sync_paused(self, deployment: Obj) -> Obj:
        """Keep the Progressing condition's word on whether the Deployment is paused, so that time spent paused does
        not count towards the deadline."""
        if not progress.has_deadline(deployment):
            return deployment
        current = condition_of(deployment, "Progressing") or {}
        if current.get("reason") == "ProgressDeadlineExceeded":
            return deployment
        paused = bool(deployment["spec"].get("paused"))
        noted = current.get("reason") == "DeploymentPaused"
        if paused == noted:
            return deployment
        reason, message = ("DeploymentPaused", "Deployment is paused") if paused else (
            "DeploymentResumed", "Deployment is resumed")  # fmt: skip
        told = progress.condition("Progressing", "Unknown", reason, message, self.clock.now())
        status = progress.with_condition(deployment.get("status") or {}, told)
        return await self.write_status(DEPLOYMENTS, deployment, status)

    # Strategies.

    async def _roll(self, deployment: Obj, sets: Sequence[Obj]) -> Requeue | None:
        deployment, new, old = await self._new_and_old(deployment, sets, create=True)
        if new is None:
            return None
        size = rolling.new_size(deployment, new, [new, *old])
        if size != replicas(new):
            new = await self._scale(deployment, new, size)
            return await self._sync_rollout(deployment, new, old)
        sizes = rolling.old_sizes(deployment, new, old)
        if sizes:
            old = [await self._scale(deployment, rs, sizes.get(name_of(rs), replicas(rs))) for rs in old]
            return await self._sync_rollout(deployment, new, old)
        return await self._finish(deployment, new, old)

    async def _recreate(self, deployment: Obj, sets: Sequence[Obj]) -> Requeue | None:
        deployment, new, old = await self._new_and_old(deployment, sets, create=False)
        if any(replicas(rs) for rs in old):
            old = [await self._scale(deployment, rs, 0) for rs in old]
            return await self._sync_rollout(deployment, new, old)
        pods = (pod for rs in old for pod in self._pods.by_index("controller", uid_of(rs)))
        if recreate.old_pods_remain(old, pods):
            return await self._sync_rollout(deployment, new, old)
        if new is None:
            deployment, new, old = await self._new_and_old(deployment, sets, create=True)
            if new is None:
                return None
        if replicas(new) != replicas(deployment):
            new = await self._scale(deployment, new, replicas(deployment))
        return await self._finish(deployment, new, old)

    async def _finish(self, deployment: Obj, new: Obj, old: Sequence[Obj]) -> Requeue | None:
        if progress.is_complete(deployment, deployment.get("status") or {}):
            await self._clean_up(deployment, old)
        return await self._sync_rollout(deployment, new, old)

    async def _resize(self, deployment: Obj, sets: Sequence[Obj]) -> Requeue | None:
        """The size changed, or the Deployment is paused: scale what is there, start no rollout."""
        deployment, new, old = await self._new_and_old(deployment, sets, create=False)
        single = scaling.active_or_latest(new, old)
        if single is not None:
            if replicas(single) != replicas(deployment):
                await self._scale(deployment, single, replicas(deployment))
        elif scaling.is_saturated(deployment, new):
            for rs in old:
                await self._scale(deployment, rs, 0)
        elif (deployment["spec"].get("strategy") or {}).get("type") != "Recreate":
            every = ([new] if new else []) + list(old)
            sizes = scaling.proportional_sizes(deployment, every)
            for rs in every:
                if name_of(rs) in sizes:
                    await self._scale(deployment, rs, sizes[name_of(rs)])
        if deployment["spec"].get("paused") and not rollback.wanted(deployment):
            await self._clean_up(deployment, old)
        return await self._sync_status(deployment, ([new] if new else []) + list(old))

    # ReplicaSets.

    async def _new_and_old(
        self, deployment: Obj, sets: Sequence[Obj], *, create: bool
    ) -> tuple[Obj, Obj | None, list[Obj]]:
        """The Deployment (its status may have been written), its new ReplicaSet and all others."""
        found = revisions.find_new(deployment, sets)
        old = [rs for rs in sets if found is None or uid_of(rs) != uid_of(found)]
        number = max((revisions.revision(rs) for rs in old), default=0) + 1
        if found is None:
            if not create:
                return deployment, None, old
            deployment, found = await self._create_new(deployment, old, number)
            return deployment, found, old
        found = await self._sync_annotations(deployment, found, number)
        told = None
        if progress.has_deadline(deployment) and condition_of(deployment, "Progressing") is None:
            told = ("True", "FoundNewReplicaSet", f'Found new replica set "{name_of(found)}"')
        return await self._note_revision(deployment, found, told), found, old

    async def _sync_annotations(self, deployment: Obj, new: Obj, number: int) -> Obj:
        annotations = revisions.new_annotations(deployment, new, number)
        min_ready_s = deployment["spec"].get("minReadySeconds") or 0
        if annotations == annotations_of(new) and min_ready_s == (new["spec"].get("minReadySeconds") or 0):
            return new
        changed = {
            **new,
            "metadata": {**new["metadata"], "annotations": annotations},
            "spec": {**new["spec"], "minReadySeconds": min_ready_s},
        }
        return await self.write(REPLICA_SETS, changed)

    async def _note_revision(self, deployment: Obj, new: Obj, told: tuple[str, str, str] | None) -> Obj:
        """Write down which revision is the newest, and what is told of the progress (status, reason, message): both
        through the status, as Kubernetes does, so that nothing of the specification is written."""
        annotations = annotations_of(deployment)
        number = annotations_of(new).get(revisions.REVISION, "")
        if annotations.get(revisions.REVISION) == number and told is None:
            return deployment
        noted = {**deployment["metadata"], "annotations": {**annotations, revisions.REVISION: number}}
        status = deployment.get("status") or {}
        if told is not None:
            status = progress.with_condition(status, progress.condition("Progressing", *told, self.clock.now()))
        return await self.write_status(DEPLOYMENTS, {**deployment, "metadata": noted}, status)

    async def _create_new(self, deployment: Obj, old: Sequence[Obj], number: int) -> tuple[Obj, Obj | None]:
        collisions = (deployment.get("status") or {}).get("collisionCount")
        made = revisions.make_new(deployment, number, collisions)
        size = rolling.new_size(deployment, made, [made, *old])
        made["spec"]["replicas"] = size
        try:
            new = await self.client.create(REPLICA_SETS, made)
        except StatusError as error:
            if error.code == 409 and error.reason == "AlreadyExists":
                return deployment, await self._taken(deployment, made, error)
            if not is_namespace_terminating(error):
                message = f'Failed to create new replica set "{name_of(made)}": {error.message}'
                if progress.has_deadline(deployment):
                    await self._tell_progress(deployment, "False", "ReplicaSetCreateError", message)
                self.recorder.event(deployment, "Warning", "ReplicaSetCreateError", message)
            raise
        if size > 0:
            message = f"Scaled up replica set {name_of(new)} from 0 to {size}"
            self.recorder.event(deployment, "Normal", "ScalingReplicaSet", message)
        told = None
        if progress.has_deadline(deployment):
            told = ("True", "NewReplicaSetCreated", f'Created new replica set "{name_of(new)}"')
        return await self._note_revision(deployment, new, told), new

    async def _taken(self, deployment: Obj, made: Obj, error: StatusError) -> Obj | None:
        """The name of the new ReplicaSet exists: it is ours and the informer was late, or the hashes collide."""
        existing = await self.client.find(REPLICA_SETS, name_of(made), namespace_of(made))
        if existing is None:
            raise error
        owner = controller_of(existing)
        template = deployment["spec"]["template"]
        if owner and owner["uid"] == uid_of(deployment) and revisions.same_template(
            existing["spec"]["template"], template
        ):  # fmt: skip
            return existing
        await self.count_collision(DEPLOYMENTS, deployment)
        raise error

    async def _scale(self, deployment: Obj, rs: Obj, size: int) -> Obj:
        before = replicas(rs)
        sizes = revisions.size_annotations(deployment)
        noted = {name: annotations_of(rs).get(name) for name in sizes}
        if size == before and noted == sizes:
            return rs
        if size == before == 0:
            return rs
        changed = {
            **rs,
            "metadata": {**rs["metadata"], "annotations": {**annotations_of(rs), **sizes}},
            "spec": {**rs["spec"], "replicas": size},
        }
        written = await self.write(REPLICA_SETS, changed)
        if size != before:
            direction = "up" if size > before else "down"
            message = f"Scaled {direction} replica set {name_of(rs)} from {before} to {size}"
            self.recorder.event(deployment, "Normal", "ScalingReplicaSet", message)
        return written

    async def _clean_up(self, deployment: Obj, old: Sequence[Obj]) -> None:
        limit = deployment["spec"].get("revisionHistoryLimit")
        if limit is None:
            return
        for rs in revisions.expendable(old, int(limit)):
            try:
                await self.client.delete(REPLICA_SETS, name_of(rs), namespace_of(rs), uid=uid_of(rs))
            except StatusError as error:
                if error.code != 404:
                    raise

    # Status.

    async def _tell_progress(self, deployment: Obj, status: str, reason: str, message: str) -> Obj:
        told = progress.condition("Progressing", status, reason, message, self.clock.now())
        return await self.write_status(
            DEPLOYMENTS, deployment, progress.with_condition(deployment.get("status") or {}, told)
        )

    async def _sync_status(self, deployment: Obj, sets: Sequence[Obj]) -> Requeue | None:
        new = revisions.find_new(deployment, sets)
        await self._write_changed(deployment, progress.base_status(deployment, sets, new, self.clock.now()))
        return None

    async def _sync_rollout(self, deployment: Obj, new: Obj | None, old: Sequence[Obj]) -> Requeue | None:
        now = self.clock.now()
        status = progress.rollout_status(deployment, ([new] if new else []) + list(old), new, now)
        await self._write_changed(deployment, status)
        wait_s = progress.deadline_wait_s(deployment, status, now)
        return Requeue(wait_s) if wait_s is not None else None

    async def _write_changed(self, deployment: Obj, status: Obj) -> None:
        if not self.context.config.terminating_replicas:
            status = {name: value for name, value in status.items() if name != "terminatingReplicas"}
        if not same_semantics(status, deployment.get("status") or {}):
            await self.write_status(DEPLOYMENTS, deployment, status)
