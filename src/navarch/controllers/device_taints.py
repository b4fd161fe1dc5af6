"""Device taint eviction: pods leave a device whose NoExecute taint their claim does not tolerate, or for a while only.

In: pods that use claims, what is allocated to these, the taints that drivers publish and that DeviceTaintRules add.
Out: pods deleted, at once or when the shortest `tolerationSeconds` is over, counted from when the taint was added; of
each rule a condition that tells how far that is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import ClassVar, Final, NamedTuple

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, Resource, is_deleting, key_of, namespace_of, uid_of
from navarch.api.time import format_time, parse_time
from navarch.client.informer import Informer
from navarch.client.resources import DEVICE_TAINT_RULES, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES
from navarch.client.served import served_in_the_end
from navarch.controllers import disruption_target
from navarch.controllers.base import Context, Requeue
from navarch.controllers.optional import OptionalController
from navarch.kinds.core.references import resource_claims_of
from navarch.kinds.resource.taints import rule_selects, tolerates

_EVENT: Final = "DeviceTaintManagerEviction"
_IN_PROGRESS: Final = "EvictionInProgress"
_STATUS_EVERY_S: Final = 10.0
_POOL: Final = "device pool"


class _Taint(NamedTuple):
    taint: Obj
    rule: str
    """The uid of the rule that adds it; empty for what the driver publishes."""


class DeviceTaintEvictionController(OptionalController):
    """By pod; by rule where the key has no namespace."""

    name: ClassVar[str] = "device-taint-eviction"
    needs = RESOURCE_CLAIMS
    _claims: Informer
    _slices: Informer
    _pods: Informer

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._rules: Informer | None = None
        self._rule: Resource | None = None
        self._scheduled: set[Key] = set()
        self._evicted: Counter[str] = Counter()
        self._recorder = context.recorder("device-taint-eviction")

    async def run(self) -> None:
        self._rule = await served_in_the_end(self.client, DEVICE_TAINT_RULES)
        await super().run()

    def follow(self, served: Resource) -> None:
        self._pods = self.informer(PODS)
        self._claims = self.informer(served)
        self._slices = self.informer(RESOURCE_SLICES._replace(version=served.version))
        for informer in (self._claims, self._slices):
            informer.add_indexer(_POOL, _pools_of)
        self._pods.add_handler(self._pod_seen, lambda _old, new: self._pod_seen(new), self._pod_gone)
        self._claims.add_handler(self._claim_seen, lambda _old, new: self._claim_seen(new))
        self._slices.add_handler(self._slice_seen, self._slice_changed)
        if self._rule is not None:
            self._rules = self.informer(self._rule)
            self._rules.add_handler(self._rule_seen, self._rule_changed, self._rule_seen)

    # What happens.

    def _pod_seen(self, pod: Obj) -> None:
        if pod["spec"].get("nodeName") and _uses_claims(pod):
            self.enqueue(key_of(pod))

    def _pod_gone(self, pod: Obj) -> None:
        self._scheduled.discard(key_of(pod))

    def _claim_seen(self, claim: Obj) -> None:
        for user in (claim.get("status") or {}).get("reservedFor") or ():
            if user.get("resource") == "pods" and not user.get("apiGroup"):
                self.enqueue(Key(namespace_of(claim), user["name"]))

    def _slice_seen(self, slices: Obj) -> None:
        if _has_eviction(slices):
            self._look_at_pool(slices)

    def _slice_changed(self, old: Obj, new: Obj) -> None:
        if _has_eviction(old) or _has_eviction(new):
            self._look_at_pool(new)

    def _look_at_pool(self, slices: Obj) -> None:
        for pool in _pools_of(slices):
            for claim in self._claims.by_index(_POOL, pool):
                self._claim_seen(claim)

    def _rule_changed(self, old: Obj, new: Obj) -> None:
        if old["spec"] != new["spec"]:
            self._rule_seen(new)

    def _rule_seen(self, rule: Obj) -> None:
        self.enqueue(key_of(rule))
        for claim in self._claims.list():
            if any(rule_selects(rule["spec"], _id_of(result)) for result in _results(claim)):
                self._claim_seen(claim)

    # What is done.

    async def reconcile(self, key: Key) -> Requeue | None:
        if not key.namespace:
            return await self._tell_of(key.name)
        pod = self._pods.get(*key)
        if pod is None or is_deleting(pod) or not pod["spec"].get("nodeName"):
            self._scheduled.discard(key)
            return None
        now = self.clock.now()
        due, because = self._eviction(pod, now)
        if due is None:
            if key in self._scheduled:
                self._scheduled.discard(key)
                self._recorder.event(pod, "Normal", _EVENT, "Cancelling deletion")
            return None
        if due > now:
            self._scheduled.add(key)
            return Requeue((due - now).total_seconds())
        self._scheduled.discard(key)
        self._recorder.event(pod, "Normal", _EVENT, "Marking for deletion")
        await self._evict(pod)
        self._evicted.update(because)
        self._look_at_rules(because)
        return None

    async def _evict(self, pod: Obj) -> None:
        try:
            message = "Device Taint manager: deleting due to NoExecute taint"
            await disruption_target.mark(self.client, self.clock, pod, "DeletionByDeviceTaintManager", message)
        except StatusError as error:
            if error.code not in (404, 409):
                raise
        await disruption_target.delete(self.client, pod)

    def _eviction(self, pod: Obj, now: datetime) -> tuple[datetime | None, set[str]]:
        """When the pod has to go, and the rules because of which; None where it may stay."""
        due: datetime | None = None
        because: set[str] = set()
        for result in self._used_by(pod):
            for taint, rule in self._taints_on(result):
                end = _end(taint, result.get("tolerations") or (), now)
                if end is None:
                    continue
                due = end if due is None else min(due, end)
                if rule:
                    because.add(rule)
        return due, because

    def _used_by(self, pod: Obj) -> Iterator[Obj]:
        for name in resource_claims_of(pod):
            claim = self._claims.get(namespace_of(pod), name)
            users = ((claim or {}).get("status") or {}).get("reservedFor") or ()
            if claim is not None and any(user.get("uid") == uid_of(pod) for user in users):
                yield from _results(claim)

    def _taints_on(self, result: Obj) -> Iterator[_Taint]:
        id = _id_of(result)
        slices = self._slices.by_index(_POOL, f"{id[0]}/{id[1]}")
        newest = max((each["spec"]["pool"]["generation"] for each in slices), default=0)
        for each in slices:
            for device in each["spec"].get("devices") or () if each["spec"]["pool"]["generation"] == newest else ():
                if device["name"] == id[2]:
                    yield from (_Taint(taint, "") for taint in _evicting(device.get("taints")))
        for rule in self._rules.list() if self._rules is not None else ():
            if rule_selects(rule["spec"], id):
                yield from (_Taint(taint, uid_of(rule)) for taint in _evicting([rule["spec"]["taint"]]))

    # What rules tell.

    def _look_at_rules(self, uids: set[str]) -> None:
        for rule in self._rules.list() if self._rules is not None else ():
            if uid_of(rule) in uids:
                self.enqueue(key_of(rule), after_s=_STATUS_EVERY_S)

    async def _tell_of(self, name: str) -> Requeue | None:
        rule = self._rules.get("", name) if self._rules is not None else None
        if rule is None or self._rule is None:
            return None
        pending = self._pending(rule)
        condition = self._condition(rule, pending)
        told = next((c for c in (rule.get("status") or {}).get("conditions") or () if c["type"] == _IN_PROGRESS), None)
        if told is None or {**told, "lastTransitionTime": ""} != {**condition, "lastTransitionTime": ""}:
            applied = {
                "apiVersion": self._rule.api_version,
                "kind": self._rule.kind,
                "metadata": {"name": name, "uid": uid_of(rule)},
                "status": {"conditions": [condition]},
            }
            await self.client.apply(
                self._rule, applied, field_manager=f"{self.name}-controller", force=True, subresource="status"
            )
        is_on = rule["spec"]["taint"].get("effect") == "NoExecute"
        return Requeue(_STATUS_EVERY_S) if is_on and pending else None

    def _pending(self, rule: Obj) -> list[Obj]:
        """Pods that have to go because of the rule, or would if it had the effect."""
        if rule["spec"]["taint"].get("effect") not in ("NoExecute", "None"):
            return []
        taint = {**rule["spec"]["taint"], "effect": "NoExecute"}
        now = self.clock.now()
        return [
            pod
            for pod in self._pods.list()
            if not is_deleting(pod)
            and any(
                rule_selects(rule["spec"], _id_of(result)) and _end(taint, result.get("tolerations") or (), now)
                for result in self._used_by(pod)
            )
        ]

    def _condition(self, rule: Obj, pending: list[Obj]) -> Obj:
        spec = rule["spec"]
        effect = spec["taint"].get("effect")
        published = [
            (each["spec"]["driver"], each["spec"]["pool"]["name"], device["name"])
            for each in self._newest_slices()
            for device in each["spec"].get("devices") or ()
        ]
        allocated = [_id_of(result) for claim in self._claims.list() for result in _results(claim)]
        reason, message = progress(
            effect,
            pods=len(pending),
            namespaces=len({namespace_of(pod) for pod in pending}),
            evicted=self._evicted[uid_of(rule)],
            published=sum(rule_selects(spec, id) for id in published),
            allocated=sum(rule_selects(spec, id) for id in allocated),
        )
        return {
            "type": _IN_PROGRESS,
            "status": "True" if effect == "NoExecute" and pending else "False",
            "reason": reason,
            "message": message,
            "observedGeneration": rule["metadata"].get("generation", 0),
            "lastTransitionTime": format_time(self.clock.now()),
        }

    def _newest_slices(self) -> list[Obj]:
        newest: dict[str, int] = {}
        for each in self._slices.list():
            (pool,) = _pools_of(each)
            newest[pool] = max(newest.get(pool, 0), each["spec"]["pool"]["generation"])
        return [e for e in self._slices.list() if e["spec"]["pool"]["generation"] == newest[next(_pools_of(e))]]


def progress(
    effect: str | None, *, pods: int, namespaces: int, evicted: int, published: int, allocated: int
) -> tuple[str, str]:
    """Reason and message of a rule's condition, in Kubernetes' words."""
    where = "1 namespace" if namespaces == 1 else f"{namespaces} different namespaces"
    message = []
    if effect == "NoExecute":
        reason = "PodsPendingEviction" if pods else "Completed" if evicted else "NotStarted"
        if pods:
            message.append(f"{_counted(pods, 'pod')} {'needs' if pods == 1 else 'need'} to be evicted in {where}.")
    elif effect == "None":
        reason = "NoEffect"
        message += [
            f"{_counted(published, 'published device')} selected.",
            f"{_counted(allocated, 'allocated device')} selected.",
            f"{_counted(pods, 'pod')} would be evicted in {where} if the effect was NoExecute.",
            "This information will not be updated again. Recreate the DeviceTaintRule to trigger an update.",
        ]
    else:
        reason = "OtherEffect"
        message.append("Eviction only happens for the NoExecute effect.")
    if evicted:
        message.append(f"{_counted(evicted, 'pod')} evicted since starting the controller.")
    return reason, " ".join(message)


def _end(taint: Obj, tolerations: list[Obj] | tuple[()], now: datetime) -> datetime | None:
    """When a taint ends the use of a device; None where it never does."""
    met = [toleration for toleration in tolerations if tolerates(toleration, taint)]
    if not met:
        return now
    bounded = [max(int(each["tolerationSeconds"]), 0) for each in met if each.get("tolerationSeconds") is not None]
    if not bounded:
        return None
    added = parse_time(taint["timeAdded"]) if taint.get("timeAdded") else now
    return added + timedelta(seconds=min(bounded))


def _evicting(taints: list[Obj] | None) -> list[Obj]:
    return [taint for taint in taints or () if taint.get("effect") == "NoExecute"]


def _has_eviction(slices: Obj) -> bool:
    return any(_evicting(device.get("taints")) for device in slices["spec"].get("devices") or ())


def _pools_of(obj: Obj) -> Iterator[str]:
    """Of a slice, or of what is allocated to a claim."""
    if "driver" in obj["spec"]:
        yield f"{obj['spec']['driver']}/{obj['spec']['pool']['name']}"
    else:
        yield from {f"{result['driver']}/{result['pool']}" for result in _results(obj)}


def _results(claim: Obj) -> list[Obj]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    return (allocation.get("devices") or {}).get("results") or []


def _id_of(result: Obj) -> tuple[str, str, str]:
    return result["driver"], result["pool"], result["device"]


def _uses_claims(pod: Obj) -> bool:
    return bool(pod["spec"].get("resourceClaims") or (pod.get("status") or {}).get("extendedResourceClaimStatus"))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
