"""What is wrong with a `KubeSchedulerConfiguration`, in Kubernetes' words.

In: a document with its defaults.  Out: all that is wrong. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from navarch.api import durations
from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import qualified_name_problems, validate_qualified_name
from navarch.kinds.core.pod_validation_scheduling import validate_node_selector, validate_node_selector_term
from navarch.scheduler.configuration.shape import API_VERSION, POINTS
from navarch.scheduler.podinfo import is_extended

_GONE: Final = ("AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits")
_STRATEGIES: Final = ("LeastAllocated", "MostAllocated", "RequestedToCapacityRatio")
_MOST_SCORE: Final = 10
Errors = Iterator[FieldError]


def problems(config: Obj) -> list[str]:
    """All that is wrong, each as Kubernetes says it."""
    return [
        str(error)
        for check in (_connection, _election, _whole, _profiles, _pace, _extenders)
        for error in check(config)
    ]


def _connection(config: Obj) -> Errors:
    burst = (config.get("clientConnection") or {}).get("burst") or 0
    if burst < 0:
        yield invalid_value("clientConnection.burst", burst, "must be non-negative")


def _election(config: Obj) -> Errors:
    election = config["leaderElection"]
    if not election["leaderElect"]:
        return
    for name in ("leaseDuration", "renewDeadline", "retryPeriod"):
        if durations.parse_ns(election[name]) <= 0:
            yield invalid_value(f"leaderElection.{name}", election[name], "must be greater than zero")
    if durations.parse_ns(election["leaseDuration"]) < durations.parse_ns(election["renewDeadline"]):
        detail = "LeaseDuration must be greater than RenewDeadline"
        yield invalid_value("leaderElection.leaseDuration", election["renewDeadline"], detail)
    if election["resourceLock"] != "leases":
        detail = 'resourceLock value must be "leases"'
        yield invalid_value("leaderElection.resourceLock", election["resourceLock"], detail)


def _whole(config: Obj) -> Errors:
    if config["parallelism"] <= 0:
        yield invalid_value("parallelism", config["parallelism"], "should be an integer value greater than zero")


def _pace(config: Obj) -> Errors:
    yield from _percentage(config, "percentageOfNodesToScore")
    first, last = config["podInitialBackoffSeconds"], config["podMaxBackoffSeconds"]
    if first <= 0:
        yield invalid_value("podInitialBackoffSeconds", first, "must be greater than 0")
    if last < first:
        detail = "must be greater than or equal to PodInitialBackoffSeconds"
        yield invalid_value("podMaxBackoffSeconds", last, detail)


def _percentage(stated: Obj, path: str) -> Errors:
    value = stated.get("percentageOfNodesToScore")
    if value is not None and not 0 <= value <= 100:
        yield invalid_value(path, value, "not in valid range [0-100]")


# Profiles.


def _profiles(config: Obj) -> Errors:
    seen: dict[str, int] = {}
    sorting: Any = None
    for index, profile in enumerate(config["profiles"]):
        path = f"profiles[{index}]"
        yield from _profile(profile, path)
        name = profile.get("schedulerName") or ""
        if name in seen:
            yield duplicate(f"{path}.schedulerName", f"profiles[{seen[name]}].schedulerName")
        seen[name] = index
        stated = (profile.get("plugins") or {}).get("queueSort") or {}
        if not index:
            sorting = stated
            if len(stated.get("enabled") or ()) > 1:
                where = f"{path}.plugins.queueSort.Enabled"
                yield invalid_value(where, len(stated["enabled"]), "only one queue sort plugin can be enabled")
        elif stated != sorting:
            yield invalid_value(f"{path}.plugins.queueSort", stated, "must be the same for all profiles")


def _profile(profile: Obj, path: str) -> Errors:
    if not profile.get("schedulerName"):
        yield required(f"{path}.schedulerName")
    yield from _percentage(profile, f"{path}.percentageOfNodesToScore")
    for point in POINTS:
        chosen = ((profile.get("plugins") or {}).get(point) or {}).get("enabled") or ()
        for index, plugin in enumerate(chosen):
            if plugin.get("name") in _GONE:
                yield _gone(f"{path}.plugins.{point}.enabled[{index}]", plugin["name"])
    seen: set[str] = set()
    for index, stated in enumerate(profile["pluginConfig"]):
        where, name = f"{path}.pluginConfig[{index}]", stated.get("name") or ""
        if name in seen:
            yield duplicate(where, name)
        seen.add(name)
        if name in _GONE:
            yield _gone(where, name)
        elif name in _ARGUMENTS:
            yield from _ARGUMENTS[name](stated.get("args") or {}, f"{where}.args")


def _gone(path: str, name: str) -> FieldError:
    return invalid_value(
        path, name, f'was invalid in version "{API_VERSION}" (KubeSchedulerConfiguration is version "{API_VERSION}")'
    )


# Arguments of plugins.


def _preemption(args: Obj, path: str) -> Errors:
    percentage, absolute = args["minCandidateNodesPercentage"], args["minCandidateNodesAbsolute"]
    if not 0 <= percentage <= 100:
        yield invalid_value(f"{path}.minCandidateNodesPercentage", percentage, "not in valid range [0, 100]")
    if absolute < 0:
        yield invalid_value(f"{path}.minCandidateNodesAbsolute", absolute, "not in valid range [0, inf)")
    if not percentage and not absolute:
        for name, other in (("Percentage", "Absolute"), ("Absolute", "Percentage")):
            detail = f"cannot be zero at the same time as minCandidateNodes{other}"
            yield invalid_value(f"{path}.minCandidateNodes{name}", 0, detail)


def _inter_pod_affinity(args: Obj, path: str) -> Errors:
    weight = args["hardPodAffinityWeight"]
    if not 0 <= weight <= 100:
        yield invalid_value(f"{path}.hardPodAffinityWeight", weight, "not in valid range [0, 100]")


def _node_affinity(args: Obj, path: str) -> Errors:
    added = args.get("addedAffinity") or {}
    needed = added.get("requiredDuringSchedulingIgnoredDuringExecution")
    if needed is not None:
        yield from validate_node_selector(
            needed, f"{path}.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution"
        )
    for index, one in enumerate(added.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        where = f"{path}.addedAffinity.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        yield from validate_node_selector_term(one.get("preference") or {}, where)


def _balanced(args: Obj, path: str) -> Errors:
    seen: set[str] = set()
    for index, resource in enumerate(args["resources"]):
        name = resource.get("name") or ""
        if name in seen:
            yield duplicate(f"{path}.resources[{index}].name", name)
        seen.add(name)
        if resource["weight"] != 1:
            yield invalid_value(f"{path}.resources[{index}].weight", resource["weight"], "must be 1")


def _fit(args: Obj, path: str) -> Errors:
    for index, name in enumerate(args.get("ignoredResources") or ()):
        yield from validate_qualified_name(name, f"{path}.ignoredResources[{index}]")
    for index, group in enumerate(args.get("ignoredResourceGroups") or ()):
        where = f"{path}.ignoredResourceGroups[{index}]"
        if "/" in group:
            yield invalid_value(where, group, "resource group name can't contain '/'")
        yield from validate_qualified_name(group, where)
    strategy, where = args["scoringStrategy"], f"{path}.scoringStrategy"
    kind = strategy.get("type") or ""
    if kind not in _STRATEGIES:
        yield not_supported(f"{where}.type", kind, list(_STRATEGIES))
    for index, resource in enumerate(strategy["resources"]):
        if not 0 < resource["weight"] <= 100:
            detail = f"resource weight of {resource.get('name') or ''} not in valid range (0, 100]"
            yield invalid_value(f"{where}.resources[{index}].weight", resource["weight"], detail)
    ratio, where = strategy.get("requestedToCapacityRatio"), f"{where}.requestedToCapacityRatio"
    if kind == "RequestedToCapacityRatio":
        if ratio is None:
            yield required(where, "must be specified when type is RequestedToCapacityRatio")
        else:
            yield from _points(ratio.get("shape") or [], f"{where}.shape")
    elif ratio is not None:
        yield forbidden_field(where, "must be nil when type is not RequestedToCapacityRatio")


def _points(points: list[Obj], path: str) -> Errors:
    if not points:
        yield required(path, "at least one point must be specified")
        return
    utilization = [point.get("utilization") or 0 for point in points]
    for index in range(1, len(points)):
        if utilization[index - 1] >= utilization[index]:
            where = f"{path}[{index}].utilization"
            yield invalid_value(where, utilization[index], "values must be sorted in increasing order")
            break
    for index, point in enumerate(points):
        for name, most in (("utilization", 100), ("score", _MOST_SCORE)):
            value = point.get(name) or 0
            if not 0 <= value <= most:
                yield invalid_value(f"{path}[{index}].{name}", value, f"not in valid range [0, {most}]")


def _spread(args: Obj, path: str) -> Errors:
    kind, constraints = args["defaultingType"], args.get("defaultConstraints") or []
    if kind not in ("System", "List"):
        yield not_supported(f"{path}.defaultingType", kind, ["List", "System"])
    elif kind == "System" and constraints:
        yield invalid_value(f"{path}.defaultingType", kind, "when .defaultConstraints are not empty")
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(constraints):
        where = f"{path}.defaultConstraints[{index}]"
        yield from _constraint(constraint, where)
        pair = constraint.get("topologyKey") or "", constraint.get("whenUnsatisfiable") or ""
        if pair in seen:
            yield duplicate(where, f"{{{pair[0]}, {pair[1]}}}")
        seen.add(pair)


def _constraint(constraint: Obj, path: str) -> Errors:
    skew, key = constraint.get("maxSkew") or 0, constraint.get("topologyKey") or ""
    if skew <= 0:
        yield invalid_value(f"{path}.maxSkew", skew, "not in valid range (0, inf)")
    if not key:
        yield required(f"{path}.topologyKey", "can not be empty")
    else:
        yield from validate_qualified_name(key, f"{path}.topologyKey")
    action, supported = constraint.get("whenUnsatisfiable") or "", ["DoNotSchedule", "ScheduleAnyway"]
    if not action:
        yield required(f"{path}.whenUnsatisfiable", "can not be empty")
    elif action not in supported:
        yield not_supported(f"{path}.whenUnsatisfiable", action, supported)
    if constraint.get("labelSelector") is not None:
        detail = "constraint must not define a selector, as they deduced for each pod"
        yield forbidden_field(f"{path}.labelSelector", detail)


def _volume_binding(args: Obj, path: str) -> Errors:
    timeout = args["bindTimeoutSeconds"]
    if timeout < 0:
        detail = "invalid BindTimeoutSeconds, should not be a negative value"
        yield invalid_value(f"{path}.bindTimeoutSeconds", timeout, detail)
    if args.get("shape") is not None:
        detail = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring"
        yield invalid_value(f"{path}.shape", args["shape"], detail)


def _devices(args: Obj, path: str) -> Errors:
    filtering, binding = args.get("filterTimeout"), args.get("bindingTimeout")
    if filtering and durations.parse_ns(filtering) < 0:
        yield invalid_value(f"{path}.filterTimeout", filtering, "must be zero or positive")
    if binding and durations.parse_s(binding) < 1:
        yield invalid_value(f"{path}.bindingTimeout", binding, "must be at least 1 second")


_ARGUMENTS: Final[Mapping[str, Callable[[Obj, str], Errors]]] = {
    "DefaultPreemption": _preemption,
    "DynamicResources": _devices,
    "InterPodAffinity": _inter_pod_affinity,
    "NodeAffinity": _node_affinity,
    "NodeResourcesBalancedAllocation": _balanced,
    "NodeResourcesFit": _fit,
    "PodTopologySpread": _spread,
    "VolumeBinding": _volume_binding,
}


# Extenders.


def _extenders(config: Obj) -> Errors:
    managed: set[str] = set()
    binders = 0
    for index, extender in enumerate(config.get("extenders") or ()):
        path = f"extenders[{index}]"
        weight = extender.get("weight") or 0
        if extender.get("prioritizeVerb") and weight <= 0:
            yield invalid_value(f"{path}.weight", weight, "must have a positive weight applied to it")
        binders += bool(extender.get("bindVerb"))
        for at, resource in enumerate(extender.get("managedResources") or ()):
            where, name = f"{path}.managedResources[{at}].name", resource.get("name") or ""
            wrong = qualified_name_problems(name)
            for detail in wrong:
                yield invalid_value(where, name, detail)
            if not wrong and not is_extended(name):
                yield invalid_value(where, name, "is an invalid extended resource name")
            if name in managed:
                yield invalid_value(where, name, "duplicate extender managed resource name")
            managed.add(name)
    if binders > 1:
        yield invalid_value(
            "extenders", f"found {binders} extenders implementing bind", "only one extender can implement bind"
        )
