"""The seam of the scheduler: a `Plugin` says which nodes can take a pod, and which of those are better.

A plugin answers for all nodes of a table at once, in NumPy arrays. What it may look at decides when its answers are
computed anew (`Scope`), and must be declared truthfully, because answers are cached per equivalence class of pods.
Users add plugins through `Profile.plugins`; Kubernetes' own are in `scheduler.plugins`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import Enum

import numpy as np

from navarch.api.meta import Obj
from navarch.records import frozen, mutable
from navarch.scheduler.changes import Change, ClusterEvent
from navarch.scheduler.columns import BoolArray, FloatArray
from navarch.scheduler.environment import Environment
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable

__all__ = [
    "BoolArray",
    "Change",
    "ClusterEvent",
    "Failure",
    "FloatArray",
    "Plugin",
    "PodInfo",
    "Refusal",
    "Scope",
    "scaled",
]


class Scope(Enum):
    """What an answer about one node depends on, besides the pod."""

    NODE = "the Node object"
    ROW = "the Node object and the pods on that node"
    CLUSTER = "pods on other nodes too"
    SEARCH = "a search of its own: asked last, about nodes that all others would take, and never kept"


@mutable
class Refusal:
    """Why nodes were refused: how many nodes for each reason; `curable` tells for each of them whether removing pods
    from it could help (Kubernetes' Unschedulable, as opposed to UnschedulableAndUnresolvable)."""

    reasons: dict[str, int]
    curable: BoolArray

    @classmethod
    def of_all(cls, nodes: NodeTable, reason: str, *, curable: bool) -> Refusal:
        return cls({reason: len(nodes)} if len(nodes) else {}, np.full(len(nodes), curable))


@frozen
class Rejection:
    """The pod cannot be scheduled anywhere, whatever the nodes are (Kubernetes' PreFilter)."""

    message: str
    plugin: str
    is_quiet: bool = False
    """Whether nobody is told."""


class Failure(Exception):
    """What a plugin raises that cannot judge a pod; the pod is told, and tried again after its back-off."""


class Plugin:
    """A filter, a score, or both. Override what it does and declare with `scope` what that looks at."""

    name = ""
    scope = Scope.NODE
    normalizes = False
    """Whether scores mean something only in comparison: then `normalize` is called once per pod."""
    changes: frozenset[Change] = frozenset()
    """Events after which a pod that this plugin refused is worth another try."""

    def filters(self, pod: PodInfo) -> bool:
        """Whether `filter` has anything to say about this kind of pod; depends on `pod.traits` alone."""
        return type(self).filter is not Plugin.filter

    def scores(self, pod: PodInfo, nodes: NodeTable) -> bool:
        """Whether `score` can tell nodes apart for this kind of pod."""
        return type(self).score is not Plugin.score

    def depends_on_pods(self, pod: PodInfo, nodes: NodeTable) -> bool:
        """Whether pods that come or go could change what `filter` says of a node for this pod."""
        return self.scope is not Scope.NODE and self.filters(pod)

    def hold(self, pod: PodInfo, environment: Environment) -> str | None:
        """Why the pod is not looked at at all for now, or None: nobody is told (Kubernetes' PreEnqueue)."""
        return None

    def reject(self, pod: PodInfo, environment: Environment) -> str | None:
        """Why the pod cannot be scheduled anywhere at present, or None."""
        return None

    def only(self, pod: PodInfo) -> set[str] | None:
        """The names of all nodes that may come into question, or None where it names none: said of the others at once,
        before any filter is asked why it refuses them."""
        return None

    def prepares(self, pod: PodInfo, environment: Environment) -> bool:
        """Whether `prepare` has work to do for this pod."""
        return False

    async def prepare(self, pod: PodInfo, nodes: NodeTable, enough: int) -> None:
        """Find out what `filter` will say of these nodes, until `enough` of them do, with turns for others."""

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        """Nodes that can take the pod; shape (n_nodes,)."""
        return np.ones(len(nodes), np.bool_)

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        """Why `filter` refused these nodes (the table has only refused ones)."""
        return Refusal.of_all(nodes, f"node(s) didn't satisfy plugin {self.name}", curable=False)

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        """How good each node is; shape (n_nodes,), 0..100, or anything where `normalizes`."""
        return np.zeros(len(nodes))

    def normalize(self, scores: FloatArray, feasible: BoolArray) -> FloatArray:
        """Scores over all nodes brought to 0..100, looking at feasible nodes only."""
        return scaled(scores, feasible)

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        """Whether `event` (one of `changes`) may have made room for `pod`."""
        return True

    # Around binding; most plugins have nothing to do here.

    def binds(self, pod: PodInfo) -> bool:
        """Whether `pre_bind` has work to do for this pod."""
        return False

    async def pre_bind(self, pod: PodInfo, node: Obj, environment: Environment) -> None:
        """Prepare the node's choice in the cluster before the pod is bound; raises StatusError to give it up."""

    def reserve(self, pod: PodInfo, node_name: str, environment: Environment) -> None:
        """The decision is made: take what it needs before anybody else decides; raises StatusError to give it up."""

    async def roll_back(self, pod: PodInfo, environment: Environment) -> None:
        """Undo `reserve` and `pre_bind`: the pod could not be bound."""

    def binds_instead(self, pod: PodInfo) -> bool:
        """Whether `bind` is to bind this pod."""
        return False

    async def bind(self, pod: PodInfo, node_name: str) -> None:
        """Bind the pod to the node; raises StatusError."""

    async def sift(self, pod: PodInfo, victims: Mapping[str, Victims]) -> Mapping[str, Victims]:
        """Of nodes that removing pods would make fit, by name, those that may be chosen, and who has to go there."""
        return victims

    async def make_room(self, pod: PodInfo, environment: Environment) -> str:
        """The pod fits nowhere: do what may help, and say what was done; empty where there is nothing to say."""
        return ""


@frozen
class Victims:
    """Pods that would have to leave a node, and how many of them a disruption budget protects; `there` are all of its
    pods, by uid."""

    pods: Sequence[PodInfo]
    violations: int
    there: Mapping[str, PodInfo]


@mutable
class Profile:
    """The plugins, in filter order, and score weights under which pods of one `schedulerName` are scheduled."""

    name: str = "default-scheduler"
    plugins: list[Plugin] = field(default_factory=list)
    weights: Mapping[str, int] = field(default_factory=dict)
    preemption: bool = True
    points: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names of the plugins that act at a Kubernetes' extension point, in order, where it is not all of them."""
    candidates_percent: int = 10
    candidates_least: int = 100
    """On how many of the nodes that removing pods may help preemption looks for victims."""
    scored_percent: int = 0
    """How many of all nodes suffice, once they are found to fit, to choose the best of; 0 looks at every one."""

    def at(self, point: str) -> list[Plugin]:
        """The plugins that act at an extension point."""
        names = self.points.get(point)
        if names is None:
            return self.plugins
        known = {plugin.name: plugin for plugin in self.plugins}
        return [known[name] for name in names if name in known]

    def weight(self, plugin: Plugin) -> int:
        return self.weights.get(plugin.name, 1)


def scaled(scores: FloatArray, feasible: BoolArray, *, reverse: bool = False) -> FloatArray:
    """Scores scaled so that the best feasible node has 100 (Kubernetes' DefaultNormalizeScore); `reverse` makes the
    highest the worst."""
    highest = float(np.max(scores, where=feasible, initial=0))
    if highest == 0:
        return np.full(len(scores), 100.0) if reverse else scores
    result = np.floor(scores * 100 / highest)
    return 100 - result if reverse else result
