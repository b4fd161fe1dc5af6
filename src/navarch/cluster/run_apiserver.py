"""The API server's process."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

from navarch.apiserver.bootstrap import bootstrap
from navarch.apiserver.http import HTTPFront, tls_context
from navarch.cluster.assembly import attach, bootstrap_config, make_server
from navarch.cluster.config import ClusterConfig
from navarch.cluster.supervisor import LISTEN_FD

log = logging.getLogger(__name__)


async def run(config: ClusterConfig) -> None:
    """Until cancelled."""
    server = make_server(config)
    await server.start()
    attach(server)
    await bootstrap(server, bootstrap_config(config))
    front = HTTPFront(server)
    pki = config.pki
    tls = tls_context(pki / "apiserver.crt", pki / "apiserver.key", pki / "ca.crt")
    await front.start(config.bind_address, config.port, tls, sock=_handed_over())
    log.info("serving Kubernetes v%s on %s", config.kubernetes_version, config.server_url)
    try:
        await asyncio.Event().wait()
    finally:
        await front.stop()
        await server.stop()


def _handed_over() -> socket.socket | None:
    """The listening socket that the supervisor holds open across our restarts."""
    descriptor = os.environ.pop(LISTEN_FD, "")
    return socket.socket(fileno=int(descriptor)) if descriptor else None
