"""The cgroups between the node's root and its pods, one for each quality of service but Guaranteed: how much of a busy
node's CPU the pods of a class have together.

Burstable pods have what they request in sum, so that they keep it against the others; those of BestEffort the least
that there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.core.resource_lists import pod_requests, qos_class
from navarch.node.resources import cgroups
from navarch.node.resources.amounts import cpu_shares

CLASSES: Final = ("burstable", "besteffort")


def shares_of_classes(pods: Iterable[Obj]) -> dict[str, int]:
    """The CPU shares of each class, by what of the node's pods is in it."""
    requested = sum(pod_requests(pod).get("cpu", 0) for pod in pods if qos_class(pod["spec"]) == "Burstable")
    return {"burstable": cpu_shares(requested), "besteffort": cpu_shares(0)}


def set_shares(root: str, shares: dict[str, int]) -> None:
    """Write them. Touches the kernel's files: call it in a thread."""
    for name, value in shares.items():
        cgroups.set_cpu_shares(f"{root}/{name}", value)
