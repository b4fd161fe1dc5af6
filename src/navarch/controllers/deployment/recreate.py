"""Recreate: end every old pod before the first new one is made. Pure; `sync` applies it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from navarch.api.meta import Obj
from navarch.kinds.core.pod_state import is_finished


def old_pods_remain(old: Sequence[Obj], pods_of_old: Iterable[Obj]) -> bool:
    """Whether anything of an old revision may still run; a pod that is being deleted may."""
    if any((rs.get("status") or {}).get("replicas") for rs in old):
        return True
    return any(not is_finished(pod) for pod in pods_of_old)
