"""What the rules of a service port are: chains, and elements of the table's maps, as nftables writes them. Pure.

A packet's way through the table: the NAT hooks look its destination up in `service-ips` (address, protocol, port) or,
when it is for the node itself, in `service-nodeports`. For most ports the verdict leads to a `pick-…-N` chain, N being
how many endpoints there are, which draws one of N slots; the slot's chain rewrites the destination to what the slot's
map has for it. Ports with session affinity, external policy Local or very many endpoints have chains of their own. What
was not rewritten and has an entry in `no-endpoint-*` is refused in the filter hooks. Masquerading is asked for with a
mark, or by an entry in `hairpins` (an endpoint that reaches itself by its service).

Only names and elements of the port itself appear in `PortRules`, so that two ports never depend on one another and a
change of one touches nothing else. Endpoints are data in maps, not rules in a chain per port, because the kernel and
`nft` look at every chain when one of them changes: with 5,000 services that was 26 ms of CPU, and is 4 ms now.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from navarch.node.proxy.base import Endpoint, ServicePort
from navarch.node.proxy.services import Choice

MASQUERADE_MARK: Final = "0x4000"
_MARK: Final = f"meta mark set meta mark or {MASQUERADE_MARK}"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9/_.-]")
_NAME_MAX: Final = 120
# Endpoints of a port that live in shared maps. Enough for nearly every service; each costs nft four names to know.
SLOTS: Final = 24


@dataclass(frozen=True, slots=True)
class TableConfig:
    """The table of one cluster and one IP family. `pod_cidr` and `service_cidr` are the whole cluster's; empty ones
    switch off what depends on them."""

    name: str
    pod_cidr: str = ""
    service_cidr: str = ""
    family: int = 4

    @property
    def ip(self) -> str:
        """The family's word in nftables: `ip` or `ip6`."""
        return "ip6" if self.family == 6 else "ip"


@dataclass(frozen=True, slots=True)
class PortRules:
    """`chains`: rules by chain. `elements`: by map or set, key to value (empty for a set). `affinity`: sets to declare,
    name to timeout in seconds."""

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    elements: dict[str, dict[str, str]] = field(default_factory=dict)
    affinity: dict[str, int] = field(default_factory=dict)


def base_rules(table: TableConfig) -> list[str]:
    """The script that replaces the table by one without services, in one transaction with whatever follows it."""
    ip, name = table.ip, f"{table.ip} {table.name}"
    address = f"ipv{table.family}_addr"
    frontend = f"{address} . inet_proto . inet_service"
    key, node_key = f"{ip} daddr . meta l4proto . th dport", "meta l4proto . th dport"
    script = [f"add table {name}", f"delete table {name}", f"add table {name}"]
    for kind, what, of in (
        ("map", "service-ips", f"{frontend} : verdict"),
        ("map", "service-nodeports", "inet_proto . inet_service : verdict"),
        ("map", "no-endpoint-services", f"{frontend} : verdict"),
        ("map", "no-endpoint-nodeports", "inet_proto . inet_service : verdict"),
        ("map", "firewall-ips", f"{frontend} : verdict"),
        ("set", "cluster-ips", address),
        ("set", "hairpins", f"{address} . {address}"),
    ):
        script.append(f"add {kind} {name} {what} {{ type {of} ; }}")
    script += _slots(table)
    script += [f"add chain {name} {chain}" for chain in ("refuse", "services", "no-endpoints", "cluster-ips-check")]
    rules = [
        # Resets, unlike ICMP's answers, are never held back by a rate limit: no client is left waiting.
        ("refuse", "meta l4proto tcp reject with tcp reset"),
        ("refuse", "reject"),
        ("services", f"{key} vmap @service-ips"),
        ("services", f"fib daddr type local {node_key} vmap @service-nodeports"),
        ("no-endpoints", f"{key} vmap @no-endpoint-services"),
        ("no-endpoints", f"fib daddr type local {node_key} vmap @no-endpoint-nodeports"),
        ("cluster-ips-check", f"{ip} daddr @cluster-ips goto refuse"),
    ]
    if table.service_cidr:
        rules.append(("cluster-ips-check", f"{ip} daddr {table.service_cidr} goto refuse"))
    loopback = "::1" if table.family == 6 else "127.0.0.0/8"
    hooks = [
        # Loopback addresses become reachable from outside with route_localnet, which node ports on localhost need.
        # After conntrack (-200), so that there is a state to ask for, and before destinations are rewritten (-100).
        ("guard", "filter", "prerouting", "-150", [f'iifname != "lo" {ip} daddr {loopback} ct state new drop']),
        ("firewall", "filter", "prerouting", "-110", [f"ct state new {key} vmap @firewall-ips"]),
        ("nat-prerouting", "nat", "prerouting", "-100", ["jump services"]),
        ("nat-output", "nat", "output", "-100", ["jump services"]),
        (
            "nat-postrouting",
            "nat",
            "postrouting",
            "100",
            [
                f"ct status dnat {ip} saddr . {ip} daddr @hairpins masquerade fully-random",
                f"meta mark and {MASQUERADE_MARK} == {MASQUERADE_MARK} "
                f"meta mark set meta mark xor {MASQUERADE_MARK} masquerade fully-random",
            ],
        ),
        # Right after destinations were rewritten, and not in `forward`: a machine without a route to the service
        # range would say "unreachable" before that.
        (
            "filter-prerouting",
            "filter",
            "prerouting",
            "-90",
            ["ct state new jump no-endpoints", "ct state new jump cluster-ips-check"],
        ),
        (
            "filter-output",
            "filter",
            "output",
            "-90",
            ["ct state new jump no-endpoints", "ct state new jump cluster-ips-check"],
        ),
    ]
    for chain, kind, hook, priority, lines in hooks:
        script.append(f"add chain {name} {chain} {{ type {kind} hook {hook} priority {priority} ; }}")
        rules += [(chain, line) for line in lines]
    script += [f"add rule {name} {chain} {rule}" for chain, rule in rules]
    return script


def _slots(table: TableConfig) -> list[str]:
    """The maps of endpoints and the chains that pick one, which all ports share."""
    ip, name = table.ip, f"{table.ip} {table.name}"
    address = f"ipv{table.family}_addr"
    not_a_pod = [f"{ip} saddr != {table.pod_cidr} {_MARK}"] if table.pod_cidr else []
    chains: dict[str, list[str]] = {}
    maps: dict[str, str] = {}
    for slot in range(SLOTS):
        for where, key, of in (
            ("endpoints", f"{ip} daddr . meta l4proto . th dport", f"{address} . inet_proto . inet_service"),
            ("node-endpoints", "meta l4proto . th dport", "inet_proto . inet_service"),
        ):
            maps[f"{where}-{slot}"] = f"{of} : {address} . inet_service"
            # A packet that was sent here just before the number of endpoints shrank may find its slot empty just
            # after; the first one is there as long as there are any.
            chains[f"to-{where}-{slot}"] = [
                f"dnat {ip} to {key} map @{where}-{each}" for each in dict.fromkeys((slot, 0))
            ]
    for count in range(1, SLOTS + 1):
        for kind, where, before in (
            ("inside", "endpoints", not_a_pod),
            ("outside", "endpoints", [_MARK]),
            ("node", "node-endpoints", [_MARK]),
        ):
            verdicts = ", ".join(f"{slot} : goto to-{where}-{slot}" for slot in range(count))
            draw = f"numgen random mod {count} vmap {{ {verdicts} }}" if count > 1 else f"goto to-{where}-0"
            chains[f"pick-{kind}-{count}"] = [*before, draw]
    return [
        *(f"add map {name} {each} {{ type {of} ; }}" for each, of in maps.items()),
        *(f"add chain {name} {chain}" for chain in chains),
        *(f"add rule {name} {chain} {line}" for chain, lines in chains.items() for line in lines),
    ]


def chain_name(kind: str, port: ServicePort, suffix: str = "") -> str:
    """`service-1a2b3c4d5e6f-default/web/tcp/80`: unique by its hash, readable by the rest."""
    text = f"{port.service.namespace}/{port.service.name}/{port.protocol}/{port.port_name.name or port.port}"
    digest = hashlib.sha1(f"{text}{suffix}".encode(), usedforsecurity=False).hexdigest()[:12]
    return f"{kind}-{digest}-{_UNSAFE.sub('_', text + suffix)}"[:_NAME_MAX]


def port_rules(port: ServicePort, choice: Choice, table: TableConfig) -> PortRules:
    """Everything that one service port needs."""
    result = PortRules()
    elements = result.elements
    inside = choice.local if port.internal_local else choice.cluster
    outside = choice.local if port.external_local else choice.cluster
    refusal = "drop" if choice.any_known else "goto refuse"
    for address in port.cluster_ips:
        _put(elements, "cluster-ips", address, "")
    if inside:
        _add_inside(result, port, inside, table)
    else:
        _frontends(elements, "no-endpoint-services", port, port.cluster_ips, refusal)
    if port.node_port or port.outside_ips:
        if outside or (port.external_local and choice.cluster):
            _add_outside(result, port, choice, table)
        else:
            _frontends(elements, "no-endpoint-services", port, port.outside_ips, refusal)
            if port.node_port:
                _put(elements, "no-endpoint-nodeports", f"{port.protocol} . {port.node_port}", refusal)
    for endpoint in dict.fromkeys([*inside, *outside]):
        _put(elements, "hairpins", f"{endpoint.address} . {endpoint.address}", "")
    return result


def _put(elements: dict[str, dict[str, str]], where: str, key: str, value: str) -> None:
    elements.setdefault(where, {})[key] = value


def _frontends(
    elements: dict[str, dict[str, str]], where: str, port: ServicePort, addresses: Iterable[str], verdict: str
) -> None:
    for address in addresses:
        _put(elements, where, f"{address} . {port.protocol} . {port.port}", verdict)


def _add_inside(result: PortRules, port: ServicePort, endpoints: Sequence[Endpoint], table: TableConfig) -> None:
    """What is sent to the service's cluster IPs."""
    if _slotted(port, endpoints):
        _fill_addresses(result, port, port.cluster_ips, endpoints, "inside")
        return
    chain = chain_name("service", port)
    # Who is not a pod may have no way back from an endpoint but through this node.
    mark = [f"{table.ip} saddr != {table.pod_cidr} {_MARK}"] if table.pod_cidr else []
    result.chains[chain] = (*mark, *_balance(result, port, endpoints, table))
    _frontends(result.elements, "service-ips", port, port.cluster_ips, f"goto {chain}")


def _add_outside(result: PortRules, port: ServicePort, choice: Choice, table: TableConfig) -> None:
    """What is sent from outside: to node port, external and load balancer addresses."""
    if port.source_ranges and port.load_balancer_ips:
        firewall = chain_name("firewall", port)
        result.chains[firewall] = (f"{table.ip} saddr != {{ {', '.join(port.source_ranges)} }} drop",)
        _frontends(result.elements, "firewall-ips", port, port.load_balancer_ips, f"goto {firewall}")
    if not port.external_local and _slotted(port, choice.cluster):
        _fill_addresses(result, port, port.outside_ips, choice.cluster, "outside")
        if port.node_port:
            _fill_node_port(result, port, choice.cluster)
        return
    chain = chain_name("external", port)
    if port.external_local:
        result.chains[chain] = tuple(_local_rules(result, port, choice, table))
    else:
        result.chains[chain] = (_MARK, *_balance(result, port, choice.cluster, table))
    _frontends(result.elements, "service-ips", port, port.outside_ips, f"goto {chain}")
    if port.node_port:
        _put(result.elements, "service-nodeports", f"{port.protocol} . {port.node_port}", f"goto {chain}")


def _local_rules(result: PortRules, port: ServicePort, choice: Choice, table: TableConfig) -> list[str]:
    """External policy Local is for clients outside the cluster: pods and the node itself may go to any endpoint."""
    rules = []
    if choice.cluster:
        anywhere = chain_name("anywhere", port)
        result.chains[anywhere] = tuple(_balance(result, port, choice.cluster, table))
        if table.pod_cidr:
            rules.append(f"{table.ip} saddr {table.pod_cidr} goto {anywhere}")
        rules += [f"fib saddr type local {_MARK}", f"fib saddr type local goto {anywhere}"]
    if choice.local:
        rules += _balance(result, port, choice.local, table)
    else:
        # Falls through with its destination unchanged, which the filter hooks then drop.
        _frontends(result.elements, "no-endpoint-services", port, port.outside_ips, "drop")
        if port.node_port:
            _put(result.elements, "no-endpoint-nodeports", f"{port.protocol} . {port.node_port}", "drop")
    return rules


def _slotted(port: ServicePort, endpoints: Sequence[Endpoint]) -> bool:
    return not port.affinity_s and len(endpoints) <= SLOTS


def _fill_addresses(
    result: PortRules, port: ServicePort, addresses: Iterable[str], endpoints: Sequence[Endpoint], kind: str
) -> None:
    """Have connections to `addresses` go to one of the endpoints, each as likely as the other."""
    for address in addresses:
        frontend = f"{address} . {port.protocol} . {port.port}"
        _put(result.elements, "service-ips", frontend, f"goto pick-{kind}-{len(endpoints)}")
        for slot, endpoint in enumerate(endpoints):
            _put(result.elements, f"endpoints-{slot}", frontend, f"{endpoint.address} . {endpoint.port}")


def _fill_node_port(result: PortRules, port: ServicePort, endpoints: Sequence[Endpoint]) -> None:
    frontend = f"{port.protocol} . {port.node_port}"
    _put(result.elements, "service-nodeports", frontend, f"goto pick-node-{len(endpoints)}")
    for slot, endpoint in enumerate(endpoints):
        _put(result.elements, f"node-endpoints-{slot}", frontend, f"{endpoint.address} . {endpoint.port}")


def _balance(result: PortRules, port: ServicePort, endpoints: Sequence[Endpoint], table: TableConfig) -> list[str]:
    """Rules that send a connection to one of the endpoints, each as likely as the other; with session affinity, to
    the one that its client was sent to within the timeout."""
    if port.affinity_s:
        return _sticky(result, port, endpoints, table)
    protocol = f"meta l4proto {port.protocol}"
    targets = [_target(endpoint) for endpoint in endpoints]
    if len(targets) == 1:
        return [f"{protocol} dnat to {targets[0]}"]
    if len({endpoint.port for endpoint in endpoints}) == 1:
        pairs = ", ".join(f"{slot} : {endpoint.address}" for slot, endpoint in enumerate(endpoints))
        return [f"{protocol} dnat to numgen random mod {len(targets)} map {{ {pairs} }} : {endpoints[0].port}"]
    pairs = ", ".join(f"{slot} : {endpoint.address} . {endpoint.port}" for slot, endpoint in enumerate(endpoints))
    return [f"{protocol} dnat {table.ip} to numgen random mod {len(targets)} map {{ {pairs} }}"]


def _target(endpoint: Endpoint) -> str:
    address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{address}:{endpoint.port}"


def _sticky(result: PortRules, port: ServicePort, endpoints: Sequence[Endpoint], table: TableConfig) -> list[str]:
    # A chain and a set of clients per endpoint: when the endpoint goes, so do they, and its clients are spread anew.
    rules, verdicts = [], []
    for slot, endpoint in enumerate(endpoints):
        suffix = f"__{endpoint.address}/{endpoint.port}"
        chain, clients = chain_name("endpoint", port, suffix), chain_name("affinity", port, suffix)
        result.affinity[clients] = port.affinity_s
        result.chains[chain] = (
            f"update @{clients} {{ {table.ip} saddr }}",
            f"meta l4proto {port.protocol} dnat to {_target(endpoint)}",
        )
        rules.append(f"{table.ip} saddr @{clients} goto {chain}")
        verdicts.append(f"{slot} : goto {chain}")
    return [*rules, f"numgen random mod {len(verdicts)} vmap {{ {', '.join(verdicts)} }}"]
