"""The API server's process."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import sys
from dataclasses import replace

from navarch.apiserver.auth.bootstrap import PROXY_CONFIG
from navarch.apiserver.bootstrap import bootstrap
from navarch.apiserver.housekeeping import Chore
from navarch.apiserver.http import HTTPFront
from navarch.apiserver.server import ApiServer
from navarch.cluster import component_health
from navarch.cluster.assembly import attach, bootstrap_config, make_server, server_settings
from navarch.cluster.certificates import LOOK_EVERY_S, Shown
from navarch.cluster.config import ClusterConfig
from navarch.cluster.invitation import told_to_nodes
from navarch.cluster.listening import LISTEN_FDS, listen
from navarch.cluster.renewal import RENEW_EVERY_S, renew
from navarch.cluster.state import HOPELESS
from navarch.store.base import Lost
from navarch.tls import HTTP1_ONLY, PROTOCOLS, tls_context

log = logging.getLogger(__name__)


async def run(config: ClusterConfig) -> None:
    """Until cancelled."""
    settings = server_settings(config)
    server = make_server(config)
    try:
        await server.start()
    except Lost as error:
        # Another try will not help: the message is for who started the cluster.
        log.error("%s", error)
        sys.exit(HOPELESS)
    attach(server, settings)
    told, accounts = told_to_nodes(config), (PROXY_CONFIG,)
    await bootstrap(server, replace(bootstrap_config(settings), told_to_nodes=told, accounts=accounts))
    front = HTTPFront(server, streams=settings.http2_streams, goaway_chance=settings.goaway_chance)
    pki = config.pki
    protocols = PROTOCOLS if settings.http2 else HTTP1_ONLY
    proxies = settings.front_proxies
    tls = tls_context(
        pki / "apiserver.crt",
        pki / "apiserver.key",
        pki / "ca.crt",
        protocols,
        front_proxy_ca=proxies.ca if proxies is not None else None,
    )
    _keep_certificates(server, config, tls)
    server.core.components = component_health.probes(config.run)
    await front.serve(_handed_over() or listen(config.listen_addresses, config.port), tls)
    log.info("serving Kubernetes v%s on %s", config.kubernetes_version, config.server_url)
    try:
        await asyncio.Event().wait()
    finally:
        await front.stop()
        await server.stop()


def _keep_certificates(server: ApiServer, config: ClusterConfig, serving: ssl.SSLContext) -> None:
    pki = config.pki
    shown = [Shown(pki / "apiserver.crt", pki / "apiserver.key", serving)]
    if (kubelets := server.core.kubelet_tls) is not None:
        shown.append(Shown(pki / "apiserver-kubelet-client.crt", pki / "apiserver-kubelet-client.key", kubelets))

    async def look() -> None:
        for each in shown:
            each.look()

    async def renewed() -> None:
        await server.core.world.in_thread(renew, config)
        await look()

    server.keep(Chore("certificates that are shown", LOOK_EVERY_S, look))
    server.keep(Chore("certificates that end", RENEW_EVERY_S, renewed))


def _handed_over() -> list[socket.socket]:
    """The listening sockets that the supervisor holds open across our restarts."""
    descriptors = os.environ.pop(LISTEN_FDS, "")
    return [socket.socket(fileno=int(descriptor)) for descriptor in descriptors.split(",") if descriptor]
