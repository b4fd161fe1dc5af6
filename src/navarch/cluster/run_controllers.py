"""The controllers' process: controllers, scheduler and simulated nodes, each with its own identity, over one set of
informers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from navarch.api.meta import Obj
from navarch.client.base import Client
from navarch.client.informer import Informers
from navarch.client.leader import LeaderElector, run_elected
from navarch.cluster import component_health, ranges
from navarch.cluster.certificates import Speaker, keep_looking
from navarch.cluster.config import INGRESS, LOAD_BALANCER, ClusterConfig
from navarch.cluster.flags.controller_settings import changed
from navarch.controllers.base import ControllerConfig
from navarch.controllers.manager import ControllerManager
from navarch.scheduler import SchedulerConfig, default_profile
from navarch.scheduler.config import features_of
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
    own = ControllerConfig(
        cluster_cidr=config.pod_cidr,
        node_cidr_mask=config.node_cidr_mask,
        node_cidr_mask_ipv6=ranges.node_mask_ipv6(config.pod_cidr),
        load_balancer=config.has(LOAD_BALANCER),
        ingress=config.has(INGRESS),
        garbage_collector_delay_s=_COLLECTOR_DELAY_S,
        local_path=True,
        root_ca=(config.pki / "ca.crt").read_text(),
        token_issuer=lambda account, secret: _sign_token(config, account, secret),
        terminating_replicas=features_of(config.kubernetes_version).on("DeploymentReplicaSetTerminatingReplicas"),
        certificate_signer=lambda pem, usages, lifetime_s: _sign_certificate(config, pem, usages, lifetime_s),
    )
    return changed(own, config.controller_flags)


def scheduler_config(config: ClusterConfig) -> SchedulerConfig:
    """As the cluster's file says, if it has one.  Raises ConfigurationError."""
    features = features_of(config.kubernetes_version)
    if not config.scheduler_config:
        return SchedulerConfig(profiles=[default_profile(features=features)])
    from navarch.scheduler.configuration.reading import configured, read

    return configured(read(Path(config.scheduler_config)), features)


def simulated_serving(config: ClusterConfig) -> ServingKeys:
    """The keys with which simulated nodes answer the API server."""
    pki = config.pki
    return ServingKeys(pki / "simulated-kubelet.crt", pki / "simulated-kubelet.key", pki / "ca.crt")


async def _elected(
    config: ClusterConfig, client: Client, name: str, run: Callable[[], Awaitable[None]], world: RealWorld
) -> None:
    """A component's run. Where others may run over the same store, only the one that holds the component's Lease does
    anything; with a store of its own a cluster has nobody to ask."""
    if config.shares_store:
        identity = f"{socket.gethostname()}_{config.name}_{config.port}"
        await run_elected(LeaderElector(client, name, identity, clock=world), run)
    else:
        await run()


async def run(config: ClusterConfig) -> None:
    """Until cancelled."""
    world = RealWorld(config.seed)
    managers = Speaker(config, "controller-manager", "kube-controller-manager")
    schedulers = Speaker(config, "scheduler", "kube-scheduler")
    client, scheduling = managers.client, schedulers.client
    speakers = [managers, schedulers]
    looks: list[Callable[[], None]] = []
    informers = Informers(client, world)
    manager = ControllerManager(client, informers=informers, world=world, config=controller_config(config))
    scheduler = Scheduler(scheduling, informers, world=world, config=scheduler_config(config))
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(informers.run(), name="informers")
            managing = _elected(config, client, "kube-controller-manager", manager.run, world)
            deciding = _elected(config, scheduling, "kube-scheduler", scheduler.run, world)
            tasks.create_task(managing, name="controllers")
            tasks.create_task(deciding, name="scheduler")
            tasks.create_task(component_health.serve(config.run), name="component health")
            if config.nodes:
                simulating = Speaker(config, "simulated-nodes", "navarch-simulated-nodes")
                speakers.append(simulating)
                nodes = SimulatedNodes(
                    simulating.client,
                    config.nodes,
                    informers=informers,
                    world=world,
                    serving=simulated_serving(config),
                    families=ranges.families(config.pod_cidr),
                    kubelet_version=f"v{config.kubernetes_version}.0-navarch",
                )
                tasks.create_task(nodes.run(), name="simulated nodes")
                looks.append(nodes.look_at_certificate)
            tasks.create_task(keep_looking([*looks, *(speaker.look for speaker in speakers)]), name="certificates")
    finally:
        for speaker in speakers:
            await speaker.client.close()
