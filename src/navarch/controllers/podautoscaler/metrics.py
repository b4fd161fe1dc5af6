"""What each metric of an autoscaler proposes, and what its status says of it.

In: a metric of `spec.metrics`, the target's replicas, the pods.  Out: a `Proposed` with the entry of
`status.currentMetrics`, or `MetricError`, which knows the event and the condition that Kubernetes has for it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from navarch.api import quantity
from navarch.api.errors import StatusError
from navarch.api.go_text import go_label_selector
from navarch.api.meta import Obj
from navarch.controllers.podautoscaler.readings import NoReadingError, Readings
from navarch.controllers.podautoscaler.replicas import (
    NoProposalError,
    Proposal,
    Situation,
    average_replicas,
    shared_replicas,
    utilization_replicas,
    value_replicas,
)
from navarch.records import frozen

_LARGEST: Final = 2**63 - 1


class MetricError(Exception):
    """`reason` and `why` are those of the event and the condition; the message is how the whole is summed up."""

    def __init__(self, reason: str, why: str, summary: str) -> None:
        super().__init__(summary)
        self.reason = reason
        self.why = why


class Proposed(NamedTuple):
    """`name` is what people are told of the metric."""

    replicas: int
    name: str
    status: Obj


@frozen
class Asked:
    """For whom metrics are looked at. `replicas` are those wanted of the target now, `existing` those that it has."""

    namespace: str
    selector: str
    replicas: int
    existing: int
    situation: Situation


async def proposed(metric: Obj, asked: Asked, readings: Readings) -> Proposed:
    """Raises MetricError, OSError."""
    kind = metric.get("type") or ""
    if kind == "Resource":
        return await _of_resource(metric["resource"], asked, readings)
    if kind == "ContainerResource":
        return await _of_container(metric["containerResource"], asked, readings)
    if kind == "Pods":
        return await _of_pods(metric["pods"], asked, readings)
    if kind == "Object":
        return await _of_object(metric["object"], asked, readings)
    if kind == "External":
        return await _of_external(metric["external"], asked, readings)
    why = f'unknown metric source type "{kind}"'
    raise MetricError("InvalidMetricSourceType", why, why)


_Failures = (NoReadingError, NoProposalError, StatusError)


def _milli(milli: int) -> str:
    return quantity.render_milli(milli)


# Resources


async def _of_resource(source: Obj, asked: Asked, readings: Readings) -> Proposed:
    name = source["name"]
    try:
        replicas, text, current = await _resource(source, "", asked, readings)
    except NoProposalError as error:
        summary = f"failed to get {name} resource metric value: {error}"
        raise MetricError("FailedGetResourceMetric", str(error), summary) from error
    return Proposed(replicas, text, {"type": "Resource", "resource": {"name": name, "current": current}})


async def _of_container(source: Obj, asked: Asked, readings: Readings) -> Proposed:
    name, container = source["name"], source["container"]
    try:
        replicas, text, current = await _resource(source, container, asked, readings)
    except NoProposalError as error:
        summary = f"failed to get {container} container metric value: {error}"
        raise MetricError("FailedGetContainerResourceMetric", str(error), summary) from error
    status = {"name": name, "container": container, "current": current}
    return Proposed(replicas, text, {"type": "ContainerResource", "containerResource": status})


async def _resource(source: Obj, container: str, asked: Asked, readings: Readings) -> tuple[int, str, Obj]:
    """Raises NoProposalError."""
    name, target = source["name"], source.get("target") or {}
    average, percent = target.get("averageValue"), target.get("averageUtilization")
    if average is None and percent is None:
        raise NoProposalError(
            "invalid resource metric source: neither an average utilization target nor an average value (usage) "
            "target was set"
        )
    what = "utilization" if average is None else "usage"
    try:
        try:
            found = await readings.of_resource(asked.namespace, asked.selector, name, container)
        except NoReadingError as error:
            raise NoProposalError(f"unable to get metrics for resource {name}: {error}") from error
        if average is not None:
            given = average_replicas(asked.replicas, quantity.milli(average), found, name, asked.situation)
            return given.replicas, f"{name} resource", {"averageValue": _milli(given.average)}
        assert percent is not None
        given = utilization_replicas(asked.replicas, percent, found, name, container, asked.situation)
    except NoProposalError as error:
        raise NoProposalError(f"failed to get {name} {what}: {error}") from error
    kind = "container resource" if container else "resource"
    current = {"averageUtilization": given.percent, "averageValue": _milli(given.average)}
    return given.replicas, f"{name} {kind} utilization (percentage of request)", current


# Metrics of pods and of objects


def _identity(metric: Obj) -> Obj:
    """A metric as a status names it."""
    return {name: metric[name] for name in ("name", "selector") if metric.get(name) is not None}


async def _of_pods(source: Obj, asked: Asked, readings: Readings) -> Proposed:
    metric = source["metric"]
    target = quantity.milli(source["target"]["averageValue"])
    try:
        found = await readings.of_pods(asked.namespace, asked.selector, metric)
        given = average_replicas(asked.replicas, target, found, "", asked.situation)
    except _Failures as error:
        why = f"unable to get metric {metric['name']}: {error}" if isinstance(error, NoReadingError) else str(error)
        raise MetricError("FailedGetPodsMetric", why, f"failed to get pods metric value: {why}") from error
    status = {"metric": _identity(metric), "current": {"averageValue": _milli(given.average)}}
    return Proposed(given.replicas, f"pods metric {metric['name']}", {"type": "Pods", "pods": status})


async def _of_object(source: Obj, asked: Asked, readings: Readings) -> Proposed:
    metric, described, target = source["metric"], source["describedObject"], source.get("target") or {}
    kind = target.get("type")
    prefix = f"failed to get {metric['name']} object metric: " if kind == "AverageValue" else ""
    if kind not in ("Value", "AverageValue") or target.get(_AMOUNTS[kind]) is None:
        why = "invalid object metric source: neither a value target nor an average value target was set"
        raise _object_error(why)
    wanted = quantity.milli(target[_AMOUNTS[kind]])
    try:
        value = await readings.of_object(asked.namespace, described, metric)
        if kind == "Value":
            replicas = value_replicas(asked.replicas, wanted, value, asked.situation)
            current, name = {"value": _milli(value)}, f"{described['kind']} metric {metric['name']}"
        else:
            given = shared_replicas(asked.existing, wanted, value, asked.situation.tolerances)
            replicas, current, name = given.replicas, {"averageValue": _milli(given.average)}, _external_name(metric)
    except _Failures as error:
        why = str(error)
        if isinstance(error, NoReadingError):
            # In the order in which Kubernetes puts it.
            place = f"{asked.namespace} {described['name']}/{error}"
            why = f"unable to get metric {metric['name']}: {described['kind']} on {place}"
        raise _object_error(why, prefix) from error
    status: Obj = {"metric": _identity(metric), "current": current}
    # What is shared among the pods is told without the object.
    status["describedObject"] = described if kind == "Value" else {"kind": "", "name": ""}
    return Proposed(replicas, name, {"type": "Object", "object": status})


_AMOUNTS: Final[dict[Any, str]] = {"Value": "value", "AverageValue": "averageValue"}


def _object_error(why: str, prefix: str = "") -> MetricError:
    return MetricError("FailedGetObjectMetric", why, f"failed to get object metric value: {prefix}{why}")


# Metrics of what is outside


def _external_name(metric: Obj) -> str:
    return f"external metric {metric['name']}({go_label_selector(metric.get('selector'))})"


async def _of_external(source: Obj, asked: Asked, readings: Readings) -> Proposed:
    metric, target = source["metric"], source.get("target") or {}
    average, value = target.get("averageValue"), target.get("value")
    name = metric["name"]
    if average is None and value is None:
        why = "invalid external metric source: neither a value target nor an average value target was set"
        raise _external_error(name, why)
    prefix = (
        f"failed to get {name} external metric: " if average is not None else f"failed to get external metric {name}: "
    )
    try:
        total = min(sum(await readings.of_external(asked.namespace, metric)), _LARGEST)
        if average is not None:
            given: Proposal = shared_replicas(
                asked.existing, quantity.milli(average), total, asked.situation.tolerances
            )
            replicas, current = given.replicas, {"averageValue": _milli(given.average)}
        else:
            assert value is not None
            replicas = value_replicas(asked.replicas, quantity.milli(value), total, asked.situation)
            current = {"value": _milli(total)}
    except _Failures as error:
        why = str(error)
        if isinstance(error, NoReadingError):
            selector = go_label_selector(metric.get("selector"))
            why = f"unable to get external metric {asked.namespace}/{name}/{selector}: {error}"
        raise _external_error(name, why, prefix) from error
    status = {"metric": _identity(metric), "current": current}
    return Proposed(replicas, _external_name(metric), {"type": "External", "external": status})


def _external_error(name: str, why: str, prefix: str = "") -> MetricError:
    return MetricError("FailedGetExternalMetric", why, f"failed to get {name} external metric value: {prefix}{why}")
