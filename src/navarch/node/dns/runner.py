"""The cluster's DNS as it runs on a node: informers feed the records, the server answers, the API says where it is."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from dataclasses import dataclass
from pathlib import Path

from navarch.api.meta import Key, Obj, key_of
from navarch.client.base import Client
from navarch.client.informer import Informer
from navarch.client.resources import CONFIG_MAPS, ENDPOINT_SLICES, SERVICES
from navarch.client.supervision import Failures, supervised
from navarch.node.dns import corefile
from navarch.node.dns.publish import NAMESPACE, Published, keep_published
from navarch.node.dns.records import (
    ADDRESS_INDEX,
    SERVICE_INDEX,
    ClusterRecords,
    services_by_address,
    slices_by_address,
    slices_by_service,
)
from navarch.node.dns.server import DnsServer
from navarch.node.dns.sockets import Keeper, bind
from navarch.node.dns.upstream import Upstream, UpstreamConfig

log = logging.getLogger(__name__)

_SETTINGS = "coredns"


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """`address` is where the server listens: one that all pods of the node reach and no other cluster has (the node's
    address on its pod bridge). With port 0 any free one is taken. `keep` is where to note the sockets, which then wait
    for the next process should this one die."""

    node_name: str
    address: str
    port: int = 10053
    metrics_port: int = 9153
    cluster_ip: str = "10.43.0.10"
    domain: str = "cluster.local"
    pod_cidr: str = "10.42.0.0/16"
    service_cidr: str = "10.43.0.0/16"
    resolv_conf: Path = Path("/etc/resolv.conf")
    publish: bool = True
    keep: Path | None = None


class ClusterDns:
    """The server with its informers."""

    def __init__(self, client: Client, config: DnsConfig) -> None:
        self.config = config
        self._client = client
        self._services = Informer(client, SERVICES, indexers={ADDRESS_INDEX: services_by_address}, transform=_slim)
        self._slices = Informer(
            client,
            ENDPOINT_SLICES,
            indexers={SERVICE_INDEX: slices_by_service, ADDRESS_INDEX: slices_by_address},
            transform=_slim,
        )
        self._settings = Informer(client, CONFIG_MAPS, namespace=NAMESPACE, fields=f"metadata.name={_SETTINGS}")
        records = ClusterRecords(
            self._services,
            self._slices,
            domain=config.domain,
            dns_ip=config.cluster_ip,
            ranges=[text for text in f"{config.pod_cidr},{config.service_cidr}".split(",") if text],
        )
        own = frozenset({config.address, config.cluster_ip})
        self.server = DnsServer(records, Upstream(UpstreamConfig(config.resolv_conf, own=own)))
        self._keeper = Keeper(config.keep) if config.keep is not None else None
        self.port = 0
        self._failures = Failures()
        self._started = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled; nothing is answered before the first lists are there."""
        changed = self.server.changed
        self._services.add_handler(
            lambda obj: changed(key_of(obj)), lambda _, obj: changed(key_of(obj)), lambda obj: changed(key_of(obj))
        )
        self._slices.add_handler(self._slice_changed, self._slice_replaced, self._slice_changed)
        self._settings.add_handler(self._forward, lambda _, obj: self._forward(obj), lambda _: self._forward({}))
        metrics: asyncio.Server | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                for informer in (self._services, self._slices, self._settings):
                    tasks.create_task(supervised("cluster DNS", informer.run, self._failures))
                await asyncio.gather(self._services.synced(), self._slices.synced())
                self.port = await self._bind()
                metrics, metrics_port = await self._serve_metrics()
                self._started.set()
                log.info("cluster DNS listens on %s:%d", self.config.address, self.port)
                if self.config.publish:
                    where = Published(
                        self.config.node_name, self.config.cluster_ip, self.config.address, self.port, metrics_port
                    )
                    tasks.create_task(keep_published(self._client, where, self._failures))
        finally:
            if metrics is not None:
                metrics.close()
            await self.server.stop()
            if self._keeper is not None:
                self._keeper.release()

    def _slice_changed(self, obj: Obj) -> None:
        for name in slices_by_service(obj):
            self.server.changed(Key(*name.split("/", 1)))

    def _slice_replaced(self, old: Obj, new: Obj) -> None:
        self._slice_changed(old)
        self._slice_changed(new)

    def _forward(self, settings: Obj) -> None:
        """Take up a Corefile; one that cannot be read changes nothing."""
        try:
            forwarding = corefile.parse(str((settings.get("data") or {}).get(corefile.CORE_FILE) or ""))
        except ValueError as error:
            log.warning("ConfigMap %s/%s is not followed: %s", NAMESPACE, _SETTINGS, error)
            return
        for word in forwarding.unread:
            log.warning("ConfigMap %s/%s: forward: not an address of a DNS server: %s", NAMESPACE, _SETTINGS, word)
        self.server.forward(forwarding)

    async def started(self) -> None:
        await self._started.wait()

    async def _bind(self) -> int:
        """The predecessor's sockets, or the configured port, or where somebody has it any free one: pods come by the
        service's address anyway."""
        pair = self._keeper.take_over(self.config.address) if self._keeper is not None else None
        while pair is None:
            for port in (self.config.port, 0):
                try:
                    pair = bind(self.config.address, port)
                    break
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        # The address is not there yet: the pod network is still being made.
                        log.debug("cannot listen on %s: %s", self.config.address, error)
                        break
            if pair is None:
                await asyncio.sleep(0.2)
        if self._keeper is not None:
            self._keeper.keep(pair)
        return await self.server.serve(pair)

    async def _serve_metrics(self) -> tuple[asyncio.Server, int]:
        for port in (self.config.metrics_port, 0):
            with contextlib.suppress(OSError):
                server = await asyncio.start_server(self._metrics, self.config.address, port)
                return server, int(server.sockets[0].getsockname()[1])
        raise OSError(errno.EADDRINUSE, f"no port for metrics on {self.config.address}")

    async def _metrics(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(5):
                while (await reader.readline()).strip():
                    pass
                counts = self.server.statistics
                lines = [
                    "# TYPE coredns_dns_requests_total counter",
                    f"coredns_dns_requests_total {counts.requests}",
                    "# TYPE coredns_cache_hits_total counter",
                    f"coredns_cache_hits_total {counts.cached}",
                    "# TYPE coredns_forward_requests_total counter",
                    f"coredns_forward_requests_total {counts.forwarded}",
                    "# TYPE navarch_dns_forward_failures_total counter",
                    f"navarch_dns_forward_failures_total {counts.failed}",
                ]
                body = "\n".join(lines).encode() + b"\n"
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
                writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
                await writer.drain()
        writer.close()


def _slim(obj: Obj) -> Obj:
    """Without what names do not depend on: thousands of these are kept."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in ("managedFields", "annotations")}
    return {**obj, "metadata": metadata}


async def run(client: Client, config: DnsConfig) -> None:
    """Serve the cluster's DNS on this node until cancelled."""
    await ClusterDns(client, config).run()
