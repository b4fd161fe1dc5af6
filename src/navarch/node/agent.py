"""The node agent: kubelet, service proxy, cluster DNS and pod network of one node, in one process.

In: the cluster's API, as the node's own identity; a containerd that a supervisor runs. The agent writes the network's
configuration once the node has its pod CIDR, imports the pause image, and keeps all parts running until cancelled.
Containers, addresses and rules stay when it stops: its successor takes them over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from navarch.api.version import DEFAULT_VERSION
from navarch.client.base import Client
from navarch.heap import limit_arenas, trim_for_ever
from navarch.node import cni, ingress, networking
from navarch.node.config import ImagesConfig, KubeletConfig
from navarch.node.configuration.machine import objections
from navarch.node.configuration.reading import ConfigurationError, configured, read, warnings
from navarch.node.containerd import (
    ContainerdPaths,
    ensure_pause_image,
    pick_snapshotter,
    purge,
    shim_sockets,
    wait_ready,
)
from navarch.node.ending import end_pods
from navarch.node.kubelet import Kubelet
from navarch.node.names import HostNames
from navarch.node.networking import NetworkingConfig, NodeNetworking
from navarch.node.proxy.configuration import ProxySettings
from navarch.node.resources import cgroups
from navarch.node.runtime.cri import CRIRuntime
from navarch.node.spec.dns import RESOLV_CONF, on_loopback_alone, reached_from_elsewhere
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)

_RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What a node agent is told. `data` and `run` are the directories of the node's containerd (`ContainerdPaths`).
    With `network_addresses` the node has these on the pod network, too, whatever its ranges: its own addresses, at
    which pods reach it and the API server beside it."""

    cluster: str
    node_name: str
    data: Path
    run: Path
    pod_cidr: str = "10.42.0.0/16"
    service_cidr: str = "10.43.0.0/16"
    cluster_dns: str = "10.43.0.10"
    cluster_domain: str = "cluster.local"
    node_ip: str = ""
    # The address of the other IP family, where the node has one.
    other_ip: str = ""
    network_addresses: tuple[str, ...] = ()
    # Whether it runs in a network namespace of its own.
    own_network: bool = False
    # `auto`, `routes` or `vxlan`: how pods of other nodes are reached.
    pod_network: str = "auto"
    kubelet_port: int = 10250
    kubelet_addresses: tuple[str, ...] = ("0.0.0.0",)
    serving_cert: Path | None = None
    serving_key: Path | None = None
    client_ca: Path | None = None
    node_labels: Mapping[str, str] = field(default_factory=dict)
    node_taints: tuple[Mapping[str, str], ...] = ()
    max_pods: int = 110
    kubernetes_version: str = DEFAULT_VERSION
    proxy: ProxySettings = field(default_factory=ProxySettings)
    static_pod_path: Path | None = None
    static_pod_url: str = ""
    kubelet_config: Path | None = None
    credential_providers: Path | None = None
    credential_provider_bin: Path | None = None

    @property
    def containerd(self) -> ContainerdPaths:
        return ContainerdPaths(self.data, self.run)

    @property
    def names(self) -> HostNames:
        return HostNames(self.cluster, self.node_name)

    @property
    def ingress_folder(self) -> Path:
        """Where the node's Ingress proxy runs."""
        return self.run / "ingress"

    def kubelet(self) -> KubeletConfig:
        """The kubelet's part, with what its file says.  Raises ConfigurationError."""
        config = KubeletConfig(
            node_name=self.node_name,
            data=self.data / "kubelet",
            runtime_socket=self.containerd.socket,
            cgroup_root=self.names.cgroup_root,
            node_ip=self.node_ip,
            other_ip=self.other_ip,
            port=self.kubelet_port,
            addresses=self.kubelet_addresses,
            serving_cert=self.serving_cert,
            serving_key=self.serving_key,
            client_ca=self.client_ca,
            cluster_dns=(self.cluster_dns,),
            cluster_domain=self.cluster_domain,
            max_pods=self.max_pods,
            node_labels=self.node_labels,
            node_taints=self.node_taints,
            kubernetes_version=self.kubernetes_version,
            static_pod_path=self.static_pod_path,
            static_pod_url=self.static_pod_url,
            host_resolv_conf=reached_from_elsewhere(),
            images=ImagesConfig(
                credential_providers=self.credential_providers, credential_provider_bin=self.credential_provider_bin
            ),
        )
        if self.kubelet_config is None:
            return configured(config, None)
        config = configured(config, read(self.kubelet_config, self.kubernetes_version))
        if against := "; ".join(objections(config)):
            raise ConfigurationError(against)
        return config

    def networking(self) -> NetworkingConfig:
        """The network's part."""
        return NetworkingConfig(
            cluster=self.cluster,
            node_name=self.node_name,
            state_dir=self.data,
            addresses=self.network_addresses,
            node_ip=self.node_ip,
            pod_network=self.pod_network,
            pod_cidr=self.pod_cidr,
            service_cidr=self.service_cidr,
            proxy=self.proxy,
            cluster_dns=self.cluster_dns,
            cluster_domain=self.cluster_domain,
            resolv_conf=self._resolv_conf(),
        )

    def _resolv_conf(self) -> Path:
        """Whose servers the cluster DNS asks: the machine's own, where this is the machine's network and the kubelet's
        file names no others."""
        stated = self.kubelet().host_resolv_conf
        return stated if self.own_network or stated != reached_from_elsewhere() else RESOLV_CONF


class NodeAgent:
    """One node. `client` acts as the node, `proxy_client` as the service proxy and `dns_client` as the cluster DNS (the
    node's own where none is given). With an `ingress_client` it serves Ingresses."""

    def __init__(
        self,
        config: AgentConfig,
        client: Client,
        *,
        proxy_client: Client | None = None,
        dns_client: Client | None = None,
        ingress_client: Client | None = None,
        world: World | None = None,
    ) -> None:
        limit_arenas()
        self.config = config
        if config.kubelet_config is not None:
            for words in warnings(read(config.kubelet_config, config.kubernetes_version)):
                log.warning("%s", words)
        networks = config.networking()
        if config.own_network and on_loopback_alone(servers := networks.resolv_conf):
            log.warning(
                "names outside the cluster are not known on this node: all servers of %s listen on the machine's "
                "loopback alone; resolvConf in the file of --kubelet-config may name another file", servers,
            )  # fmt: skip
        self.client = client
        self.world = world or RealWorld()
        self.runtime = CRIRuntime(config.containerd.socket)
        self.kubelet = Kubelet(config.kubelet(), client, self.runtime, world=self.world)
        self.networking = NodeNetworking(networks, client, proxy_client or client, dns_client or client)
        self.ingress: ingress.IngressController | None = None
        if ingress_client is not None:
            serving = ingress.on_node(config.node_name, config.ingress_folder, config.node_ip)
            self.ingress = ingress.IngressController(ingress_client, client, serving, world=self.world)
        # containerd gets its network from the configuration that is written once the node has its range.
        self.kubelet.node.on_pod_cidrs = self._pod_cidrs_known
        # A node is registered by then, and its addresses are known.
        self.on_known: Callable[[], None] = lambda: None
        self.networking.on_ready = self.kubelet.node.look_again
        self.kubelet.on_wired = self.networking.policies.admit

    def _pod_cidrs_known(self, pod_cidrs: Sequence[str]) -> None:
        self.networking.pod_cidrs_known(pod_cidrs)
        self.on_known()

    async def run(self) -> None:
        """Run everything until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(trim_for_ever(), name="memory")
                tasks.create_task(self.networking.run(), name="networking")
                if self.ingress is not None:
                    tasks.create_task(self.ingress.run(), name="Ingresses")
                await self._prepare_runtime()
                tasks.create_task(self.kubelet.run(), name="kubelet")
        finally:
            await self.runtime.close()

    async def _prepare_runtime(self) -> None:
        """Wait for containerd, and have the pause image in it."""
        paths = self.config.containerd
        while True:
            try:
                await wait_ready(paths)
                await ensure_pause_image(paths, snapshotter=pick_snapshotter(paths.data))
                return
            except (TimeoutError, RuntimeError) as error:
                log.warning("containerd is not ready: %s", error)
                await asyncio.sleep(_RETRY_S)


def purge_node(config: AgentConfig, *, keep_images: bool = False, grace_s: float = 0.0) -> None:
    """End the pods of a node whose processes have ended, within their grace periods or `grace_s`, and remove what they
    leave on the machine. Idempotent."""
    ingress.purge(config.ingress_folder)
    sockets = shim_sockets(config.containerd)
    asyncio.run(end_pods(config.containerd, grace_s, config.kubernetes_version))
    cni.forget(config.names.cni_network, [config.data, config.run])
    purge(config.containerd, keep_images=keep_images)
    for socket in sockets:
        socket.unlink(missing_ok=True)
    networking.cleanup(config.names, config.data, config.pod_cidr)
    cgroups.remove_root(config.names.cgroup_root)
