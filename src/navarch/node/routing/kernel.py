"""Routes, tunnels and neighbours in the kernel, read and written over netlink. Blocking: call it in a thread.

What is ours there is known by the routing protocol number, the names of the devices and the number of the pods' table,
so that what an earlier run has left is found and taken over or away. Several nodes and clusters live in one kernel:
routes in the main table are looked at only within the cluster's ranges.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

from navarch.node.names import HostNames
from navarch.node.routing.plan import (
    OVERHEAD,
    PORT,
    Hop,
    Plan,
    Route,
    TunnelEnd,
    family_of,
    hardware_of,
    network_number,
)

log = logging.getLogger(__name__)

# Marks the routes that are ours (/etc/iproute2/rt_protos has nothing at this number).
PROTOCOL: Final = 78
MAIN_TABLE: Final = 254
# Before the main table (32766), after the local one.
_PRIORITY: Final = 30078
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_ONLINK: Final = 4
_LOCAL: Final = 2
# Of the device's own table, not a bridge's above it (NTF_SELF); NUD_PERMANENT and NUD_NOARP.
_SELF: Final = 2
_LASTING: Final = 0xC0
_GONE: Final = (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One node's part of the kernel. `mtu` is that of the link between nodes."""

    names: HostNames
    cluster: tuple[str, ...]
    mtu: int = 1500

    def hops(self, addresses: Iterable[str]) -> dict[str, Hop]:
        """How each address is reached; one that is not, by no link."""
        with _netlink() as ip:
            links = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in ip.get_links()}
            return {address: self._hop(ip, links, address) for address in addresses}

    def _hop(self, ip: Any, links: Mapping[int, str], address: str) -> Hop:
        try:
            route = next(iter(ip.route("get", dst=address, family=_FAMILIES[family_of(address)])))
        except Exception as error:
            log.debug("no route to %s: %s", address, error)
            return Hop()
        if route["type"] == _LOCAL:
            return Hop(here=True)
        link = links.get(route.get_attr("RTA_OIF") or 0, "")
        if link in self.own_links:
            return Hop()
        return Hop(link, route.get_attr("RTA_GATEWAY") or "")

    @property
    def own_links(self) -> tuple[str, ...]:
        return (self.names.bridge, *(self.names.tunnel(family) for family in (4, 6)))

    # Writing.

    def write(self, new: Plan, old: Plan | None, own_name: str) -> None:
        """Bring the kernel from `old` (None: whatever there is) to `new`."""
        with _netlink() as ip:
            if old is None:
                old = self._present(ip)
            if dict(old.tunnels) != dict(new.tunnels) or not self._intact(ip, new, own_name):
                self._make_tunnels(ip, new, own_name)
                # What led through a device went with it.
                old = self._present(ip)
            indexes = {family: _index(ip, self.names.tunnel(family)) for family in new.tunnels}
            self._write_ends(ip, indexes, old.ends, new.ends)
            self._write_routes(ip, indexes, old.routes, new.routes)
            self._write_rules(ip, old.pods, new.pods)

    def remove(self) -> None:
        """Nothing of ours is left."""
        with _netlink() as ip:
            present = self._present(ip)
            self._write_rules(ip, present.pods, frozenset())
            self._write_routes(ip, {}, present.routes, frozenset())
            for family in (4, 6):
                _delete_link(ip, self.names.tunnel(family))

    def _make_tunnels(self, ip: Any, plan: Plan, own_name: str) -> None:
        for family in (4, 6):
            name = self.names.tunnel(family)
            if family not in plan.tunnels:
                _delete_link(ip, name)
                continue
            if self._is_as_told(ip, name, family, plan.tunnels[family], own_name):
                continue
            _delete_link(ip, name)
            local = plan.tunnels[family] or ("::" if family == 6 else "")
            told: dict[str, Any] = {"vxlan_local6" if family == 6 else "vxlan_local": local} if local else {}
            ip.link(
                "add",
                ifname=name,
                kind="vxlan",
                vxlan_id=network_number(self.cluster),
                vxlan_port=PORT,
                vxlan_learning=0,
                address=hardware_of(own_name),
                mtu=self.mtu - OVERHEAD[family],
                **told,
            )
            # Answers may leave by another way than the question came.
            _sysctl(f"net/ipv4/conf/{name}/rp_filter", "2")
            _sysctl(f"net/ipv6/conf/{name}/addr_gen_mode", "1")
            # Node ports on localhost leave by it until they are masqueraded with a loopback source.
            _sysctl(f"net/ipv4/conf/{name}/route_localnet", "1")
            ip.link("set", index=_index(ip, name), state="up")

    def _intact(self, ip: Any, plan: Plan, own_name: str) -> bool:
        return all(
            self._is_as_told(ip, self.names.tunnel(family), family, local, own_name)
            for family, local in plan.tunnels.items()
        )

    def _is_as_told(self, ip: Any, name: str, family: int, local: str, own_name: str) -> bool:
        for index in ip.link_lookup(ifname=name):
            link = ip.get_links(index)[0]
            told = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
            at = told.get_attr("IFLA_VXLAN_LOCAL6" if family == 6 else "IFLA_VXLAN_LOCAL") if told else None
            return bool(
                told
                and link["state"] == "up"
                and told.get_attr("IFLA_VXLAN_ID") == network_number(self.cluster)
                and told.get_attr("IFLA_VXLAN_PORT") == PORT
                and not told.get_attr("IFLA_VXLAN_LEARNING")
                and ("" if at in (None, "::", "0.0.0.0") else at) == local
                and link.get_attr("IFLA_ADDRESS") == hardware_of(own_name)
                and link.get_attr("IFLA_MTU") == self.mtu - OVERHEAD[family]
            )
        return False

    def _write_ends(
        self, ip: Any, indexes: Mapping[int, int], old: Collection[TunnelEnd], new: Collection[TunnelEnd]
    ) -> None:
        kept = {(end.tunnel, gateway) for end in new for gateway in end.gateways}
        known = {(end.tunnel, end.hardware) for end in new}
        for end in sorted(set(new) - set(old)):
            index = indexes[end.tunnel]
            ip.fdb("replace", ifindex=index, lladdr=end.hardware, dst=end.remote, flags=_SELF, state=_LASTING)
            for gateway in end.gateways:
                ip.neigh(
                    "replace",
                    family=_FAMILIES[family_of(gateway)],
                    dst=gateway,
                    lladdr=end.hardware,
                    ifindex=index,
                    state="permanent",
                )
        for end in sorted(set(old) - set(new)):
            if (index := indexes.get(end.tunnel, 0)) == 0:
                continue
            if end.hardware and (end.tunnel, end.hardware) not in known:
                with but_for(*_GONE):
                    ip.fdb("del", ifindex=index, lladdr=end.hardware, dst=end.remote)
            for gateway in end.gateways:
                if (end.tunnel, gateway) not in kept:
                    with but_for(*_GONE):
                        ip.neigh("del", family=_FAMILIES[family_of(gateway)], dst=gateway, ifindex=index)

    def _write_routes(
        self, ip: Any, indexes: Mapping[int, int], old: Collection[Route], new: Collection[Route]
    ) -> None:
        kept = {(route.destination, route.for_pods) for route in new}
        for route in sorted(set(old) - set(new)):
            # A route over IPv6 is added beside another one that leads elsewhere, so the old one goes first.
            if (route.destination, route.for_pods) not in kept or family_of(route.destination) == 6:
                with but_for(*_GONE):
                    ip.route("del", **self._told(route))
        # Those by which other gateways are reached come first: the longest.
        for route in sorted(set(new) - set(old), key=lambda each: (-ip_network(each.destination).prefixlen, each)):
            more: dict[str, Any] = {"gateway": route.gateway}
            if route.tunnel:
                more |= {"oif": indexes[route.tunnel], "flags": _ONLINK, "prefsrc": route.source}
            ip.route("replace", **self._told(route), **more)

    def _told(self, route: Route) -> dict[str, Any]:
        return {
            "family": _FAMILIES[family_of(route.destination)],
            "dst": route.destination,
            "proto": PROTOCOL,
            "table": self.names.route_table if route.for_pods else MAIN_TABLE,
        }

    def _write_rules(self, ip: Any, old: Collection[str], new: Collection[str]) -> None:
        for verb, ranges in (("add", set(new) - set(old)), ("del", set(old) - set(new))):
            for each in sorted(ranges):
                source, length = each.split("/")
                with but_for(errno.EEXIST, *_GONE):
                    ip.rule(
                        verb,
                        family=_FAMILIES[family_of(each)],
                        table=self.names.route_table,
                        priority=_PRIORITY,
                        src=source,
                        src_len=int(length),
                    )

    # Reading.

    def _present(self, ip: Any) -> Plan:
        """What of ours there is."""
        by_index = {_index(ip, self.names.tunnel(family)): family for family in (4, 6)}
        by_index.pop(0, None)
        routes = frozenset(route for family in (4, 6) for route in self._present_routes(ip, family, by_index))
        ends = frozenset(end for index, family in by_index.items() for end in _present_ends(ip, index, family))
        pods = frozenset(
            f"{rule.get_attr('FRA_SRC')}/{rule['src_len']}"
            for family in _FAMILIES.values()
            for rule in ip.get_rules(family=family)
            if rule.get_attr("FRA_TABLE") == self.names.route_table
        )
        return Plan(routes, ends, dict.fromkeys(by_index.values(), ""), pods=pods)

    def _present_routes(self, ip: Any, family: int, by_index: Mapping[int, int]) -> Iterator[Route]:
        pods = [ip_network(each) for each in self.cluster]
        for table in (MAIN_TABLE, self.names.route_table):
            for route in ip.get_routes(family=_FAMILIES[family], table=table, proto=PROTOCOL):
                destination, gateway = route.get_attr("RTA_DST"), route.get_attr("RTA_GATEWAY")
                mine = table != MAIN_TABLE or (destination and any(ip_address(destination) in each for each in pods))
                if destination and gateway and mine:
                    tunnel = by_index.get(route.get_attr("RTA_OIF"), 0)
                    yield Route(
                        f"{destination}/{route['dst_len']}",
                        gateway,
                        tunnel,
                        (route.get_attr("RTA_PREFSRC") or "") if tunnel else "",
                        for_pods=table != MAIN_TABLE,
                    )


def _present_ends(ip: Any, index: int, family: int) -> list[TunnelEnd]:
    gateways: dict[str, list[str]] = {}
    for inner in _FAMILIES.values():
        for neighbour in ip.get_neighbours(family=inner, ifindex=index):
            hardware = neighbour.get_attr("NDA_LLADDR") or ""
            gateways.setdefault(hardware, []).append(neighbour.get_attr("NDA_DST"))
    remotes: dict[str, str] = {}
    for entry in ip.fdb("dump", ifindex=index):
        if entry["ifindex"] == index and entry.get_attr("NDA_DST"):
            remotes[entry.get_attr("NDA_LLADDR")] = entry.get_attr("NDA_DST")
    return [
        TunnelEnd(family, hardware, remotes.get(hardware, ""), tuple(sorted(gateways.get(hardware, ()))))
        for hardware in {**remotes, **gateways}
    ]


def _index(ip: Any, name: str) -> int:
    return next(iter(ip.link_lookup(ifname=name)), 0)


def _delete_link(ip: Any, name: str) -> None:
    if index := _index(ip, name):
        with but_for(*_GONE):
            ip.link("del", index=index)


def _sysctl(path: str, value: str) -> None:
    with contextlib.suppress(OSError):
        Path("/proc/sys", path).write_text(value)


@contextlib.contextmanager
def _netlink() -> Iterator[Any]:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        yield ip


@contextlib.contextmanager
def but_for(*codes: int) -> Iterator[None]:
    """Let some netlink errors pass: the state that they report is the one wanted."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code not in codes:
            raise
