"""Addresses of simulated nodes and of the pods on them: unique, handed out in order, reused when a pod is gone."""

from __future__ import annotations

from collections import deque
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

# RFC 2544 and RFC 6598: ranges that no real network routes, large enough for 131,000 nodes and four million pods.
NODES = IPv4Network("198.18.0.0/15")
PODS = IPv4Network("100.64.0.0/10")
# Halves of what RFC 5180 sets aside likewise.
NODES_IPV6 = IPv6Network("2001:2::/49")
PODS_IPV6 = IPv6Network("2001:2:0:8000::/49")


class Pool:
    """Host addresses of one network, without those in `taken`, which all pools share."""

    def __init__(self, network: IPv4Network | IPv6Network, taken: set[str], *, reserved: int = 2) -> None:
        self.network = network
        self._taken = taken
        self._made = type(network.network_address)
        self._next = int(network.network_address) + reserved
        self._last = int(network.broadcast_address) - 1
        self._free: deque[str] = deque()

    def take(self) -> str | None:
        """An address that is not in use, None where all are. Freed ones come last, as connections may linger."""
        while self._next <= self._last:
            address = str(self._made(self._next))
            self._next += 1
            if address not in self._taken:
                self._taken.add(address)
                return address
        while self._free:
            address = self._free.popleft()
            if address not in self._taken:
                self._taken.add(address)
                return address
        return None

    def free(self, address: str) -> None:
        self._free.append(address)


class PodAddresses:
    """Pod addresses by node: of the node's pod network where it has one, else of a network shared by all nodes."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._shared = {False: Pool(PODS, self._taken), True: Pool(PODS_IPV6, self._taken)}
        self._by_network: dict[str, Pool] = {}

    def take(self, pod_cidr: str) -> str:
        address = self._pool(pod_cidr).take() or self._shared[":" in pod_cidr].take()
        if address is None:
            raise RuntimeError("out of simulated pod addresses")
        return address

    def reserve(self, address: str) -> None:
        """The address is in use already, whichever network it is of."""
        self._taken.add(address)

    def give_back(self, pod_cidr: str, address: str) -> None:
        """`pod_cidr` is that of the node on which the pod was."""
        self._taken.discard(address)
        for pool in (self._pool(pod_cidr), self._shared[":" in address]):
            if ip_address(address) in pool.network:
                pool.free(address)
                return

    def _pool(self, pod_cidr: str) -> Pool:
        pool = self._by_network.get(pod_cidr)
        if pool is None:
            if not pod_cidr:
                return self._shared[False]
            pool = self._by_network[pod_cidr] = Pool(ip_network(pod_cidr), self._taken)
        return pool
