"""The disruption controller: how many pods of a PodDisruptionBudget may be evicted right now.

In: budgets, the pods that they select, the controllers of those pods (for how many there should be). Out: `status`,
which the eviction subresource spends from. A pod that an eviction took counts as disrupted until it is seen to go, or
for two minutes.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.go_text import go_label_selector
from navarch.api.meta import (
    Key,
    Obj,
    Resource,
    controller_of,
    is_deleting,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    uid_of,
)
from navarch.api.selectors import label_selector_of
from navarch.api.time import format_time, parse_time
from navarch.client.resources import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
)
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.discovery import Discovery
from navarch.controllers.endpoints.addresses import index_by_label
from navarch.controllers.pods import int_or_percent, same_semantics
from navarch.kinds.core.pod_state import is_finished, is_ready

_DISRUPTION_TIMEOUT = timedelta(minutes=2)


class _NoScale(Exception):
    """A pod's controller does not say how many pods there should be."""


class DisruptionController(Controller):
    name: ClassVar[str] = "disruption"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._discovery = Discovery(self.client)
        self._budgets = self.watch_primary(POD_DISRUPTION_BUDGETS)
        self._pods = self.informer(PODS)
        index_by_label(self._pods)
        self._pods.add_handler(self._pod_changed, self._pod_updated, self._pod_changed)
        self._owners = {
            "ReplicaSet": self.informer(REPLICA_SETS),
            "Deployment": self.informer(DEPLOYMENTS),
            "StatefulSet": self.informer(STATEFUL_SETS),
            "ReplicationController": self.informer(REPLICATION_CONTROLLERS),
        }
        for informer in self._owners.values():
            # One that is seen later than its pods: until then there was no telling how many there should be.
            informer.add_handler(added=self._enqueue_budgets, updated=self._owner_updated)
        self._recorder = context.recorder("controllermanager")

    def _pod_changed(self, pod: Obj) -> None:
        for budget in self._budgets.list(namespace_of(pod)):
            if label_selector_of((budget.get("spec") or {}).get("selector")).matches(labels_of(pod)):
                self.enqueue(key_of(budget))

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        if (
            is_ready(old) != is_ready(pod)
            or is_deleting(old) != is_deleting(pod)
            or is_finished(old) != is_finished(pod)
        ):
            self._pod_changed(pod)
        elif labels_of(old) != labels_of(pod):
            self._pod_changed(old)
            self._pod_changed(pod)

    def _owner_updated(self, old: Obj, owner: Obj) -> None:
        if old["spec"].get("replicas") != owner["spec"].get("replicas"):
            self._enqueue_budgets(owner)

    def _enqueue_budgets(self, owner: Obj) -> None:
        for budget in self._budgets.list(namespace_of(owner)):
            self.enqueue(key_of(budget))

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self._budgets.get(*key)
        if cached is None:
            return None
        budget = self.newest(POD_DISRUPTION_BUDGETS, cached)
        selector = label_selector_of((budget.get("spec") or {}).get("selector"))
        pods = [pod for pod in self._candidates(budget) if selector.matches(labels_of(pod))]
        if not pods:
            self._recorder.event(budget, "Normal", "NoPods", "No matching pods found")
        now = self.clock.now()
        try:
            expected, desired = await self._expected(budget, pods)
        except _NoScale as error:
            message = f"Failed to calculate the number of expected pods: {error}"
            self._recorder.event(budget, "Warning", "CalculateExpectedPodCountFailed", message)
            await self._fail(budget, str(error), now)
            return None
        disrupted, recheck_s = self._disrupted(budget, pods, now)
        healthy = sum(1 for p in pods if not is_deleting(p) and name_of(p) not in disrupted and is_ready(p))
        allowed = max(healthy - desired, 0) if expected > 0 else 0
        status = self._status(budget, now, expected=expected, healthy=healthy, desired=desired, allowed=allowed)
        status["disruptedPods"] = disrupted
        if not same_semantics(status, budget.get("status") or {}):
            await self.write_status(POD_DISRUPTION_BUDGETS, budget, status)
        return Requeue(recheck_s) if recheck_s is not None else None

    def _candidates(self, budget: Obj) -> list[Obj]:
        """Pods among which the selected ones are: with one of the labels, rather than all of the namespace."""
        namespace = namespace_of(budget)
        labels = ((budget.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
        for name, value in labels.items():
            return self._pods.by_index("label", f"{namespace}/{name}={value}")
        return self._pods.list(namespace)

    # How many there should be.

    async def _expected(self, budget: Obj, pods: list[Obj]) -> tuple[int, int]:
        """(expected pods, pods that must stay healthy).  Raises _NoScale."""
        spec = budget.get("spec") or {}
        if spec.get("maxUnavailable") is not None:
            expected = await self._scale_of(budget, pods)
            most = int_or_percent(spec["maxUnavailable"], expected, round_up=True)
            return expected, max(expected - most, 0)
        least = spec.get("minAvailable")
        if isinstance(least, str) and least.endswith("%"):
            expected = await self._scale_of(budget, pods)
            return expected, int_or_percent(least, expected, round_up=True)
        return len(pods), int(least if least is not None else 0)

    async def _scale_of(self, budget: Obj, pods: list[Obj]) -> int:
        scales: dict[str, int] = {}
        unmanaged: list[str] = []
        for pod in pods:
            reference = controller_of(pod)
            if reference is None:
                unmanaged.append(name_of(pod))
            elif reference["uid"] not in scales:
                found = await self._controller_scale(namespace_of(pod), reference)
                if found is None:
                    raise _NoScale(f'found no controllers for pod "{name_of(pod)}"')
                uid, scale = found
                scales[reference["uid"]] = 0
                scales[uid] = scale
        if unmanaged:
            message = "Pods selected by this PodDisruptionBudget (selector: "
            message += f"{go_label_selector(budget['spec'].get('selector'))}) were found to be unmanaged. As a result, "
            message += "the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "
            message += 'To account for these pods please set ".spec.minAvailable" field of the PDB to an integer value.'
            self._recorder.event(budget, "Warning", "UnmanagedPods", message)
        return sum(scales.values())

    async def _controller_scale(self, namespace: str, reference: Obj) -> tuple[str, int] | None:
        """Uid and replicas of what decides on the number of pods; None where it is not there.  Raises _NoScale."""
        kind = reference["kind"]
        informer = self._owners.get(kind)
        if informer is not None:
            owner = informer.get(namespace, reference["name"])
            if owner is None or uid_of(owner) != reference["uid"]:
                return None
            above = controller_of(owner)
            if kind == "ReplicaSet" and above is not None:
                return await self._controller_scale(namespace, above)
            return uid_of(owner), int(owner["spec"].get("replicas", 1))
        group = reference["apiVersion"].rpartition("/")[0]
        for resource, _ in await self._discovery.served():
            if (resource.group, resource.kind) == (group, kind):
                return await self._scale_subresource(resource, namespace, reference)
        raise _NoScale(f'no matches for kind "{kind}" in version "{reference["apiVersion"]}"')

    async def _scale_subresource(self, resource: Resource, namespace: str, reference: Obj) -> tuple[str, int] | None:
        try:
            scale = await self.client.get(resource, reference["name"], namespace, "scale")
        except StatusError as error:
            if error.code != 404:
                raise _NoScale(error.message) from error
            # Either it is not there, or its kind has no scale.
            if await self.client.find(resource, reference["name"], namespace) is None:
                return None
            raise _NoScale(f"{resource.group_resource} does not implement the scale subresource") from error
        if scale["metadata"].get("uid") != reference["uid"]:
            return None
        return reference["uid"], int((scale.get("spec") or {}).get("replicas") or 0)

    # What was disrupted.

    def _disrupted(self, budget: Obj, pods: list[Obj], now: datetime) -> tuple[dict[str, str], float | None]:
        by_name = {name_of(pod): pod for pod in pods}
        kept: dict[str, str] = {}
        recheck_s: float | None = None
        for name, since in ((budget.get("status") or {}).get("disruptedPods") or {}).items():
            pod = by_name.get(name)
            if pod is None or is_deleting(pod):
                continue
            left_s = (parse_time(since) + _DISRUPTION_TIMEOUT - now).total_seconds()
            if left_s <= 0:
                message = "Pod was expected by PDB "
                message += f"{key_of(budget)} to be deleted but it wasn't"
                self._recorder.event(pod, "Warning", "NotDeleted", message)
                continue
            kept[name] = since
            recheck_s = left_s if recheck_s is None else min(recheck_s, left_s)
        return kept, recheck_s

    def _status(self, budget: Obj, now: datetime, *, expected: int, healthy: int, desired: int, allowed: int) -> Obj:
        enough = allowed > 0
        reason = "SufficientPods" if enough else "InsufficientPods"
        generation = int(budget["metadata"].get("generation") or 0)
        return {
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "disruptionsAllowed": allowed,
            "expectedPods": expected,
            "observedGeneration": generation,
            "conditions": _with_condition(budget, "True" if enough else "False", reason, "", now, generation),
        }

    async def _fail(self, budget: Obj, message: str, now: datetime) -> None:
        """Unable to tell, so nothing may be disrupted. What the status says otherwise is of an earlier look."""
        current = budget.get("status") or {}
        counts = {name: current.get(name, 0) for name in ("currentHealthy", "desiredHealthy", "expectedPods")}
        observed = int(current.get("observedGeneration") or 0)
        status = {
            **current,
            **counts,
            "disruptionsAllowed": 0,
            "conditions": _with_condition(budget, "False", "SyncFailed", message, now, observed),
        }
        if not same_semantics(status, current):
            await self.write_status(POD_DISRUPTION_BUDGETS, budget, status)


def _with_condition(
    budget: Obj, status: str, reason: str, message: str, now: datetime, observed_generation: int
) -> list[Obj]:
    conditions = (budget.get("status") or {}).get("conditions") or []
    made = {
        "type": "DisruptionAllowed",
        "status": status,
        "reason": reason,
        "message": message,
        **({"observedGeneration": observed_generation} if observed_generation else {}),
        "lastTransitionTime": format_time(now),
    }
    before = next((c for c in conditions if c.get("type") == made["type"]), None)
    if before is not None and before.get("status") == status:
        made["lastTransitionTime"] = before.get("lastTransitionTime", made["lastTransitionTime"])
    return [c for c in conditions if c.get("type") != made["type"]] + [made]
