"""What the program `kube-apiserver` does once it knows its settings: store, server, front, controllers if wanted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from navarch.apiserver.bootstrap import bootstrap
from navarch.apiserver.housekeeping import Chore
from navarch.apiserver.http import HTTPFront
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.cluster.assembly import assemble, attach, bootstrap_config
from navarch.cluster.certificates import LOOK_EVERY_S, Shown
from navarch.cluster.flags.apiserver_settings import KubeApiServer
from navarch.cluster.kube.environment import controllers_wanted, kubernetes_version
from navarch.cluster.listening import listen
from navarch.cluster.settings import ServerSettings
from navarch.store.base import Store
from navarch.tls import HTTP1_ONLY, PROTOCOLS, tls_context
from navarch.world import RealWorld, World

log = logging.getLogger("kube-apiserver")

_CONTROLLER_MANAGER: Final = User("system:kube-controller-manager", ("system:authenticated",))
_ASK_S: Final = 2.0


async def run(settings: KubeApiServer) -> None:
    """Until cancelled."""
    told = replace(settings.server, kubernetes_version=kubernetes_version())
    _ensure_certificate(told)
    world = RealWorld()
    server = assemble(told, await _store(settings, world), world)
    await server.start()
    attach(server, told)
    await bootstrap(server, bootstrap_config(told))
    front = HTTPFront(server, streams=told.http2_streams, goaway_chance=told.goaway_chance)
    protocols = PROTOCOLS if told.http2 else HTTP1_ONLY
    proxies = told.front_proxies.ca if told.front_proxies is not None else None
    tls = tls_context(told.serving_certificate, told.serving_key, told.client_ca, protocols, front_proxy_ca=proxies)
    shown = Shown(told.serving_certificate, told.serving_key, tls)

    async def look() -> None:
        shown.look()

    server.keep(Chore("the certificate that is shown", LOOK_EVERY_S, look))
    await front.serve(listen([settings.bind_address], told.port), tls)
    log.info("serving Kubernetes v%s on %s:%s", told.kubernetes_version, settings.bind_address, told.port)
    try:
        async with _controllers(server, world, controllers_wanted()):
            await asyncio.Event().wait()
    finally:
        server.announce_end()
        await asyncio.sleep(told.shutdown_delay_s)
        await front.stop()
        await server.stop()


@contextlib.asynccontextmanager
async def _controllers(server: ApiServer, world: World, names: tuple[str, ...]) -> AsyncIterator[None]:
    """Those controllers, over this server, while the block runs."""
    if not names:
        yield
        return
    # Their weight is for those who want them.
    from navarch.client.base import Client
    from navarch.client.local import LocalTransport
    from navarch.controllers.base import ControllerConfig
    from navarch.controllers.manager import ControllerManager
    from navarch.controllers.registry import CONTROLLERS

    client = Client(LocalTransport(server.as_user(_CONTROLLER_MANAGER)), user_agent="kube-controller-manager")
    wanted = CONTROLLERS if names == ("*",) else tuple(each for each in CONTROLLERS if _name_of(each) in names)
    manager = ControllerManager(client, world=world, config=ControllerConfig(), controllers=wanted)
    if unknown := set(names) - {"*"} - {controller.name for controller in manager.controllers}:
        log.warning("there is no controller %s", ", ".join(sorted(unknown)))
    working = asyncio.create_task(manager.run(), name="controllers")
    try:
        yield
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


def _name_of(factory: Any) -> str:
    return str(getattr(factory, "name", ""))


async def _store(settings: KubeApiServer, world: World) -> Store:
    """The etcd of the command line, or the database of the one that `navarch envtest` puts in its place."""
    database = await world.in_thread(_database_of, settings.etcd[0])
    if database is not None:
        from navarch.store.sqlite import SQLiteStore

        return SQLiteStore(database, clock=world, sync=False)
    from navarch.store.etcd.store import EtcdStore
    from navarch.store.etcd.target import parse

    hosts = ",".join(urlsplit(url).netloc for url in settings.etcd)
    options = dict(settings.etcd_files)
    if settings.etcd[0].startswith("https:"):
        options["tls"] = "true"
    prefix = "" if settings.etcd_prefix == "/registry" else settings.etcd_prefix
    url = f"etcd://{hosts}{prefix}" + (f"?{urlencode(options)}" if options else "")
    return EtcdStore(parse(url), owner="kube-apiserver", record=settings.cert_dir / "store.record", clock=world)


def _database_of(url: str) -> Path | None:
    """Where the stand-in keeps what it is given; None for a real etcd."""
    import socket

    parts = urlsplit(url)
    if parts.scheme != "http":
        return None
    request = f"GET /navarch HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode()
    answer = b""
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 2379), _ASK_S) as connection:
            connection.sendall(request)
            while chunk := connection.recv(4096):
                answer += chunk
    except OSError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return Path(json.loads(body)["database"])
    return None


def _ensure_certificate(told: ServerSettings) -> None:
    """As kube-apiserver does where it is given none: one that it has signed itself."""
    if told.serving_certificate.exists() and told.serving_key.exists():
        return
    from navarch.cluster.pki import self_signed

    names = {"kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"}
    addresses = {"127.0.0.1", told.advertise_address, told.service_address}
    self_signed(told.serving_certificate, told.serving_key, told.advertise_address, names, addresses)
