"""Hosts in network namespaces, on links of their own with routers between them, and pods on the hosts.

Sockets belong to the namespace in which they were made. What runs on a host (the component under test, with an API
server beside it) does so in a thread that lives in the host's namespace, with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute

T = TypeVar("T")
_NEW_NET = 0x40000000
_NODAD = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _call(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def enter(descriptor: int) -> None:
    """Put this thread into a namespace."""
    _call(_libc.setns(descriptor, _NEW_NET))


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Hosts:
    def __init__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._spaces: dict[str, int] = {}
        self._sockets: list[socket.socket] = []
        self._loops: dict[str, Loop] = {}

    def close(self) -> None:
        for loop in self._loops.values():
            loop.close()
        for made in self._sockets:
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
            made.close()
        enter(self._home)
        for descriptor in (*self._spaces.values(), self._home):
            os.close(descriptor)

    # Building.

    def _space(self, name: str) -> int:
        _call(_libc.unshare(_NEW_NET))
        self._spaces[name] = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        with IPRoute() as ip:
            ip.link("set", index=1, state="up")
        for family in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path("/proc/sys/net", family).write_text("1")
        enter(self._home)
        return self._spaces[name]

    def link(self, name: str, mtu: int = 1500) -> None:
        """A link that hosts can be plugged into."""
        self._space(name)
        with self.inside(name), IPRoute() as ip:
            ip.link("add", ifname="switch", kind="bridge", mtu=mtu)
            ip.link("set", index=ip.link_lookup(ifname="switch")[0], state="up")

    def plug(self, name: str, link: str, *addresses: str, device: str = "eth0", mtu: int = 1500) -> None:
        """A leg of a host (made if it is new) on a link, with addresses such as `192.168.1.2/24`."""
        inner = self._spaces.get(name) or self._space(name)
        with self.inside(link), IPRoute() as ip:
            port = f"to-{name}"
            ip.link("add", ifname=port, kind="veth", mtu=mtu, peer={"ifname": device, "net_ns_fd": inner, "mtu": mtu})
            ip.link("set", index=ip.link_lookup(ifname=port)[0], master=ip.link_lookup(ifname="switch")[0], state="up")
        self._address(name, device, addresses)

    def pod(self, name: str, host: str, bridge: str, addresses: Sequence[str], mtu: int) -> None:
        """What CNI's bridge plugin makes of a pod: a leg on the host's bridge, the gateway as the way out."""
        inner = self._space(name)
        with self.inside(host), IPRoute() as ip:
            ip.link(
                "add", ifname=f"v{name}", kind="veth", mtu=mtu, peer={"ifname": "eth0", "net_ns_fd": inner, "mtu": mtu}
            )
            index = ip.link_lookup(ifname=f"v{name}")[0]
            ip.link("set", index=index, master=ip.link_lookup(ifname=bridge)[0], state="up")
        self._address(name, "eth0", addresses)
        for address in addresses:
            self.gateway(name, str(ip_interface(address).network[1]))

    def _address(self, name: str, device: str, addresses: Sequence[str]) -> None:
        with self.inside(name), IPRoute() as ip:
            Path(f"/proc/sys/net/ipv6/conf/{device}/accept_dad").write_text("0")
            index = ip.link_lookup(ifname=device)[0]
            ip.link("set", index=index, state="up")
            for each in addresses:
                address, length = each.split("/")
                more = {"flags": _NODAD} if ":" in address else {}
                ip.addr("add", index=index, address=address, prefixlen=int(length), **more)

    def gateway(self, name: str, address: str) -> None:
        with self.inside(name), IPRoute() as ip:
            ip.route("add", family=family_of(address), dst="default", gateway=address)

    # Looking and acting.

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        enter(self._spaces[name])
        try:
            yield
        finally:
            enter(self._home)

    def look(self, name: str, function: Callable[[], T]) -> T:
        with self.inside(name):
            return function()

    def routes(self, name: str) -> dict[str, tuple[str, str]]:
        """By destination: gateway and device, of all tables but the local ones."""
        with self.inside(name), IPRoute() as ip:
            names = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in ip.get_links()}
            return {
                f"{route.get_attr('RTA_DST')}/{route['dst_len']}": (
                    route.get_attr("RTA_GATEWAY") or "",
                    names.get(route.get_attr("RTA_OIF"), ""),
                )
                for family in (socket.AF_INET, socket.AF_INET6)
                for route in ip.get_routes(family=family)
                if route.get_attr("RTA_TABLE") != 255 and route.get_attr("RTA_DST") and route["type"] == 1
            }

    def trace(self, name: str) -> dict[str, Any]:
        """Everything that is meant to be the same after a network has come and gone."""
        routes = {key: value for key, value in self.routes(name).items() if not key.startswith("fe80")}
        with self.inside(name), IPRoute() as ip:
            links = sorted(str(link.get_attr("IFLA_IFNAME")) for link in ip.get_links())
            rules = [
                rule.get_attr("FRA_TABLE") for f in (socket.AF_INET, socket.AF_INET6) for rule in ip.get_rules(family=f)
            ]
            return {"links": links, "routes": routes, "rules": sorted(map(str, rules))}

    def neighbours(self, name: str, device: str) -> set[tuple[str, str]]:
        """Inner addresses and hardware addresses that are written down for a device."""
        with self.inside(name), IPRoute() as ip:
            index = ip.link_lookup(ifname=device)[0]
            return {
                (entry.get_attr("NDA_DST"), entry.get_attr("NDA_LLADDR"))
                for family in (socket.AF_INET, socket.AF_INET6)
                for entry in ip.get_neighbours(family=family, ifindex=index)
                if entry["state"] == 128
            }

    def tunnel_ends(self, name: str, device: str) -> set[tuple[str, str]]:
        with self.inside(name), IPRoute() as ip:
            index = ip.link_lookup(ifname=device)[0]
            entries = [entry for entry in ip.fdb("dump", ifindex=index) if entry["ifindex"] == index]
            return {(entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_DST")) for entry in entries}

    def switch_link(self, name: str, device: str, state: str) -> None:
        with self.inside(name), IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname=device)[0], state=state)

    def drop(self, pod: str, host: str) -> None:
        """A pod's leg is gone."""
        with self.inside(host), IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname=f"v{pod}")[0])

    def datagrams(self, name: str, address: str, port: int) -> Callable[[], bytes]:
        """Listen; what is returned waits for the next datagram."""
        with self.inside(name):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sockets.append(made)
        made.settimeout(20)
        made.bind((address, port))
        return lambda: made.recv(1 << 16)

    def send(self, name: str, address: str, port: int, data: bytes) -> None:
        with self.inside(name):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with made:
            made.sendto(data, (address, port))

    def loop(self, name: str) -> Loop:
        """The event loop in the host."""
        if name not in self._loops:
            self._loops[name] = Loop(self._spaces[name])
        return self._loops[name]

    def serve(self, name: str, address: str, port: int, kind: int = socket.SOCK_STREAM) -> None:
        """Answer connections with the peer's address, and what they then send with its length; datagrams with both."""
        with self.inside(name):
            server = socket.socket(family_of(address), kind)
        self._sockets.append(server)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        if kind == socket.SOCK_STREAM:
            server.listen(16)
        target = _accept if kind == socket.SOCK_STREAM else _datagrams
        threading.Thread(target=target, args=(server,), daemon=True).start()

    def ask(self, name: str, address: str, port: int, *, size: int = 0, source: str = "", timeout_s: float = 10) -> str:
        """Connect and send `size` bytes; as whom the other end has seen us, once it says that it has got all."""
        with self.inside(name):
            made = socket.socket(family_of(address), socket.SOCK_STREAM)
        with made:
            made.settimeout(timeout_s)
            if source:
                made.bind((source, 0))
            made.connect((address, port))
            made.sendall(b"x" * size)
            made.shutdown(socket.SHUT_WR)
            peer, got = b"".join(iter(lambda: made.recv(100), b"")).decode().split()
        assert int(got) == size
        return peer

    def connect(self, name: str, address: str, port: int) -> Callable[[], str]:
        """An open connection; what is returned uses it, and says as whom the other end has seen us."""
        with self.inside(name):
            made = socket.socket(family_of(address), socket.SOCK_STREAM)
        self._sockets.append(made)
        made.settimeout(10)
        made.connect((address, port))

        def use() -> str:
            made.sendall(b"x")
            made.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: made.recv(100), b"")).decode().split()[0]

        return use

    def reaches(self, name: str, address: str, port: int, timeout_s: float = 3.0) -> bool:
        try:
            self.ask(name, address, port, timeout_s=timeout_s)
        except OSError:
            return False
        return True

    def barred(self, name: str, address: str, port: int) -> bool:
        """Whether a connection is not even refused for a while."""
        try:
            self.ask(name, address, port, timeout_s=0.4)
        except TimeoutError:
            return True
        return False


def _accept(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            peer, address = server.accept()
            threading.Thread(target=_take, args=(peer, address[0]), daemon=True).start()


def _take(peer: socket.socket, address: str) -> None:
    with contextlib.suppress(OSError), peer:
        got = sum(len(part) for part in iter(lambda: peer.recv(1 << 16), b""))
        peer.sendall(f"{address} {got}".encode())


def _datagrams(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data, address = server.recvfrom(1 << 16)
            server.sendto(f"{address[0]} {len(data)}".encode(), address)


class Loop:
    """An event loop in a thread that lives in a namespace."""

    def __init__(self, space: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(space,))
        self._thread.start()

    def _run(self, space: int) -> None:
        enter(space)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def do(self, what: Coroutine[Any, Any, T], timeout_s: float = 30.0) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout_s)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
