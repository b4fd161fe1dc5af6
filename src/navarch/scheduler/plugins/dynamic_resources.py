"""DynamicResources: a pod with claims goes where its claims have devices, or can get them.

Claims without devices are searched for on node after node before the decision (`scheduler.devices`); the devices of the
node decided on are taken from then on, and written into the claims before the pod is bound. Claims that have devices
hold the pod to the nodes from which these can be used; where that is none, a claim that nobody uses gives them back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import numpy as np

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, is_deleting, name_of, namespace_of, uid_of
from navarch.client import resources
from navarch.client.base import PatchKind
from navarch.scheduler.columns import BoolArray, FloatArray
from navarch.scheduler.devices import extended
from navarch.scheduler.devices.binding import MOST_USERS, failure, is_ready, is_user
from navarch.scheduler.devices.plan import Plan, Verdict
from navarch.scheduler.devices.requests import ClaimError, Wanted, read_claim, shown
from navarch.scheduler.devices.results import allocations
from navarch.scheduler.environment import Environment
from navarch.scheduler.framework import Change, ClusterEvent, Failure, Plugin, Refusal, Scope
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable

BIND_TIMEOUT_S: Final = 600.0
_POLL_S: Final = 0.1
_MOST_ALTERNATIVES: Final = 8


class DynamicResources(Plugin):
    """Match claims, devices and nodes."""

    name = "DynamicResources"
    scope = Scope.SEARCH
    normalizes = True
    changes = frozenset({Change.NODE_ADDED, Change.NODE_UPDATED, Change.DEVICES, Change.DEVICE_CLAIMS})

    def __init__(self, bind_timeout_s: float = BIND_TIMEOUT_S) -> None:
        self._bind_timeout_s = bind_timeout_s

    def filters(self, pod: PodInfo) -> bool:
        return bool(pod.traits.device_claims or pod.traits.extended)

    # Before the decision.

    def hold(self, pod: PodInfo, environment: Environment) -> str | None:
        if not pod.traits.device_claims:
            return None
        try:
            for _ in _claims_of(pod, environment):
                pass
        except ClaimError as error:
            return str(error)
        return None

    def prepares(self, pod: PodInfo, environment: Environment) -> bool:
        return bool(pod.traits.device_claims) or any(map(environment.devices.class_of, pod.traits.extended))

    def reject(self, pod: PodInfo, environment: Environment) -> str | None:
        pod.devices = None
        if not self.prepares(pod, environment):
            return None
        try:
            pod.devices = _plan(pod, environment)
        except ClaimError as error:
            return str(error)
        return None

    async def prepare(self, pod: PodInfo, nodes: NodeTable, enough: int) -> None:
        if pod.devices is not None:
            try:
                await pod.devices.search((nodes.node(position) for position in range(len(nodes))), enough)
            except ClaimError as error:
                raise _failure(error) from None

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        good: BoolArray = np.ones(len(nodes), np.bool_)
        plan: Plan | None = pod.devices
        if plan is not None:
            for position in range(len(nodes)):
                if plan.is_closed and nodes.name(position) not in plan.verdicts:
                    good[position] = False
                    continue
                try:
                    good[position] = not plan.verdict(nodes.node(position)).reason
                except ClaimError as error:
                    raise _failure(error) from None
        return good

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        reasons: dict[str, int] = {}
        for position in range(len(nodes)):
            reason = pod.devices.verdict(nodes.node(position)).reason
            reasons[reason] = reasons.get(reason, 0) + 1
        return Refusal(reasons, np.zeros(len(nodes), np.bool_))

    def scores(self, pod: PodInfo, nodes: NodeTable) -> bool:
        return pod.devices is not None and any(len(each) > 1 for want in pod.devices.wanted for each in want.requests)

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        """The earlier the alternatives are that a node can give, the better."""
        result = np.zeros(len(nodes))
        if pod.devices is not None:
            for position in range(len(nodes)):
                verdict = pod.devices.verdicts.get(nodes.name(position))
                if verdict is not None and not verdict.reason:
                    result[position] = _liked(verdict)
        return result

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.change is not Change.DEVICE_CLAIMS:
            return True
        return _frees(event.old, event.new) or (event.new is not None and _is_named(pod, event.new))

    # Binding.

    def binds(self, pod: PodInfo) -> bool:
        return pod.devices is not None

    def reserve(self, pod: PodInfo, node_name: str, environment: Environment) -> None:
        plan: Plan = pod.devices
        verdict = plan.verdicts[node_name]
        plan.node_name = node_name
        taken = environment.devices.taken
        for choice in verdict.chosen:
            if not choice.alternative.admin_access and choice.consumed is None and taken.whole(choice.device.id):
                raise StatusError(409, "Conflict", f"device {choice.device.id} got allocated elsewhere")
        results = allocations(verdict.wanted, verdict.chosen, node_name, environment.new_uid)
        plan.given = {uid_of(want.claim): each for want, each in zip(verdict.wanted, results, strict=True)}
        for uid, allocation in plan.given.items():
            environment.devices.give(uid, allocation)

    async def pre_bind(self, pod: PodInfo, node: Obj, environment: Environment) -> None:
        plan: Plan = pod.devices
        writer, devices = environment.claim_writer, environment.devices
        bound = []
        mappings: list[Obj] = []
        for want in plan.verdicts[plan.node_name].wanted:
            claim, allocation = want.claim, plan.given[uid_of(want.claim)]
            if name_of(claim) == extended.IN_MEMORY:
                claim = await writer.create(claim)
                # What was given to the pod is the claim's from now on, under its own name.
                devices.give(uid_of(claim), allocation)
                devices.take_back(uid_of(want.claim), "", "")
                plan.made = claim
                mappings = plan.mappings[want]
            bound.append(await writer.bind(claim, pod, allocation))
        bound += [await writer.bind(claim, pod, None) for claim in plan.allocated]
        if plan.made is not None:
            await _tell(pod, plan.made, mappings, environment)
        await _wait_until_ready(bound, environment, self._bind_timeout_s)

    async def roll_back(self, pod: PodInfo, environment: Environment) -> None:
        plan: Plan = pod.devices
        devices, writer = environment.devices, environment.claim_writer
        for want in plan.verdicts[plan.node_name].wanted if plan.given else ():
            devices.take_back(uid_of(want.claim), namespace_of(want.claim), name_of(want.claim))
        if plan.made is not None:
            devices.take_back(uid_of(plan.made), namespace_of(plan.made), name_of(plan.made))
            await writer.delete(plan.made)
        for claim in [want.claim for want in plan.wanted] + list(plan.allocated):
            current = devices.claim(namespace_of(claim), name_of(claim))
            if current is not None and uid_of(current) == uid_of(claim):
                await writer.unreserve(current, pod)

    async def make_room(self, pod: PodInfo, environment: Environment) -> str:
        plan: Plan | None = pod.devices
        if plan is None:
            return "still not schedulable" if pod.traits.device_claims else "no new claims to deallocate"
        if plan.stale is not None:
            await environment.claim_writer.delete(plan.stale)
            return "deletion of ResourceClaim completed"
        for claim in plan.unavailable.values():
            users = (claim.get("status") or {}).get("reservedFor") or []
            if not users or (len(users) == 1 and is_user(claim, pod)):
                await environment.claim_writer.deallocate(claim)
                return "deallocation of ResourceClaim completed"
        return "still not schedulable"


def _failure(error: ClaimError) -> Failure:
    return Failure(f'running "{DynamicResources.name}" filter plugin: {error}')


def _claims_of(pod: PodInfo, environment: Environment) -> Iterator[Obj]:
    """The claims that the pod names. Raises ClaimError where one is not there (yet)."""
    status = pod.obj.get("status") or {}
    told = {each["name"]: each for each in status.get("resourceClaimStatuses") or ()}
    for entry in pod.obj["spec"].get("resourceClaims") or ():
        name = entry.get("resourceClaimName")
        if not name:
            made = told.get(entry["name"])
            if made is None:
                where = f'pod "{pod.key.namespace}/{pod.key.name}"'
                raise ClaimError(f"{where}: ResourceClaim not created yet")
            name = made.get("resourceClaimName")
            if not name:
                # The template made none: there is nothing to wait for.
                continue
        claim = environment.devices.claim(pod.key.namespace, name)
        if claim is None:
            raise ClaimError(f'resourceclaim.resource.k8s.io "{name}" not found')
        if is_deleting(claim):
            raise ClaimError(f'resourceclaim "{name}" is being deleted')
        owners = claim["metadata"].get("ownerReferences") or ()
        if not entry.get("resourceClaimName") and not any(owner.get("uid") == pod.uid for owner in owners):
            what = f"ResourceClaim {shown(claim)} was not created for pod {pod.key.namespace}/{pod.key.name}"
            raise ClaimError(f"{what} (pod is not owner)")
        yield claim


def _plan(pod: PodInfo, environment: Environment) -> Plan:
    devices = environment.devices
    wanted, allocated = [], []
    unavailable = {}
    for claim in _claims_of(pod, environment):
        status = claim.get("status") or {}
        if status.get("allocation") is None:
            if devices.is_given(uid_of(claim)):
                raise ClaimError(f"resource claim {shown(claim)} is in the process of being allocated")
            wanted.append(read_claim(claim, devices.device_class))
            continue
        if not is_user(claim, pod) and len(status.get("reservedFor") or ()) >= MOST_USERS:
            raise ClaimError("resourceclaim in use")
        if failure(claim):
            unavailable[uid_of(claim)] = claim
        allocated.append(claim)
    plan = Plan(devices, wanted, allocated, lambda node: None)
    plan.unavailable |= unavailable
    plan.has_failed = bool(unavailable)
    _plan_extended(pod, plan, environment)
    return plan


def _plan_extended(pod: PodInfo, plan: Plan, environment: Environment) -> None:
    devices = environment.devices
    mapped = [name for name in pod.traits.extended if devices.class_of(name) is not None]
    if not mapped:
        return
    left = devices.claims_of(pod.uid, pod.key.namespace)
    if left:
        plan.stale = left[0]
    known: dict[tuple[str, ...], Wanted | None] = {}

    def for_node(node: Obj) -> Wanted | None:
        allocatable = (node.get("status") or {}).get("allocatable") or {}
        needed = tuple(name for name in mapped if allocatable.get(name, "0") == "0")
        if needed not in known:
            known[needed] = None
            if needed:
                claim, mappings = extended.claim_for(pod.obj, needed, devices.class_of)
                known[needed] = wanted = read_claim(claim, devices.device_class)
                plan.mappings[wanted] = mappings
        return known[needed]

    plan.for_node = for_node


async def _tell(pod: PodInfo, claim: Obj, mappings: list[Obj], environment: Environment) -> None:
    """Let the kubelet know which container gets what."""
    told = {"resourceClaimName": name_of(claim), "requestMappings": mappings}
    patch = {"metadata": {"uid": pod.uid}, "status": {"extendedResourceClaimStatus": told}}
    await environment.client.patch(
        resources.PODS, pod.key.name, pod.key.namespace, patch, kind=PatchKind.STRATEGIC, subresource="status"
    )


async def _wait_until_ready(claims: list[Obj], environment: Environment, timeout_s: float) -> None:
    waited_s = 0.0
    while True:
        current = [environment.devices.claim(namespace_of(claim), name_of(claim)) or claim for claim in claims]
        if why := next(filter(None, map(failure, current)), ""):
            raise StatusError(500, "InternalError", why)
        if all(map(is_ready, current)):
            return
        if waited_s >= timeout_s:
            raise StatusError(504, "Timeout", "device binding timeout")
        await asyncio.sleep(_POLL_S)
        waited_s += _POLL_S


def _liked(verdict: Verdict) -> float:
    first: dict[tuple[int, str], int] = {}
    for choice in verdict.chosen:
        alternatives = next(
            each for each in verdict.wanted[choice.claim].requests if each[0].request == choice.alternative.request
        )
        if len(alternatives) > 1:
            position = list(alternatives).index(choice.alternative)
            first[choice.claim, choice.alternative.request] = _MOST_ALTERNATIVES - position
    return float(sum(first.values()))


def _frees(old: Obj | None, new: Obj | None) -> bool:
    """Whether a claim gave devices, or its place in one, back."""
    before = (old.get("status") or {}) if old is not None else {}
    after = (new.get("status") or {}) if new is not None else {}
    return (before.get("allocation") is not None and after.get("allocation") is None) or len(
        before.get("reservedFor") or ()
    ) > len(after.get("reservedFor") or ())


def _is_named(pod: PodInfo, claim: Obj) -> bool:
    if namespace_of(claim) != pod.key.namespace:
        return False
    entries = pod.obj["spec"].get("resourceClaims") or ()
    if any(entry.get("resourceClaimName") == name_of(claim) for entry in entries):
        return True
    return any(owner.get("uid") == pod.uid for owner in claim["metadata"].get("ownerReferences") or ())
