"""The network side of a node agent, put together: pod network, service proxy, network policies and cluster DNS,
each kept running.

The proxy starts at once; the pod network is made when the node has been given its pod ranges, and cluster DNS listens
on the address that the node has in it. Whatever fails is tried again; rules, devices and routes stay when the agent
stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from navarch.client.base import Client
from navarch.node import dns, host_ports, policy, proxy
from navarch.node.cni import gateway_of
from navarch.node.names import HostNames
from navarch.node.network import PodNetwork, Ranges, of_family
from navarch.node.policy import PolicyConfig, PolicyEnforcer
from navarch.node.proxy.configuration import ProxySettings
from navarch.node.proxy.nftables import NftError
from navarch.node.routing import Mode, PodRoutes, RoutingConfig
from navarch.node.routing.plan import family_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetworkingConfig:
    """The cluster's ranges (one per family, parted by a comma) and names, and where this node keeps its network's state
    (`state_dir`, which must be the directory whose `cni` the runtime reads)."""

    cluster: str
    node_name: str
    state_dir: Path
    pod_cidr: str = "10.42.0.0/16"
    service_cidr: str = "10.43.0.0/16"
    cluster_dns: str = "10.43.0.10"
    cluster_domain: str = "cluster.local"
    resolv_conf: Path = Path("/etc/resolv.conf")
    proxy_health_port: int = 0
    proxy: ProxySettings = field(default_factory=ProxySettings)
    addresses: tuple[str, ...] = ()
    node_ip: str = ""
    pod_network: str = Mode.AUTO

    @property
    def names(self) -> HostNames:
        return HostNames(self.cluster, self.node_name)


class NodeNetworking:
    """`client` acts as the node; the proxy, which sees all Nodes, and the DNS have identities of their own. `on_ready`
    is called when pods can be wired."""

    def __init__(self, config: NetworkingConfig, client: Client, proxy_client: Client, dns_client: Client) -> None:
        self.config = config
        self.network = PodNetwork(
            config.names,
            config.state_dir,
            addresses=config.addresses,
            node_ip=config.node_ip,
            mode=Mode(config.pod_network),
        )
        families = sorted({family_of(each) for each in _listed(config.pod_cidr)})
        # As the proxy: a node itself may see no pods but its own.
        self.policies = PolicyEnforcer(proxy_client, PolicyConfig(config.names, config.node_name, tuple(families)))
        self._client = client
        self._proxy_client = proxy_client
        self._dns_client = dns_client
        self.on_ready: Callable[[], None] = lambda: None
        self._own: tuple[str, ...] = ()
        self._known = asyncio.Event()

    def pod_cidrs_known(self, pod_cidrs: Sequence[str]) -> None:
        """The node has been given its pod ranges."""
        self._own = tuple(pod_cidrs)
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
            settings=config.proxy,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(proxy.run(self._proxy_client, proxying), name="proxy")
            tasks.create_task(self.policies.run(), name="network policies")
            await self._known.wait()
            await self._set_up()
            self.on_ready()
            # Not as the node, which may see no Node but its own.
            tasks.create_task(PodRoutes(self._proxy_client, self._routing()).run(), name="ways to other nodes")
            families = [family_of(each) for each in self._own]
            tasks.create_task(
                host_ports.run(self._client, config.node_name, self.network.table, families), name="host ports"
            )
            answering = dns.DnsConfig(
                node_name=config.node_name,
                address=gateway_of(of_family(self._own, family_of(config.cluster_dns)) or self._own[0]),
                cluster_ip=config.cluster_dns,
                domain=config.cluster_domain,
                pod_cidr=config.pod_cidr,
                service_cidr=config.service_cidr,
                resolv_conf=config.resolv_conf,
                keep=config.state_dir / "dns-sockets.json",
            )
            tasks.create_task(dns.run(self._dns_client, answering), name="dns")

    def _routing(self) -> RoutingConfig:
        config = self.config
        return RoutingConfig(
            names=config.names,
            node_name=config.node_name,
            cluster=_listed(config.pod_cidr),
            own=self._own,
            mode=Mode(config.pod_network),
            mtu=self.network.link_mtu,
        )

    async def _set_up(self) -> None:
        retry_s = 0.5
        while True:
            try:
                ranges = Ranges(self._own, _listed(self.config.pod_cidr), _listed(self.config.service_cidr))
                await self.network.setup(ranges)
                return
            except Exception as error:
                log.error("the pod network could not be made: %s", error)
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, 30.0)


def cleanup(names: HostNames, state_dir: Path, pod_cidr: str = "") -> None:
    """Remove every trace of a node's network from this machine; its processes and pods must be gone. Idempotent."""
    asyncio.run(_remove_rules(names))
    PodNetwork(names, state_dir).cleanup(_listed(pod_cidr))


def _listed(ranges: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in ranges.split(",") if each.strip())


async def _remove_rules(names: HostNames) -> None:
    for what, remove in (("policies", policy.cleanup), ("service rules", proxy.cleanup)):
        try:
            await remove(names)
        except (OSError, NftError) as error:
            log.warning("%s of %s: %s", what, names.whole, error)
