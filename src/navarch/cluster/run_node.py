"""The node agent's process: kubelet, service proxy, DNS and pod network of this machine."""

from __future__ import annotations

from navarch.client.base import Client
from navarch.client.config import load_kubeconfig
from navarch.cluster.config import ClusterConfig
from navarch.node.agent import AgentConfig, NodeAgent


def agent_config(config: ClusterConfig) -> AgentConfig:
    pki = config.pki
    return AgentConfig(
        cluster=config.name,
        node_name=config.node_name,
        data=config.root / "node",
        run=config.run,
        kubernetes_version=config.kubernetes_version,
        pod_cidr=config.pod_cidr,
        service_cidr=config.service_cidr,
        cluster_dns=config.cluster_dns,
        cluster_domain=config.cluster_domain,
        node_ip=config.node_ip,
        kubelet_addresses=("0.0.0.0",) if config.listens_everywhere else ("127.0.0.1", config.node_ip),
        network_address=config.node_ip if config.on_pod_network else "",
        kubelet_port=config.kubelet_port,
        static_pod_path=config.manifests,
        serving_cert=pki / "kubelet-serving.crt",
        serving_key=pki / "kubelet-serving.key",
        client_ca=pki / "ca.crt",
    )


async def run(config: ClusterConfig) -> None:
    """Until cancelled."""
    node = Client(load_kubeconfig(config.component_kubeconfig("kubelet")), user_agent="kubelet")
    proxy = Client(load_kubeconfig(config.component_kubeconfig("proxy")), user_agent="kube-proxy")
    dns = Client(load_kubeconfig(config.component_kubeconfig("dns")), user_agent="kube-dns")
    try:
        await NodeAgent(agent_config(config), node, proxy_client=proxy, dns_client=dns).run()
    finally:
        await dns.close()
        await node.close()
        await proxy.close()
