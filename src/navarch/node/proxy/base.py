"""What a service proxy works with: virtual ports and the endpoints behind them, and the seam of a backend.

`services.py` makes these from API objects; a `Proxier` turns them into the kernel's rules. Everything here is a value:
two equal values mean the same rules, which is how a backend knows that nothing has to change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from navarch.api.meta import Key


class PortName(NamedTuple):
    """Names a port of a service; endpoints are matched to it by name and protocol."""

    name: str
    protocol: str


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one service, with the addresses at which it is offered (of the proxied IP family only)."""

    service: Key
    port_name: PortName
    port: int
    cluster_ips: tuple[str, ...]
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    affinity_s: int = 0
    internal_local: bool = False
    external_local: bool = False
    health_check_node_port: int = 0

    @property
    def protocol(self) -> str:
        """`tcp`, `udp`, `sctp`: the word that rules use."""
        return self.port_name.protocol.lower()

    @property
    def outside_ips(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.external_ips, *self.load_balancer_ips)))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where traffic can go. `local`: runs on this node. `for_node`, `for_zone`: whether its topology hints name this
    node, or this node's zone; None where it has no such hints."""

    address: str
    port: int
    local: bool = False
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    for_node: bool | None = None
    for_zone: bool | None = None


@dataclass(frozen=True, slots=True)
class ProxierConfig:
    """What every backend is told. `name` is nobody else's on this machine; `pod_cidr` and `service_cidr` are the whole
    cluster's, of the one IP family, and empty ones switch off what depends on them. Node ports answer at the addresses
    within `node_port_addresses`, or at all of the node, those of loopback only with `localhost_node_ports`. Behind the
    device `pods_at` are this node's own pods; without it every pod of the cluster counts as one of them."""

    name: str
    pod_cidr: str = ""
    service_cidr: str = ""
    family: int = 4
    node_port_addresses: tuple[str, ...] = ()
    localhost_node_ports: bool = True
    masquerade_all: bool = False
    masquerade_bit: int = 14
    pods_at: str = ""

    @property
    def ip(self) -> str:
        """The family's word in rules: `ip` or `ip6`."""
        return "ip6" if self.family == 6 else "ip"

    @property
    def loopback(self) -> str:
        return "::1/128" if self.family == 6 else "127.0.0.0/8"

    @property
    def serves_loopback(self) -> bool:
        """Whether rules can lead from loopback to endpoints: the kernel has no `route_localnet` for IPv6, and what is
        sent to `::1` would be heard of no more."""
        return self.localhost_node_ports and self.family == 4

    @property
    def mark(self) -> str:
        """The bit of a packet's mark that asks for masquerading."""
        return hex(1 << self.masquerade_bit)


ServiceMap = Mapping[Key, tuple[ServicePort, ...]]
EndpointMap = Mapping[Key, Mapping[PortName, tuple[Endpoint, ...]]]


class Proxier(Protocol):
    """Makes the machine forward what is sent to services."""

    async def sync(self, services: ServiceMap, endpoints: EndpointMap, changed: Collection[Key] | None = None) -> None:
        """Bring the rules in line with the maps; `changed` names the services that may differ from the last call
        (None: all, and the rules themselves are not trusted)."""
        ...

    async def intact(self) -> bool:
        """Whether what was written is still there; somebody may have swept all rules away."""
        ...

    async def cleanup(self) -> None:
        """Remove every trace."""
        ...
