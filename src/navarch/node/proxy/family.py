"""One IP family's share of what a node proxies: maps of services and endpoints, and the proxier that is given them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from navarch.api.meta import Key, Obj
from navarch.node.proxy.base import Endpoint, PortName, Proxier, ServicePort
from navarch.node.proxy.conntrack import Frontends, forget_stale, pack_address
from navarch.node.proxy.services import Place, choose, endpoints_of, service_ports
from navarch.world import MACHINE

_UDP: Final = 17


class Family:
    """`number` is 4 or 6."""

    def __init__(self, number: int, proxier: Proxier, node_name: str) -> None:
        self.number = number
        self.proxier = proxier
        self._place = Place(node_name, family=number)
        self._services: dict[Key, tuple[ServicePort, ...]] = {}
        self._endpoints: dict[Key, dict[PortName, tuple[Endpoint, ...]]] = {}

    def move(self, zone: str) -> bool:
        """The node's zone; whether it is another one than before."""
        if zone == self._place.zone:
            return False
        self._place = Place(self._place.node_name, zone, self.number)
        return True

    def clear(self) -> None:
        self._services.clear()
        self._endpoints.clear()

    def refresh(self, key: Key, service: Obj | None, slices: Iterable[Obj]) -> None:
        ports = service_ports(service, self.number) if service is not None else ()
        if not ports:
            self._services.pop(key, None)
            self._endpoints.pop(key, None)
            return
        self._services[key] = ports
        self._endpoints[key] = endpoints_of(slices, self._place)

    async def write(self, changed: Collection[Key] | None) -> None:
        await self.proxier.sync(self._services, self._endpoints, changed)

    def health_check(self, key: Key) -> tuple[int, int]:
        """A service's port for health checks (0: none), and how many of its endpoints are ready on this node."""
        port = next((each.health_check_node_port for each in self._services.get(key, ())), 0)
        if not port:
            return 0, 0
        ready = {
            endpoint.address
            for endpoints in self._endpoints[key].values()
            for endpoint in endpoints
            if endpoint.local and endpoint.ready
        }
        return port, len(ready)

    # Flows that the kernel remembers.

    def udp_frontends(self, keys: Iterable[Key]) -> Frontends:
        """Where services are offered by UDP, and which endpoints are right there."""
        result = Frontends()
        for key in keys:
            for port in self._services.get(key, ()):
                if port.protocol != "udp":
                    continue
                choice = choose(self._endpoints[key].get(port.port_name, ()))
                right = {(pack_address(each.address), each.port) for each in (*choice.cluster, *choice.local)}
                for address in (*port.cluster_ips, *port.outside_ips):
                    result.by_address[pack_address(address), port.port] = right
                if port.node_port:
                    result.by_node_port[port.node_port] = right
        return result

    async def forget_flows(self, before: Frontends, keys: Iterable[Key]) -> None:
        """Forget flows that lead elsewhere than the services of `keys` do now. A frontend that was there `before` and
        is no more has no right endpoints, whatever its old flows say. One that has lost nothing has no stale flows."""
        now = self.udp_frontends(keys)
        addresses = {peer: now.by_address.get(peer, set()) for peer in {**before.by_address, **now.by_address}}
        ports = {port: now.by_node_port.get(port, set()) for port in {**before.by_node_port, **now.by_node_port}}
        stale = Frontends(
            {peer: right for peer, right in addresses.items() if _lost(before.by_address.get(peer), right)},
            {port: right for port, right in ports.items() if _lost(before.by_node_port.get(port), right)},
        )
        if stale.by_address or stale.by_node_port:
            await MACHINE.in_thread(forget_stale, {_UDP: stale}, self.number)


def _lost(before: set[tuple[bytes, int]] | None, now: set[tuple[bytes, int]]) -> bool:
    # A client that was there before the first endpoint has a flow that leads to no endpoint at all.
    return not before or not before <= now
