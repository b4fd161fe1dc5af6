"""The network side of a node agent, put together: pod network, service proxy and cluster DNS, each kept running.

The proxy starts at once; the pod network is made when the node has been given its pod range, and cluster DNS listens on
the address that the node has in it. Whatever fails is tried again; rules, devices and routes stay when the agent stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from navarch.client.base import Client
from navarch.node import dns, host_ports, proxy
from navarch.node.cni import gateway_of
from navarch.node.names import HostNames
from navarch.node.network import PodNetwork
from navarch.node.proxy.nftables import NftError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetworkingConfig:
    """The cluster's ranges and names, and where this node keeps its network's state (`state_dir`, which must be the
    directory whose `cni` the runtime reads)."""

    cluster: str
    node_name: str
    state_dir: Path
    pod_cidr: str = "10.42.0.0/16"
    service_cidr: str = "10.43.0.0/16"
    cluster_dns: str = "10.43.0.10"
    cluster_domain: str = "cluster.local"
    resolv_conf: Path = Path("/etc/resolv.conf")
    proxy_health_port: int = 0
    address: str = ""

    @property
    def names(self) -> HostNames:
        return HostNames(self.cluster, self.node_name)


class NodeNetworking:
    """`client` acts as the node; the proxy, which sees all Nodes, and the DNS have identities of their own. `on_ready`
    is called when pods can be wired."""

    def __init__(self, config: NetworkingConfig, client: Client, proxy_client: Client, dns_client: Client) -> None:
        self.config = config
        self.network = PodNetwork(config.names, config.state_dir, address=config.address)
        self._client = client
        self._proxy_client = proxy_client
        self._dns_client = dns_client
        self.on_ready: Callable[[], None] = lambda: None
        self._pod_cidr = ""
        self._known = asyncio.Event()

    def pod_cidr_known(self, pod_cidr: str) -> None:
        """The node has been given its pod range."""
        self._pod_cidr = pod_cidr
        self._known.set()

    async def run(self) -> None:
        """Run all parts until cancelled."""
        config = self.config
        proxying = proxy.ProxyConfig(
            cluster_name=config.cluster,
            node_name=config.node_name,
            pod_cidr=config.pod_cidr,
            service_cidr=config.service_cidr,
            health_port=config.proxy_health_port,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(proxy.run(self._proxy_client, proxying), name="proxy")
            await self._known.wait()
            await self._set_up()
            self.on_ready()
            # Not as the node, which may see no Node but its own.
            tasks.create_task(
                self.network.run(self._proxy_client, config.node_name, config.pod_cidr), name="routes to other nodes"
            )
            tasks.create_task(host_ports.run(self._client, config.node_name, self.network.table), name="host ports")
            answering = dns.DnsConfig(
                node_name=config.node_name,
                address=gateway_of(self._pod_cidr),
                cluster_ip=config.cluster_dns,
                domain=config.cluster_domain,
                pod_cidr=config.pod_cidr,
                service_cidr=config.service_cidr,
                resolv_conf=config.resolv_conf,
                keep=config.state_dir / "dns-sockets.json",
            )
            tasks.create_task(dns.run(self._dns_client, answering), name="dns")

    async def _set_up(self) -> None:
        retry_s = 0.5
        while True:
            try:
                await self.network.setup(self._pod_cidr, self.config.pod_cidr, self.config.service_cidr)
                return
            except (OSError, NftError) as error:
                log.error("the pod network could not be made: %s", error)
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, 30.0)


def cleanup(names: HostNames, state_dir: Path, pod_cidr: str = "") -> None:
    """Remove every trace of a node's network from this machine; its processes and pods must be gone. Idempotent."""
    asyncio.run(_remove_rules(names))
    PodNetwork(names, state_dir).cleanup(pod_cidr)


async def _remove_rules(names: HostNames) -> None:
    try:
        await proxy.cleanup(names)
    except (OSError, NftError) as error:
        log.warning("service rules of %s: %s", names.whole, error)
