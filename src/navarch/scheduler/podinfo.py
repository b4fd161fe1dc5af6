"""What the scheduler knows of a pod. Pods of one template share one `Traits`: everything that filters and scores look
at, parsed once. A `PodInfo` is what is left: the pod's own name, age and place.

In: Pod objects as the informer has them.  Out: `PodInfo`s whose `traits` are the same object exactly when any two
pods would be filtered and scored alike, so `traits` is the pod's equivalence class.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from navarch.api.meta import Key, Obj, controller_of, key_of
from navarch.kinds.core.declared_features import needed
from navarch.kinds.core.pod_state import is_sidecar
from navarch.kinds.core.resource_lists import pod_requests
from navarch.records import frozen, mutable
from navarch.scheduler.terms import AffinityTerm, affinity_term, canonical, pod_selector, with_label_keys

# Pods that request nothing still count this much when nodes are scored, or they would all pile up on one node.
DEFAULT_MILLI_CPU = 100
DEFAULT_MEMORY = 200 * 1024 * 1024

_KNOWN_TRAITS_LIMIT = 16_384
_NOT_YET = "9999-12-31T23:59:59Z"


@frozen
class HostPort:
    """A port of the node that a pod takes."""

    protocol: str
    ip: str
    port: int


@frozen
class SpreadConstraint:
    """One topology spread constraint; `hard` means DoNotSchedule."""

    topology_key: str
    max_skew: int
    hard: bool
    selector: Any
    min_domains: int
    honor_affinity: bool
    honor_taints: bool


@mutable(eq=False)
class Traits:
    """The equivalence class of a pod: what it asks of a node. Compared by identity."""

    namespace: str
    labels: Mapping[str, str]
    requests: dict[str, int]
    nonzero_milli_cpu: int
    nonzero_memory: int
    host_ports: tuple[HostPort, ...]
    node_selector: Mapping[str, str]
    node_affinity: tuple[Obj, ...] | None
    preferred_node_affinity: tuple[Obj, ...]
    tolerations: tuple[Obj, ...]
    affinity: tuple[AffinityTerm, ...]
    anti_affinity: tuple[AffinityTerm, ...]
    preferred_affinity: tuple[AffinityTerm, ...]
    preferred_anti_affinity: tuple[AffinityTerm, ...]
    spread: tuple[SpreadConstraint, ...]
    images: tuple[str, ...]
    claims: tuple[str, ...]
    ephemeral_claims: frozenset[str]
    device_claims: bool
    """Whether it claims devices."""
    extended: tuple[str, ...]
    """Resources that it requests, other than Kubernetes' own: devices may stand for them."""
    asked_for: frozenset[str]
    """Resources that its containers name, be it to request or to limit them."""
    features: frozenset[str]
    """What it needs of its node, of that which nodes declare."""
    owner: tuple[str, str, str] | None
    """Kind, name and uid of the controller."""
    serial: int = 0

    @property
    def has_terms(self) -> bool:
        """Whether pods like this say something about the pods around them."""
        return bool(self.affinity or self.anti_affinity or self.preferred_affinity or self.preferred_anti_affinity)


@mutable(eq=False)
class PodInfo:
    """One pod. `obj` is the informer's, shared: never changed."""

    obj: Obj
    key: Key
    uid: str
    traits: Traits
    priority: int
    created: str
    deleting: bool
    scheduler_name: str
    nominated_node: str
    node_name: str = ""
    attempts: int = 0
    rejected_by: frozenset[str] = field(default_factory=frozenset)
    rejected_outright: bool = False
    """Whether it was rejected whatever the nodes are, by the one plugin in `rejected_by`."""
    devices: Any = None
    """What the plugin for claims of devices has found out in this attempt."""
    extenders: Any = None
    """What extenders have said in this attempt."""

    def recall(self, earlier: PodInfo) -> None:
        """Remember of the same pod's tries what `earlier` does."""
        self.attempts = earlier.attempts
        self.rejected_by, self.rejected_outright = earlier.rejected_by, earlier.rejected_outright

    @property
    def start(self) -> str:
        """When it started, for choosing victims: the younger goes first, before all one that has not started yet."""
        return str((self.obj.get("status") or {}).get("startTime") or _NOT_YET)


class PodParser:
    """Makes PodInfos; remembers the traits of templates it has seen."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Traits] = OrderedDict()
        self._serial = 0

    def parse(self, pod: Obj) -> PodInfo:
        metadata = pod["metadata"]
        spec = pod["spec"]
        return PodInfo(
            obj=pod,
            key=key_of(pod),
            uid=metadata.get("uid", ""),
            traits=self._traits(pod, metadata, spec),
            priority=spec.get("priority") or 0,
            created=metadata.get("creationTimestamp") or "",
            deleting="deletionTimestamp" in metadata,
            scheduler_name=spec.get("schedulerName") or "default-scheduler",
            nominated_node=(pod.get("status") or {}).get("nominatedNodeName") or "",
            node_name=spec.get("nodeName") or "",
        )

    def _traits(self, pod: Obj, metadata: Obj, spec: Obj) -> Traits:
        owner = controller_of(pod)
        # Names of generated volumes differ from pod to pod, so the identity is made of what matters, not of the spec.
        identity = canonical(
            [
                metadata.get("namespace", ""),
                metadata.get("labels"),
                owner and owner.get("uid"),
                [
                    (c.get("image"), c.get("resources"), c.get("ports"), c.get("restartPolicy"))
                    for c in spec["containers"]
                ],
                [
                    (c.get("image"), c.get("resources"), c.get("ports"), c.get("restartPolicy"))
                    for c in spec.get("initContainers") or ()
                ],
                spec.get("resources"),
                spec.get("overhead"),
                spec.get("nodeSelector"),
                spec.get("affinity"),
                spec.get("tolerations"),
                spec.get("topologySpreadConstraints"),
                spec.get("hostNetwork"),
                sorted(needed(spec)),
                claim_names(pod),
                bool(spec.get("resourceClaims")),
                _resized(pod),
            ]
        )
        traits = self._known.get(identity)
        if traits is None:
            self._serial += 1
            traits = self._known[identity] = _parse_traits(pod, owner, self._serial)
            if len(self._known) > _KNOWN_TRAITS_LIMIT:
                self._known.popitem(last=False)
        return traits


def is_extended(resource: str) -> bool:
    """Whether it is a resource of which Kubernetes itself knows nothing."""
    domain, slash, _ = resource.partition("/")
    if not slash:
        return False
    return domain == "deviceclass.resource.kubernetes.io" or not (
        domain == "kubernetes.io" or domain.endswith(".kubernetes.io")
    )


def claim_names(pod: Obj) -> list[str]:
    """Names of the PersistentVolumeClaims that the pod uses, those of ephemeral volumes included."""
    names: list[str] = []
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            names.append(volume["persistentVolumeClaim"].get("claimName", ""))
        elif "ephemeral" in volume:
            names.append(f"{pod['metadata'].get('name', '')}-{volume['name']}")
    return names


def _resized(pod: Obj) -> list[Any] | None:
    """What the node has allocated, where an in-place resize may make it differ from what the spec asks for."""
    status = pod.get("status") or {}
    allocated = [
        (s["name"], s["allocatedResources"]) for s in status.get("containerStatuses") or () if "allocatedResources" in s
    ]
    return allocated or None


def _parse_traits(pod: Obj, owner: Obj | None, serial: int) -> Traits:
    spec = pod["spec"]
    namespace = pod["metadata"].get("namespace", "")
    labels = pod["metadata"].get("labels") or {}
    affinity = spec.get("affinity") or {}
    node_affinity = affinity.get("nodeAffinity") or {}
    pod_affinity = affinity.get("podAffinity") or {}
    anti_affinity = affinity.get("podAntiAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    containers = spec["containers"]
    requests = pod_requests(pod)
    nonzero = pod_requests(pod, defaults={"cpu": DEFAULT_MILLI_CPU, "memory": DEFAULT_MEMORY})
    return Traits(
        namespace=namespace,
        labels=labels,
        requests=requests,
        nonzero_milli_cpu=nonzero.get("cpu", 0),
        nonzero_memory=nonzero.get("memory", 0),
        host_ports=tuple(_host_ports(spec)),
        node_selector=spec.get("nodeSelector") or {},
        node_affinity=None if required is None else tuple(required.get("nodeSelectorTerms") or ()),
        preferred_node_affinity=tuple(node_affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()),
        tolerations=tuple(spec.get("tolerations") or ()),
        affinity=_required(pod_affinity, namespace, labels),
        anti_affinity=_required(anti_affinity, namespace, labels),
        preferred_affinity=_preferred(pod_affinity, namespace, labels),
        preferred_anti_affinity=_preferred(anti_affinity, namespace, labels),
        spread=tuple(spread_constraint(c, namespace, labels) for c in spec.get("topologySpreadConstraints") or ()),
        images=tuple(c.get("image", "") for c in [*(spec.get("initContainers") or ()), *containers]),
        claims=tuple(claim_names(pod)),
        ephemeral_claims=frozenset(
            f"{pod['metadata'].get('name', '')}-{v['name']}" for v in spec.get("volumes") or () if "ephemeral" in v
        ),
        device_claims=bool(spec.get("resourceClaims")),
        extended=tuple(name for name, amount in requests.items() if amount and is_extended(name)),
        asked_for=_asked_for(spec),
        features=needed(spec),
        owner=(owner["kind"], owner["name"], owner["uid"]) if owner else None,
        serial=serial,
    )


def _required(affinity: Obj, namespace: str, labels: Mapping[str, str]) -> tuple[AffinityTerm, ...]:
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    return tuple(affinity_term(term, namespace, labels) for term in terms)


def _preferred(affinity: Obj, namespace: str, labels: Mapping[str, str]) -> tuple[AffinityTerm, ...]:
    terms = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return tuple(affinity_term(t.get("podAffinityTerm") or {}, namespace, labels, t.get("weight", 0)) for t in terms)


def _asked_for(spec: Obj) -> frozenset[str]:
    resources = [c.get("resources") or {} for c in [*spec["containers"], *(spec.get("initContainers") or ())]]
    return frozenset(name for each in resources for part in ("requests", "limits") for name in each.get(part) or ())


def spread_constraint(constraint: Obj, namespace: str, labels: Mapping[str, str]) -> SpreadConstraint:
    """One constraint as a pod of that namespace with those labels states it."""
    selector = with_label_keys(constraint.get("labelSelector"), labels, constraint.get("matchLabelKeys") or ())
    return SpreadConstraint(
        topology_key=constraint.get("topologyKey", ""),
        max_skew=constraint.get("maxSkew", 1),
        hard=constraint.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule",
        selector=pod_selector([namespace], [selector]),
        min_domains=constraint.get("minDomains") or 1,
        honor_affinity=constraint.get("nodeAffinityPolicy", "Honor") == "Honor",
        honor_taints=constraint.get("nodeTaintsPolicy", "Ignore") == "Honor",
    )


def _host_ports(spec: Obj) -> Iterable[HostPort]:
    sidecars = [c for c in spec.get("initContainers") or () if is_sidecar(c)]
    for container in [*spec["containers"], *sidecars]:
        for port in container.get("ports") or ():
            number = port.get("hostPort") or (port.get("containerPort") if spec.get("hostNetwork") else 0)
            if number:
                yield HostPort(port.get("protocol") or "TCP", port.get("hostIP") or "0.0.0.0", number)
