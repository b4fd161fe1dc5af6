"""Events in the cluster that may make a refused pod schedulable."""

from __future__ import annotations

from enum import Enum

from navarch.api.meta import Obj
from navarch.records import frozen
from navarch.scheduler.podinfo import PodInfo


class Change(Enum):
    """Events in the cluster that may make a refused pod schedulable."""

    NODE_ADDED = "node added"
    NODE_UPDATED = "node updated"
    POD_ADDED = "assigned pod added"
    POD_UPDATED = "assigned pod updated"
    POD_DELETED = "assigned pod deleted"
    CLAIMS = "claim of a volume changed"
    CLASSES = "storage class changed"
    VOLUMES = "volume, or what is known of a driver, changed"
    NAMESPACE = "namespace labels changed"
    DEVICES = "devices, their taints or classes changed"
    DEVICE_CLAIMS = "claim of devices changed"


@frozen
class ClusterEvent:
    """Something happened; `old` and `new` are the objects where there are such, `pod` the parsed pod."""

    change: Change
    old: Obj | None = None
    new: Obj | None = None
    pod: PodInfo | None = None
