"""How full pods' claims are, as `/stats/summary` and `/metrics` tell it.

In: measurements (`node/volumes/measuring.py`). Out: entries of a pod's volumes, and Kubernetes' metrics by claim: one
line for a claim, however many pods use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from navarch.api.meta import Obj
from navarch.node.volumes.measuring import ClaimUse

_FIGURES: Final = {
    "availableBytes": ("bytes", "available"),
    "capacityBytes": ("bytes", "total"),
    "usedBytes": ("bytes", "used"),
    "inodesFree": ("inodes", "available"),
    "inodes": ("inodes", "total"),
    "inodesUsed": ("inodes", "used"),
}
_METRICS: Final = (
    ("capacity_bytes", "capacityBytes", "Capacity in bytes of the volume"),
    ("available_bytes", "availableBytes", "Number of available bytes in the volume"),
    ("used_bytes", "usedBytes", "Number of used bytes in the volume"),
    ("inodes", "inodes", "Maximum number of inodes in the volume"),
    ("inodes_free", "inodesFree", "Number of free inodes in the volume"),
    ("inodes_used", "inodesUsed", "Number of used inodes in the volume"),
)
_ABNORMAL: Final = "kubelet_volume_stats_health_status_abnormal"


def summary_entry(use: ClaimUse, namespace: str, at: str) -> Obj:
    """What the summary says of one volume."""
    entry: Obj = {"time": at, **_figures(use), "name": use.volume}
    entry["pvcRef"] = {"name": use.claim, "namespace": namespace}
    if use.health.problem is not None:
        entry["volumeHealthStats"] = {"abnormal": bool(use.health.problem)}
    return entry


def _figures(use: ClaimUse) -> Mapping[str, int]:
    usage = use.health.usage
    return {name: usage[kind][which] for name, (kind, which) in _FIGURES.items() if kind in usage}


def exposition(uses: Iterable[tuple[str, ClaimUse]]) -> list[str]:
    """Lines for Prometheus, of claims with their namespaces."""
    by_claim = {(namespace, use.claim): use for namespace, use in uses}
    labelled = {
        f'{{namespace="{namespace}",persistentvolumeclaim="{claim}"}}': use
        for (namespace, claim), use in sorted(by_claim.items())
    }
    lines: list[str] = []
    for name, figure, about in _METRICS:
        metric = f"kubelet_volume_stats_{name}"
        figures = {labels: _figures(use).get(figure) for labels, use in labelled.items()}
        values = [f"{metric}{labels} {value}" for labels, value in figures.items() if value is not None]
        lines += _family(metric, about, values)
    told = {labels: use for labels, use in labelled.items() if use.health.problem is not None}
    about = "Abnormal volume health status. The count is either 1 or 0. 1 indicates the volume is unhealthy, 0 "
    values = [f"{_ABNORMAL}{labels} {int(bool(use.health.problem))}" for labels, use in told.items()]
    return lines + _family(_ABNORMAL, f"{about}indicates volume is healthy", values)


def _family(metric: str, about: str, values: list[str]) -> list[str]:
    return [f"# HELP {metric} {about}", f"# TYPE {metric} gauge", *values] if values else []
