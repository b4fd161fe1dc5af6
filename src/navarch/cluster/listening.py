"""The API server's listening sockets, one per address.

An address need not be there yet: that of the pod network comes when the node has its range.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

# <linux/in.h>; the socket module does not name it.
IP_FREEBIND = 15
# Names, in the environment, the descriptors of the sockets that a process is handed.
LISTEN_FDS = "NAVARCH_LISTEN_FDS"
_BACKLOG = 4096


def listen(addresses: Iterable[str], port: int) -> list[socket.socket]:
    """Raises OSError, which names the address; none is left open then."""
    made: list[socket.socket] = []
    for address in addresses:
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        made.append(listener)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
            listener.bind((address, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            for each in made:
                each.close()
            raise OSError(error.errno, f"cannot listen on {address}:{port}: {error.strerror}") from None
        listener.setblocking(False)
    return made
