"""Rolling update: move a Deployment from its old ReplicaSets to the new one within surge and availability limits.

In: the Deployment, its new and its old ReplicaSets. Out: the sizes they should have now. Pure; `sync` applies them.
Invariant: available pods do not fall below `replicas - maxUnavailable`, pods asked for do not exceed
`replicas + maxSurge`.
"""

from __future__ import annotations

from collections.abc import Sequence

from navarch.api.meta import Obj, name_of
from navarch.controllers.deployment.revisions import by_age, replicas, surge_and_unavailable


def _available(rs: Obj) -> int:
    return int((rs.get("status") or {}).get("availableReplicas") or 0)


def new_size(deployment: Obj, new: Obj, sets: Sequence[Obj]) -> int:
    """How many replicas the new ReplicaSet should have; `sets` are all, the new one among them."""
    wanted, current = replicas(deployment), replicas(new)
    strategy = (deployment["spec"].get("strategy") or {}).get("type", "RollingUpdate")
    if strategy == "Recreate" or current >= wanted:
        return wanted
    surge, _ = surge_and_unavailable(deployment)
    room = wanted + surge - sum(replicas(rs) for rs in sets)
    return current + min(max(room, 0), wanted - current)


def old_sizes(deployment: Obj, new: Obj, old: Sequence[Obj]) -> dict[str, int]:
    """New sizes, by name, of the old ReplicaSets that can shrink now: first by what is not available anyway, then by
    what availability permits."""
    shrinking = [rs for rs in by_age(old) if replicas(rs) > 0]
    if not shrinking:
        return {}
    _, unavailable = surge_and_unavailable(deployment)
    least_available = replicas(deployment) - unavailable
    total = replicas(new) + sum(replicas(rs) for rs in shrinking)
    budget = total - least_available - (replicas(new) - _available(new))
    if budget <= 0:
        return {}
    sizes = {name_of(rs): replicas(rs) for rs in shrinking}
    spent = 0
    for rs in shrinking:
        step = min(budget - spent, max(replicas(rs) - _available(rs), 0))
        sizes[name_of(rs)] -= step
        spent += step
    spare = _available(new) + sum(_available(rs) for rs in shrinking) - least_available
    for rs in shrinking:
        step = min(max(spare, 0), sizes[name_of(rs)])
        sizes[name_of(rs)] -= step
        spare -= step
    return {name_of(rs): sizes[name_of(rs)] for rs in shrinking if sizes[name_of(rs)] != replicas(rs)}
