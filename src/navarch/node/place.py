"""A place for one more node on this machine: a network namespace of its own, wired to a bridge of the cluster.

In: the names of cluster and node, the bridge's range, the node's address in it. Out: bridge, namespace (below
/run/netns, where `ip netns` finds it), a pair of links between them, and the rules by which the node reaches what the
machine reaches. Invariant: all of it is made anew where it is missing, and `remove` leaves nothing of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from navarch import filelock
from navarch.node.names import HostNames, bridge_of, uplinks_table_of

_SPACES: Final = Path("/run/netns")
_NEW_NET: Final = 0x40000000
_MNT_DETACH: Final = 2
_IFA_F_NODAD: Final = 2
_LIMIT_S: Final = 30.0
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Place:
    """`network` is the range of the cluster's bridge, which has its first address, `network_ipv6` its IPv6 one, where
    the cluster has such; `cluster_ranges` are reached as the node itself, without translation. `lock` is a file that
    all who make places of this cluster hold meanwhile."""

    names: HostNames
    network: str
    address: str
    lock: Path
    cluster_ranges: tuple[str, ...] = ()
    network_ipv6: str = ""
    address_ipv6: str = ""

    @property
    def space(self) -> Path:
        return _SPACES / self.names.whole

    @property
    def bridge(self) -> str:
        return bridge_of(self.names.cluster)

    def ensure(self) -> None:
        """Make what is missing.  Raises OSError."""
        self.lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with filelock.held(self.lock):
            self._ensure_bridge()
            self._ensure_space()

    def enter(self) -> None:
        """Have this process be there; threads that run already stay where they are.  Raises OSError."""
        descriptor = os.open(self.space, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(descriptor, _NEW_NET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(self.space))
        finally:
            os.close(descriptor)

    def _ensure_bridge(self) -> None:
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            index = _index(ip, self.bridge)
            if not index:
                ip.link("add", ifname=self.bridge, kind="bridge", mtu=_mtu(ip))
                index = _index(ip, self.bridge)
            ip.link("set", index=index, state="up")
            _route_localnet(self.bridge)
            for network in self._networks():
                _add_address(ip, index, str(ip_network(network)[1]), network)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        if self.network_ipv6:
            from navarch.node.network import forward_ipv6

            forward_ipv6()
        _nft([line for network in self._networks() for line in self._masquerading(network)])

    def _networks(self) -> tuple[str, ...]:
        return (self.network, self.network_ipv6) if self.network_ipv6 else (self.network,)

    def _masquerading(self, network: str) -> list[str]:
        """The rules for what leaves the cluster from this range."""
        ip = "ip6" if ":" in network else "ip"
        table = f"{ip} {uplinks_table_of(self.names.cluster)}"
        inside = ", ".join((network, *(each for each in self.cluster_ranges if (":" in each) == (":" in network))))
        return [
            f"add table {table}",
            f"add chain {table} postrouting {{ type nat hook postrouting priority 100 ; }}",
            f"flush chain {table} postrouting",
            f"add rule {table} postrouting {ip} saddr {network} {ip} daddr != {{ {inside} }} masquerade fully-random",
        ]

    def _ensure_space(self) -> None:
        from pyroute2 import IPRoute, netns

        if not _is_mounted(self.space):
            self.space.unlink(missing_ok=True)
            netns.create(self.names.whole)
        with IPRoute() as ip:
            link = _index(ip, self.names.uplink)
            if not link:
                mtu = int(ip.get_links(_index(ip, self.bridge))[0].get_attr("IFLA_MTU"))
                peer = {"ifname": "eth0", "net_ns_fd": self.names.whole, "mtu": mtu}
                ip.link("add", ifname=self.names.uplink, kind="veth", mtu=mtu, peer=peer)
                link = _index(ip, self.names.uplink)
                ip.link("set", index=link, master=_index(ip, self.bridge), state="up")
            # What a node sends to a node port of this machine may lead back to that node: by the link that it came by.
            ip.brport("set", index=link, mode=1)
        with _there(self.names.whole) as ip:
            for name in ("lo", "eth0"):
                ip.link("set", index=_index(ip, name), state="up")
            for address, network in zip((self.address, self.address_ipv6), self._networks(), strict=False):
                _add_address(ip, _index(ip, "eth0"), address, network)
                family = socket.AF_INET6 if ":" in network else socket.AF_INET
                ip.route("replace", dst="default", family=family, gateway=str(ip_network(network)[1]))
        self._within(lambda: _route_localnet("eth0"))

    def _within(self, act: Callable[[], None]) -> None:
        """Have another thread be there.  Raises OSError."""

        def there() -> None:
            self.enter()
            act()

        with ThreadPoolExecutor(1) as executor:
            executor.submit(there).result()

    def remove(self) -> None:
        """Idempotent; what runs there must have ended."""
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            for index in ip.link_lookup(ifname=self.names.uplink):
                with _but_for(errno.ENODEV):
                    ip.link("del", index=index)
        _libc.umount2(str(self.space).encode(), _MNT_DETACH)
        self.space.unlink(missing_ok=True)


def _add_address(ip: Any, index: int, address: str, network: str) -> None:
    # Nobody else can have it: no need to ask around first.
    more = {"flags": _IFA_F_NODAD} if ":" in address else {}
    with _but_for(errno.EEXIST):
        ip.addr("add", index=index, address=address, prefixlen=ip_network(network).prefixlen, **more)


def _route_localnet(link: str) -> None:
    """Node ports on localhost leave by this link for other nodes, until they are masqueraded with a loopback source."""
    Path(f"/proc/sys/net/ipv4/conf/{link}/route_localnet").write_text("1")


def remove_bridge(cluster: str) -> None:
    """What the places of a cluster share, once they are gone. Idempotent."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        for index in ip.link_lookup(ifname=bridge_of(cluster)):
            with _but_for(errno.ENODEV):
                ip.link("del", index=index)
    for ip in ("ip", "ip6"):
        table = f"{ip} {uplinks_table_of(cluster)}"
        with contextlib.suppress(OSError):
            _nft([f"add table {table}", f"delete table {table}"])


@contextlib.contextmanager
def _there(space: str) -> Iterator[Any]:
    from pyroute2 import NetNS

    ip = NetNS(space)
    try:
        yield ip
    finally:
        ip.close()


def _index(ip: Any, name: str) -> int:
    """0 where there is no such link."""
    return next(iter(ip.link_lookup(ifname=name)), 0)


def _mtu(ip: Any) -> int:
    for route in ip.get_default_routes(family=socket.AF_INET):
        if index := route.get_attr("RTA_OIF"):
            return min(int(ip.get_links(index)[0].get_attr("IFLA_MTU")), 65535)
    return 1500


def _is_mounted(space: Path) -> bool:
    """A file that is left from before a reboot is none."""
    return any(line.split()[4] == str(space) for line in Path("/proc/self/mountinfo").read_text().splitlines())


@contextlib.contextmanager
def _but_for(code: int) -> Iterator[None]:
    """Let one netlink error pass: the state that it reports is the one wanted."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code != code:
            raise


def _nft(script: list[str]) -> None:
    """Raises OSError."""
    done = subprocess.run(
        ["nft", "-f", "-"], input="\n".join(script), text=True, capture_output=True, check=False, timeout=_LIMIT_S
    )
    if done.returncode != 0:
        raise OSError(f"nft: {done.stderr.strip()}")
