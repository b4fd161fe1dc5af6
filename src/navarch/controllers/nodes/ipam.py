"""Node IPAM: a range of pod addresses for each node, out of each of the cluster's, one per IP family.

In: Nodes. Out: `spec.podCIDR` and `spec.podCIDRs`, written once, for nodes whose kubelet has said that it is there: a
Node without one runs nothing that would need an address. Invariant: no two nodes have the same range; a range is free
again when its node is gone.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import ClassVar

from navarch.api.meta import Key, Obj, key_of, name_of
from navarch.client.resources import NODES
from navarch.controllers.base import Context, Controller, Requeue

_TTL = "node.alpha.kubernetes.io/ttl"


class CidrSet:
    """Subnets of one size within a network; gives the lowest free one after the one given last."""

    def __init__(self, network: str, mask: int) -> None:
        self._network: IPv4Network | IPv6Network = ip_network(network)
        self._mask = mask
        self._count = 1 << (mask - self._network.prefixlen)
        self._step = 1 << (self._network.max_prefixlen - mask)
        self._taken: set[int] = set()
        self._next = 0

    def occupy(self, cidr: str) -> None:
        index = self._index(cidr)
        if index is not None:
            self._taken.add(index)

    def release(self, cidr: str) -> None:
        index = self._index(cidr)
        if index is not None:
            self._taken.discard(index)

    def take(self) -> str | None:
        """A free subnet, now taken; None where all are."""
        if len(self._taken) >= self._count:
            return None
        index = self._next
        while index in self._taken:
            index = (index + 1) % self._count
        self._taken.add(index)
        self._next = (index + 1) % self._count
        return f"{self._network.network_address + index * self._step}/{self._mask}"

    def give_back(self, cidr: str) -> None:
        """Release a subnet that nobody was given after all: it comes next, as if it had not been taken."""
        index = self._index(cidr)
        if index is not None and index in self._taken:
            self._taken.discard(index)
            if self._next == (index + 1) % self._count:
                self._next = index

    def _index(self, cidr: str) -> int | None:
        network = ip_network(cidr)
        if network.version != self._network.version:
            return None
        offset = int(network.network_address) - int(self._network.network_address)
        index = offset // self._step
        return index if 0 <= index < self._count else None


class NodeIPAMController(Controller):
    name: ClassVar[str] = "node-ipam"
    workers: ClassVar[int] = 8

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        config = context.config
        self._enabled = config.allocate_node_cidrs and bool(config.cluster_cidr)
        masks = {4: config.node_cidr_mask, 6: config.node_cidr_mask_ipv6}
        ranges = [text.strip() for text in config.cluster_cidr.split(",") if text.strip()]
        self._sets = [CidrSet(text, masks[ip_network(text).version]) for text in ranges]
        self._starved: dict[Key, None] = {}
        self._nodes = self.informer(NODES)
        if self._enabled:
            self._nodes.add_handler(self._node_added, lambda _old, new: self._node_added(new), self._node_deleted)
        self._recorder = context.recorder("cidrAllocator")

    def _node_added(self, node: Obj) -> None:
        cidrs = node["spec"].get("podCIDRs") or [c for c in [node["spec"].get("podCIDR")] if c]
        for cidr in cidrs:
            for each in self._sets:
                each.occupy(cidr)
        if not cidrs and key_of(node) not in self._starved:
            self.enqueue(key_of(node))

    def _node_deleted(self, node: Obj) -> None:
        self._starved.pop(key_of(node), None)
        for cidr in node["spec"].get("podCIDRs") or ():
            for each in self._sets:
                each.release(cidr)
        for key in self._starved:
            self.enqueue(key)
        self._starved.clear()

    async def reconcile(self, key: Key) -> Requeue | None:
        node = self._nodes.get("", key.name)
        if node is None or node["spec"].get("podCIDR"):
            return None
        if not _has_kubelet(node):
            if _TTL not in (node["metadata"].get("annotations") or {}):
                await self.client.patch(NODES, key.name, "", {"metadata": {"annotations": {_TTL: "0"}}})
            return None
        cidrs = self._take()
        if not cidrs:
            self._starved[key] = None
            message = f"Node {name_of(node)} status is now: CIDRNotAvailable"
            self._recorder.event(node, "Normal", "CIDRNotAvailable", message)
            return None
        # With the version that was seen to have none: a range, once given, cannot be changed.
        metadata = {
            "uid": node["metadata"]["uid"],
            "resourceVersion": node["metadata"]["resourceVersion"],
            # How long a node may believe what it read, which is not at all in a cluster of this size.
            "annotations": {_TTL: "0"},
        }
        patch = {"metadata": metadata, "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}}
        try:
            await self.client.patch(NODES, key.name, "", patch)
        except BaseException:
            self._give_back(cidrs)
            raise
        return None

    def _take(self) -> list[str]:
        """A range of each family; none at all where one of them has none left."""
        found = [each.take() for each in self._sets]
        taken = [cidr for cidr in found if cidr is not None]
        if len(taken) == len(found):
            return taken
        self._give_back(taken)
        return []

    def _give_back(self, cidrs: list[str]) -> None:
        for each in self._sets:
            for cidr in cidrs:
                each.give_back(cidr)


def _has_kubelet(node: Obj) -> bool:
    return bool(((node.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion"))
