"""The node agent's process: kubelet, service proxy, DNS and pod network of this machine.

Each of the three speaks with a certificate of its own. On the cluster's machine they are made beside its authority; on
a machine that joins the first is asked for with the bootstrap token, the others as the node. All are renewed here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from navarch.api.errors import StatusError
from navarch.client.base import Client
from navarch.client.http import HTTPTransport
from navarch.cluster.certificates import Speaker, tls_of
from navarch.cluster.config import INGRESS, ClusterConfig
from navarch.cluster.identities import NODE_COMPONENTS
from navarch.node.agent import AgentConfig, NodeAgent
from navarch.node.certificates import (
    API_CLIENT,
    CertificateRefused,
    CertificateSpec,
    KeyPair,
    Renewer,
    client_of_node,
    obtain,
    serving_of_node,
    stopgap,
)
from navarch.node.proxy.configuration import read_settings
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)

_SERVING = "kubelet-serving"
_RETRY_S = 2.0


def agent_config(config: ClusterConfig) -> AgentConfig:
    # Who has an address of its own for it has nobody to hide from there.
    elsewhere = config.role != "server"
    everywhere = config.listens_everywhere or elsewhere
    own = tuple(filter(None, (config.node_ip, config.other_ip)))
    return AgentConfig(
        cluster=config.name,
        node_name=config.node_name,
        data=config.root / "node",
        run=config.run,
        kubernetes_version=config.kubernetes_version,
        pod_cidr=config.pod_cidr,
        pod_network=config.pod_network,
        service_cidr=config.service_cidr,
        cluster_dns=config.cluster_dns,
        cluster_domain=config.cluster_domain,
        node_ip=config.node_ip,
        other_ip=config.other_ip,
        kubelet_addresses=("0.0.0.0",) if everywhere else ("127.0.0.1", *own),
        own_network=config.role == "worker",
        network_addresses=own if config.on_pod_network and not elsewhere else (),
        kubelet_port=config.kubelet_port,
        static_pod_path=config.manifests,
        proxy=read_settings(_path(config.proxy_config), config.proxy_mode),
        kubelet_config=_path(config.kubelet_config),
        credential_providers=_path(config.image_credential_provider_config),
        credential_provider_bin=_path(config.image_credential_provider_bin_dir),
        serving_cert=_pair(config, _SERVING).certificate,
        serving_key=_pair(config, _SERVING).key,
        client_ca=config.pki / "ca.crt",
        node_labels=config.node_labels,
        node_taints=tuple(taint_of(text) for text in config.node_taints.split(",") if text),
    )


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def taint_of(text: str) -> Mapping[str, str]:
    """`key=value:Effect` or `key:Effect`, as kubectl writes taints."""
    rest, _, effect = text.rpartition(":")
    key, _, value = rest.partition("=")
    return {"key": key, "effect": effect, **({"value": value} if value else {})}


def _pair(config: ClusterConfig, name: str) -> KeyPair:
    return KeyPair(config.pki, name)


async def run(config: ClusterConfig) -> None:
    """Until cancelled."""
    world = RealWorld()
    if config.is_agent:
        await _enrol(config, world)
    node = Speaker(config, "kubelet", "kubelet")
    if config.is_agent:
        for name, user in NODE_COMPONENTS.items():
            await _have(config, name, CertificateSpec(API_CLIENT, user), node.client, world)
    proxy = Speaker(config, "proxy", "kube-proxy")
    dns = Speaker(config, "dns", "kube-dns")
    ingress = Speaker(config, "ingress", "navarch-ingress")
    identities = {"kubelet": node, "proxy": proxy, "dns": dns, "ingress": ingress}
    try:
        agent = NodeAgent(
            agent_config(config), node.client, proxy_client=proxy.client, dns_client=dns.client,
            ingress_client=ingress.client if config.has(INGRESS) else None,
        )  # fmt: skip
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(agent.run(), name="node")
            for renewer in _renewers(config, agent, identities, world):
                tasks.create_task(renewer.run(), name="certificate")
    finally:
        for identity in identities.values():
            await identity.client.close()


def _renewers(
    config: ClusterConfig, agent: NodeAgent, identities: Mapping[str, Speaker], world: World
) -> list[Renewer]:
    client = identities["kubelet"].client
    specs = {
        "kubelet": client_of_node(config.node_name),
        **{name: CertificateSpec(API_CLIENT, user) for name, user in NODE_COMPONENTS.items()},
    }

    def serving_spec() -> CertificateSpec | None:
        # What it is to say is held against what the node has said of itself.
        if not agent.kubelet.node.is_registered:
            return None
        return serving_of_node(config.node_name, agent.kubelet.node.addresses())

    serving = Renewer(client, _pair(config, _SERVING), serving_spec, world, agent.kubelet.server.certificate_changed)
    agent.on_known = serving.look_again
    return [
        serving,
        *(
            Renewer(client, _pair(config, name), partial(_same, spec), world, identities[name].look)
            for name, spec in specs.items()
        ),
    ]


def _same(spec: CertificateSpec) -> CertificateSpec:
    return spec


async def _enrol(config: ClusterConfig, world: World) -> None:
    """Have the node's own certificate, by the bootstrap token if need be, and something to listen with."""
    if _pair(config, _SERVING).read() is None:
        stopgap(_pair(config, _SERVING), config.node_name)
    file = config.pki / "bootstrap-token"
    token = file.read_text().strip() if file.exists() else ""
    joining = Client(HTTPTransport(config.server_url, tls=tls_of(config), token=lambda: token), user_agent="kubelet")
    try:
        await _have(config, "kubelet", client_of_node(config.node_name), joining, world)
    finally:
        await joining.close()
    # It has done what it was for.
    file.unlink(missing_ok=True)


async def _have(config: ClusterConfig, name: str, spec: CertificateSpec, client: Client, world: World) -> None:
    """Ask for a certificate that is not there, says something else or has ended, until there is one."""
    pair = _pair(config, name)
    while (found := pair.read()) is None or not spec.is_met_by(found) or found.not_valid_after_utc <= world.now():
        try:
            await obtain(client, spec, pair)
        except (CertificateRefused, StatusError, OSError, TimeoutError) as error:
            log.error("no certificate %s yet: %s", name, error or "nobody approves the request")
            await asyncio.sleep(_RETRY_S)
