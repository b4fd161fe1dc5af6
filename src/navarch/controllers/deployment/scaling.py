"""Scaling a Deployment while several of its ReplicaSets have pods: each grows or shrinks in proportion to its size.

Pure. Growing favours the larger and newer, shrinking the larger and older; rounding goes to the first. Invariant: after
it the sizes add up to `replicas + maxSurge`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from navarch.api.meta import Obj, annotations_of, name_of
from navarch.controllers.deployment.revisions import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    replicas,
    revision,
    surge_and_unavailable,
)
from navarch.controllers.pods import created_at
from navarch.numbers import integer_or


def is_scaling(deployment: Obj, sets: Sequence[Obj]) -> bool:
    """Whether `replicas` changed since the ReplicaSets were last sized."""
    for rs in sets:
        desired = annotations_of(rs).get(DESIRED_REPLICAS)
        if replicas(rs) > 0 and desired is not None and desired != str(replicas(deployment)):
            return True
    return False


def active_or_latest(new: Obj | None, old: Sequence[Obj]) -> Obj | None:
    """The one ReplicaSet that a change of size concerns; None where there are several."""
    active = [rs for rs in ([new] if new else []) + list(old) if replicas(rs) > 0]
    if len(active) > 1:
        return None
    if active:
        return active[0]
    if new is not None:
        return new
    return max(old, key=lambda rs: (created_at(rs), revision(rs)), default=None)


def is_saturated(deployment: Obj, new: Obj | None) -> bool:
    """Whether the new ReplicaSet alone gives all replicas."""
    if new is None:
        return False
    wanted = replicas(deployment)
    available = int((new.get("status") or {}).get("availableReplicas") or 0)
    noted = annotations_of(new).get(DESIRED_REPLICAS)
    return noted == str(wanted) and replicas(new) == wanted and available == wanted


def proportional_sizes(deployment: Obj, sets: Sequence[Obj]) -> dict[str, int]:
    """Sizes by name."""
    wanted = replicas(deployment)
    surge, _ = surge_and_unavailable(deployment)
    active = [rs for rs in sets if replicas(rs) > 0]
    to_add = (wanted + surge if wanted > 0 else 0) - sum(replicas(rs) for rs in active)
    if to_add > 0:
        active.sort(key=lambda rs: (replicas(rs), created_at(rs), name_of(rs)), reverse=True)
    else:
        active.sort(key=lambda rs: (-replicas(rs), created_at(rs), name_of(rs)))
    sizes: dict[str, int] = {}
    added = 0
    for rs in active:
        share = _share(deployment, rs, wanted + surge, to_add, added)
        sizes[name_of(rs)] = replicas(rs) + share
        added += share
    if active and to_add:
        first = name_of(active[0])
        sizes[first] = max(sizes[first] + to_add - added, 0)
    return sizes


def _share(deployment: Obj, rs: Obj, maximum: int, to_add: int, added: int) -> int:
    if to_add in (0, added):
        return 0
    if replicas(deployment) == 0:
        fraction = -replicas(rs)
    else:
        noted = integer_or(annotations_of(rs).get(MAX_REPLICAS, ""), 0, 32)
        before = noted or int((deployment.get("status") or {}).get("replicas") or 0)
        if before == 0:
            return 0
        # Half goes away from zero, as the sizes that people compare with were rounded.
        fraction = math.floor(replicas(rs) * maximum / before + 0.5) - replicas(rs)
    rest = to_add - added
    return min(fraction, rest) if to_add > 0 else max(fraction, rest)
