"""Filters and scores, cached per equivalence class and caught up row by row.

In: a PodInfo.  Out: the nodes that can take it and how good they are, or why there are none.  What depends only on a
node and the pods on it is kept in arrays per class of pods and computed anew only for rows that the logs name; what
depends on pods elsewhere (spreading, pod affinity) is computed per pod from counters that follow the same log.
Invariant: a cached answer equals the answer of plugins asked afresh.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

import numpy as np

from navarch.records import mutable
from navarch.scheduler.columns import BoolArray, FloatArray, NodeColumns
from navarch.scheduler.counters import PodCounters
from navarch.scheduler.environment import Environment
from navarch.scheduler.framework import Plugin, Profile, Rejection, Scope
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable, Rows

_CLASSES_LIMIT = 256
_LEAST_SCORED = 100
_KEPT = (Scope.NODE, Scope.ROW)
_Identity = tuple[int, int, int]


@mutable
class Diagnosis:
    """Why a pod fits nowhere."""

    nodes: int
    reasons: dict[str, int]
    plugins: frozenset[str]
    curable: BoolArray
    """Rows from which removing pods might help."""
    rejection: str = ""

    @classmethod
    def rejected(cls, columns: NodeColumns, rejection: Rejection) -> Diagnosis:
        nothing: BoolArray = np.zeros(columns.size, np.bool_)
        return cls(columns.node_count, {}, frozenset({rejection.plugin}), nothing, rejection.message)

    def message(self, appendix: str = "") -> str:
        """As Kubernetes words it: `0/3 nodes are available: 1 …, 2 Insufficient cpu. preemption: …`."""
        text = f"0/{self.nodes} nodes are available:"
        if self.rejection:
            text += f" {self.rejection}."
        elif self.reasons:
            text += " " + ", ".join(sorted(f"{count} {reason}" for reason, count in self.reasons.items())) + "."
        return f"{text} {appendix}" if appendix else text


@mutable
class _Class:
    """The cached answers for one class of pods; arrays are as long as the columns' capacity."""

    fits: BoolArray
    score: FloatArray
    """The weighted sum of those scores that need no comparison."""
    raw: list[tuple[Plugin, FloatArray]]
    filters: list[Plugin]
    cluster_filters: list[Plugin]
    searching: list[Plugin]
    scorers: list[Plugin]
    comparing: list[Plugin]
    cluster_scorers: list[Plugin]
    node_position: int
    pod_position: int


class Evaluator:
    """Evaluates pods of one profile over the columns."""

    def __init__(self, profile: Profile, columns: NodeColumns, counters: PodCounters, environment: Environment) -> None:
        self.profile = profile
        self._columns = columns
        self._counters = counters
        self._environment = environment
        self._classes: OrderedDict[_Identity, _Class] = OrderedDict()
        self._next = 0
        self._filtering = profile.at("filter")
        self._weighted = [plugin for plugin in profile.at("score") if profile.weight(plugin)]
        self._holding = [plugin for plugin in profile.at("preEnqueue") if type(plugin).hold is not Plugin.hold]
        self._rejecting = [plugin for plugin in profile.at("preFilter") if type(plugin).reject is not Plugin.reject]
        self._narrowing = [plugin for plugin in profile.at("preFilter") if type(plugin).only is not Plugin.only]
        self._preparing = [plugin for plugin in self._filtering if type(plugin).prepares is not Plugin.prepares]

    def table(self) -> NodeTable:
        return NodeTable(self._columns, self._counters, self._environment)

    # Questions.

    def reject(self, pod: PodInfo) -> Rejection | None:
        """Why no node whatever could take the pod at present."""
        for plugin in self._holding:
            message = plugin.hold(pod, self._environment)
            if message:
                return Rejection(message, plugin.name, is_quiet=True)
        for plugin in self._rejecting:
            message = plugin.reject(pod, self._environment)
            if message:
                return Rejection(message, plugin.name)
        return None

    def prepares(self, pod: PodInfo) -> bool:
        """Whether there is something to find out about nodes that takes its time."""
        return any(plugin.prepares(pod, self._environment) for plugin in self._preparing)

    async def prepare(self, pod: PodInfo, first: str) -> None:
        """Find it out, of the node named `first` first."""
        rows = np.flatnonzero(self._without_search(pod, self._class(pod)))
        promised = self._columns.rows.get(first, -1)
        if promised >= 0:
            rows = np.concatenate([rows[rows == promised], rows[rows != promised]])
        for plugin in self._preparing:
            if plugin.prepares(pod, self._environment):
                await plugin.prepare(pod, self.table().select(rows), _enough(len(rows)))
                rows = rows[plugin.filter(pod, self.table().select(rows))]

    def feasible(self, pod: PodInfo) -> BoolArray:
        """Rows that can take the pod; shape (size,)."""
        known = self._class(pod)
        fits = self._without_search(pod, known)
        for plugin in known.searching:
            rows = np.flatnonzero(fits)
            fits = fits.copy()
            fits[rows[~plugin.filter(pod, self.table().select(rows))]] = False
        return fits

    def _without_search(self, pod: PodInfo, known: _Class) -> BoolArray:
        size = self._columns.size
        fits = known.fits[:size]
        if known.cluster_filters:
            table = self.table()
            for plugin in known.cluster_filters:
                fits = fits & plugin.filter(pod, table)
        return fits

    def sampled(self, feasible: BoolArray) -> BoolArray:
        """As many of the feasible rows as the profile wants to choose among, going round from where the last search
        ended."""
        nodes = self._columns.node_count
        wanted = max(nodes * self.profile.scored_percent // 100, _LEAST_SCORED)
        found = np.flatnonzero(feasible)
        if nodes < _LEAST_SCORED or len(found) <= wanted:
            return feasible
        first = int(np.searchsorted(found, self._next))
        chosen = np.roll(found, -first)[:wanted]
        self._next = (int(chosen[-1]) + 1) % self._columns.size
        result: BoolArray = np.zeros(len(feasible), np.bool_)
        result[chosen] = True
        return result

    def totals(self, pod: PodInfo, feasible: BoolArray) -> FloatArray:
        """The weighted scores of all rows; only those of feasible rows mean something."""
        known = self._class(pod)
        size = self._columns.size
        total = known.score[:size]
        for plugin, raw in known.raw:
            total = total + self.profile.weight(plugin) * plugin.normalize(raw[:size], feasible)
        if known.cluster_scorers:
            table = self.table()
            table.feasible = feasible
            for plugin in known.cluster_scorers:
                if not plugin.scores(pod, table):
                    continue
                scores = plugin.score(pod, table)
                if plugin.normalizes:
                    scores = plugin.normalize(scores, feasible)
                total = total + self.profile.weight(plugin) * scores
        return total

    def fits_row(self, pod: PodInfo, row: int) -> bool:
        """Whether one row can take the pod now, asked afresh (while pods are taken away or added for trial)."""
        table = self.table().select(slice(row, row + 1))
        if not self._columns.alive[row]:
            return False
        return all(plugin.filter(pod, table)[0] for plugin in self._filtering if plugin.filters(pod))

    def explain_row(self, pod: PodInfo, row: int) -> dict[str, int]:
        """What the first filter that refuses one row says, asked afresh."""
        table = self.table().select(slice(row, row + 1))
        for plugin in self._filtering:
            if plugin.filters(pod) and not plugin.filter(pod, table)[0]:
                return plugin.explain(pod, table).reasons
        return {}

    def diagnose(self, pod: PodInfo) -> Diagnosis:
        """Ask each filter in turn; a node counts for the first that refuses it."""
        columns = self._columns
        rows = np.flatnonzero(columns.alive[: columns.size])
        reasons: Counter[str] = Counter()
        plugins: set[str] = set()
        curable: BoolArray = np.zeros(columns.size, np.bool_)
        whole = self.table()
        narrowed = {plugin.name: names for plugin in self._narrowing if (names := plugin.only(pod)) is not None}
        if narrowed:
            # Kubernetes never looks at other nodes than these.
            named = set.intersection(*narrowed.values())
            inside = [row for name in named if (row := columns.rows.get(name, -1)) >= 0 and columns.alive[row]]
            if others := len(rows) - len(inside):
                reasons[f"node(s) didn't satisfy plugin(s) [{' '.join(sorted(narrowed))}]"] = others
                plugins.update(narrowed)
            rows = np.array(sorted(inside), np.int64)
        for plugin in self._filtering:
            if not len(rows) or not plugin.filters(pod):
                continue
            good = (
                plugin.filter(pod, whole)[rows]
                if plugin.scope is Scope.CLUSTER
                else plugin.filter(pod, whole.select(rows))
            )
            refused = rows[~good]
            if len(refused):
                refusal = plugin.explain(pod, whole.select(refused))
                reasons.update(refusal.reasons)
                curable[refused[refusal.curable]] = True
                plugins.add(plugin.name)
            rows = rows[good]
        return Diagnosis(columns.node_count, dict(reasons), frozenset(plugins), curable)

    # The cache.

    def _class(self, pod: PodInfo) -> _Class:
        identity = (
            pod.traits.serial,
            self._environment.volume_version if pod.traits.claims else 0,
            self._environment.devices.extended_version if pod.traits.extended else 0,
        )
        known = self._classes.get(identity)
        columns = self._columns
        if known is None or len(known.fits) != columns.capacity:
            return self._rebuild(identity, pod)
        if known.node_position == columns.node_log.end and known.pod_position == columns.pod_log.end:
            return known
        node_rows = columns.node_log.since(known.node_position)
        pod_changes = columns.pod_log.since(known.pod_position)
        if node_rows is None or pod_changes is None:
            return self._rebuild(identity, pod)
        if node_rows and self._scorers(pod) != (known.scorers, known.comparing, known.cluster_scorers):
            return self._rebuild(identity, pod)
        self._classes.move_to_end(identity)
        changed = {*node_rows, *(change.row for change in pod_changes)}
        if len(changed) * 4 > columns.size and len(changed) > 16:
            return self._rebuild(identity, pod)
        rows: Rows
        if len(changed) == 1:
            # One placement since last time, the usual case: a slice costs a third of what picking by index does.
            row = next(iter(changed))
            rows = slice(row, row + 1)
        else:
            rows = np.fromiter(changed, np.int64, len(changed))
        known.node_position = columns.node_log.end
        known.pod_position = columns.pod_log.end
        self._refresh(known, pod, rows, node_changed=bool(node_rows))
        return known

    def _rebuild(self, identity: _Identity, pod: PodInfo) -> _Class:
        columns = self._columns
        scorers, comparing, cluster_scorers = self._scorers(pod)
        filters = [plugin for plugin in self._filtering if plugin.filters(pod)]
        fresh = _Class(
            fits=np.zeros(columns.capacity, np.bool_),
            score=np.zeros(columns.capacity),
            raw=[(plugin, np.zeros(columns.capacity)) for plugin in comparing],
            filters=[plugin for plugin in filters if plugin.scope in _KEPT],
            cluster_filters=[plugin for plugin in filters if plugin.scope is Scope.CLUSTER],
            searching=[plugin for plugin in filters if plugin.scope is Scope.SEARCH],
            scorers=scorers,
            comparing=comparing,
            cluster_scorers=cluster_scorers,
            node_position=columns.node_log.end,
            pod_position=columns.pod_log.end,
        )
        self._classes[identity] = fresh
        self._classes.move_to_end(identity)
        if len(self._classes) > _CLASSES_LIMIT:
            self._classes.popitem(last=False)
        self._refresh(fresh, pod, slice(0, columns.size), node_changed=True)
        return fresh

    def _scorers(self, pod: PodInfo) -> tuple[list[Plugin], list[Plugin], list[Plugin]]:
        """Plugins whose scores are summed per row, compared across rows, and computed from other rows."""
        table = self.table()
        weighted = self._weighted
        local = [p for p in weighted if p.scope in _KEPT and p.scores(pod, table)]
        return (
            [plugin for plugin in local if not plugin.normalizes],
            [plugin for plugin in local if plugin.normalizes],
            # Whether these have anything to say changes with every pod, so they are asked each time.
            [p for p in weighted if p.scope not in _KEPT and type(p).score is not Plugin.score],
        )

    def _refresh(self, known: _Class, pod: PodInfo, rows: Rows, *, node_changed: bool) -> None:
        table = self.table().select(rows)
        fits = self._columns.alive[rows]
        for plugin in known.filters:
            fits = fits & plugin.filter(pod, table)
        known.fits[rows] = fits
        total = np.zeros(len(table))
        for plugin in known.scorers:
            total += self.profile.weight(plugin) * plugin.score(pod, table)
        known.score[rows] = total
        for plugin, raw in known.raw:
            if node_changed or plugin.scope is not Scope.NODE:
                raw[rows] = plugin.score(pod, table)


def _enough(nodes: int) -> int:
    """How many nodes to find where each costs a search: as many as Kubernetes looks for, fewer in proportion the more
    there are."""
    return max(100, nodes * max(5, 50 - nodes // 125) // 100)
