"""What enforcing needs of NetworkPolicies and Pods, as values. Pure.

A policy becomes, for each direction that it isolates its pods in, lines: who may speak, on which ports. A direction
that it does not speak of is None, one in which nobody may speak has no lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from navarch.api.meta import Key, Obj, key_of, labels_of
from navarch.api.selectors import LabelSelector, label_selector_of
from navarch.kinds.core.pod_state import is_finished

_PROTOCOLS: Final = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True)
class PeerSelector:
    """Pods of the namespace `namespace`, or of those that `namespaces` selects."""

    pods: LabelSelector
    namespace: str = ""
    namespaces: LabelSelector | None = None

    @property
    def identity(self) -> str:
        """The same for the same selection: names the set of its pods' addresses."""
        text = f"{self.namespace}|{self.namespaces}|{self.pods}"
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:16]

    def matches(self, pod: Pod, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
        if self.namespaces is None:
            if pod.key.namespace != self.namespace:
                return False
        else:
            labels = namespaces.get(pod.key.namespace)
            if labels is None or not self.namespaces.matches(labels):
                return False
        return self.pods.matches(pod.labels)


@dataclass(frozen=True, slots=True)
class Block:
    """A range of addresses, some ranges within it left out."""

    cidr: str
    excepted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """Ports `low` to `high` (0: all) of a protocol, or those that pods call `name`."""

    protocol: str
    low: int = 0
    high: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """Packets of `peer` (None: anybody) to `ports` (None: all, of every protocol) are let through."""

    peer: PeerSelector | Block | None = None
    ports: tuple[Port, ...] | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    key: Key
    pods: LabelSelector
    ingress: tuple[Line, ...] | None = None
    egress: tuple[Line, ...] | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod with addresses of its own. `ports`: name, protocol and number."""

    key: Key
    uid: str
    node: str
    labels: Mapping[str, str]
    addresses: tuple[str, ...]
    ports: frozenset[tuple[str, str, int]] = frozenset()


def pod_of(obj: Obj, addresses: Sequence[str] | None = None) -> Pod | None:
    """None for a pod that no policy can concern: without addresses (`addresses`, where they are known before the API
    server knows them), with the node's, or at its end."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if addresses is None:
        addresses = [each["ip"] for each in status.get("podIPs") or ()] or [status.get("podIP") or ""]
    addresses = tuple(each for each in addresses if each)
    if spec.get("hostNetwork") or not addresses or is_finished(obj):
        return None
    return Pod(
        key_of(obj),
        obj["metadata"].get("uid") or "",
        spec.get("nodeName") or "",
        dict(labels_of(obj)),
        addresses,
        frozenset(_named_ports(spec)),
    )


def _named_ports(spec: Obj) -> Iterator[tuple[str, str, int]]:
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    for container in [*sidecars, *(spec.get("containers") or ())]:
        for port in container.get("ports") or ():
            if port.get("name"):
                yield port["name"], (port.get("protocol") or "TCP").lower(), port["containerPort"]


def policy_of(obj: Obj) -> Policy:
    spec, key = obj.get("spec") or {}, key_of(obj)
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return Policy(
        key,
        label_selector_of(spec.get("podSelector") or {}),
        tuple(_lines(spec.get("ingress"), "from", key.namespace)) if "Ingress" in types else None,
        tuple(_lines(spec.get("egress"), "to", key.namespace)) if "Egress" in types else None,
    )


def _lines(rules: Any, side: str, namespace: str) -> Iterator[Line]:
    for rule in rules or ():
        ports = tuple(sorted(set(_ports(rule["ports"])))) if rule.get("ports") else None
        if not rule.get(side):
            yield Line(None, ports)
        for peer in rule.get(side) or ():
            yield Line(_peer(peer, namespace), ports)


def _ports(stated: Any) -> Iterator[Port]:
    for each in stated:
        protocol = (each.get("protocol") or "TCP").lower()
        port = each.get("port")
        if protocol not in _PROTOCOLS:
            continue
        if isinstance(port, str):
            yield Port(protocol, name=port)
        elif port is None:
            yield Port(protocol)
        else:
            yield Port(protocol, port, each.get("endPort") or port)


def _peer(peer: Obj, namespace: str) -> PeerSelector | Block:
    if block := peer.get("ipBlock"):
        return Block(block["cidr"], tuple(sorted(block.get("except") or ())))
    pods = label_selector_of(peer["podSelector"] if peer.get("podSelector") is not None else {})
    if peer.get("namespaceSelector") is None:
        return PeerSelector(pods, namespace)
    return PeerSelector(pods, namespaces=label_selector_of(peer["namespaceSelector"]))
