"""What `kube-apiserver` begins as: hands over to the server that etcd has warm, or becomes one.

Run by its path with nothing imported that is not needed, so that it costs some milliseconds.  In: kube-apiserver's
arguments.  Out: the exit status of the server, to which signals are passed on.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

_ASK_S = 1.0


def main(arguments: list[str]) -> int:
    path = _warm(arguments)
    if path is not None:
        with socket.socket(socket.AF_UNIX) as server:
            try:
                server.connect(path)
            except OSError:
                return _become(arguments)
            told = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: server.sendall(b"."))
            data = json.dumps(told).encode() + b"\n"
            sent = socket.send_fds(server, [data], [0, 1, 2])
            server.sendall(data[sent:])
            status = server.recv(16)
            return int(status) if status else 1
    return _become(arguments)


def _become(arguments: list[str]) -> int:
    program = [sys.executable, "-m", "navarch.cluster.kube.apiserver", *arguments]
    os.execv(program[0], program)


def _warm(arguments: list[str]) -> str | None:
    """The socket of the server that the etcd of the command line has warm, if it has one."""
    # A flag's value is in the same word or, as from Java, in the next one.
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, stated, value = argument.partition("=")
        if name != "--etcd-servers":
            continue
        scheme, _, rest = (value if stated else following).partition("://")
        host, _, port = rest.partition(",")[0].partition("/")[0].rpartition(":")
        if scheme != "http":
            return None
        try:
            with socket.create_connection((host.strip("[]"), int(port)), _ASK_S) as etcd:
                etcd.sendall(b"GET /navarch HTTP/1.0\r\n\r\n")
                answer = b""
                while chunk := etcd.recv(4096):
                    answer += chunk
            return json.loads(answer.partition(b"\r\n\r\n")[2])["warm"] or None
        except (OSError, ValueError, KeyError):
            return None
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
