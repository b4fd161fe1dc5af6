"""A small network of namespaces without names: this thread's becomes the node, pods and an outside client hang on it.

Sockets belong to the namespace in which they were made, so servers and clients of several namespaces live in one test.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from pyroute2 import IPRoute

_NEW_NET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _call(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


class NetLab:
    def __init__(self) -> None:
        self._home = _current()
        _call(_libc.unshare(_NEW_NET))
        self._node = _current()
        self._fds: dict[str, int] = {}
        self._sockets: list[socket.socket] = []
        self._lo_up()
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")

    def _lo_up(self) -> None:
        with IPRoute() as ip:
            ip.link("set", index=1, state="up")

    def add(self, name: str, address: str, gateway: str) -> None:
        """A namespace with one leg in the node: `address` there, `gateway` on the node, both of a /24."""
        _call(_libc.unshare(_NEW_NET))
        inner = self._fds[name] = _current()
        self._lo_up()
        _call(_libc.setns(self._node, _NEW_NET))
        with IPRoute() as ip:
            ip.link("add", ifname=f"v-{name}", kind="veth", peer={"ifname": "eth0", "net_ns_fd": inner})
            index = ip.link_lookup(ifname=f"v-{name}")[0]
            ip.addr("add", index=index, address=gateway, prefixlen=24)
            ip.link("set", index=index, state="up")
        with self.inside(name), IPRoute() as ip:
            index = ip.link_lookup(ifname="eth0")[0]
            ip.addr("add", index=index, address=address, prefixlen=24)
            ip.link("set", index=index, state="up")
            ip.route("add", dst="default", gateway=gateway)

    def route(self, destination: str, through: str) -> None:
        with IPRoute() as ip:
            ip.route("add", dst=destination, oif=ip.link_lookup(ifname=f"v-{through}")[0])

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        _call(_libc.setns(self._fds[name] if name != "node" else self._node, _NEW_NET))
        try:
            yield
        finally:
            _call(_libc.setns(self._node, _NEW_NET))

    def open(self, name: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
        with self.inside(name):
            made = socket.socket(socket.AF_INET, kind)
        made.settimeout(2)
        self._sockets.append(made)
        return made

    def serve(self, name: str, port: int, kind: int = socket.SOCK_STREAM) -> None:
        """Answer every line or datagram with `<name> <peer address>`."""
        server = self.open(name, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.settimeout(None)
        server.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            server.listen(64)
        target = self._accept if kind == socket.SOCK_STREAM else self._datagrams
        threading.Thread(target=target, args=(server, name), daemon=True).start()

    def _accept(self, server: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, address = server.accept()
                threading.Thread(target=self._lines, args=(peer, f"{name} {address[0]}"), daemon=True).start()

    @staticmethod
    def _lines(peer: socket.socket, answer: str) -> None:
        with contextlib.suppress(OSError), peer:
            while peer.recv(100):
                peer.sendall(answer.encode())

    @staticmethod
    def _datagrams(server: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError, TypeError):
            while True:
                _, address = server.recvfrom(100)
                server.sendto(f"{name} {address[0]}".encode(), address)

    def connect(self, name: str, address: str, port: int) -> socket.socket:
        made = self.open(name)
        made.connect((address, port))
        return made

    def ask(self, name: str, address: str, port: int) -> tuple[str, str]:
        """Connect from a namespace; which server answered, and which client address it saw."""
        with self.connect(name, address, port) as made:
            return say(made)

    def close(self) -> None:
        for made in self._sockets:
            with contextlib.suppress(OSError, TypeError):
                made.shutdown(socket.SHUT_RDWR)
            made.close()
        _call(_libc.setns(self._home, _NEW_NET))
        for fd in (*self._fds.values(), self._node, self._home):
            os.close(fd)


def say(connection: socket.socket) -> tuple[str, str]:
    connection.send(b"?")
    server, client = connection.recv(100).decode().split()
    return server, client
