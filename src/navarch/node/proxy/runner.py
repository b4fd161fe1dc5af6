"""The proxy as it runs on a node: informers mark services as changed, one loop brings the rules in line with them.

The first change after a pause is written at once; those that come while it is written, or right after, go into the
next transaction together. Invariant: between a change in an informer and its rules lies at most one transaction that is
being written and `min_interval_s`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from navarch.api.meta import Key, Obj, key_of, labels_of
from navarch.client.base import Client
from navarch.client.following import Applier, run_with
from navarch.client.informer import Informer
from navarch.client.resources import ENDPOINT_SLICES, NODES, SERVICES
from navarch.client.supervision import Failures
from navarch.node.names import HostNames
from navarch.node.proxy import modes
from navarch.node.proxy.base import ProxierConfig
from navarch.node.proxy.configuration import ProxySettings, ranges_of
from navarch.node.proxy.family import Family
from navarch.node.proxy.health import Health, ServiceHealth, serve_json
from navarch.node.proxy.metrics import Metrics, serve_metrics
from navarch.node.proxy.services import HEADLESS, PROXY_NAME, service_of
from navarch.node.proxy.tuning import tune
from navarch.world import MACHINE, Clock, SystemClock

log = logging.getLogger(__name__)

_ZONE: Final = "topology.kubernetes.io/zone"
_SHORTEST_INTERVAL_S: Final = 0.02
_NODE_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """What a node's proxy is told. `pod_cidr` and `service_cidr` are those of the whole cluster, one of each IP family
    with a comma between; with `health_port` 0 no `/healthz` is served, unless the settings say so."""

    cluster_name: str
    node_name: str
    pod_cidr: str = "10.42.0.0/16"
    service_cidr: str = "10.43.0.0/16"
    health_port: int = 0
    health_address: str = "127.0.0.1"
    settings: ProxySettings = field(default_factory=ProxySettings)

    @property
    def names(self) -> HostNames:
        return HostNames(self.cluster_name, self.node_name)

    def proxiers(self, primary: Sequence[str] = ()) -> list[ProxierConfig]:
        """One for each IP family that services have; `primary` are the node's own addresses, where node ports are to be
        at these alone."""
        settings, found = self.settings, []
        at = [f"{address}/{128 if ':' in address else 32}" for address in primary] or settings.node_port_addresses
        for family in (4, 6):
            services = ranges_of(self.service_cidr.split(","), family)
            if not services:
                continue
            addresses = ranges_of(at, family)
            if at and not addresses:
                # None of this family's is among them.
                addresses = ("::/128",) if family == 6 else ("0.0.0.0/32",)
            pods = ranges_of((settings.pod_cidr or self.pod_cidr).split(","), family)
            found.append(
                ProxierConfig(
                    self.names.services_table,
                    pods[0] if pods else "",
                    services[0],
                    family,
                    addresses,
                    settings.localhost_node_ports,
                    settings.masquerade_all,
                    settings.masquerade_bit,
                    self.names.bridge,
                )
            )
        return found


class ServiceProxy:
    """Informers and maps of services and endpoints, and the loop that hands them to the proxier of each family."""

    def __init__(
        self, client: Client, config: ProxyConfig, families: Sequence[Family], clock: Clock | None = None
    ) -> None:
        self.config = config
        self.health = Health(clock or SystemClock())
        self.metrics = Metrics()
        self._families = families
        self._service_health = ServiceHealth(self.health)
        self._health_ports: dict[Key, tuple[int, int]] = {}
        self._dirty: set[Key] = set()
        self._everything = True
        self._failures = Failures()
        self._applier = Applier(
            "service rules",
            self._write,
            self._failures,
            calm_s=max(config.settings.min_interval_s, _SHORTEST_INTERVAL_S),
            check=self._look,
            check_every_s=config.settings.verify_s,
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
        moved = [family.move(zone) for family in self._families]
        if any(moved):
            self._everything = True
            self._applier.changed()

    # The loop.

    async def _look(self) -> None:
        """Now and then: is what was written still there?"""
        for family in self._families:
            if not await family.proxier.intact():
                log.warning("service rules (IPv%d) are not what was written, writing them anew", family.number)
                self._everything = True
                self._applier.changed()

    async def _write(self) -> None:
        began_s = MACHINE.monotonic()
        try:
            await self._sync()
        except BaseException:
            # What of it is in the kernel now is not known.
            self._everything = True
            raise
        self.metrics.synced(MACHINE.monotonic() - began_s)

    async def _sync(self) -> None:
        everything, self._everything = self._everything, False
        changed, self._dirty = self._dirty, set()
        if everything:
            for family in self._families:
                family.clear()
            changed |= {key_of(obj) for obj in self._service_informer.list()}
            self._health_ports.clear()
        elif not changed:
            return
        ordered = sorted(changed)
        before = [family.udp_frontends(ordered) for family in self._families]
        for key in ordered:
            service = self._service_informer.get(*key)
            slices = self._slice_informer.by_index("service", str(key)) if service is not None else ()
            for family in self._families:
                family.refresh(key, service, slices)
        for family in self._families:
            await family.write(None if everything else changed)
        self.health.updated()
        self._written.set()
        for family, frontends in zip(self._families, before, strict=True):
            await family.forget_flows(frontends, ordered)
        await self._sync_service_health(ordered)

    async def _sync_service_health(self, keys: Iterable[Key]) -> None:
        for key in keys:
            port, ready = max(family.health_check(key) for family in self._families)
            if port:
                self._health_ports[key] = port, ready
            else:
                self._health_ports.pop(key, None)
        ports = {port: key for key, (port, _) in self._health_ports.items()}
        await self._service_health.sync(ports, {key: ready for key, (_, ready) in self._health_ports.items()})


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
    settings = config.settings
    for warning in settings.warnings:
        log.warning("proxy configuration: %s", warning)
    mode = await modes.choose_mode(settings.mode)
    log.info("services are proxied with %s", mode)
    tune(settings.conntrack)
    primary = await _node_addresses(client, config.node_name) if settings.primary_only else ()
    families = [Family(each.family, modes.make(mode, each), config.node_name) for each in config.proxiers(primary)]
    if settings.health_port:
        config = replace(config, health_port=settings.health_port, health_address=settings.health_address)
    proxy = ServiceProxy(client, config, families)
    server = None
    try:
        if settings.metrics_port:
            server = await serve_metrics(settings.metrics_address, settings.metrics_port, proxy.metrics, mode)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(proxy.run(), name="service proxy")
            # Not before, so that there is no moment without any rules.
            await proxy.written()
            await modes.clean_others(mode, config.names)
    finally:
        if server is not None:
            server.close()


async def _node_addresses(client: Client, name: str) -> list[str]:
    """The addresses by which the cluster knows the node, once it has some."""
    while True:
        node = await client.find(NODES, name, "")
        addresses = ((node or {}).get("status") or {}).get("addresses") or ()
        if found := [each["address"] for each in addresses if each.get("type") == "InternalIP"]:
            return found
        await asyncio.sleep(_NODE_LOOK_S)


async def cleanup(names: HostNames) -> None:
    """Remove the rules of a node, of every mode and both IP families."""
    await modes.clean_all(names)
