"""Ports for tests that must know the number before somebody listens on it.

A port that the kernel picked (bind to 0), closed and bound again later is a race: until then the kernel may give it to
any of the connections that the other tests open.  These lie below the ephemeral range (32768 up on Linux), and below
30000, where node ports begin.
"""

from __future__ import annotations

import contextlib
import random
import socket

LOWEST, HIGHEST = 12_000, 29_000


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on, for streams and for datagrams."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = random.randrange(LOWEST, HIGHEST)
            with contextlib.suppress(OSError):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    held.enter_context(contextlib.closing(socket.socket(type=kind))).bind(("0.0.0.0", port))
                ports.append(port)
    return ports


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
