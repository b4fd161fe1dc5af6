"""The kubelet's own admission: whether a pod that was bound to this node may run here. Pure.

The scheduler has checked all of this, but not for pods that name their node themselves, and not in the same instant as
other schedulers. A pod that is refused ends as Failed at once, with Kubernetes' reason and words, so that whoever owns
it makes another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from navarch.api.features import Features
from navarch.api.meta import Obj, labels_of, name_of
from navarch.kinds.core.declared_features import are_looked_at, declared, needed
from navarch.kinds.core.node_match import matches_node, tolerates, untolerated
from navarch.kinds.core.resource_lists import pod_requests, qos_class
from navarch.node import podspec
from navarch.node.engine.taken import Share, Taken, share_of
from navarch.node.resources.amounts import milli_cpu, whole
from navarch.node.spec.security import forbidden_sysctl, strict_groups

_AFFINITY: Final = "node(s) didn't match Pod's node affinity/selector"
_NAME: Final = "node(s) didn't match the requested node name"
_PORTS: Final = "node(s) didn't have free ports for the requested pod ports"
_TAINTS: Final = "node(s) had taints that the pod didn't tolerate"
_OTHER_SYSTEM: Final = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"
_MEMORY_TAINT: Final = {"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}
INFEASIBLE: Final = "Infeasible"
DEFERRED: Final = "Deferred"


class Refusal(NamedTuple):
    """Why a pod may not run here: the reason of its status and the words of the event."""

    reason: str
    message: str

    @property
    def told(self) -> str:
        """The message of the pod's status."""
        return f"Pod was rejected: {self.message}"


@dataclass(frozen=True, slots=True)
class Host:
    """What is asked of the node: its object (None where it is not known yet), what it can give, the conditions of
    pressure that it has, what the pods have of it that are there already, and its feature gates."""

    node: Obj | None
    allocatable: Obj
    pressures: Sequence[str]
    taken: Taken
    unsafe_sysctls: Sequence[str] = ()
    features: Features | None = None


def refusal(pod: Obj, host: Host, *, static: bool = False, share: Share | None = None) -> Refusal | None:
    """Why the node cannot take the pod; None where it can. Kubernetes' order of checks. `share` is the pod's own, of
    whom has it at hand."""
    share = share or share_of(pod)
    important = static or podspec.is_critical(pod)
    found = None if important else _under_pressure(pod, host.pressures)
    found = found or _sysctls(pod, host.unsafe_sysctls) or _system(pod, host.node) or _groups(pod, host.node)
    if found is None and not important:
        found = _resources(share, host)
    return found or _places(pod, share, host, static=static) or _features(pod, host.features)


def no_room(pod: Obj, host: Host) -> Refusal | None:
    """Why a pod that is here cannot be resized to this: it asks for more than the node has (`Infeasible`), or for more
    than it has left (`Deferred`). Its own old amounts are no part of `host.taken`."""
    wanted = pod_requests(pod)
    for resource, read in (("memory", whole), ("cpu", milli_cpu)):
        capacity = read(host.allocatable.get(resource, 0))
        if wanted.get(resource, 0) > capacity:
            words = f"requested: {wanted[resource]}, capacity: {capacity}"
            return Refusal(INFEASIBLE, f"Node didn't have enough capacity: {resource}, {words}")
    short = _resources(share_of(pod), host)
    return None if short is None else Refusal(DEFERRED, short.message)


def _under_pressure(pod: Obj, pressures: Sequence[str]) -> Refusal | None:
    """A node that is short of memory takes pods that asked for some; one that is short of anything else takes none."""
    if not pressures:
        return None
    if list(pressures) == ["MemoryPressure"]:
        tolerations = pod["spec"].get("tolerations") or ()
        if qos_class(pod["spec"]) != "BestEffort" or any(tolerates(one, _MEMORY_TAINT) for one in tolerations):
            return None
    return Refusal("Evicted", f"The node had condition: [{' '.join(pressures)}]. ")


def _sysctls(pod: Obj, unsafe: Sequence[str]) -> Refusal | None:
    sysctl = forbidden_sysctl(pod, unsafe)
    return Refusal("SysctlForbidden", f'forbidden sysctl: "{sysctl}" not allowlisted') if sysctl else None


def _system(pod: Obj, node: Obj | None) -> Refusal | None:
    asked = (pod["spec"].get("os") or {}).get("name") or (pod["spec"].get("nodeSelector") or {}).get("kubernetes.io/os")
    if asked and node is not None and asked != labels_of(node).get("kubernetes.io/os", "linux"):
        return Refusal("PodOSSelectorNodeLabelDoesNotMatch", _OTHER_SYSTEM)
    return None


def _groups(pod: Obj, node: Obj | None) -> Refusal | None:
    """A runtime that cannot leave the image's groups away would give the pod more rights than it asked for."""
    features = (((node or {}).get("status") or {}).get("features")) or {}
    if node is None or not strict_groups(pod) or features.get("supplementalGroupsPolicy"):
        return None
    words = "SupplementalGroupsPolicy=Strict is not supported in this node"
    return Refusal("SupplementalGroupsPolicyNotSupported", words)


def _features(pod: Obj, features: Features | None) -> Refusal | None:
    """What the node would have declared."""
    if features is None or not are_looked_at(features):
        return None
    missing = sorted(needed(pod["spec"]).difference(declared(features)["declaredFeatures"]))
    if not missing:
        return None
    words = f"Pod requires node features that are not available: {', '.join(missing)}"
    return Refusal("PodFeatureUnsupported", words)


def _resources(share: Share, host: Host) -> Refusal | None:
    most = whole(host.allocatable.get("pods", 0))
    if host.taken.pods + 1 > most:
        return _short("pods", 1, host.taken.pods, most)
    wanted = dict(share.requests)
    for resource in sorted(wanted, key=lambda name: (_ORDER.get(name, len(_ORDER)), name)):
        if not wanted[resource] or resource not in host.allocatable:
            # What the node says nothing of (an extended resource that has gone) is not its to count.
            continue
        read = milli_cpu if resource == "cpu" else whole
        used, capacity = host.taken.amount(resource), read(host.allocatable[resource])
        if wanted[resource] + used > capacity:
            return _short(resource, wanted[resource], used, capacity)
    return None


_ORDER: Final = {"cpu": 0, "memory": 1, "ephemeral-storage": 2}


def _short(resource: str, requested: int, used: int, capacity: int) -> Refusal:
    words = f"requested: {requested}, used: {used}, capacity: {capacity}"
    return Refusal(f"OutOf{resource}", f"Node didn't have enough resource: {resource}, {words}")


def _places(pod: Obj, share: Share, host: Host, *, static: bool) -> Refusal | None:
    """Node affinity, name, host ports, and taints that would have the pod leave again."""
    node = host.node
    if node is not None and not matches_node(pod["spec"], node):
        return _predicate("NodeAffinity", _AFFINITY)
    if node is not None and pod["spec"].get("nodeName") != name_of(node):
        return _predicate("NodeName", _NAME)
    if host.taken.has_any(share.ports):
        return _predicate("NodePorts", _PORTS)
    taints = ((node or {}).get("spec") or {}).get("taints") or ()
    if not static and untolerated(taints, pod["spec"].get("tolerations") or (), ("NoExecute",)) is not None:
        return _predicate("TaintToleration", _TAINTS)
    return None


def _predicate(name: str, words: str) -> Refusal:
    return Refusal(name, f"Predicate {name} failed: {words}")
