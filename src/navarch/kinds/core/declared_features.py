"""What pods may need of their node that only some nodes have, by the names of the feature gates: a node declares in its
status what it has, the scheduler and the kubelet's admission hold pods against that. Pure.
"""

from __future__ import annotations

from typing import Final

from navarch.api.features import Features
from navarch.api.meta import Obj
from navarch.kinds.core.pod_state import WHOLE, is_sidecar

_GATE: Final = "NodeDeclaredFeatures"
_RESTART_ALL: Final = "RestartAllContainersOnContainerExits"
_RESIZE_WHOLE: Final = "InPlacePodLevelResourcesVerticalScaling"
_RESIZE_INIT: Final = "InPlacePodVerticalScalingInitContainers"
_USERS_ON_HOST_NETWORK: Final = "UserNamespacesHostNetworkSupport"
# Without the one about users: no runtime here gives a pod on the host's network users of its own.
_DECLARED: Final = (
    "ExtendWebSocketsToKubelet",
    _RESIZE_WHOLE,
    _RESIZE_INIT,
    _RESTART_ALL,
)
_NOTHING: Final[frozenset[str]] = frozenset()


def are_looked_at(features: Features) -> bool:
    """Whether nodes declare anything, and whether that is asked for."""
    return features.on(_GATE)


def declared(features: Features) -> Obj:
    """The fields of the status of a node with these gates."""
    if not are_looked_at(features):
        return {}
    return {"declaredFeatures": [name for name in _DECLARED if features.on(name)]}


def needed(spec: Obj) -> frozenset[str]:
    """What a pod needs of its node to be scheduled there."""
    names = []
    containers = (*spec["containers"], *(spec.get("initContainers") or ()))
    if any(rule.get("action") == WHOLE for one in containers for rule in one.get("restartPolicyRules") or ()):
        names.append(_RESTART_ALL)
    if spec.get("hostNetwork") and spec.get("hostUsers") is False:
        names.append(_USERS_ON_HOST_NETWORK)
    return frozenset(names) if names else _NOTHING


def needed_by_change(old: Obj, new: Obj) -> frozenset[str]:
    """What a change of a pod that runs needs of its node."""
    before, after = old["spec"], new["spec"]
    names = []
    if (before.get("resources") or {}) != (after.get("resources") or {}):
        names.append(_RESIZE_WHOLE)
    pairs = zip(before.get("initContainers") or (), after.get("initContainers") or (), strict=False)
    if any(not is_sidecar(one) and one.get("resources") != other.get("resources") for one, other in pairs):
        names.append(_RESIZE_INIT)
    return frozenset(names) if names else _NOTHING
