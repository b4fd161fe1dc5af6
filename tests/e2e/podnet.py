"""The pods of a cluster as places to connect from and to listen in.

A socket belongs to the network namespace in which it was made. A test that runs on the node's machine can therefore
make clients and servers inside of pods, which says more (who was seen as the peer?) and takes less time than commands.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .conftest import Cluster

T = TypeVar("T")
NODE = "node"
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
_NEW_NET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class PodNet:
    """One namespace of a cluster with pods that are running; `NODE` stands for the machine itself."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.namespace = f"net-{uuid.uuid4().hex[:6]}"
        self.addresses: dict[str, str] = {}
        self._pids: dict[str, int] = {}
        self._sockets: list[socket.socket] = []
        address = next(one for one in self.node["status"]["addresses"] if one["type"] == "InternalIP")
        self.addresses[NODE] = address["address"]

    @property
    def node(self) -> dict[str, Any]:
        return dict(self.cluster.get("nodes")["items"][0])

    def start(self, *objects: dict[str, Any]) -> None:
        """Create objects; pods among them are waited for."""
        self.cluster.apply(*objects, namespace=self.namespace)
        names = [obj["metadata"]["name"] for obj in objects if obj["kind"] == "Pod"]
        if names:
            self.kubectl(
                "wait", "--for=jsonpath={.status.phase}=Running", "--timeout=60s", *[f"pod/{n}" for n in names]
            )
        for name in names:
            pod = self.get("pod", name)
            self.addresses[name] = pod["status"]["podIP"]
            self._pids[name] = process_of(pod["status"]["containerStatuses"][0]["containerID"])

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def get(self, *arguments: str) -> Any:
        return self.cluster.get("-n", self.namespace, *arguments)

    def exec(self, pod: str, script: str) -> str:
        return self.kubectl("exec", pod, "--", "sh", "-c", script)

    def service(self, name: str, **spec: Any) -> dict[str, Any]:
        """Create or change a service; what the API server made of it."""
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}, namespace=self.namespace
        )
        return dict(self.get("service", name))

    # Sockets.

    @contextlib.contextmanager
    def inside(self, place: str) -> Iterator[None]:
        """Have this thread make its sockets in a pod."""
        if place == NODE:
            yield
            return
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self._pids[place]}/ns/net", os.O_RDONLY)
        try:
            assert _libc.setns(there, _NEW_NET) == 0
            yield
        finally:
            assert _libc.setns(home, _NEW_NET) == 0
            os.close(home)
            os.close(there)

    def open(self, place: str, kind: int = TCP, timeout_s: float = 1.0, family: int = socket.AF_INET) -> socket.socket:
        with self.inside(place):
            made = socket.socket(family, kind)
        made.settimeout(timeout_s)
        self._sockets.append(made)
        return made

    def serve(self, place: str, port: int, kind: int = TCP, address: str = "0.0.0.0") -> None:
        """Answer every message with the place's name and the address of who sent it."""
        server = self.open(place, kind, family=_family_of(address))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.settimeout(None)
        server.bind((address, port))
        if kind == TCP:
            server.listen(128)
        threading.Thread(target=_accept if kind == TCP else _answer, args=(server, place), daemon=True).start()

    def ask(self, place: str, address: str, port: int, kind: int = TCP, source: str = "") -> tuple[str, str]:
        """Who answers, and as whom it saw the asker.  Raises OSError."""
        with self.open(place, kind, family=_family_of(address)) as client:
            if source:
                client.bind((source, 0))
            client.connect((address, port))
            return talk(client)

    def answering(self, place: str, address: str, port: int, kind: int = TCP, times: int = 30) -> set[str]:
        """The names of all who answer."""
        return set(Counter(self.ask(place, address, port, kind)[0] for _ in range(times)))

    def refused(self, place: str, address: str, port: int, kind: int = TCP) -> bool:
        try:
            self.ask(place, address, port, kind)
        except ConnectionRefusedError:
            return True
        return False

    def close(self) -> None:
        for made in self._sockets:
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
            made.close()


def talk(connection: socket.socket) -> tuple[str, str]:
    connection.send(b"?")
    name, _, peer = connection.recv(200).decode().partition(" ")
    if not name:
        raise ConnectionResetError("closed without an answer")
    return name, peer


def eventually(look: Callable[[], T], wanted: T, timeout_s: float = 10.0) -> None:
    """Until `look` gives what is wanted; an OSError counts as not yet."""
    give_up_s = time.monotonic() + timeout_s
    seen: object = None
    while time.monotonic() < give_up_s:
        try:
            seen = look()
        except OSError as error:
            seen = error
        if seen == wanted:
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: wanted {wanted!r}, last {seen!r}")


def _family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def process_of(container_id: str) -> int:
    """The first process of a container, found by its cgroup. Not that of the lowest number: numbers begin anew."""
    identity = container_id.rpartition("//")[2]
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if identity in (entry / "cgroup").read_text():
                    began = int((entry / "stat").read_text().rpartition(")")[2].split()[19])
                    found.append((began, int(entry.name)))
    return min(found)[1]


def _accept(server: socket.socket, name: str) -> None:
    with contextlib.suppress(OSError):
        while True:
            peer, address = server.accept()
            threading.Thread(target=_lines, args=(peer, f"{name} {address[0]}"), daemon=True).start()


def _lines(peer: socket.socket, answer: str) -> None:
    with contextlib.suppress(OSError), peer:
        while peer.recv(100):
            peer.sendall(answer.encode())


def _answer(server: socket.socket, name: str) -> None:
    with contextlib.suppress(OSError, TypeError):  # A socket that is shut down receives nothing from nobody.
        while True:
            _, address = server.recvfrom(100)
            server.sendto(f"{name} {address[0]}".encode(), address)
