"""Which Nodes have somebody behind them: an object alone, as anybody can make one, runs nothing."""

from __future__ import annotations

from typing import Final

from navarch.api.meta import Obj, annotations_of

ATTACHES: Final = "volumes.kubernetes.io/controller-managed-attach-detach"
"""Real kubelets say by it, from their first breath, that they leave attaching volumes to a controller."""
_SIMULATED: Final = "sim.navarch.dev/node"


def is_simulated(node: Obj) -> bool:
    return _SIMULATED in annotations_of(node)


def is_real(node: Obj) -> bool:
    """Whether a kubelet with containers has registered it."""
    return ATTACHES in annotations_of(node) and not is_simulated(node)
