"""The proxy as it runs on a node: informers mark services as changed, one loop brings the rules in line with them.

The first change after a pause is written at once; those that come while it is written, or right after, go into the
next script together. Invariant: between a change in an informer and its rules lies at most one script that is being
written and `min_interval_s`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from navarch.api.meta import Key, Obj, key_of, labels_of
from navarch.client.base import Client
from navarch.client.following import Applier, run_with
from navarch.client.informer import Informer
from navarch.client.resources import ENDPOINT_SLICES, NODES, SERVICES
from navarch.client.supervision import Failures
from navarch.node.names import HostNames
from navarch.node.proxy.base import Endpoint, PortName, Proxier, ProxierConfig, ServicePort
from navarch.node.proxy.conntrack import Frontends, forget_stale, pack_address
from navarch.node.proxy.health import Health, ServiceHealth, serve_json
from navarch.node.proxy.nftables import NftablesProxier
from navarch.node.proxy.services import HEADLESS, PROXY_NAME, Place, choose, endpoints_of, service_of, service_ports
from navarch.world import Clock, SystemClock

log = logging.getLogger(__name__)

_ZONE: Final = "topology.kubernetes.io/zone"
_UDP: Final = 17
_VERIFY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """What a node's proxy is told. `pod_cidr` and `service_cidr` are those of the whole cluster; with `health_port` 0
    no `/healthz` is served."""

    cluster_name: str
    node_name: str
    pod_cidr: str = "10.42.0.0/16"
    service_cidr: str = "10.43.0.0/16"
    family: int = 4
    health_port: int = 0
    health_address: str = "127.0.0.1"
    min_interval_s: float = 0.02

    @property
    def table(self) -> ProxierConfig:
        names = HostNames(self.cluster_name, self.node_name)
        return ProxierConfig(names.services_table, self.pod_cidr, self.service_cidr, self.family)


class ServiceProxy:
    """Maps of services and endpoints kept by informers, and the loop that hands them to a `Proxier`."""

    def __init__(
        self, client: Client, config: ProxyConfig, proxier: Proxier | None = None, clock: Clock | None = None
    ) -> None:
        self.config = config
        self.proxier = proxier or NftablesProxier(config.table)
        self.health = Health(clock or SystemClock())
        self._place = Place(config.node_name, family=config.family)
        self._service_health = ServiceHealth(self.health)
        self._services: dict[Key, tuple[ServicePort, ...]] = {}
        self._endpoints: dict[Key, dict[PortName, tuple[Endpoint, ...]]] = {}
        self._dirty: set[Key] = set()
        self._everything = True
        self._failures = Failures()
        self._applier = Applier(
            "service rules",
            self._write,
            self._failures,
            calm_s=config.min_interval_s,
            check=self._look,
            check_every_s=_VERIFY_S,
        )
        self._written = asyncio.Event()
        self._service_informer = Informer(client, SERVICES, labels=f"!{PROXY_NAME}", transform=_slim)
        self._slice_informer = Informer(
            client,
            ENDPOINT_SLICES,
            labels=f"!{HEADLESS},!{PROXY_NAME}",
            indexers={"service": _service_index},
            transform=_slim,
        )
        self._node_informer = Informer(client, NODES, fields=f"metadata.name={config.node_name}", transform=_slim_node)

    async def run(self) -> None:
        """Proxy until cancelled; the rules stay, so that services go on working while the proxy is away."""
        self._service_informer.add_handler(
            lambda obj: self._mark(key_of(obj)),
            lambda _, obj: self._mark(key_of(obj)),
            lambda obj: self._mark(key_of(obj)),
        )
        self._slice_informer.add_handler(self._slice_changed, self._slice_replaced, self._slice_changed)
        self._node_informer.add_handler(self._node_changed, lambda _, obj: self._node_changed(obj), None)
        server = None
        try:
            if self.config.health_port:
                server = await serve_json(self.config.health_port, self.config.health_address, self.health.answer)
            informers = (self._service_informer, self._slice_informer, self._node_informer)
            await run_with(informers, self._applier, self._failures)
        finally:
            self._service_health.close()
            if server is not None:
                server.close()

    async def written(self) -> None:
        """Wait until the rules have been written for the first time."""
        await self._written.wait()

    # Changes.

    def _mark(self, key: Key) -> None:
        self._dirty.add(key)
        self.health.queued()
        self._applier.changed()

    def _slice_changed(self, obj: Obj) -> None:
        key = service_of(obj)
        if key is not None:
            self._mark(key)

    def _slice_replaced(self, old: Obj, new: Obj) -> None:
        self._slice_changed(new)
        if service_of(old) != service_of(new):
            self._slice_changed(old)

    def _node_changed(self, node: Obj) -> None:
        zone = labels_of(node).get(_ZONE, "")
        if zone != self._place.zone:
            self._place = Place(self.config.node_name, zone, self.config.family)
            self._everything = True
            self._applier.changed()

    # The loop.

    async def _look(self) -> None:
        """Now and then: is the table still there?"""
        if isinstance(self.proxier, NftablesProxier) and not await self.proxier.intact():
            log.warning("the table %s is gone, writing it anew", self.proxier.table.name)
            self._everything = True
            self._applier.changed()

    async def _write(self) -> None:
        try:
            await self._sync()
        except BaseException:
            # What of it is in the kernel now is not known.
            self._everything = True
            raise

    async def _sync(self) -> None:
        everything, self._everything = self._everything, False
        changed, self._dirty = self._dirty, set()
        if everything:
            self._services.clear()
            self._endpoints.clear()
            changed = {key_of(obj) for obj in self._service_informer.list()}
        elif not changed:
            return
        # A frontend that goes away has no right endpoints from now on, whatever its old flows say.
        stale = self._udp_frontends(changed)
        stale.by_address = {peer: set() for peer in stale.by_address}
        for key in sorted(changed):
            self._refresh(key)
        await self.proxier.sync(self._services, self._endpoints, None if everything else changed)
        self.health.updated()
        self._written.set()
        now = self._udp_frontends(changed)
        udp = Frontends({**stale.by_address, **now.by_address}, now.by_node_port)
        if udp.by_address:
            await asyncio.to_thread(forget_stale, {_UDP: udp}, self.config.family)
        await self._sync_service_health()

    def _refresh(self, key: Key) -> None:
        service = self._service_informer.get(*key)
        ports = service_ports(service, self.config.family) if service is not None else ()
        if not ports:
            self._services.pop(key, None)
            self._endpoints.pop(key, None)
            return
        self._services[key] = ports
        self._endpoints[key] = endpoints_of(self._slice_informer.by_index("service", str(key)), self._place)

    def _udp_frontends(self, keys: Iterable[Key]) -> Frontends:
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

    async def _sync_service_health(self) -> None:
        ports = {each[0].health_check_node_port: key for key, each in self._services.items()}
        ports.pop(0, None)
        local: dict[Key, int] = {}
        for key in ports.values():
            ready = {
                endpoint.address
                for endpoints in self._endpoints[key].values()
                for endpoint in endpoints
                if endpoint.local and endpoint.ready
            }
            local[key] = len(ready)
        await self._service_health.sync(ports, local)


def _service_index(obj: Obj) -> Iterable[str]:
    key = service_of(obj)
    return (str(key),) if key is not None else ()


def _slim(obj: Obj) -> Obj:
    """Without what the proxy never reads: thousands of these are kept."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in ("managedFields", "annotations")}
    return {**obj, "metadata": metadata}


def _slim_node(obj: Obj) -> Obj:
    return {"metadata": {name: obj["metadata"].get(name) for name in ("name", "resourceVersion", "labels")}}


async def run(client: Client, config: ProxyConfig) -> None:
    """Proxy services on this node until cancelled."""
    await ServiceProxy(client, config).run()


async def cleanup(names: HostNames) -> None:
    """Remove the rules of a node, of both IP families."""
    for family in (4, 6):
        await NftablesProxier(ProxierConfig(names.services_table, family=family)).cleanup()
