"""What the iptables backend has in the kernel: Kubernetes' chains, with the cluster's tag in their names. Pure.

nat: `SERVICES` finds a service port by its address and goes to `SVC-…` (any endpoint), `SVL-…` (this node's) or `EXT-…`
(what comes from outside, by `FW-…` where only some may); these draw an endpoint's `SEP-…`, which rewrites the
destination. `NODEPORTS` does the same for ports of the node. filter: what was not rewritten is refused.

A service has chains of its own, which are written as a whole, and lines in the chains of all, which are added and taken
away one by one. Chains' names may have 28 characters: `KUBE-`, four for the cluster, and what Kubernetes calls them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from navarch.node.proxy.base import Endpoint, ProxierConfig, ServicePort
from navarch.node.proxy.services import Choice

_HASH: Final = 12
_COMMENT_MAX: Final = 200


class Where(NamedTuple):
    """A chain of one of the kernel's tables."""

    table: str
    chain: str


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """`own`: chains with their rules. `lines`: rules in the chains of all services, the nearest to be tried first."""

    own: dict[Where, tuple[str, ...]] = field(default_factory=dict)
    lines: dict[Where, tuple[str, ...]] = field(default_factory=dict)


class Names:
    """The chains of one cluster and node."""

    def __init__(self, name: str) -> None:
        self.prefix = f"KUBE-{hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:4]}-"

    def __call__(self, table: str, what: str) -> Where:
        return Where(table, self.prefix + what)

    def of_port(self, kind: str, port: ServicePort, endpoint: Endpoint | None = None) -> Where:
        """`kind` is Kubernetes' word: SVC, SVL, EXT, FW, SEP."""
        text = f"{port.service}:{port.port_name.name}{port.protocol}{port.port}"
        if endpoint is not None:
            text += f"{endpoint.address}:{endpoint.port}"
        digest = base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:_HASH]
        return Where("nat", f"{self.prefix}{kind}-{digest}")


def hooks(names: Names) -> list[tuple[Where, str]]:
    """Rules in the kernel's own chains, to be first there."""
    new = "-m conntrack --ctstate NEW"
    return [
        (Where("nat", "PREROUTING"), f"-j {names.prefix}SERVICES"),
        (Where("nat", "OUTPUT"), f"-j {names.prefix}SERVICES"),
        (Where("nat", "POSTROUTING"), f"-j {names.prefix}POSTROUTING"),
        (Where("filter", "INPUT"), f"{new} -j {names.prefix}PROXY-FIREWALL"),
        (Where("filter", "INPUT"), f"-j {names.prefix}NODEPORTS"),
        (Where("filter", "INPUT"), f"{new} -j {names.prefix}EXTERNAL-SERVICES"),
        (Where("filter", "INPUT"), f"-j {names.prefix}FIREWALL"),
        (Where("filter", "FORWARD"), f"{new} -j {names.prefix}PROXY-FIREWALL"),
        (Where("filter", "FORWARD"), f"-j {names.prefix}FORWARD"),
        (Where("filter", "FORWARD"), f"{new} -j {names.prefix}SERVICES"),
        (Where("filter", "FORWARD"), f"{new} -j {names.prefix}EXTERNAL-SERVICES"),
        (Where("filter", "OUTPUT"), f"{new} -j {names.prefix}PROXY-FIREWALL"),
        (Where("filter", "OUTPUT"), f"{new} -j {names.prefix}SERVICES"),
        (Where("filter", "OUTPUT"), f"-j {names.prefix}FIREWALL"),
    ]


def base_chains(names: Names, config: ProxierConfig) -> dict[Where, tuple[str, ...]]:
    """The chains of all services, with what is at their ends."""
    mark, bits = config.mark, f"{config.mark}/{config.mark}"
    local = "-m addrtype --dst-type LOCAL"
    node_ports = [f"-d {range_} {local}" for range_ in config.node_port_addresses] or [local]
    loopback = config.loopback
    not_here = () if config.serves_loopback else (f"-d {loopback} -j RETURN",)
    return {
        names("nat", "MARK-MASQ"): (f"-j MARK --or-mark {mark}",),
        names("nat", "NODEPORTS"): (),
        names("nat", "SERVICES"): (*not_here, *(f"{where} -j {names.prefix}NODEPORTS" for where in node_ports)),
        names("nat", "POSTROUTING"): (
            f"-m mark ! --mark {bits} -j RETURN",
            f"-j MARK --xor-mark {mark}",
            "-j MASQUERADE --random-fully",
        ),
        names("filter", "PROXY-FIREWALL"): (),
        names("filter", "NODEPORTS"): (),
        names("filter", "EXTERNAL-SERVICES"): (),
        names("filter", "SERVICES"): (
            (f"-d {config.service_cidr} -p tcp {_refusal('tcp')}", f"-d {config.service_cidr} -j REJECT")
            if config.service_cidr
            else ()
        ),
        names("filter", "FORWARD"): (
            "-m conntrack --ctstate INVALID -j DROP",
            f"-m mark --mark {bits} -j ACCEPT",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ),
        # Loopback addresses become reachable from outside with route_localnet, which node ports on localhost need.
        names("filter", "FIREWALL"): (
            f"! -s {loopback} -d {loopback} -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
        ),
    }


def port_chains(port: ServicePort, choice: Choice, names: Names, config: ProxierConfig) -> ServiceRules:
    """Everything that one service port needs."""
    return _PortChains(port, choice, names, config).make()


class _PortChains:
    def __init__(self, port: ServicePort, choice: Choice, names: Names, config: ProxierConfig) -> None:
        self._port, self._choice, self._names, self._config = port, choice, names, config
        self._own: dict[Where, tuple[str, ...]] = {}
        self._lines: dict[Where, list[str]] = {}
        self._label = f"{port.service}:{port.port_name.name}".rstrip(":")[:_COMMENT_MAX]
        self._mark = f"-j {names.prefix}MARK-MASQ"

    def make(self) -> ServiceRules:
        port, choice = self._port, self._choice
        inside = choice.local if port.internal_local else choice.cluster
        outside = choice.local if port.external_local else choice.cluster
        refuse = "-j DROP" if choice.any_known else _refusal(port.protocol)
        if choice.cluster:
            self._balance("SVC", choice.cluster)
        if choice.local and (port.internal_local or port.external_local):
            self._balance("SVL", choice.local)
        for address in port.cluster_ips:
            if inside:
                self._line("nat", "SERVICES", self._at(address), f"-j {self._inside()}", "cluster IP")
            else:
                self._line("filter", "SERVICES", self._at(address), refuse, "has no endpoints")
        if outside or (port.external_local and choice.cluster):
            self._outside(choice)
        if not outside:
            self._refuse_outside(refuse)
        if port.health_check_node_port:
            self._line(
                "filter",
                "NODEPORTS",
                f"-p tcp -m tcp --dport {port.health_check_node_port}",
                "-j ACCEPT",
                "health check node port",
            )
        return ServiceRules(self._own, {where: tuple(lines) for where, lines in self._lines.items()})

    def _inside(self) -> str:
        return self._names.of_port("SVL" if self._port.internal_local else "SVC", self._port).chain

    def _outside(self, choice: Choice) -> None:
        """What is sent to external and load balancer addresses and to the node port."""
        port, config = self._port, self._config
        if not port.node_port and not port.outside_ips:
            return
        external = self._names.of_port("EXT", port)
        anywhere = self._names.of_port("SVC", port).chain
        if not port.external_local:
            rules = [self._mark, f"-j {anywhere}"]
        else:
            # External policy Local is for clients outside: this node's pods and the node may go to any endpoint.
            # Answers to pods of other nodes, whose addresses are kept, come back this way only from endpoints here.
            rules = []
            if choice.cluster:
                if config.pod_cidr:
                    at = f"-i {config.pods_at} " if config.pods_at else ""
                    rules.append(f"{at}-s {config.pod_cidr} -j {anywhere}")
                local = "-m addrtype --src-type LOCAL"
                rules += [f"{local} {self._mark}", f"{local} -j {anywhere}"]
            if choice.local:
                rules.append(f"-j {self._names.of_port('SVL', port).chain}")
        self._own[external] = tuple(rules)
        firewall = self._names.of_port("FW", port)
        if port.source_ranges and port.load_balancer_ips:
            self._own[firewall] = tuple(f"-s {range_} -j {external.chain}" for range_ in port.source_ranges)
        for address in port.outside_ips:
            guarded = firewall in self._own and address in port.load_balancer_ips
            target = firewall if guarded else external
            self._line("nat", "SERVICES", self._at(address), f"-j {target.chain}", "external address")
            if guarded:
                self._line("filter", "PROXY-FIREWALL", self._at(address), "-j DROP", "is not for everybody")
        if port.node_port:
            self._line("nat", "NODEPORTS", self._at_node(), f"-j {external.chain}", "node port")

    def _refuse_outside(self, refuse: str) -> None:
        for address in self._port.outside_ips:
            self._line("filter", "EXTERNAL-SERVICES", self._at(address), refuse, "has no endpoints")
        if self._port.node_port:
            at_node = f"-m addrtype --dst-type LOCAL {self._at_node()}"
            self._line("filter", "EXTERNAL-SERVICES", at_node, refuse, "has no endpoints")

    def _balance(self, kind: str, endpoints: Sequence[Endpoint]) -> None:
        """The chain that sends a connection to one of the endpoints, each as likely as the other; with session
        affinity, to the one that its client was sent to within the timeout."""
        port, config, names = self._port, self._config, self._names
        rules = []
        for address in port.cluster_ips:
            if config.masquerade_all:
                rules.append(f"{self._at(address)} {self._mark}")
            elif config.pod_cidr:
                # Who is not a pod may have no way back from an endpoint but through this node.
                rules.append(f"! -s {config.pod_cidr} {self._at(address)} {self._mark}")
        targets = [self._endpoint(endpoint) for endpoint in endpoints]
        if port.affinity_s:
            recent = f"--rcheck --seconds {port.affinity_s} --reap"
            rules += [f"-m recent --name {each.chain} {recent} -j {each.chain}" for each in targets]
        for number, target in enumerate(targets):
            left = len(targets) - number
            chance = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
            rules.append(f"{chance}-j {target.chain}")
        self._own[names.of_port(kind, port)] = tuple(rules)

    def _endpoint(self, endpoint: Endpoint) -> Where:
        where = self._names.of_port("SEP", self._port, endpoint)
        address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        remember = [f"-m recent --name {where.chain} --set"] if self._port.affinity_s else []
        protocol = self._port.protocol
        self._own[where] = (
            f"-s {endpoint.address} {self._mark}",
            *remember,
            f"-p {protocol} -m {protocol} -j DNAT --to-destination {address}:{endpoint.port}",
        )
        return where

    def _at(self, address: str) -> str:
        return f"-d {address} -p {self._port.protocol} -m {self._port.protocol} --dport {self._port.port}"

    def _at_node(self) -> str:
        return f"-p {self._port.protocol} -m {self._port.protocol} --dport {self._port.node_port}"

    def _line(self, table: str, what: str, match: str, verdict: str, why: str) -> None:
        comment = f'-m comment --comment "{self._label} {why}"'
        self._lines.setdefault(self._names(table, what), []).append(f"{match} {comment} {verdict}")


def _refusal(protocol: str) -> str:
    # Resets, unlike ICMP's answers, are never held back by a rate limit: no client is left waiting.
    return "-j REJECT --reject-with tcp-reset" if protocol == "tcp" else "-j REJECT"


def combine(parts: Iterable[ServiceRules]) -> ServiceRules:
    """The rules of all ports of a service."""
    result = ServiceRules()
    for part in parts:
        result.own.update(part.own)
        for where, lines in part.lines.items():
            result.lines[where] = (*result.lines.get(where, ()), *lines)
    return result
