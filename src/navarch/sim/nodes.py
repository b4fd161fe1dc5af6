"""`SimulatedNodes`: any number of nodes that run pods without containers, in one process, with one watch of pods.

To the API server they are kubelets: Node objects with capacity, conditions and addresses, leases that are renewed,
pods that become Running and Ready, exit, restart and stop. What a pod does can be told by annotations
(`behaviour.py`). `fail` and `recover` take a node down and up again as a crash would.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.client import resources
from navarch.client.base import Client, PatchKind
from navarch.client.events import EventRecorder
from navarch.client.informer import Informers
from navarch.client.supervision import Failures, supervised
from navarch.node.engine.status_patch import node_status_patch
from navarch.sim.admission import Admission
from navarch.sim.behaviour import Latencies
from navarch.sim.heartbeats import Heartbeats
from navarch.sim.kubelet import HOST, ServingKeys, SimulatedKubelet
from navarch.sim.nodeobjects import DEFAULT_CAPACITY, KUBELET_VERSION, features_of, node_address, node_object
from navarch.sim.pods import PodRunner
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)

_REGISTERING_AT_ONCE = 32
_RETRY_S = 0.05
# Above this many nodes events about containers would be most of what the cluster writes.
_NODES_WITH_EVENTS = 20


class SimulatedNodes:
    """`count` nodes named `<name_prefix>1`, `<name_prefix>2` and so on. With `informers` (run by their owner) the nodes
    share the pods that others watch anyway; without, they keep informers of their own. Where several processes simulate
    nodes of one cluster, `first_address` keeps the nodes' addresses apart. With `serving` they answer the API server
    where it asks for logs and the like; without, nobody does. `events` and `leases_every_s` say what otherwise depends
    on the number of nodes: whether containers have events, and how often a node renews its lease. Nodes have an address
    of each of the IP `families`."""

    def __init__(
        self,
        client: Client,
        count: int,
        *,
        informers: Informers | None = None,
        world: World | None = None,
        name_prefix: str = "node-",
        first_address: int = 0,
        capacity: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        zones: int = 0,
        latencies: Latencies | None = None,
        kubelet_version: str = KUBELET_VERSION,
        events: bool | None = None,
        leases_every_s: float | None = None,
        serving: ServingKeys | None = None,
        families: Sequence[int] = (4,),
    ) -> None:
        self._client = client
        self._world = world or RealWorld()
        self._informers = informers or Informers(client, self._world)
        self._owns_informers = informers is None
        self._capacity = {**DEFAULT_CAPACITY, **(capacity or {})}
        self._labels = dict(labels or {})
        self._zones = zones
        self._version = kubelet_version
        self._first_address = first_address
        self._families = families
        self._indexes = {f"{name_prefix}{i + 1}": i for i in range(count)}
        self._nodes: dict[str, Obj] = {}
        self._node_informer = self._informers.get(resources.NODES)
        # On their own they look only at pods that have a node: half the events.
        pods = self._informers.get(resources.PODS, fields="" if informers is not None else "spec.nodeName!=")
        self._heartbeats = Heartbeats(client, self._world, self._node, every_s=leases_every_s)
        with_events = count <= _NODES_WITH_EVENTS if events is None else events
        self._recorder = EventRecorder(client, "kubelet", world=self._world)
        self._pods = PodRunner(
            client,
            pods,
            self._indexes,
            node_of=self._node,
            addresses_of=self._addresses,
            cidrs_of=self._cidrs,
            admission=Admission(self._capacity, features_of(kubelet_version)),
            clock=self._world,
            latencies=latencies or Latencies(),
            recorder=self._recorder,
            tells=with_events,
        )

        self._serving = serving
        self._kubelet = SimulatedKubelet(pods, self._indexes, self._world)
        self._kubelet_at: tuple[str, int] | None = None

    @property
    def names(self) -> list[str]:
        return list(self._indexes)

    async def run(self) -> None:
        """Register the nodes, then run their pods and renew their leases until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._serving is not None:
                self._kubelet_at = (HOST, self._kubelet.listen(self._serving))
                tasks.create_task(self._kubelet.serve(), name="simulated nodes' kubelet")
            if self._owns_informers:
                tasks.create_task(self._informers.run(), name="simulated nodes' informers")
            tasks.create_task(self._recorder.run(), name="simulated nodes' events")
            tasks.create_task(self._pods.run(), name="simulated nodes' pods")
            await self._register_all()
            what = "simulated nodes' leases"
            tasks.create_task(supervised(what, self._heartbeats.run, Failures()), name=what)

    def look_at_certificate(self) -> None:
        """With which they answer the API server: there may be another one."""
        self._kubelet.look_at_certificate()

    def fail(self, name: str) -> None:
        """Take a node down: no lease, no status, pods stay as last reported."""
        self._heartbeats.silence(name)
        self._pods.pause(name)

    async def recover(self, name: str) -> None:
        """Bring a failed node back."""
        self._pods.resume(name)
        await self._heartbeats.revive(name)

    # Registration.

    async def _register_all(self) -> None:
        slots = asyncio.Semaphore(_REGISTERING_AT_ONCE)

        async def one(name: str) -> None:
            async with slots:
                await self._register(name)

        await asyncio.gather(*(one(name) for name in self._indexes))

    async def _register(self, name: str) -> None:
        """Create the Node, or take over the one that is there, as after a restart."""
        index = self._indexes[name]
        labels = dict(self._labels)
        if self._zones:
            labels["topology.kubernetes.io/zone"] = f"zone-{index % self._zones + 1}"
        while True:
            fresh = node_object(
                name,
                self._addresses(name),
                self._capacity,
                labels,
                self._version,
                self._world.now(),
                kubelet=self._kubelet_at,
            )
            try:
                self._nodes[name] = await self._create_or_adopt(name, fresh)
            except (StatusError, OSError) as error:
                log.debug("registering %s: %s", name, error)
                await asyncio.sleep(_RETRY_S * (1 + self._world.random("simulated node", name).random()))
                continue
            self._heartbeats.add(name)
            return

    async def _create_or_adopt(self, name: str, fresh: Obj) -> Obj:
        try:
            return await self._client.create(resources.NODES, fresh)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
        return await self._client.patch(
            resources.NODES,
            name,
            "",
            {"status": node_status_patch(fresh["status"])},
            kind=PatchKind.STRATEGIC,
            subresource="status",
        )

    # What is known of the nodes.

    def _node(self, name: str) -> Obj | None:
        """The node as last seen; None where somebody deleted it (a kubelet does not register again by itself)."""
        if self._node_informer.has_synced:
            known = self._node_informer.get("", name)
            if known is not None:
                self._nodes.pop(name, None)
                return known
        # Just registered, and the watch has yet to show it.
        return self._nodes.get(name)

    def _addresses(self, name: str) -> Sequence[str]:
        index = self._first_address + self._indexes[name]
        return tuple(node_address(index, family) for family in self._families)

    def _cidrs(self, name: str) -> Sequence[str]:
        node = self._node(name)
        return ((node or {}).get("spec") or {}).get("podCIDRs") or ()
