"""What is done to pods through subresources: binding to a node, eviction.

In: a Binding, an Eviction.  Out: the pod's `spec.nodeName` set once and for all; the pod's deletion, if the disruption
budgets that select it allow one more disruption.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from navarch.api.errors import (
    FieldError,
    StatusError,
    bad_request,
    conflict,
    forbidden,
    not_found,
    not_supported,
    required,
    too_many_requests,
    unexplained,
)
from navarch.api.meta import Obj, Resource
from navarch.api.selectors import label_selector_of
from navarch.apiserver import decoding
from navarch.apiserver.admitting import CREATE, admission
from navarch.apiserver.call import Call, warning_headers
from navarch.apiserver.core import Core
from navarch.apiserver.deleting import DeleteOptions, options_from
from navarch.apiserver.handlers.objects import Objects
from navarch.apiserver.negotiation import respond_obj
from navarch.apiserver.objectmeta import check_identity
from navarch.apiserver.writes import How, Origin
from navarch.client.transport import Response
from navarch.kinds.core.pod_state import is_active, is_ready, phase_of
from navarch.kinds.resources import BINDINGS, POD_DISRUPTION_BUDGETS, PODS

_DISRUPTED_MAX = 2000
_BUDGET_ATTEMPTS = 8
_HEALTHY_ENOUGH = "AlwaysAllow"
# The word in Kubernetes' refusals.
_BUDGET = "poddisruptionbudget"
_BINDING = decoding.Subkind(BINDINGS, "io.k8s.api.core.v1.Binding")
_EVICTION = decoding.Subkind(
    Resource("policy", "v1", "evictions", "Eviction", True), "io.k8s.api.policy.v1.Eviction", ("policy/v1beta1",)
)


def success(code: int = 201) -> Obj:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}


class PodActions:
    def __init__(self, core: Core, objects: Objects) -> None:
        self._core = core
        self._objects = objects

    # Binding

    async def bind(self, call: Call) -> Response:
        """`POST …/pods/<name>/binding`, or `POST …/bindings` with the pod's name inside."""
        binding = decoding.decode_posted(self._core, _BINDING, call.request, call.namespace, call.warnings)
        name = call.route.name or binding["metadata"].get("name") or ""
        if not call.route.name:
            # Which pod of that name is meant can be said below the pod alone.
            binding["metadata"].pop("uid", None)
        pods = self._core.kind_of(PODS)
        origin = call.origin()
        origin.manager = ""
        async with admission(
            self._core.admission,
            origin,
            call.kind,
            CREATE,
            namespace=call.namespace,
            name=name,
            subresource=call.route.subresource,
            obj=binding,
        ) as admitted:
            binding = await admitted.mutate(binding) or binding
            if name != (binding["metadata"].get("name") or ""):
                raise bad_request("name in URL does not match name in Binding object")
            target = binding.get("target") or {}
            self._check_target(name, target)
            await admitted.validate(binding)
            await self._objects.writing.modify(
                pods,
                call.namespace,
                name,
                lambda old: _bound(old, binding, target["name"], self._core.now_text()),
                origin,
                how=How("binding", manage=False, admit=False, patch=True),
            )
            admitted.landed(binding)
        return respond_obj(call.form, success(), 201, warning_headers(call.warnings))

    def _check_target(self, name: str, target: Any) -> None:
        if not isinstance(target, dict):
            raise bad_request(
                "json: cannot unmarshal value into Go struct field Binding.target of type v1.ObjectReference"
            )
        errors: list[FieldError] = []
        if target.get("kind") not in (None, "", "Node"):
            errors.append(not_supported("target.kind", target["kind"], ("Node", "<empty>")))
        if not target.get("name") or not isinstance(target["name"], str):
            errors.append(required("target.name"))
        if errors:
            texts = [str(error) for error in errors]
            raise unexplained(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")

    # Eviction

    async def evict(self, call: Call) -> Response:
        """`POST …/pods/<name>/eviction`.  Raises StatusError 429 where a budget forbids it."""
        core, name = self._core, call.route.name
        eviction = decoding.decode_posted(core, _EVICTION, call.request, call.namespace, call.warnings)
        options = options_from(eviction.get("deleteOptions") or {})
        origin = replace(call.origin(), manager="", dry_run=options.dry_run or call.dry_run)
        async with admission(
            core.admission,
            origin,
            call.kind,
            CREATE,
            namespace=call.namespace,
            name=name,
            subresource=call.route.subresource,
            obj=eviction,
        ) as admitted:
            eviction = await admitted.mutate(eviction) or eviction
            if name != (eviction["metadata"].get("name") or ""):
                raise bad_request("name in URL does not match name in Eviction object")
            options = options_from(eviction.get("deleteOptions") or {})
            await admitted.validate(eviction)
            await self._evict(call, options, origin)
            admitted.landed(eviction)
        return respond_obj(call.form, success(), 201, warning_headers(call.warnings))

    async def _evict(self, call: Call, options: DeleteOptions, origin: Origin) -> None:
        core, name = self._core, call.route.name
        await core.caches.sync()
        cached = core.caches.of(PODS).get(call.namespace, name)
        if cached is None:
            raise not_found("pods", "", name)
        pod = await core.work.apart(len(cached.data), cached.obj)
        if not _may_skip_budget(pod):
            budget = self._budget_of(pod)
            if budget is not None and not self._unready_may_go(pod, budget):
                await self._spend(pod, budget["metadata"]["name"], origin.dry_run)
                options = self._pinned(pod, options)
        if not origin.dry_run:
            options = await self._tell_why(pod, options)
        await self._objects.deleting.delete(core.kind_of(PODS), call.namespace, name, options, origin, admit=False)

    async def _tell_why(self, pod: Obj, options: DeleteOptions) -> DeleteOptions:
        """The pod's own condition says that it is evicted, for those who judge afterwards how it ended. Preconditions
        are those of the pod as it was before."""
        core = self._core
        now = core.now_text()

        def told(old: Obj) -> Obj:
            stated = {"UID": (options.uid, "uid"), "ResourceVersion": (options.revision, "resourceVersion")}
            for what, (wanted, field) in stated.items():
                if wanted and wanted != old["metadata"][field]:
                    why = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: "
                    raise conflict("pods", "", old["metadata"]["name"], why + old["metadata"][field])
            return {**old, "status": _with_disruption(old, now)}

        origin = Origin(manager="kube-apiserver")
        where = pod["metadata"]["namespace"], pod["metadata"]["name"]
        how = How("status", patch=True)
        written = await self._objects.writing.modify(core.kind_of(PODS), *where, told, origin, how=how)
        return replace(options, revision=str(written.revision)) if options.revision else options

    def _pinned(self, pod: Obj, options: DeleteOptions) -> DeleteOptions:
        """What was counted against the budget is this very pod."""
        if not options.uid:
            options.uid = pod["metadata"]["uid"]
        return options

    def _budget_of(self, pod: Obj) -> Obj | None:
        """Raises StatusError 500 for a pod with several budgets, as Kubernetes does."""
        namespace, labels = pod["metadata"]["namespace"], pod["metadata"].get("labels") or {}
        budgets = [cached.obj() for cached in self._core.caches.of(POD_DISRUPTION_BUDGETS).items(namespace)]
        found = [budget for budget in budgets if _selects(budget, labels)]
        if len(found) > 1:
            raise unexplained(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        return found[0] if found else None

    def _unready_may_go(self, pod: Obj, budget: Obj) -> bool:
        if is_ready(pod):
            return False
        if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == _HEALTHY_ENOUGH:
            return True
        status = budget.get("status") or {}
        return (status.get("currentHealthy") or 0) >= (status.get("desiredHealthy") or 0) > 0

    async def _spend(self, pod: Obj, budget_name: str, dry_run: bool) -> None:
        """Take one disruption from the budget and note the pod as disrupted.  Raises StatusError 429."""
        core = self._core
        now, pod_name = core.now_text(), pod["metadata"]["name"]

        def spent(old: Obj) -> Obj:
            budget = old
            _check_budget(budget)
            status = budget.setdefault("status", {})
            status["disruptionsAllowed"] = status["disruptionsAllowed"] - 1
            status.setdefault("disruptedPods", {})[pod_name] = now
            return budget

        budgets = core.kind_of(POD_DISRUPTION_BUDGETS)
        origin = Origin(manager="kube-apiserver", dry_run=dry_run)
        try:
            await self._objects.writing.modify(
                budgets, pod["metadata"]["namespace"], budget_name, spent, origin, how=How("status", patch=True)
            )
        except StatusError as error:
            if error.code != 404:
                raise


def _with_disruption(pod: Obj, now: str) -> Obj:
    """The status of a pod that the eviction API is about to delete."""
    status = pod.get("status") or {}
    conditions = status.get("conditions") or []
    before: Obj = next((condition for condition in conditions if condition.get("type") == "DisruptionTarget"), {})
    since = before.get("lastTransitionTime") if before.get("status") == "True" else now
    told = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": since,
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    if generation := pod["metadata"].get("generation"):
        told["observedGeneration"] = generation
    others = [condition for condition in conditions if condition.get("type") != "DisruptionTarget"]
    return {**status, "conditions": [*others, told]}


def _bound(old: Obj, binding: Obj, node: str, now: str) -> Obj:
    """The pod with its node; `old` belongs to the caller of `modify` and is copied where it changes."""
    metadata = old["metadata"]
    name = metadata["name"]
    stated = binding["metadata"]
    check_identity(stated, old, PODS)
    if metadata.get("deletionTimestamp"):
        raise conflict("pods/binding", "", name, f"pod {name} is being deleted, cannot be assigned to a host")
    spec = old.get("spec") or {}
    if spec.get("nodeName"):
        raise conflict("pods/binding", "", name, f'pod {name} is already assigned to node "{spec["nodeName"]}"')
    if spec.get("schedulingGates"):
        raise conflict("pods/binding", "", name, f"pod {name} has non-empty .spec.schedulingGates")
    status = old.get("status") or {}
    conditions = [condition for condition in status.get("conditions") or () if condition.get("type") != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    conditions.append(scheduled)
    pod = {
        **old,
        "metadata": dict(metadata),
        "spec": {**spec, "nodeName": node},
        "status": {**status, "conditions": conditions},
    }
    if annotations := stated.get("annotations"):
        pod["metadata"]["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    if labels := stated.get("labels"):
        # What the pod says of itself stays.
        pod["metadata"]["labels"] = {**labels, **(metadata.get("labels") or {})}
    pod["status"].pop("nominatedNodeName", None)
    return pod


def _may_skip_budget(pod: Obj) -> bool:
    """Pods that are over or were never started count for no budget."""
    return not is_active(pod) or phase_of(pod) == "Pending"


def _selects(budget: Obj, labels: Obj) -> bool:
    selector = (budget.get("spec") or {}).get("selector")
    return selector is not None and label_selector_of(selector).matches(labels)


def _check_budget(budget: Obj) -> None:
    name = budget["metadata"]["name"]
    status = budget.get("status") or {}
    refused = "Cannot evict pod as it would violate the pod's disruption budget."
    if (status.get("observedGeneration") or 0) < (budget["metadata"].get("generation") or 0):
        message = f"The disruption budget {name} is still being processed by the server."
        raise too_many_requests(refused, 10, [{"reason": "DisruptionBudget", "message": message}])
    allowed = status.get("disruptionsAllowed") or 0
    if allowed < 0:
        raise forbidden(_BUDGET, "policy", name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or {}) > _DISRUPTED_MAX:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise forbidden(_BUDGET, "policy", name, why)
    if allowed == 0:
        message = (
            f"The disruption budget {name} needs {status.get('desiredHealthy') or 0} healthy pods and has "
            f"{status.get('currentHealthy') or 0} currently"
        )
        raise too_many_requests(refused, 0, [{"reason": "DisruptionBudget", "message": message}])
