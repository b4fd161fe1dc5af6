"""What plugins need to know besides pods and nodes: namespaces, services and controllers (for default spreading),
claims and volumes. Reads shared informers; `version` changes whenever cached answers could be wrong because of them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping

from navarch.api.meta import Obj, labels_of, name_of, uid_of
from navarch.client import resources
from navarch.client.base import Client
from navarch.client.informer import Informer, Informers
from navarch.scheduler.changes import Change, ClusterEvent
from navarch.scheduler.devices.binding import ClaimWriter
from navarch.scheduler.devices.inventory import DeviceInventory
from navarch.scheduler.podinfo import PodInfo
from navarch.world import RealWorld, World

_SPREAD_OWNERS = {
    "ReplicationController": resources.REPLICATION_CONTROLLERS,
    "ReplicaSet": resources.REPLICA_SETS,
    "StatefulSet": resources.STATEFUL_SETS,
}
_NO_LABELS: Mapping[str, str] = {}


class Environment:
    """A view of the cluster around the nodes; `changed` is told of events that may wake refused pods."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        changed: Callable[[ClusterEvent], None],
        world: World | None = None,
    ) -> None:
        world = world or RealWorld()
        self._world = world
        self.client = client
        self.devices = DeviceInventory(client, informers, changed)
        self.claim_writer = ClaimWriter(client, world, self.devices)
        self.version = 0
        self.volume_version = 0
        self._changed = changed
        self._namespaces = informers.get(resources.NAMESPACES)
        self._services = informers.get(resources.SERVICES)
        self._owners = {kind: informers.get(resource) for kind, resource in _SPREAD_OWNERS.items()}
        self.claims = informers.get(resources.PERSISTENT_VOLUME_CLAIMS)
        self.volumes = informers.get(resources.PERSISTENT_VOLUMES)
        self.classes = informers.get(resources.STORAGE_CLASSES)
        self.csi_nodes = informers.get(resources.CSI_NODES)
        self.csi_drivers = informers.get(resources.CSI_DRIVERS)
        self.capacities = informers.get(resources.CSI_STORAGE_CAPACITIES)
        self._attachments = informers.get(resources.VOLUME_ATTACHMENTS)
        self._attachments.add_indexer("node", lambda one: (one["spec"]["nodeName"],))
        self._pods = informers.get(resources.PODS)
        self.budgets = informers.get(resources.POD_DISRUPTION_BUDGETS)

    def start(self) -> None:
        """Follow the informers from now on."""
        self._namespaces.add_handler(updated=self._namespace_updated)
        self._services.add_handler(self._bump, self._service_updated, self._bump)
        for informer in self._storage:
            change = {self.claims: Change.CLAIMS, self.classes: Change.CLASSES}.get(informer, Change.VOLUMES)
            self._follow_storage(informer, change)

    async def synced(self) -> None:
        await self.devices.start()
        informers = (self._namespaces, self._services, *self._owners.values(), *self._storage)
        for informer in (*informers, self.budgets):
            await informer.synced()

    # Reading.

    def new_uid(self) -> str:
        """For what must never be the same twice."""
        return str(uuid.UUID(int=self._world.identities("scheduler", "shares").getrandbits(128), version=4))

    def has_gone(self, pod: PodInfo) -> bool:
        """Whether the pod has been deleted, and another of its name may be there."""
        current = self._pods.get(*pod.key)
        return current is None or uid_of(current) != pod.uid

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        namespace = self._namespaces.get("", name)
        return labels_of(namespace) if namespace is not None else _NO_LABELS

    def services(self, namespace: str) -> list[Obj]:
        return self._services.list(namespace)

    @property
    def _storage(self) -> tuple[Informer, ...]:
        about = (self.csi_nodes, self.csi_drivers, self.capacities, self._attachments)
        return (self.claims, self.volumes, self.classes, *about)

    def attached_to(self, node: str) -> Iterator[tuple[str, str]]:
        """Driver and handle of what is attached to a node, or about to be."""
        for attachment in self._attachments.by_index("node", node):
            name = (attachment["spec"].get("source") or {}).get("persistentVolumeName") or ""
            source = (self.volumes.get("", name) or {"spec": {}})["spec"].get("csi")
            if source:
                yield source["driver"], source["volumeHandle"]

    def spreads(self, kind: str) -> bool:
        """Whether pods that a controller of this kind owns are spread by default."""
        return kind in self._owners

    def spread_owner(self, kind: str, namespace: str, name: str) -> Obj | None:
        """The controller of a pod, if it is of a kind whose pods are spread by default."""
        informer = self._owners.get(kind)
        return informer.get(namespace, name) if informer is not None else None

    def default_class(self) -> str:
        """The name of the default StorageClass, empty where there is none."""
        for storage_class in self.classes.list():
            annotations = storage_class["metadata"].get("annotations") or {}
            if annotations.get("storageclass.kubernetes.io/is-default-class") == "true":
                return name_of(storage_class)
        return ""

    # Following.

    def _bump(self, _: Obj) -> None:
        self.version += 1

    def _service_updated(self, old: Obj, new: Obj) -> None:
        if (old.get("spec") or {}).get("selector") != (new.get("spec") or {}).get("selector"):
            self.version += 1

    def _namespace_updated(self, old: Obj, new: Obj) -> None:
        if labels_of(old) != labels_of(new):
            self.version += 1
            self._changed(ClusterEvent(Change.NAMESPACE, old, new))

    def _follow_storage(self, informer: Informer, change: Change) -> None:
        def changed(old: Obj | None, new: Obj) -> None:
            self.volume_version += 1
            self._changed(ClusterEvent(change, old, new))

        informer.add_handler(lambda new: changed(None, new), changed, lambda last: changed(None, last))
