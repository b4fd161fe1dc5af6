"""By what a Node says who is behind it: an object alone, as anybody can make one, runs nothing."""

from __future__ import annotations

from typing import Final

from navarch.api.meta import Obj, annotations_of

ATTACHES: Final = "volumes.kubernetes.io/controller-managed-attach-detach"
"""Real kubelets say by it, from their first breath, that they leave attaching volumes to a controller."""
SIMULATED: Final = "sim.navarch.dev/node"
"""Simulated nodes have it."""


def is_simulated(node: Obj) -> bool:
    """Whether it is one without a machine."""
    return SIMULATED in annotations_of(node)


def is_real(node: Obj) -> bool:
    """Whether a kubelet with containers has registered it."""
    return ATTACHES in annotations_of(node) and not is_simulated(node)
