"""From a file of Kubernetes' form to how a scheduler of ours is set up.

In: the file.  Out: a SchedulerConfig, or a ConfigurationError with Kubernetes' words. What the file leaves open has
Kubernetes' defaults, but for one: all nodes are scored, for that costs little here, unless the file says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from navarch.api import durations, yaml_reader
from navarch.api.config_files import ShapeError, fit
from navarch.api.features import Features
from navarch.api.meta import Obj
from navarch.scheduler.config import SchedulerConfig, default_plugins
from navarch.scheduler.configuration import validation
from navarch.scheduler.configuration.plugin_sets import Enabled, PluginsError, enabled
from navarch.scheduler.configuration.shape import API_VERSION, ARGUMENTS, FIELDS, KIND, WITHOUT_EFFECT
from navarch.scheduler.extenders import ExtenderConfig, Extenders, tls_of
from navarch.scheduler.framework import Plugin, Profile
from navarch.scheduler.plugins.dynamic_resources import DynamicResources
from navarch.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from navarch.scheduler.plugins.node_affinity import NodeAffinity
from navarch.scheduler.plugins.node_resources import (
    NodeResourcesBalancedAllocation,
    NodeResourcesFit,
    ScoringStrategy,
)
from navarch.scheduler.plugins.pod_topology_spread import PodTopologySpread
from navarch.scheduler.plugins.volumes import VolumeBinding
from navarch.scheduler.podinfo import spread_constraint

_RESOURCES: Final = ({"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1})
_ELECTION: Final[Mapping[str, Any]] = {
    "leaderElect": True,
    "leaseDuration": "15s",
    "renewDeadline": "10s",
    "retryPeriod": "2s",
    "resourceLock": "leases",
}


class ConfigurationError(ValueError):
    """The file cannot be used; the message says why."""


def read(path: Path) -> Obj:
    """What a file says, checked.  Raises ConfigurationError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"open {path}: {error.strerror or error}") from None
    try:
        document = yaml_reader.load(data)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    try:
        return checked(document.value, document.duplicates)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def checked(document: Any, duplicates: list[str] | None = None) -> Obj:
    """The document with its defaults, if it is one that can be used.  Raises ConfigurationError."""
    if not isinstance(document, dict):
        raise ConfigurationError("the file is empty" if document is None else "must be an object")
    kind, version = document.get("kind"), document.get("apiVersion")
    if not kind or not version:
        raise ConfigurationError(f"Object '{'Kind' if not kind else 'apiVersion'}' is missing in the file")
    if (version, kind) != (API_VERSION, KIND):
        raise ConfigurationError(f'no kind "{kind}" is registered for version "{version}", want {API_VERSION}')
    try:
        if duplicates:
            raise ShapeError(f"strict decoding error: {', '.join(duplicates)}")
        fit(document, FIELDS)
        for index, profile in enumerate(document.get("profiles") or ()):
            _fit_arguments(profile, f".profiles[{index}]")
        full = completed(document)
        wrong = validation.problems(full)
    except (ShapeError, ValueError) as error:
        raise ConfigurationError(str(error)) from None
    if wrong:
        # As Go prints several errors.
        raise ConfigurationError(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
    return full


def _fit_arguments(profile: Obj, path: str) -> None:
    for index, stated in enumerate(profile.get("pluginConfig") or ()):
        name, args = stated.get("name") or "", stated.get("args") or {}
        if name not in ARGUMENTS:
            # Those of plugins that nobody here knows are nobody's business.
            continue
        kind = args.get("kind")
        if kind and kind != f"{name}Args":
            group = API_VERSION.partition("/")[0]
            mismatch = f"args for plugin {name} were not of type {name}Args.{group}, got {kind}.{group}"
            raise ShapeError(f"decoding {path}.pluginConfig[{index}]: {mismatch}")
        try:
            fit(args, ARGUMENTS[name])
        except ShapeError as error:
            where = f"decoding {path}.pluginConfig[{index}]: strict decoding error: decoding args for plugin {name}"
            raise ShapeError(f"strict decoding error: {where}: {error}") from None


def warnings(full: Obj) -> list[str]:
    """What the file says that changes nothing here."""
    return [
        f"scheduler configuration: {name} has no effect here: {why}"
        for name, why in WITHOUT_EFFECT.items()
        if name in full["stated"]
    ]


# Defaults.


def completed(document: Obj) -> Obj:
    """With what Kubernetes has where nothing is said."""
    profiles = document.get("profiles") or [{}]
    if len(profiles) == 1 and profiles[0].get("schedulerName") is None:
        profiles = [{**profiles[0], "schedulerName": "default-scheduler"}]
    return {
        **document,
        "stated": sorted(document),
        "parallelism": _or(document.get("parallelism"), 16),
        "leaderElection": {**_ELECTION, **_said(document.get("leaderElection") or {})},
        "podInitialBackoffSeconds": _or(document.get("podInitialBackoffSeconds"), 1),
        "podMaxBackoffSeconds": _or(document.get("podMaxBackoffSeconds"), 10),
        "profiles": [_profile(profile) for profile in profiles],
    }


def _profile(profile: Obj) -> Obj:
    stated = [{**one, "args": _arguments(one)} for one in profile.get("pluginConfig") or ()]
    return {**profile, "plugins": profile.get("plugins") or {}, "pluginConfig": stated}


def _arguments(stated: Obj) -> Obj:
    name, args = stated.get("name") or "", _said(stated.get("args") or {})
    make = _DEFAULTS.get(name)
    return make(args) if make is not None else args


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _said(stated: Obj) -> Obj:
    return {name: value for name, value in stated.items() if value is not None}


def _weighted(resources: list[Obj] | None) -> list[Obj]:
    return [{**resource, "weight": resource.get("weight") or 1} for resource in resources or _RESOURCES]


def _fit_defaults(args: Obj) -> Obj:
    strategy = args.get("scoringStrategy") or {"type": "LeastAllocated"}
    return {**args, "scoringStrategy": {**strategy, "resources": _weighted(strategy.get("resources"))}}


_DEFAULTS: Final[Mapping[str, Callable[[Obj], Obj]]] = {
    "DefaultPreemption": lambda args: {"minCandidateNodesPercentage": 10, "minCandidateNodesAbsolute": 100, **args},
    "InterPodAffinity": lambda args: {"hardPodAffinityWeight": 1, **args},
    "NodeResourcesBalancedAllocation": lambda args: {**args, "resources": _weighted(args.get("resources"))},
    "NodeResourcesFit": _fit_defaults,
    "PodTopologySpread": lambda args: {**args, "defaultingType": args.get("defaultingType") or "System"},
    "VolumeBinding": lambda args: {"bindTimeoutSeconds": 600, **args},
}


# What comes of it.


def configured(full: Obj, features: Features | None = None) -> SchedulerConfig:
    """A scheduler's set-up as a checked document says.  Raises ConfigurationError."""
    left_alone = frozenset(
        resource["name"]
        for extender in full.get("extenders") or ()
        for resource in extender.get("managedResources") or ()
        if resource.get("ignoredByScheduler")
    )
    stated = full.get("extenders") or []
    extenders = Extenders([_extender(one, index) for index, one in enumerate(stated)]) if stated else None
    profiles = [
        _made(profile, left_alone, extenders, full.get("percentageOfNodesToScore"), features)
        for profile in full["profiles"]
    ]
    return SchedulerConfig(
        profiles=profiles,
        first_backoff_s=float(full["podInitialBackoffSeconds"]),
        last_backoff_s=float(full["podMaxBackoffSeconds"]),
        extenders=extenders,
    )


def _made(
    profile: Obj,
    left_alone: frozenset[str],
    extenders: Extenders | None,
    percentage: int | None,
    features: Features | None,
) -> Profile:
    name = profile["schedulerName"]
    try:
        chosen = enabled(profile["plugins"])
        _check(name, chosen)
    except PluginsError as error:
        raise ConfigurationError(
            f"initializing profiles: creating profile for scheduler name {name}: {error}"
        ) from None
    args = {one.get("name") or "": one["args"] for one in profile["pluginConfig"]}
    plugins = _plugins(args, left_alone, features)
    order = [*chosen.points["filter"], *(each for point in chosen.points.values() for each in point)]
    points = dict(chosen.points)
    instances = [plugins[each] for each in dict.fromkeys(order) if each in plugins]
    weights = dict(chosen.weights)
    if extenders is not None:
        instances.append(extenders)
        points = {point: (*names, extenders.name) for point, names in points.items()}
        weights[extenders.name] = 1
    preempting = args.get("DefaultPreemption") or _DEFAULTS["DefaultPreemption"]({})
    return Profile(
        name,
        instances,
        weights,
        preemption="DefaultPreemption" in chosen.points["postFilter"],
        points=points,
        candidates_percent=preempting["minCandidateNodesPercentage"],
        candidates_least=preempting["minCandidateNodesAbsolute"],
        scored_percent=_or(profile.get("percentageOfNodesToScore"), percentage) or 0,
    )


def _check(name: str, chosen: Enabled) -> None:
    if len(chosen.points["queueSort"]) != 1:
        count = len(chosen.points["queueSort"])
        raise PluginsError(
            f'only one queue sort plugin required for profile with scheduler name "{name}", but got {count}'
        )
    if not chosen.points["bind"]:
        raise PluginsError(f'at least one bind plugin is needed for profile with scheduler name "{name}"')


def _plugins(args: Mapping[str, Obj], left_alone: frozenset[str], features: Features | None) -> dict[str, Plugin]:
    """Every plugin, by name, as its arguments say."""
    made: dict[str, Plugin] = {plugin.name: plugin for plugin in default_plugins(features)}
    for name, make in _WITH_ARGUMENTS.items():
        if name in args:
            made[name] = make(args[name])
    if left_alone:
        made["NodeResourcesFit"] = _resources_fit(args.get("NodeResourcesFit") or _fit_defaults({}), left_alone)
    return made


def _resources_fit(args: Obj, left_alone: frozenset[str] = frozenset()) -> Plugin:
    strategy = args["scoringStrategy"]
    points = (strategy.get("requestedToCapacityRatio") or {}).get("shape") or ()
    return NodeResourcesFit(
        ScoringStrategy(
            strategy["type"],
            tuple((resource["name"], resource["weight"]) for resource in strategy["resources"]),
            tuple((point.get("utilization") or 0, point.get("score") or 0) for point in points),
        ),
        ignored=left_alone | frozenset(args.get("ignoredResources") or ()),
        ignored_groups=frozenset(args.get("ignoredResourceGroups") or ()),
    )


def _node_affinity(args: Obj) -> Plugin:
    added = args.get("addedAffinity") or {}
    needed = added.get("requiredDuringSchedulingIgnoredDuringExecution")
    return NodeAffinity(
        None if needed is None else needed.get("nodeSelectorTerms") or (),
        added.get("preferredDuringSchedulingIgnoredDuringExecution") or (),
    )


def _topology_spread(args: Obj) -> Plugin:
    if args["defaultingType"] == "System":
        return PodTopologySpread()
    return PodTopologySpread([spread_constraint(one, "", {}) for one in args.get("defaultConstraints") or ()])


def _inter_pod_affinity(args: Obj) -> Plugin:
    ignores = bool(args.get("ignorePreferredTermsOfExistingPods"))
    return InterPodAffinity(args["hardPodAffinityWeight"], ignores_preferences_of_others=ignores)


def _devices(args: Obj) -> Plugin:
    binding = args.get("bindingTimeout")
    return DynamicResources(durations.parse_s(binding)) if binding else DynamicResources()


_WITH_ARGUMENTS: Final[Mapping[str, Callable[[Obj], Plugin]]] = {
    "DynamicResources": _devices,
    "InterPodAffinity": _inter_pod_affinity,
    "NodeAffinity": _node_affinity,
    "NodeResourcesBalancedAllocation": lambda args: NodeResourcesBalancedAllocation(
        [resource["name"] for resource in args["resources"]]
    ),
    "NodeResourcesFit": _resources_fit,
    "PodTopologySpread": _topology_spread,
    "VolumeBinding": lambda args: VolumeBinding(float(args["bindTimeoutSeconds"])),
}


def _extender(stated: Obj, index: int) -> ExtenderConfig:
    try:
        tls = tls_of(stated.get("tlsConfig") or {}, https=bool(stated.get("enableHTTPS")))
        timeout = durations.parse_s(stated.get("httpTimeout") or "0s")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"extenders[{index}]: {error}") from None
    return ExtenderConfig(
        url=stated.get("urlPrefix") or "",
        filter_verb=stated.get("filterVerb") or "",
        prioritize_verb=stated.get("prioritizeVerb") or "",
        preempt_verb=stated.get("preemptVerb") or "",
        bind_verb=stated.get("bindVerb") or "",
        weight=stated.get("weight") or 0,
        timeout_s=timeout or 5.0,
        keeps_nodes=bool(stated.get("nodeCacheCapable")),
        is_ignorable=bool(stated.get("ignorable")),
        managed=frozenset(resource.get("name") or "" for resource in stated.get("managedResources") or ()),
        tls=tls,
        server_name=(stated.get("tlsConfig") or {}).get("serverName") or None,
    )
