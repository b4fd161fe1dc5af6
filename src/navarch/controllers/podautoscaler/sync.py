"""The controller of HorizontalPodAutoscalers: every 15 seconds, one autoscaler at a time.

In: the autoscaler, its target's Scale, the pods that this selects, metrics.  Out: the Scale with another number of
replicas, conditions, events and `status.currentMetrics` in Kubernetes' words. As there, a new autoscaler is looked at
for the first time when a period has passed, and what has to be remembered between looks (wishes and changes, for
windows and rates) is in memory: after a restart the number that there is counts as asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import ClassVar, Final

from navarch.api import quantity
from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, key_of, labels_of
from navarch.api.selectors import LabelSelector, parse_label_selector
from navarch.api.time import format_time
from navarch.client.resources import HORIZONTAL_POD_AUTOSCALERS, PODS
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.podautoscaler.behavior import History, settled
from navarch.controllers.podautoscaler.metrics import Asked, MetricError, Proposed, proposed
from navarch.controllers.podautoscaler.readings import Readings
from navarch.controllers.podautoscaler.replicas import Situation, Tolerances
from navarch.controllers.podautoscaler.target import Mapper, NoScaleError, Target, Targets

log = logging.getLogger(__name__)

EVERY_S: Final = 15.0
_TOLERANCE: Final = 0.1
_ABLE: Final = "AbleToScale"
_ACTIVE: Final = "ScalingActive"
_LIMITED: Final = "ScalingLimited"
_NO_SCALE: Final = "the HPA controller was unable to get the target's current scale"
_ABOVE: Final = "Current number of replicas above Spec.MaxReplicas"
_BELOW: Final = "Current number of replicas below Spec.MinReplicas"


class _NoReplicasError(Exception):
    """No metric told a number; the conditions say why."""


class HorizontalPodAutoscalerController(Controller):
    name: ClassVar[str] = "horizontal-pod-autoscaler"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        mapper = Mapper(context.client)
        self._targets = Targets(context.client, mapper)
        self._readings = Readings(context.client, mapper)
        self._recorder = context.recorder("horizontal-pod-autoscaler")
        self._pods = self.informer(PODS)
        self._autoscalers = self.informer(HORIZONTAL_POD_AUTOSCALERS)
        self._autoscalers.add_handler(
            added=lambda hpa: self.enqueue(key_of(hpa), EVERY_S),
            updated=lambda _old, hpa: self.enqueue(key_of(hpa), EVERY_S),
            deleted=lambda hpa: self.enqueue(key_of(hpa)),
        )
        self._histories: dict[Key, tuple[str, History]] = {}
        self._selectors: dict[str, dict[Key, LabelSelector]] = {}

    async def reconcile(self, key: Key) -> Requeue | None:
        hpa = self._autoscalers.get(*key)
        if hpa is None:
            self._histories.pop(key, None)
            selectors = self._selectors.get(key.namespace, {})
            selectors.pop(key, None)
            if not selectors:
                self._selectors.pop(key.namespace, None)
            return None
        look = _Look(self.newest(HORIZONTAL_POD_AUTOSCALERS, hpa), format_time(self.clock.now()))
        await self._look(key, look)
        if look.status != (look.hpa.get("status") or {}):
            try:
                await self.write_status(HORIZONTAL_POD_AUTOSCALERS, look.hpa, look.status)
            except StatusError as error:
                if error.code not in (404, 409):
                    self._warn(look.hpa, "FailedUpdateStatus", error.message)
                raise
        return Requeue(EVERY_S)

    async def _look(self, key: Key, look: _Look) -> None:
        hpa, spec = look.hpa, look.hpa["spec"]
        try:
            target = await self._targets.get(key.namespace, spec["scaleTargetRef"])
        except NoScaleError as error:
            self._warn(hpa, "FailedGetScale", str(error))
            look.condition(_ABLE, "False", "FailedGetScale", f"{_NO_SCALE}: {error}")
            return
        able = "the HPA controller was able to get the target's current scale"
        look.condition(_ABLE, "True", "SucceededGetScale", able)
        current, now = target.replicas, self.clock.now()
        history = self._history(key, hpa)
        history.begin(current, now)
        least = 1 if spec.get("minReplicas") is None else int(spec["minReplicas"])
        desired, why = current, ""
        if current == 0 and least != 0:
            off = "scaling is disabled since the replica count of the target is zero"
            look.condition(_ACTIVE, "False", "ScalingDisabled", off)
        elif current > spec["maxReplicas"]:
            desired, why = int(spec["maxReplicas"]), _ABOVE
        elif current < least:
            desired, why = least, _BELOW
        else:
            try:
                wanted, name = await self._wanted(key, look, target)
            except _NoReplicasError as error:
                look.counted(current, None)
                self._warn(hpa, "FailedComputeMetricsReplicas", str(error))
                return
            if wanted != current:
                why = f"{name} above target" if wanted > current else "All metrics below target"
            outcome = settled(spec, least, current, wanted, history, now)
            look.condition(_ABLE, "True", *outcome.able)
            look.condition(_LIMITED, "True" if outcome.is_limited else "False", *outcome.limited)
            desired = outcome.replicas
        if desired == current:
            look.counted(current, current)
        elif await self._scale(look, target, desired, why):
            history.changed(spec.get("behavior"), current, desired, now)

    def _history(self, key: Key, hpa: Obj) -> History:
        """What is remembered of this autoscaler; one that was deleted and made anew begins anew."""
        uid = hpa["metadata"]["uid"]
        known = self._histories.get(key)
        if known is None or known[0] != uid:
            known = self._histories[key] = (uid, History())
        return known[1]

    async def _scale(self, look: _Look, target: Target, replicas: int, why: str) -> bool:
        try:
            await self._targets.scale(target, replicas)
        except StatusError as error:
            self._warn(look.hpa, "FailedRescale", f"New size: {replicas}; reason: {why}; error: {error.message}")
            words = f"the HPA controller was unable to update the target scale: {error.message}"
            look.condition(_ABLE, "False", "FailedUpdateScale", words)
            look.counted(target.replicas, None)
            return False
        words = f"the HPA controller was able to update the target scale to {replicas}"
        look.condition(_ABLE, "True", "SucceededRescale", words)
        self._recorder.event(look.hpa, "Normal", "SuccessfulRescale", f"New size: {replicas}; reason: {why}")
        look.counted(target.replicas, replicas)
        look.status["lastScaleTime"] = look.now
        return True

    # Metrics

    async def _wanted(self, key: Key, look: _Look, target: Target) -> tuple[int, str]:
        """The largest number that a metric asks for, and the metric's name.  Raises _NoReplicasError."""
        selector, pods = self._selected(key, look, target)
        situation = Situation(pods, self.clock.now(), _tolerances(look.hpa["spec"]))
        asked = Asked(key.namespace, str(selector), target.replicas, target.existing, situation)
        best: Proposed | None = None
        errors: list[MetricError] = []
        specs = look.hpa["spec"].get("metrics") or []
        for metric in specs:
            try:
                given = await proposed(metric, asked, self._readings)
            except MetricError as error:
                self._warn(look.hpa, error.reason, error.why)
                errors.append(error)
                look.metrics.append({"type": ""})
                continue
            look.metrics.append(given.status)
            if best is None or best.replicas == 0 or given.replicas > best.replicas:
                best = given
        if best is None or (errors and best.replicas < target.replicas):
            # With a metric missing it cannot be told whether fewer would do.
            first = errors[0]
            words = f"the HPA was unable to compute the replica count: {first.why}"
            look.condition(_ACTIVE, "False", first.reason, words)
            counts = f"{len(errors)} invalid out of {len(specs)}"
            raise _NoReplicasError(f"invalid metrics ({counts}), first error is: {first}")
        words = f"the HPA was able to successfully calculate a replica count from {best.name}"
        look.condition(_ACTIVE, "True", "ValidMetricFound", words)
        return best.replicas, best.name

    def _selected(self, key: Key, look: _Look, target: Target) -> tuple[LabelSelector, tuple[Obj, ...]]:
        """The target's selector and the pods that it selects; no other autoscaler may be after these.  Raises
        _NoReplicasError."""
        text = target.selector
        if not text:
            self._warn(look.hpa, "SelectorRequired", "selector is required")
            look.condition(_ACTIVE, "False", "InvalidSelector", "the HPA target's scale is missing a selector")
            raise _NoReplicasError("selector is required")
        try:
            selector = parse_label_selector(text)
        except StatusError as error:
            words = f"couldn't convert selector into a corresponding internal selector object: {error.message}"
            raise self._refused(look, "InvalidSelector", words) from error
        self._selectors.setdefault(key.namespace, {})[key] = selector
        pods = tuple(pod for pod in self._pods.list(key.namespace) if selector.matches(labels_of(pod)))
        rivals = self._rivals(key, pods)
        if len(rivals) > 1:
            words = f"pods by selector {text} are controlled by multiple HPAs: [{' '.join(rivals)}]"
            raise self._refused(look, "AmbiguousSelector", words)
        return selector, pods

    def _rivals(self, key: Key, pods: Iterable[Obj]) -> list[str]:
        """Who is after any of these pods."""
        selectors = self._selectors[key.namespace]
        if len(selectors) == 1:
            return [str(key)]
        labels = [labels_of(pod) for pod in pods]
        return sorted(str(each) for each, selector in selectors.items() if any(map(selector.matches, labels)))

    def _refused(self, look: _Look, reason: str, words: str) -> _NoReplicasError:
        self._warn(look.hpa, reason, words)
        look.condition(_ACTIVE, "False", reason, words)
        return _NoReplicasError(words)

    def _warn(self, hpa: Obj, reason: str, message: str) -> None:
        self._recorder.event(hpa, "Warning", reason, message)


class _Look:
    """One look at an autoscaler: what its status will say of it."""

    def __init__(self, hpa: Obj, now: str) -> None:
        self.hpa = hpa
        self.now = now
        self.status: Obj = dict(hpa.get("status") or {})
        self.metrics: list[Obj] = []

    def condition(self, type: str, status: str, reason: str, message: str) -> None:
        """State a condition; its time is that of the last change of its status."""
        conditions = [dict(each) for each in self.status.get("conditions") or ()]
        stated = next((each for each in conditions if each.get("type") == type), None)
        if stated is None:
            stated = {"type": type}
            conditions.append(stated)
        if stated.get("status") != status:
            stated["lastTransitionTime"] = self.now
        stated |= {"status": status, "reason": reason, "message": message}
        self.status["conditions"] = conditions

    def counted(self, current: int, desired: int | None) -> None:
        """State the numbers and the metrics; `desired` None leaves what was desired."""
        before = self.status
        status: Obj = {"desiredReplicas": int(before.get("desiredReplicas") or 0) if desired is None else desired}
        if before.get("lastScaleTime"):
            status["lastScaleTime"] = before["lastScaleTime"]
        if current:
            status["currentReplicas"] = current
        status["currentMetrics"] = self.metrics or None
        status["conditions"] = before.get("conditions")
        self.status = status


def _tolerances(spec: Obj) -> Tolerances:
    behavior = spec.get("behavior") or {}

    def of(name: str) -> float:
        stated = (behavior.get(name) or {}).get("tolerance")
        return _TOLERANCE if stated is None else float(quantity.parse(stated))

    return Tolerances(of("scaleUp"), of("scaleDown"))
