"""All devices and what is taken of them, followed through informers; and what the scheduler has given away itself.

In: ResourceSlices, DeviceClasses, ResourceClaims and DeviceTaintRules; allocations that are about to be written.  Out:
the pools that a node reaches, claims at their newest, what is taken.
Invariant: an allocation counts from the decision on, whether an informer has shown it yet or not, and exactly once.
Where resource.k8s.io/v1 is not served, there are no devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from navarch.api.meta import Obj, name_of, revision_of, uid_of
from navarch.client.base import Client
from navarch.client.informer import Informer, Informers
from navarch.client.resources import DEVICE_CLASSES, DEVICE_TAINT_RULES, RESOURCE_CLAIMS, RESOURCE_SLICES
from navarch.client.served import served_in_the_end
from navarch.scheduler.changes import Change, ClusterEvent
from navarch.scheduler.devices.pools import Pool, PoolId, Reach, Slice, read_slice
from navarch.scheduler.devices.taken import Taken

IMPLICIT: Final = "deviceclass.resource.kubernetes.io/"
"""Every class is an extended resource too: its name after this."""
EXTENDED: Final = "resource.kubernetes.io/extended-resource-claim"


class DeviceInventory:
    def __init__(self, client: Client, informers: Informers, changed: Callable[[ClusterEvent], None]) -> None:
        self._client = client
        self._informers = informers
        self._changed = changed
        self._claims: Informer | None = None
        self._classes: Informer | None = None
        self._rules: Informer | None = None
        self.taken = Taken()
        self.extended: dict[str, Obj] = {}
        """By name of an extended resource: the class that stands for it."""
        self.extended_version = 0
        self._allocations: dict[str, Obj] = {}
        """By the claim's uid: what counts as taken for it."""
        self._given: dict[str, Obj] = {}
        """Those that no informer has shown yet."""
        self._written: dict[str, Obj] = {}
        self._slices: dict[str, tuple[Obj, PoolId, Slice]] = {}
        self._members: dict[PoolId, dict[str, Slice]] = {}
        self._pools: dict[PoolId, Pool] = {}
        self._by_node: dict[str, set[PoolId]] = {}
        self._anywhere: set[PoolId] = set()

    async def start(self) -> None:
        """Find out whether there are devices, and follow them from now on."""
        if await served_in_the_end(self._client, RESOURCE_CLAIMS) != RESOURCE_CLAIMS:
            return
        get = self._informers.get
        rules = await served_in_the_end(self._client, DEVICE_TAINT_RULES)
        slices = get(RESOURCE_SLICES)
        self._claims, self._classes = get(RESOURCE_CLAIMS), get(DEVICE_CLASSES)
        if rules is not None:
            self._rules = get(rules)
            self._rules.add_handler(self._rule_changed, lambda _old, new: self._rule_changed(new), self._rule_changed)
            await self._rules.synced()
        slices.add_handler(self._slice_set, lambda _old, new: self._slice_set(new), self._slice_gone)
        self._classes.add_handler(self._class_changed, self._class_updated, self._class_changed)
        self._claims.add_handler(lambda new: self._claim_set(None, new), self._claim_set, self._claim_gone)
        for informer in (slices, self._classes, self._claims):
            await informer.synced()

    # Reading.

    def claim(self, namespace: str, name: str) -> Obj | None:
        """The claim as it is, as far as is known here: the scheduler's own writes count at once."""
        claim = self._claims.get(namespace, name) if self._claims is not None else None
        if claim is None:
            return None
        written = self._written.get(uid_of(claim))
        return written if written is not None and revision_of(written) > revision_of(claim) else claim

    def claims_of(self, pod_uid: str, namespace: str) -> list[Obj]:
        """Claims that were made for the extended resources of a pod."""
        found = self._claims.list(namespace) if self._claims is not None else []
        return [
            claim
            for claim in found
            if (claim["metadata"].get("annotations") or {}).get(EXTENDED) == "true"
            and any(owner.get("uid") == pod_uid for owner in claim["metadata"].get("ownerReferences") or ())
        ]

    def device_class(self, name: str) -> Obj | None:
        return self._classes.get("", name) if self._classes is not None else None

    def class_of(self, resource: str) -> Obj | None:
        """The class that stands for an extended resource."""
        if resource.startswith(IMPLICIT):
            return self.device_class(resource.removeprefix(IMPLICIT))
        return self.extended.get(resource)

    def is_given(self, uid: str) -> bool:
        """Whether devices are on their way to the claim."""
        return uid in self._given

    def reaches(self, node: Obj) -> list[Reach]:
        """What the node can use of each pool that has to do with it."""
        found = []
        # Which devices a claim gets follows from their order.
        for id in sorted(self._by_node.get(name_of(node), set()) | self._anywhere):
            reach = self._pool(id).reach(node)
            if reach is not None:
                found.append(reach)
        return found

    # The scheduler's own decisions.

    def give(self, uid: str, allocation: Obj) -> None:
        """The devices are taken from now on."""
        self._given[uid] = allocation
        self._allocate(uid, allocation)

    def written(self, claim: Obj) -> None:
        """The claim as the API server has it after a write of the scheduler."""
        self._written[uid_of(claim)] = claim
        self._settle(claim)

    def take_back(self, uid: str, namespace: str, name: str) -> None:
        """What was given did not get there."""
        if self._given.pop(uid, None) is None:
            return
        claim = self.claim(namespace, name)
        status = (claim.get("status") or {}) if claim is not None and uid_of(claim) == uid else {}
        self._allocate(uid, status.get("allocation"))

    # Following.

    def _claim_set(self, old: Obj | None, new: Obj) -> None:
        if old is not None and uid_of(old) != uid_of(new):
            self._claim_gone(old)
        written = self._written.get(uid_of(new))
        if written is not None and revision_of(new) >= revision_of(written):
            del self._written[uid_of(new)]
            written = None
        self._settle(written or new)
        self._changed(ClusterEvent(Change.DEVICE_CLAIMS, old, new))

    def _settle(self, claim: Obj) -> None:
        uid, allocation = uid_of(claim), (claim.get("status") or {}).get("allocation")
        if allocation is not None:
            self._given.pop(uid, None)
        elif uid in self._given:
            return
        self._allocate(uid, allocation)

    def _claim_gone(self, claim: Obj) -> None:
        uid = uid_of(claim)
        self._written.pop(uid, None)
        if uid not in self._given:
            self._allocate(uid, None)
        self._changed(ClusterEvent(Change.DEVICE_CLAIMS, claim, None))

    def _allocate(self, uid: str, allocation: Obj | None) -> None:
        before = self._allocations.pop(uid, None)
        if before is not None:
            self.taken.remove(before)
        if allocation is not None:
            self._allocations[uid] = allocation
            self.taken.add(allocation)

    def _slice_set(self, obj: Obj) -> None:
        self._drop_slice(name_of(obj))
        id, slice_ = read_slice(obj, [rule["spec"] for rule in self._rules.list()] if self._rules is not None else ())
        self._slices[name_of(obj)] = (obj, id, slice_)
        self._members.setdefault(id, {})[slice_.name] = slice_
        self._reindex(id)
        self._changed(ClusterEvent(Change.DEVICES, None, obj))

    def _slice_gone(self, obj: Obj) -> None:
        self._drop_slice(name_of(obj))
        # Fewer slices may make a pool complete: a driver that goes on to a new generation deletes the old.
        self._changed(ClusterEvent(Change.DEVICES, obj, None))

    def _drop_slice(self, name: str) -> None:
        known = self._slices.pop(name, None)
        if known is None:
            return
        _, id, _ = known
        del self._members[id][name]
        if not self._members[id]:
            del self._members[id]
        self._reindex(id)

    def _reindex(self, id: PoolId) -> None:
        """Where the pool can be reached from."""
        before = self._pools.pop(id, None)
        if before is not None:
            for name in before.node_names or ():
                pools = self._by_node[name]
                pools.discard(id)
                if not pools:
                    del self._by_node[name]
            self._anywhere.discard(id)
        if id not in self._members:
            return
        pool = self._pool(id)
        if pool.node_names is None:
            self._anywhere.add(id)
        for name in pool.node_names or ():
            self._by_node.setdefault(name, set()).add(id)

    def _pool(self, id: PoolId) -> Pool:
        known = self._pools.get(id)
        if known is None:
            known = self._pools[id] = Pool(id, self._members[id].values())
        return known

    def _rule_changed(self, rule: Obj) -> None:
        for obj, _, _ in list(self._slices.values()):
            self._slice_set(obj)

    def _class_updated(self, old: Obj, new: Obj) -> None:
        if old.get("spec") != new.get("spec"):
            self._class_changed(new)

    def _class_changed(self, device_class: Obj) -> None:
        assert self._classes is not None
        named: dict[str, Obj] = {}
        # Of several classes for one resource the newest counts, of equally old ones the first by name.
        for each in sorted(self._classes.list(), key=name_of, reverse=True):
            resource = (each.get("spec") or {}).get("extendedResourceName")
            if resource and _newer(each, named.get(resource)):
                named[resource] = each
        if named != self.extended:
            self.extended_version += 1
        self.extended = named
        self._changed(ClusterEvent(Change.DEVICES, None, device_class))


def _newer(device_class: Obj, other: Obj | None) -> bool:
    if other is None:
        return True
    return bool(
        (device_class["metadata"].get("creationTimestamp") or "") >= (other["metadata"].get("creationTimestamp") or "")
    )
