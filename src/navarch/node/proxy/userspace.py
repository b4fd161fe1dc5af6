"""The userspace backend, for machines with neither nftables nor iptables: sockets at the services' addresses.

The services' range and other virtual addresses are made local to this machine (by routes to loopback, which need no
address on a device), and each frontend with endpoints has a socket whose traffic `relays` pass on; where there is none,
the kernel refuses. What this cannot do: endpoints see this node's address, not the client's, and there is no SCTP.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import random
import socket
from collections.abc import Collection
from ipaddress import ip_network
from typing import Any, Final, NamedTuple

from navarch.api.meta import Key
from navarch.node.proxy.base import EndpointMap, ProxierConfig, ServiceMap, ServicePort
from navarch.node.proxy.relays import Budget, Picker, Rule, TcpRelay, UdpRelay, targets_of
from navarch.node.proxy.services import Choice, choose
from navarch.world import MACHINE

log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_SWEEP_S: Final = 10.0
_LOOPBACK: Final = "lo"
_LOCAL_TABLE: Final = 255
# Marks routes that are ours (/etc/iproute2/rt_protos has nothing at this number).
_ROUTE_PROTOCOL: Final = 79


class Frontend(NamedTuple):
    """Where a service port is offered; without an address, at every one of the node."""

    address: str
    protocol: str
    port: int


class LocalRoutes:
    """The ranges that are local to this machine by our doing. Its methods block and are called in a thread."""

    def __init__(self, config: ProxierConfig) -> None:
        self._family = socket.AF_INET6 if config.family == 6 else socket.AF_INET
        # Tells our routes from those of other clusters.
        self._metric = int(hashlib.sha1(config.name.encode(), usedforsecurity=False).hexdigest()[:7], 16) + 1

    def put(self, wanted: Collection[str]) -> None:
        """Make exactly these addresses and ranges local, but for addresses that this machine has anyway."""
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        with IPRoute() as ip:
            loopback = ip.link_lookup(ifname=_LOOPBACK)[0]
            there = self._present(ip)
            for text in sorted(set(map(_network, wanted)) - there):
                self._change(ip, "replace", text, loopback)
            for text in sorted(there - set(map(_network, wanted))):
                try:
                    self._change(ip, "del", text, loopback)
                except NetlinkError as error:
                    if error.code != errno.ESRCH:
                        raise

    def present(self) -> set[str]:
        """Ours, also those of an earlier run."""
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            return self._present(ip)

    def _present(self, ip: Any) -> set[str]:
        return {
            f"{route.get_attr('RTA_DST')}/{route['dst_len']}"
            for route in ip.get_routes(family=self._family, table=_LOCAL_TABLE)
            if route.get_attr("RTA_PRIORITY") == self._metric and route["proto"] == _ROUTE_PROTOCOL
        }

    def _change(self, ip: Any, verb: str, text: str, loopback: int) -> None:
        ip.route(
            verb,
            dst=text,
            type="local",
            table=_LOCAL_TABLE,
            scope="host",
            oif=loopback,
            proto=_ROUTE_PROTOCOL,
            priority=self._metric,
            family=self._family,
        )


def _parts(service_cidr: str) -> frozenset[str]:
    """A range in quarters: the longest prefix wins, and the pod network has a route for the whole."""
    network = ip_network(service_cidr)
    return frozenset(str(each) for each in network.subnets(min(2, network.max_prefixlen - network.prefixlen)))


def _network(text: str) -> str:
    return str(ip_network(text))


class UserspaceProxier:
    """`Proxier` with sockets."""

    def __init__(
        self, config: ProxierConfig, budget: Budget | None = None, source: random.Random | None = None
    ) -> None:
        self.config = config
        self._routes = LocalRoutes(config)
        self._budget = budget or Budget()
        self._random = source or MACHINE.unpredictable()
        self._pods = ip_network(config.pod_cidr) if config.pod_cidr else None
        self._rules: dict[Key, dict[Frontend, Rule | None]] = {}
        self._pickers: dict[Frontend, Picker] = {}
        self._relays: dict[Frontend, TcpRelay | UdpRelay] = {}
        self._held: set[str] | None = None
        self._range = _parts(config.service_cidr) if config.service_cidr else frozenset()
        self._places = tuple(map(ip_network, config.node_port_addresses))
        self._sweeper: asyncio.TimerHandle | None = None

    async def sync(self, services: ServiceMap, endpoints: EndpointMap, changed: Collection[Key] | None = None) -> None:
        if changed is None:
            self._rules.clear()
            self._held = None
        for key in services if changed is None else changed:
            behind = endpoints.get(key) or {}
            rules: dict[Frontend, Rule | None] = {}
            for port in services.get(key) or ():
                rules.update(self._frontends(port, choose(behind.get(port.port_name) or ())))
            if rules:
                self._rules[key] = rules
            else:
                self._rules.pop(key, None)
        await self._apply()
        if self._sweeper is None:
            self._sweep()

    async def intact(self) -> bool:
        """Whether every frontend could be opened and the addresses are still there."""
        wanted = {frontend for frontend, rule in self._wanted().items() if rule is not None}
        there = await MACHINE.in_thread(self._routes.present)
        return wanted == set(self._relays) and set(map(_network, self._virtual())) <= there

    async def cleanup(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for relay in self._relays.values():
            relay.close()
        self._relays.clear()
        self._rules.clear()
        self._held = None
        await MACHINE.in_thread(self._routes.put, ())

    # What should be.

    def _frontends(self, port: ServicePort, choice: Choice) -> dict[Frontend, Rule | None]:
        """The port's frontends; without a rule nobody is served there."""
        protocol, affinity_s = port.protocol, port.affinity_s
        if protocol not in ("tcp", "udp"):
            log.warning("%s of service %s is not proxied in userspace", protocol, port.service)
            return {}
        inside = targets_of(choice.local if port.internal_local else choice.cluster)
        found: dict[Frontend, Rule | None] = {
            Frontend(address, protocol, port.port): Rule(inside, inside, affinity_s=affinity_s) if inside else None
            for address in port.cluster_ips
        }
        cluster = targets_of(choice.cluster)
        outside = targets_of(choice.local) if port.external_local else cluster
        ranges = tuple(map(ip_network, port.source_ranges))
        for address in port.outside_ips:
            barred = ranges if address in port.load_balancer_ips else ()
            rule = Rule(cluster, outside, self._pods, barred, affinity_s)
            found[Frontend(address, protocol, port.port)] = rule if cluster or outside else None
        if port.node_port:
            rule = Rule(
                cluster,
                outside,
                self._pods,
                affinity_s=affinity_s,
                places=self._places,
                on_loopback=self.config.localhost_node_ports,
            )
            found[Frontend("", protocol, port.node_port)] = rule if cluster or outside else None
        return found

    def _wanted(self) -> dict[Frontend, Rule | None]:
        """Of services that want the same frontend, the first by name has it."""
        result: dict[Frontend, Rule | None] = {}
        for key in sorted(self._rules):
            for frontend, rule in self._rules[key].items():
                result.setdefault(frontend, rule)
        return result

    def _virtual(self) -> set[str]:
        """What has to be local: each virtual address and, so that others are refused, all of the services' range."""
        addresses = {frontend.address for rules in self._rules.values() for frontend in rules if frontend.address}
        return addresses | self._range

    # Bringing it about.

    async def _apply(self) -> None:
        wanted = self._wanted()
        for frontend in list(self._relays):
            if wanted.get(frontend) is None:
                self._relays.pop(frontend).close()
                del self._pickers[frontend]
        virtual = self._virtual()
        if virtual != self._held:
            await MACHINE.in_thread(self._routes.put, virtual)
            self._held = virtual
        for frontend, rule in wanted.items():
            if rule is None:
                continue
            if frontend not in self._relays:
                self._open(frontend, rule)
            elif self._pickers[frontend].rule != rule:
                self._pickers[frontend].rule = rule
                self._relays[frontend].changed()

    def _open(self, frontend: Frontend, rule: Rule) -> None:
        loop = asyncio.get_running_loop()
        picker = Picker(rule, self._random, loop.time)
        kind = socket.SOCK_STREAM if frontend.protocol == "tcp" else socket.SOCK_DGRAM
        made = socket.socket(socket.AF_INET6 if self.config.family == 6 else socket.AF_INET, kind)
        try:
            made.setblocking(False)
            if self.config.family == 6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((frontend.address, frontend.port))
            if kind == socket.SOCK_STREAM:
                made.listen(_BACKLOG)
        except OSError as error:
            # Tried again when `intact` is asked.
            log.warning("cannot offer %s port %d at %s: %s", frontend.protocol, frontend.port, frontend.address, error)
            made.close()
            return
        relay = TcpRelay if kind == socket.SOCK_STREAM else UdpRelay
        self._pickers[frontend] = picker
        self._relays[frontend] = relay(made, picker, self._budget)

    def _sweep(self) -> None:
        for relay in self._relays.values():
            relay.sweep()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
