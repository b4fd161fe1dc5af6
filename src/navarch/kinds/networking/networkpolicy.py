"""NetworkPolicy: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.addresses import Address, Network, read_cidr
from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj, get_path
from navarch.api.validation import validate_cidr, validate_label_selector, validate_port, validate_port_name
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy

_DIRECTIONS = (("ingress", "from"), ("egress", "to"))


@strategy("networking.k8s.io", "NetworkPolicy")
class NetworkPolicyStrategy(Strategy):
    has_generation = True
    columns = (
        NAME,
        Column("Pod-Selector", lambda obj, now: columns.selector(get_path(obj, "spec.podSelector"))),
        AGE,
    )

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("policyTypes"):
            # Every policy speaks of ingress; one that has egress rules speaks of egress too.
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
        for direction, _ in _DIRECTIONS:
            for rule in spec.get(direction) or ():
                for port in rule.get("ports") or ():
                    port.setdefault("protocol", "TCP")

    def complete(self, obj: Obj) -> None:
        obj["spec"].setdefault("podSelector", {})

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        yield from validate_label_selector(spec.get("podSelector"), "spec.podSelector")
        for direction, peers in _DIRECTIONS:
            for index, rule in enumerate(spec.get(direction) or ()):
                at = f"spec.{direction}[{index}]"
                for number, port in enumerate(rule.get("ports") or ()):
                    yield from _validate_port(port, f"{at}.ports[{number}]")
                for number, peer in enumerate(rule.get(peers) or ()):
                    yield from _validate_peer(peer, f"{at}.{peers}[{number}]")
        types = spec.get("policyTypes") or []
        if len(types) > 2:
            yield invalid_value("spec.policyTypes", types, "may not specify more than two policyTypes")
            return
        for index, kind in enumerate(types):
            if kind not in ("Ingress", "Egress"):
                yield not_supported(f"spec.policyTypes[{index}]", kind, ["Ingress", "Egress"])


def _validate_port(port: Obj, path: str) -> Iterator[FieldError]:
    if (protocol := port.get("protocol")) is not None and protocol not in ("TCP", "UDP", "SCTP"):
        yield not_supported(f"{path}.protocol", protocol, ["TCP", "UDP", "SCTP"])
    value, end = port.get("port"), port.get("endPort")
    if value is None:
        if end is not None:
            yield invalid_value(f"{path}.endPort", end, "may not be specified when `port` is not specified")
    elif isinstance(value, int):
        yield from validate_port(value, f"{path}.port")
        if end is not None:
            if end < value:
                yield invalid_value(f"{path}.endPort", value, "must be greater than or equal to `port`")
            yield from validate_port(end, f"{path}.endPort")
    else:
        if end is not None:
            yield invalid_value(f"{path}.endPort", end, "may not be specified when `port` is non-numeric")
        yield from validate_port_name(value, f"{path}.port")


def _validate_peer(peer: Obj, path: str) -> Iterator[FieldError]:
    for name in ("podSelector", "namespaceSelector"):
        if peer.get(name) is not None:
            yield from validate_label_selector(peer[name], f"{path}.{name}")
    block = peer.get("ipBlock")
    selects = peer.get("podSelector") is not None or peer.get("namespaceSelector") is not None
    if block is not None:
        yield from _validate_block(block, f"{path}.ipBlock")
        if selects:
            yield forbidden_field(path, "may not specify both ipBlock and another peer")
    elif not selects:
        yield required(path, "must specify a peer")


def _validate_block(block: Obj, path: str) -> Iterator[FieldError]:
    text = block.get("cidr")
    if not text:
        yield required(f"{path}.cidr")
        return
    yield from validate_cidr(text, f"{path}.cidr")
    whole = read_cidr(text)
    for index, part in enumerate(block.get("except") or () if whole else ()):
        at = f"{path}.except[{index}]"
        yield from validate_cidr(part, at)
        inner = read_cidr(part)
        if whole is not None and inner is not None and not _is_strictly_inside(inner, whole):
            yield invalid_value(at, part, "must be a strict subset of `cidr`")


def _is_strictly_inside(inner: tuple[Address, Network], whole: tuple[Address, Network]) -> bool:
    return inner[0] in whole[1] and inner[1].prefixlen > whole[1].prefixlen
