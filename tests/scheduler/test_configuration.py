"""A KubeSchedulerConfiguration: what it may say, what is wrong with it, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from navarch.api.meta import Obj
from navarch.client import resources
from navarch.scheduler import SchedulerConfig
from navarch.scheduler.config import DEFAULT_WEIGHTS
from navarch.scheduler.configuration.reading import ConfigurationError, checked, configured, read, warnings
from tests.scheduler.conftest import World

ZONE = "topology.kubernetes.io/zone"


def document(**fields: Any) -> Obj:
    return {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", **fields}


def scheduler(**fields: Any) -> SchedulerConfig:
    config = configured(checked(document(**fields)))
    config.first_backoff_s, config.last_backoff_s = 0.01, 0.02
    return config


def with_arguments(plugin: str, **args: Any) -> SchedulerConfig:
    return scheduler(profiles=[{"pluginConfig": [{"name": plugin, "args": args}]}])


def problem(config: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configured(checked(config))
    return str(caught.value)


# What is wrong.


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"parallelism": 0}, "parallelism: Invalid value: 0: should be an integer value greater than zero"),
        ({"percentageOfNodesToScore": 101}, "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]"),
        ({"podInitialBackoffSeconds": 0}, "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0"),
        (
            {"podInitialBackoffSeconds": 5, "podMaxBackoffSeconds": 2},
            "podMaxBackoffSeconds: Invalid value: 2: must be greater than or equal to PodInitialBackoffSeconds",
        ),
        ({"profiles": [{}, {"schedulerName": "b"}]}, "profiles[0].schedulerName: Required value"),
        (
            {"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]},
            'profiles[1].schedulerName: Duplicate value: "profiles[0].schedulerName"',
        ),
        (
            {"extenders": [{"urlPrefix": "http://x", "prioritizeVerb": "p"}]},
            "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
        ),
        (
            {"extenders": [{"bindVerb": "b"}, {"bindVerb": "b"}]},
            'extenders: Invalid value: "found 2 extenders implementing bind": only one extender can implement bind',
        ),
        (
            {"extenders": [{"managedResources": [{"name": "cpu"}]}]},
            'extenders[0].managedResources[0].name: Invalid value: "cpu": is an invalid extended resource name',
        ),
        ({"unknown": 1}, 'strict decoding error: unknown field "unknown"'),
        ({"profiles": [{"plugin": {}}]}, 'strict decoding error: unknown field "profiles[0].plugin"'),
        (
            {"leaderElection": {"resourceLock": "endpoints"}},
            'leaderElection.resourceLock: Invalid value: "endpoints": ',
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_kubernetes_words(fields: Obj, words: str) -> None:
    assert problem(document(**fields)).startswith(words)


@pytest.mark.parametrize(
    ("plugin", "args", "words"),
    [
        ("InterPodAffinity", {"hardPodAffinityWeight": 101}, "args.hardPodAffinityWeight: Invalid value: 101: not in"),
        (
            "DefaultPreemption",
            {"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 0},
            "args.minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as "
            "minCandidateNodesAbsolute",
        ),
        (
            "NodeResourcesFit",
            {"scoringStrategy": {"type": "Best"}},
            'args.scoringStrategy.type: Unsupported value: "Best": supported values: "LeastAllocated", '
            '"MostAllocated", "RequestedToCapacityRatio"',
        ),
        (
            "NodeResourcesFit",
            {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 200}]}},
            "args.scoringStrategy.resources[0].weight: Invalid value: 200: resource weight of cpu not in valid",
        ),
        (
            "NodeResourcesFit",
            {"scoringStrategy": {"type": "RequestedToCapacityRatio"}},
            "args.scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type is",
        ),
        (
            "PodTopologySpread",
            {"defaultConstraints": [{"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "ScheduleAnyway"}]},
            'args.defaultingType: Invalid value: "System": when .defaultConstraints are not empty',
        ),
        (
            "PodTopologySpread",
            {"defaultingType": "List", "defaultConstraints": [{"maxSkew": 0, "topologyKey": ZONE}]},
            "args.defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf)",
        ),
        ("VolumeBinding", {"bindTimeoutSeconds": -1}, "args.bindTimeoutSeconds: Invalid value: -1: invalid Bind"),
        (
            "NodeResourcesBalancedAllocation",
            {"resources": [{"name": "cpu", "weight": 2}]},
            "args.resources[0].weight: Invalid value: 2: must be 1",
        ),
    ],
)
def test_arguments_of_plugins_are_checked(plugin: str, args: Obj, words: str) -> None:
    config = document(profiles=[{"pluginConfig": [{"name": plugin, "args": args}]}])

    assert f"profiles[0].pluginConfig[0].{words}" in problem(config)


def test_unknown_arguments_are_told_with_the_plugin() -> None:
    config = document(profiles=[{"pluginConfig": [{"name": "NodeAffinity", "args": {"added": {}}}]}])

    assert problem(config) == (
        "strict decoding error: decoding .profiles[0].pluginConfig[0]: strict decoding error: decoding args for plugin "
        'NodeAffinity: strict decoding error: unknown field "added"'
    )


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ({"multiPoint": {"enabled": [{"name": "Mine"}]}}, 'PreFilterPlugin "Mine" does not exist'),
        ({"score": {"enabled": [{"name": "Mine"}]}}, 'ScorePlugin "Mine" does not exist'),
        ({"score": {"enabled": [{"name": "NodeName"}]}}, 'plugin "NodeName" does not extend ScorePlugin plugin'),
        (
            {"queueSort": {"disabled": [{"name": "*"}]}},
            'only one queue sort plugin required for profile with scheduler name "default-scheduler", but got 0',
        ),
        (
            {"bind": {"disabled": [{"name": "DefaultBinder"}]}},
            'at least one bind plugin is needed for profile with scheduler name "default-scheduler"',
        ),
    ],
)
def test_plugins_that_cannot_be_put_together_are_refused(plugins: Obj, words: str) -> None:
    assert problem(document(profiles=[{"plugins": plugins}])) == (
        f"initializing profiles: creating profile for scheduler name default-scheduler: {words}"
    )


def test_other_kinds_and_keys_given_twice_are_refused(tmp_path: Path) -> None:
    assert "Object 'Kind' is missing" in problem({"apiVersion": "kubescheduler.config.k8s.io/v1"})
    assert "is registered for version" in problem({**document(), "apiVersion": "kubescheduler.config.k8s.io/v1beta3"})
    file = tmp_path / "scheduler.yaml"
    file.write_text(f"{yaml.safe_dump(document())}parallelism: 1\nparallelism: 2\n")
    with pytest.raises(ConfigurationError, match=r'strict decoding error: .*key "parallelism" already set'):
        read(file)


def test_what_has_no_effect_is_told() -> None:
    told = warnings(checked(document(parallelism=4)))

    assert told == [
        "scheduler configuration: parallelism has no effect here: all nodes are looked at in one go",
    ]


# What comes of it.


def test_an_empty_file_gives_the_default_scheduler() -> None:
    config = configured(checked(document()))
    (profile,) = config.profiles

    assert (profile.name, profile.preemption) == ("default-scheduler", True)
    assert {name: profile.weights[name] for name in DEFAULT_WEIGHTS} == dict(DEFAULT_WEIGHTS)
    assert [plugin.name for plugin in profile.at("score")] == [
        *("TaintToleration", "NodeAffinity", "NodeResourcesFit", "VolumeBinding", "PodTopologySpread"),
        *("InterPodAffinity", "DynamicResources", "NodeResourcesBalancedAllocation", "ImageLocality"),
    ]


def test_plugins_are_enabled_and_disabled_point_by_point() -> None:
    plugins = {
        "multiPoint": {"enabled": [{"name": "ImageLocality", "weight": 7}], "disabled": [{"name": "NodePorts"}]},
        "score": {"enabled": [{"name": "NodeAffinity", "weight": 9}], "disabled": [{"name": "TaintToleration"}]},
        "filter": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]},
        "postFilter": {"disabled": [{"name": "DefaultPreemption"}]},
    }
    (profile,) = scheduler(profiles=[{"plugins": plugins}]).profiles

    assert [plugin.name for plugin in profile.at("filter")] == ["NodeResourcesFit"]
    assert "TaintToleration" not in {plugin.name for plugin in profile.at("score")}
    assert profile.at("score")[0].name == "NodeAffinity"
    assert (profile.weights["NodeAffinity"], profile.weights["ImageLocality"]) == (9, 7)
    assert not profile.preemption
    assert "NodePorts" not in {plugin.name for plugin in profile.plugins}


async def test_a_pod_goes_by_the_profile_that_it_names(world: World) -> None:
    world.node("small", cpu="2")
    world.node("large", cpu="8")
    strategy = {"type": "MostAllocated", "resources": [{"name": "cpu"}, {"name": "memory"}]}
    packing = {"pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": strategy}}]}
    packing["plugins"] = {"score": {"disabled": [{"name": "NodeResourcesBalancedAllocation"}]}}  # type: ignore[assignment]
    profiles = [{"schedulerName": "default-scheduler"}, {"schedulerName": "packing", **packing}]
    world.pod("spread", cpu="1", memory="1Gi")
    world.pod("packed", cpu="1", memory="1Gi", schedulerName="packing")

    async with world.scheduling(scheduler(profiles=profiles)):
        await world.until(lambda: world.where("spread") and world.where("packed"))

    assert (world.where("spread"), world.where("packed")) == ("large", "small")


async def test_a_ratio_of_requested_to_capacity_has_the_shape_that_is_stated(world: World) -> None:
    # Best is half full; the shape is for one resource alone.
    shape = [{"utilization": 0, "score": 0}, {"utilization": 50, "score": 10}, {"utilization": 100, "score": 0}]
    strategy = {"type": "RequestedToCapacityRatio", "resources": [{"name": "example.com/gpu", "weight": 3}]}
    config = with_arguments(
        "NodeResourcesFit", scoringStrategy={**strategy, "requestedToCapacityRatio": {"shape": shape}}
    )
    for name, devices in (("two", "2"), ("four", "4"), ("eight", "8")):
        world.node(name, extended={"example.com/gpu": devices})
    world.pod("web", extended={"example.com/gpu": "2"})

    async with world.scheduling(config):
        await world.until(lambda: world.where("web"))

    assert world.where("web") == "four"


async def test_affinity_that_the_scheduler_adds_holds_every_pod(world: World) -> None:
    world.node("a")
    term = {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["mine"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    world.pod("web")
    async with world.scheduling(with_arguments("NodeAffinity", addedAffinity=required)):
        await world.until(lambda: world.message("web"))
        assert world.message("web").startswith(
            "0/1 nodes are available: 1 node(s) didn't match scheduler-enforced node affinity."
        )

        world.node("b", labels={"pool": "mine"})

        await world.until(lambda: world.where("web") == "b")


async def test_default_constraints_that_are_listed_hold_pods_of_controllers(world: World) -> None:
    world.node("a", labels={ZONE: "a"})
    world.node("b", labels={ZONE: "b"}, cpu="1")
    world.put(
        resources.REPLICA_SETS,
        {
            "metadata": {"name": "web", "namespace": "default", "uid": "rs"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
        },
    )
    owner = {"kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": True}
    constraint = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}
    for i in range(4):
        world.pod(f"web-{i}", labels={"app": "web"}, owner=owner, cpu="600m")

    config = with_arguments("PodTopologySpread", defaultingType="List", defaultConstraints=[constraint])
    async with world.scheduling(config):
        await world.until(lambda: sum(bool(world.message(f"web-{i}")) for i in range(4)) == 1)

    assert sorted(world.where(f"web-{i}") for i in range(4)) == ["", "a", "a", "b"]


async def test_resources_that_are_ignored_are_others_to_look_after(world: World) -> None:
    world.node("a")
    world.pod("web", extended={"example.com/licence": "1"})

    async with world.scheduling(with_arguments("NodeResourcesFit", ignoredResourceGroups=["example.com"])):
        await world.until(lambda: world.where("web") == "a")


async def test_without_preemption_nobody_goes(world: World) -> None:
    world.node("a", cpu="1")
    world.pod("low", cpu="1", priority=1, nodeName="a")
    world.pod("high", cpu="1", priority=10)
    plugins = {"postFilter": {"disabled": [{"name": "*"}]}}

    async with world.scheduling(scheduler(profiles=[{"plugins": plugins}])):
        await world.until(lambda: world.message("high"))

    assert world.message("high") == "0/1 nodes are available: 1 Insufficient cpu."
    assert world.where("low") == "a"


async def test_as_many_nodes_are_scored_as_the_file_says(world: World) -> None:
    for i in range(300):
        world.node(f"n{i:03}", cpu="16" if i == 299 else "4")
    world.pod("first")
    async with world.scheduling(scheduler(percentageOfNodesToScore=50)):
        await world.until(lambda: world.where("first"))
        # The best is not among the first 150; the next search goes on where this one ended.
        assert world.where("first") < "n150"
        world.pod("second")
        await world.until(lambda: world.where("second"))

    assert world.where("second") == "n299"
