"""Ways to other nodes, kept in line with the Nodes and with what happens to this machine's links.

In: Nodes by an informer, the kernel's own reports. Out: routes, tunnels and the set of addresses that are nodes'. Where
the kernel stands is remembered, so that a change of one node costs a few messages; after a failure, a report of the
kernel or a start, what is there is read and put right. It all stays when the agent stops.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from navarch.api.meta import Obj
from navarch.client.base import Client
from navarch.client.following import Applier, run_with
from navarch.client.informer import Informer
from navarch.client.resources import NODES
from navarch.client.supervision import Failures, supervised
from navarch.node.names import HostNames
from navarch.node.proxy.nftables import apply_script
from navarch.node.routing.events import KernelEvents
from navarch.node.routing.kernel import Kernel
from navarch.node.routing.plan import Hop, Mode, Peer, Plan, family_of, peer_of, plan
from navarch.world import MACHINE

log = logging.getLogger(__name__)

_CALM_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    """`cluster`: the ranges of all pods; `own`: of this node's. `mtu`: of the link between nodes."""

    names: HostNames
    node_name: str
    cluster: tuple[str, ...]
    own: tuple[str, ...]
    mode: Mode = Mode.AUTO
    mtu: int = 1500


class PodRoutes:
    """`client` has to see all Nodes. The table of the pod network must be there."""

    def __init__(self, client: Client, config: RoutingConfig) -> None:
        self.config = config
        self._kernel = Kernel(config.names, config.cluster, config.mtu)
        self._informer = Informer(client, NODES, transform=_slim)
        self._failures = Failures()
        self._applier = Applier("ways to other nodes", self._write, self._failures, calm_s=_CALM_S)
        self._events = KernelEvents(self._links, self._kernel_changed)
        self._hops: dict[str, Hop] = {}
        self._written: Plan | None = None
        self._nodes: frozenset[str] | None = None
        self._changes_of_kernel = 0

    async def run(self) -> None:
        """Until cancelled."""
        self._informer.add_handler(lambda _: self._applier.changed(), self._updated, lambda _: self._applier.changed())
        async with asyncio.TaskGroup() as tasks:
            events = supervised("the kernel's reports", self._events.run, self._failures)
            tasks.create_task(events, name="reports of the kernel")
            tasks.create_task(run_with([self._informer], self._applier, self._failures), name="ways to other nodes")

    def _updated(self, old: Obj, new: Obj) -> None:
        if peer_of(old) != peer_of(new):
            self._applier.changed()

    def _links(self) -> set[str]:
        return {hop.link for hop in self._hops.values()} | set(self._kernel.own_links)

    def _kernel_changed(self) -> None:
        self._changes_of_kernel += 1
        self._applier.changed()

    async def _write(self) -> None:
        config = self.config
        before, self._written = self._written, None
        if self._changes_of_kernel:
            self._changes_of_kernel = 0
            self._hops.clear()
            before = None
        peers = [peer_of(node) for node in self._informer.list()]
        others = [peer for peer in peers if peer.name != config.node_name]
        addresses = {address for peer in others for address in peer.addresses}
        if unknown := sorted(addresses - self._hops.keys()):
            self._hops |= await MACHINE.in_thread(self._kernel.hops, unknown)
        self._hops = {address: hop for address, hop in self._hops.items() if address in addresses}
        own = next((peer for peer in peers if peer.name == config.node_name), Peer(config.node_name))
        own = Peer(own.name, config.own, own.addresses)
        wanted = plan(config.mode, own, others, config.cluster, self._hops.__getitem__)
        if wanted != before:
            # What is a node's is known before there is a way to it, so that no connection begins masqueraded.
            await self._write_nodes(wanted.nodes, anew=before is None)
            await MACHINE.in_thread(self._kernel.write, wanted, before, config.node_name)
        self._written = wanted

    async def _write_nodes(self, nodes: frozenset[str], *, anew: bool) -> None:
        old, self._nodes = self._nodes, None
        script = []
        for family in (4, 6):
            at = f"{'ip6' if family == 6 else 'ip'} {self.config.names.network_table} nodes"
            mine = {each for each in nodes if family_of(each) == family}
            if anew or old is None:
                script.append(f"flush set {at}")
                gone, come = set[str](), mine
            else:
                known = {each for each in old if family_of(each) == family}
                gone, come = known - mine, mine - known
            for verb, members in (("delete", gone), ("add", come)):
                if members:
                    script.append(f"{verb} element {at} {{ {', '.join(sorted(members))} }}")
        if script:
            await apply_script(script)
        self._nodes = nodes


def _slim(node: Obj) -> Obj:
    spec = node.get("spec") or {}
    return {
        "metadata": {name: node["metadata"].get(name) for name in ("name", "resourceVersion")},
        "spec": {"podCIDR": spec.get("podCIDR"), "podCIDRs": spec.get("podCIDRs")},
        "status": {"addresses": (node.get("status") or {}).get("addresses")},
    }
