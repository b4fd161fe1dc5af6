"""The order of Kubernetes' own groups and versions, as their APIServices state it.

Groups are listed by falling priority, those of the same one by name; a group's versions by falling priority too, the
first being the preferred one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Priority(NamedTuple):
    """Of a version: its group's, and its own among the versions of the group."""

    group: int
    version: int


# All versions of groups that custom resources make.
CUSTOM: Final = Priority(1000, 100)

_GROUPS: Final[Mapping[str, tuple[int, Mapping[str, int]]]] = {
    "": (18000, {"v1": 1}),
    "apiregistration.k8s.io": (18000, {"v1": 15}),
    "apps": (17800, {"v1": 15}),
    "events.k8s.io": (17750, {"v1": 15, "v1beta1": 5}),
    "authentication.k8s.io": (17700, {"v1": 15, "v1beta1": 9, "v1alpha1": 1}),
    "authorization.k8s.io": (17600, {"v1": 15}),
    "autoscaling": (17500, {"v2": 30, "v1": 15}),
    "batch": (17400, {"v1": 15}),
    "certificates.k8s.io": (17300, {"v1": 15, "v1beta1": 9, "v1alpha1": 1}),
    "networking.k8s.io": (17200, {"v1": 15, "v1beta1": 9, "v1alpha1": 1}),
    "policy": (17100, {"v1": 15}),
    "rbac.authorization.k8s.io": (17000, {"v1": 15}),
    "storage.k8s.io": (16800, {"v1": 15, "v1beta1": 9, "v1alpha1": 1}),
    "apiextensions.k8s.io": (16700, {"v1": 15}),
    "admissionregistration.k8s.io": (16700, {"v1": 15, "v1beta1": 12, "v1alpha1": 9}),
    "scheduling.k8s.io": (16600, {"v1": 15}),
    "coordination.k8s.io": (16500, {"v1": 15, "v1beta1": 13, "v1alpha2": 12, "v1alpha1": 9}),
    "node.k8s.io": (16300, {"v1": 15, "v1beta1": 9, "v1alpha1": 1}),
    "discovery.k8s.io": (16200, {"v1": 15, "v1beta1": 12}),
    "resource.k8s.io": (16200, {"v1": 20, "v1beta2": 15, "v1beta1": 12, "v1alpha3": 9}),
    "flowcontrol.apiserver.k8s.io": (16100, {"v1": 21, "v1beta3": 18, "v1beta2": 15, "v1beta1": 12}),
    "internal.apiserver.k8s.io": (16000, {"v1alpha1": 9}),
    "storagemigration.k8s.io": (15800, {"v1": 15, "v1beta1": 12, "v1alpha1": 9}),
}
# Of versions that are too new to be listed.
_LAST: Final = 1


def priority_of(group: str, version: str) -> Priority:
    """That of a version which this server serves itself."""
    found = _GROUPS.get(group)
    return CUSTOM if found is None else Priority(found[0], found[1].get(version, _LAST))


def group_priority(group: str) -> int:
    """That of a group which this server serves itself."""
    found = _GROUPS.get(group)
    return CUSTOM.group if found is None else found[0]
