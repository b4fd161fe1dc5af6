"""Which protocol a new connection speaks: HTTP/2 where both ends agreed on it in the TLS handshake, else HTTP/1.1."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

Protocols = Callable[[], asyncio.Protocol]


class Arriving(asyncio.Protocol):
    """What a connection has until it is known; it hears of nothing but that there is one."""

    def __init__(self, http1: Protocols, http2: Protocols) -> None:
        self._http1 = http1
        self._http2 = http2

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        both = tls is not None and tls.selected_alpn_protocol() == "h2"
        protocol = (self._http2 if both else self._http1)()
        cast(asyncio.Transport, transport).set_protocol(protocol)
        protocol.connection_made(transport)
