"""An API server that has everything imported before it is asked for.

A harness starts etcd, waits until that is healthy, and only then starts kube-apiserver, whose modules take most of the
time until it is ready. So `etcd` starts this process, which imports them meanwhile and waits at a socket for what
kube-apiserver is started with: `warm_client`, which that program begins as, hands over its arguments, environment,
folder and standard streams, and stays, as the process that the harness knows, for as long as this one serves.

Nobody is left behind: without a client this process ends with etcd, and with one when that ends, however it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
from typing import Any

from navarch.cluster.component import load

_MESSAGE_MAX = 1 << 22


def main(descriptor: int) -> int:
    """`descriptor` is a listening socket; standard input ends when etcd does."""
    listening = socket.socket(fileno=descriptor)
    load("navarch.cluster.kube.apiserver_run")
    load("navarch.cluster.flags.apiserver_settings")
    from navarch.api import schema
    from navarch.cluster.kube import apiserver
    from navarch.cluster.kube.environment import kubernetes_version
    from navarch.kinds.registry import builtin

    # Kept by those who make them.
    builtin(schema.load(kubernetes_version()))
    with selectors.DefaultSelector() as waiting:
        waiting.register(listening, selectors.EVENT_READ)
        waiting.register(sys.stdin.fileno(), selectors.EVENT_READ)
        if not any(key.fileobj is listening for key, _ in waiting.select()):
            return 0
    client, _ = listening.accept()
    listening.close()
    told, streams = _received(client)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    threading.Thread(target=_end_with, args=(client,), daemon=True).start()
    status = apiserver.main(told["arguments"])
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        client.sendall(b"%d" % status)
    return status


def _received(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What the client was started with, and its three standard streams."""
    data, streams, _, _ = socket.recv_fds(client, _MESSAGE_MAX, 3)
    while not data.endswith(b"\n"):
        chunk = client.recv(_MESSAGE_MAX)
        if not chunk:
            raise EOFError("kube-apiserver ended before it had said what to do")
        data += chunk
    return json.loads(data), streams


def _end_with(client: socket.socket) -> None:
    """Stop in order when the client says so, and when it is gone."""
    import signal

    with contextlib.suppress(OSError):
        client.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
