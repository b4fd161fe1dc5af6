"""The controllers' process: controllers, scheduler and simulated nodes, each with its own identity, over one set of
informers."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from navarch.api.meta import Obj
from navarch.client.base import Client
from navarch.client.config import load_kubeconfig
from navarch.client.informer import Informers
from navarch.cluster.config import ClusterConfig
from navarch.controllers.base import ControllerConfig
from navarch.controllers.manager import ControllerManager
from navarch.scheduler.scheduler import Scheduler
from navarch.sim.kubelet import ServingKeys
from navarch.sim.nodes import SimulatedNodes
from navarch.world import RealWorld

log = logging.getLogger(__name__)

# The garbage collector watches every resource there is; a cluster is ready sooner if it lets the others go first.
_COLLECTOR_DELAY_S = 1.0


def _sign_token(config: ClusterConfig, service_account: Obj, secret: Obj) -> str:
    # Rarely needed: tokens without end are for those who make such a Secret by hand.
    from navarch.cluster.assembly import offline_tokens

    return offline_tokens(config).legacy_token(service_account, secret)


def _sign_certificate(config: ClusterConfig, request_pem: bytes, usages: list[str], lifetime_s: int) -> bytes:
    from navarch.cluster.pki import sign_request

    return sign_request(config.pki, request_pem, usages=usages, lifetime=timedelta(seconds=lifetime_s))


def controller_config(config: ClusterConfig) -> ControllerConfig:
    return ControllerConfig(
        cluster_cidr=config.pod_cidr,
        node_cidr_mask=config.node_cidr_mask,
        garbage_collector_delay_s=_COLLECTOR_DELAY_S,
        root_ca=(config.pki / "ca.crt").read_text(),
        token_issuer=lambda account, secret: _sign_token(config, account, secret),
        certificate_signer=lambda pem, usages, lifetime_s: _sign_certificate(config, pem, usages, lifetime_s),
    )


def simulated_serving(config: ClusterConfig) -> ServingKeys:
    """The keys with which simulated nodes answer the API server."""
    pki = config.pki
    return ServingKeys(pki / "simulated-kubelet.crt", pki / "simulated-kubelet.key", pki / "ca.crt")


def _client(config: ClusterConfig, component: str, user_agent: str) -> Client:
    return Client(load_kubeconfig(config.component_kubeconfig(component)), user_agent=user_agent)


async def run(config: ClusterConfig) -> None:
    """Until cancelled."""
    world = RealWorld(config.seed)
    client = _client(config, "controller-manager", "kube-controller-manager")
    scheduling = _client(config, "scheduler", "kube-scheduler")
    clients = [client, scheduling]
    informers = Informers(client, world)
    manager = ControllerManager(client, informers=informers, world=world, config=controller_config(config))
    scheduler = Scheduler(scheduling, informers, world=world)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(informers.run(), name="informers")
            tasks.create_task(manager.run(), name="controllers")
            tasks.create_task(scheduler.run(), name="scheduler")
            if config.nodes:
                simulating = _client(config, "simulated-nodes", "navarch-simulated-nodes")
                clients.append(simulating)
                nodes = SimulatedNodes(
                    simulating,
                    config.nodes,
                    informers=informers,
                    world=world,
                    serving=simulated_serving(config),
                    kubelet_version=f"v{config.kubernetes_version}.0-navarch",
                )
                tasks.create_task(nodes.run(), name="simulated nodes")
    finally:
        for used in clients:
            await used.close()
