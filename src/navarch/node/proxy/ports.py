"""What one service port adds to the shared table: elements of its maps and the shared chains that they lead to. Pure.

Only keys of the port itself appear in `PortRules`, so that two ports never depend on one another and a change of one
touches nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from navarch.node.proxy.base import Endpoint, ProxierConfig, ServicePort
from navarch.node.proxy.rules import INSIDE, NOBODY, OUTSIDE, POOLS, Mark, Shared, stick_name
from navarch.node.proxy.services import Choice

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9/_.-]")
_NAME_MAX: Final = 120

Target = tuple[str, int]
Seats = Mapping[Target, int]
"""Which number an endpoint of a port with session affinity keeps."""


@dataclass(frozen=True, slots=True)
class PortRules:
    """`elements`: by map or set, key to value (empty for a set). `shared`: chains that the verdicts among them go to.
    `chains`: rules by chain, of the port's own."""

    elements: dict[str, dict[str, str]] = field(default_factory=dict)
    shared: set[Shared] = field(default_factory=set)
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)


class _Frontends(NamedTuple):
    """Where a port is offered: keys, and the words that are in the names of the maps for such keys."""

    keys: list[str]
    suffix: str
    nowhere: str
    endpoints: str
    local_endpoints: str


def seats_of(endpoints: Iterable[Endpoint], before: Seats) -> dict[Target, int]:
    """A seat for each endpoint: the one it had, or the lowest that is free."""
    targets = sorted({(each.address, each.port) for each in endpoints})
    kept = {target: before[target] for target in targets if target in before}
    taken = set(kept.values())
    free = (number for number in range(len(targets)) if number not in taken)
    return {target: kept[target] if target in kept else next(free) for target in targets}


def port_rules(port: ServicePort, choice: Choice, table: ProxierConfig, seats: Seats) -> PortRules:
    """Everything that one service port needs."""
    result = PortRules()
    inside = choice.local if port.internal_local else choice.cluster
    outside = choice.local if port.external_local else choice.cluster
    refusal = "drop" if choice.any_known else "goto refuse"
    at_cluster_ips, *at_outside = _frontends(port)
    for address in port.cluster_ips:
        _put(result, "cluster-ips", [address], "")
    if inside:
        _fill(result, port, at_cluster_ips, "service", inside, INSIDE, seats)
    else:
        _put(result, at_cluster_ips.nowhere, at_cluster_ips.keys, refusal)
    for where in at_outside:
        if port.external_local and (outside or choice.cluster):
            _fill_local(result, port, where, choice, seats)
        elif outside:
            _fill(result, port, where, "service", outside, OUTSIDE, seats)
        else:
            _put(result, where.nowhere, where.keys, refusal)
    if port.source_ranges and port.load_balancer_ips:
        _guard(result, port, table)
    for address in dict.fromkeys(endpoint.address for endpoint in (*inside, *outside, *choice.cluster)):
        _put(result, "hairpins", [f"{address} . {address}"], "")
    return result


def _frontends(port: ServicePort) -> list[_Frontends]:
    """Of the cluster IPs, then of external and load balancer addresses, then of the node port."""
    addressed = [
        _Frontends(
            [f"{address} . {port.protocol} . {port.port}" for address in addresses],
            "ips",
            "no-endpoint-services",
            "endpoints",
            "local-endpoints",
        )
        for addresses in (port.cluster_ips, port.outside_ips)
    ]
    if not port.node_port:
        return addressed
    key = f"{port.protocol} . {port.node_port}"
    node = _Frontends([key], "nodeports", "no-endpoint-nodeports", "node-endpoints", "node-local-endpoints")
    return [*addressed, node]


def _put(result: PortRules, where: str, keys: Iterable[str], value: str) -> None:
    for key in keys:
        result.elements.setdefault(where, {})[key] = value


def _fill(
    result: PortRules,
    port: ServicePort,
    where: _Frontends,
    kind: str,
    endpoints: Sequence[Endpoint],
    mark: Mark,
    seats: Seats,
) -> None:
    """Have connections to the frontends go to one of the endpoints, each as likely as the other; with session affinity,
    to the one that its client was sent to within the timeout."""
    if not where.keys:
        return
    pool = POOLS[where.local_endpoints if kind == "local" else where.endpoints]
    if port.affinity_s:
        numbers = [seats[endpoint.address, endpoint.port] for endpoint in endpoints]
        # Rounded up, so that few numbers of endpoints need chains of their own.
        room = 1 << max(numbers).bit_length()
        shared = Shared(pool.name, mark, len(endpoints), port.affinity_s, room)
    else:
        numbers = list(range(len(endpoints)))
        shared = Shared(pool.name, mark, len(endpoints))
    result.shared.add(shared)
    for key in where.keys:
        _put(result, f"{kind}-{where.suffix}", [key], f"goto {shared.name}")
        for position, (number, endpoint) in enumerate(zip(numbers, endpoints, strict=True)):
            _put(result, pool.endpoints(number), [key], f"{endpoint.address} . {endpoint.port}")
            if port.affinity_s:
                _put(result, pool.seats(position), [key], f"goto {stick_name(pool.name, port.affinity_s, number)}")


def _fill_local(result: PortRules, port: ServicePort, where: _Frontends, choice: Choice, seats: Seats) -> None:
    """External policy Local: who comes from outside goes to this node's endpoints alone, and keeps its address."""
    _put(result, f"service-{where.suffix}", where.keys, f"goto local-{where.suffix}-check")
    if choice.cluster:
        _fill(result, port, where, "anywhere", choice.cluster, NOBODY, seats)
    if choice.local:
        _fill(result, port, where, "local", choice.local, NOBODY, seats)
    else:
        # Falls through with its destination unchanged, which the filter hooks then drop.
        _put(result, where.nowhere, where.keys, "drop")


def _guard(result: PortRules, port: ServicePort, table: ProxierConfig) -> None:
    """Let only `loadBalancerSourceRanges` in."""
    text = f"{port.service.namespace}/{port.service.name}/{port.protocol}/{port.port_name.name or port.port}"
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:12]
    firewall = f"firewall-{digest}-{_UNSAFE.sub('_', text)}"[:_NAME_MAX]
    result.chains[firewall] = (f"{table.ip} saddr != {{ {', '.join(port.source_ranges)} }} drop",)
    keys = [f"{address} . {port.protocol} . {port.port}" for address in port.load_balancer_ips]
    _put(result, "firewall-ips", keys, f"goto {firewall}")
