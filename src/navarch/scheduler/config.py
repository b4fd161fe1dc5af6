"""How a scheduler is set up: its profiles with their plugins and weights, and its pace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from navarch.api.features import Features, parse
from navarch.api.version import DEFAULT_VERSION
from navarch.records import mutable
from navarch.scheduler.extenders import Extenders
from navarch.scheduler.framework import Plugin, Profile
from navarch.scheduler.plugins.dynamic_resources import DynamicResources
from navarch.scheduler.plugins.image_locality import ImageLocality
from navarch.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from navarch.scheduler.plugins.node_affinity import NodeAffinity
from navarch.scheduler.plugins.node_declared_features import NodeDeclaredFeatures
from navarch.scheduler.plugins.node_name import NodeName
from navarch.scheduler.plugins.node_ports import NodePorts
from navarch.scheduler.plugins.node_resources import NodeResourcesBalancedAllocation, NodeResourcesFit
from navarch.scheduler.plugins.node_unschedulable import NodeUnschedulable
from navarch.scheduler.plugins.pod_topology_spread import PodTopologySpread
from navarch.scheduler.plugins.taint_toleration import TaintToleration
from navarch.scheduler.plugins.volume_limits import NodeVolumeLimits
from navarch.scheduler.plugins.volume_restrictions import VolumeRestrictions
from navarch.scheduler.plugins.volume_zone import VolumeZone
from navarch.scheduler.plugins.volumes import VolumeBinding

DEFAULT_WEIGHTS: Mapping[str, int] = {
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "NodeResourcesFit": 1,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
    "DynamicResources": 2,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
}


def features_of(version: str = DEFAULT_VERSION) -> Features:
    """The gates of a version of Kubernetes, as they are by default."""
    return parse((), version)


def default_plugins(features: Features | None = None) -> list[Plugin]:
    """Kubernetes' default plugins in Kubernetes' order, which decides what a refused node is counted under."""
    return [
        NodeUnschedulable(),
        NodeName(),
        TaintToleration(),
        NodeAffinity(),
        NodePorts(),
        NodeResourcesFit(),
        VolumeRestrictions(),
        NodeVolumeLimits(),
        VolumeBinding(),
        VolumeZone(),
        PodTopologySpread(),
        InterPodAffinity(),
        DynamicResources(),
        NodeResourcesBalancedAllocation(),
        ImageLocality(),
        NodeDeclaredFeatures(features or features_of()),
    ]


def default_profile(name: str = "default-scheduler", features: Features | None = None) -> Profile:
    return Profile(name, default_plugins(features), DEFAULT_WEIGHTS)


@mutable
class SchedulerConfig:
    profiles: list[Profile] = field(default_factory=lambda: [default_profile()])
    binds_in_flight: int = 64
    first_backoff_s: float = 1.0
    last_backoff_s: float = 10.0
    extenders: Extenders | None = None
    """Those whose connections are closed with the scheduler; each profile has them among its plugins."""
