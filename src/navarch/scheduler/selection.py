"""One pod, one decision: the node it should go to, or why there is none. Pure computation, nothing waits."""

from __future__ import annotations

import random

import numpy as np

from navarch.scheduler.columns import BoolArray, NodeColumns
from navarch.scheduler.evaluator import Diagnosis, Evaluator
from navarch.scheduler.nominator import Nominator
from navarch.scheduler.podinfo import PodInfo


def choose(
    pod: PodInfo, evaluator: Evaluator, columns: NodeColumns, nominator: Nominator, source: random.Random
) -> str | None:
    """The best node for the pod, ties broken by `source`; None where no node can take it."""
    feasible = evaluator.feasible(pod)
    if nominator:
        feasible = respect_promises(pod, feasible, evaluator, columns, nominator)
        promised = columns.rows.get(nominator.node_of(pod.uid), -1)
        if 0 <= promised < len(feasible) and feasible[promised]:
            return columns.names[promised]
    if evaluator.profile.scored_percent:
        feasible = evaluator.sampled(feasible)
    count = int(np.count_nonzero(feasible))
    if count == 0:
        return None
    if count == 1:
        return columns.names[int(feasible.argmax())]
    totals = np.where(feasible, evaluator.totals(pod, feasible), -np.inf)
    best = np.flatnonzero(totals == totals.max())
    row = best[0] if len(best) == 1 else best[int(source.random() * len(best))]
    return columns.names[int(row)]


def explain(pod: PodInfo, evaluator: Evaluator, columns: NodeColumns, nominator: Nominator) -> Diagnosis:
    """Why no node can take the pod; room that is promised to others counts as taken."""
    promised = [
        (other, name)
        for name in nominator.nodes()
        if name in columns.rows
        for other in nominator.on(name, priority=pod.priority, besides=pod.uid)
        if other.uid not in columns.pods[columns.rows[name]]
    ]
    for other, name in promised:
        columns.add_pod(other, name)
    try:
        return evaluator.diagnose(pod)
    finally:
        for other, name in promised:
            columns.remove_pod(other, name)


def respect_promises(
    pod: PodInfo, feasible: BoolArray, evaluator: Evaluator, columns: NodeColumns, nominator: Nominator
) -> BoolArray:
    """`feasible` without the nodes that would be too full once pods nominated for them have arrived."""
    result = feasible
    for name in nominator.nodes():
        row = columns.rows.get(name, -1)
        if not 0 <= row < len(feasible) or not feasible[row]:
            continue
        promised = [
            p for p in nominator.on(name, priority=pod.priority, besides=pod.uid) if p.uid not in columns.pods[row]
        ]
        if not promised:
            # Promises to lesser pods do not hold for this one, and the row is known to fit.
            continue
        for other in promised:
            columns.add_pod(other, name)
        fits = evaluator.fits_row(pod, row)
        for other in promised:
            columns.remove_pod(other, name)
        if not fits:
            result = result.copy() if result is feasible else result
            result[row] = False
    return result
