"""What a node of a cluster is called on the machine it lives on: every name there is made here and nowhere else.

Several clusters share a machine, and several nodes of a cluster may. Invariant: two nodes never have a name in common
(cluster names have no `_`, node names neither, so `navarch-<cluster>_<node>` is read in one way only), and whoever
knows cluster and node finds all of them again to remove them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

# A network device's name may have 15 characters.
_LINK_MAX: Final = 15
# Names of files are made of it and of a container's 64 characters.
_NODE_MAX: Final = 60
_CLUSTER: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NODE: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class HostNames:
    """The names of one node."""

    cluster: str
    node: str

    def __post_init__(self) -> None:
        # They become words of nft's language and names of files.
        for name, pattern in ((self.cluster, _CLUSTER), (self.node, _NODE)):
            if not pattern.fullmatch(name):
                raise ValueError(f"{name!r} cannot name what a node has on its machine")

    @property
    def label(self) -> str:
        """The node in names that may not be too long; distinct for distinct nodes of a cluster."""
        return self.node if len(self.node) <= _NODE_MAX else f"{self.node[: _NODE_MAX - 9]}-{_digest(self.node, 8)}"

    @property
    def whole(self) -> str:
        """`navarch-<cluster>_<node>`: the CNI network, the services' nftables table, the cgroup root."""
        return f"navarch-{self.cluster}_{self.label}"

    @property
    def services_table(self) -> str:
        return self.whole

    @property
    def network_table(self) -> str:
        return f"{self.whole}_net"

    @property
    def policy_table(self) -> str:
        return f"{self.whole}_policy"

    @property
    def cni_network(self) -> str:
        return self.whole

    @property
    def cgroup_root(self) -> str:
        return f"/{self.whole}"

    @property
    def bridge(self) -> str:
        """Begins with what is legible of the cluster, ends with what makes it unique."""
        tail = _digest(f"{self.cluster}_{self.node}", 6)
        return f"nv-{self.cluster[: _LINK_MAX - len(tail) - 4]}-{tail}"

    def tunnel(self, family: int) -> str:
        """The device through which packets go to nodes behind routers, by the family (4 or 6) of these nodes'
        addresses."""
        return f"n{family}{self.bridge[2:]}"

    @property
    def route_table(self) -> int:
        """The number of the routing table of what pods send, above those that distributions and people give."""
        return (1 << 28) + int(_digest(f"{self.cluster}_{self.node}", 6), 16)

    @property
    def uplink(self) -> str:
        """The machine's end of the link to a node that is in a network namespace of its own."""
        tail = _digest(f"{self.cluster}_{self.node}", 6)
        return f"nu-{self.cluster[: _LINK_MAX - len(tail) - 4]}-{tail}"

    @property
    def short(self) -> str:
        """For paths of sockets, which may have about 100 characters altogether."""
        return _digest(self.node, 6)


def bridge_of(cluster: str) -> str:
    """The bridge on which the nodes of a cluster hang that are on one machine."""
    tail = _digest(cluster, 6)
    return f"nw-{cluster[: _LINK_MAX - len(tail) - 4]}-{tail}"


def uplinks_table_of(cluster: str) -> str:
    """Their nftables table. No node is called nothing."""
    return f"navarch-{cluster}__nodes"


def _digest(text: str, length: int) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:length]
