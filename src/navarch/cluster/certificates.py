"""The certificates that the cluster's processes show, read again when there are others (`renewal.py` makes them).

In: pairs of files. Out: TLS contexts that show on the next connections what is in the files by then; connections that
there are go on.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from navarch.client.base import Client
from navarch.client.http import HTTPTransport
from navarch.cluster.config import ClusterConfig
from navarch.tls import show

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 60.0


class Shown:
    """A certificate and its key in files, as a TLS context shows them; `on_new` is told of another."""

    def __init__(
        self, certificate: Path, key: Path, context: ssl.SSLContext, on_new: Callable[[], None] | None = None
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._context = context
        self._on_new = on_new
        self._seen = stamp(self._certificate)

    def look(self) -> None:
        found = stamp(self._certificate)
        if found == self._seen or not found:
            return
        try:
            show(self._context, self._certificate, self._key)
        except OSError as error:
            log.warning("the new %s cannot be used: %s", self._certificate, error)
            return
        self._seen = found
        log.info("%s is shown from now on", self._certificate)
        if self._on_new is not None:
            self._on_new()


def stamp(path: Path) -> tuple[int, ...]:
    """Another one for another file; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


class Speaker:
    """A client of the API server that shows the certificate of one identity."""

    def __init__(self, config: ClusterConfig, name: str, user_agent: str) -> None:
        self._files = config.pki / f"{name}.crt", config.pki / f"{name}.key"
        self._tls = tls_of(config)
        self._tls.load_cert_chain(*self._files)
        self._transport = HTTPTransport(config.server_url, tls=self._tls)
        self.client = Client(self._transport, user_agent=user_agent)
        self._shown = Shown(*self._files, self._tls, self._transport.reconnect)

    def look(self) -> None:
        """Show another one, where there is one by now."""
        self._shown.look()


def tls_of(config: ClusterConfig) -> ssl.SSLContext:
    """Believes who has a certificate of the cluster's CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(config.pki / "ca.crt")
    return context


async def keep_looking(looks: Sequence[Callable[[], None]]) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        for look in looks:
            look()
