"""The garbage collector: deletes what has lost all its owners, carries out foreground and orphaning deletion.

In: the metadata of all objects (shared informers where other controllers have them, lean ones elsewhere). Out: objects
deleted, owner references and finalizers removed. Invariant: nothing is deleted unless each of its owners is known to
be gone (seen to go, or asked for and not found), and the deletion carries the uid and resourceVersion that this was
decided on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, Resource, is_deleting, owner_references_of, uid_of
from navarch.client.base import PatchKind
from navarch.client.informer import Informer
from navarch.client.supervision import until_done
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.discovery import Discovery
from navarch.controllers.garbage.graph import FOREGROUND, ORPHAN, Changes, Graph, Node

log = logging.getLogger(__name__)

# Keys of the queue: what to do in the place of a namespace, then the uid.
_EXAMINE = "examine"
_ORPHAN = "orphan"
_IGNORED = {("", "events"), ("events.k8s.io", "events")}
_DEFINITIONS = "customresourcedefinitions"
_REDISCOVER_S = 1.0
_SYNC_S = 30.0


class GarbageCollector(Controller):
    name: ClassVar[str] = "garbage-collector"
    workers: ClassVar[int] = 20

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.graph = Graph()
        self._informers_by_resource: dict[Resource, Informer] = {}
        self._by_kind: dict[tuple[str, str], Resource] = {}
        self._rediscover = asyncio.Event()
        self._discovery = Discovery(self.client)
        # Informers of resources that nobody else here watches.
        self._running: dict[Resource, asyncio.Task[None]] = {}
        self._recorder = context.recorder("garbage-collector-controller")

    # Watching everything.

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            # Everybody else first: collecting is never urgent while a cluster starts.
            await self.context.informers.synced()
            await asyncio.sleep(self.context.config.garbage_collector_delay_s)
            failures = self.context.failures
            await until_done("discovery", lambda: self._watch_all(tasks), failures)
            tasks.create_task(super().run(), name=self.name)
            while True:
                # Definitions say at once that something has changed; whatever else may, is found out in time.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.context.config.discovery_interval_s):
                        await self._rediscover.wait()
                        await asyncio.sleep(_REDISCOVER_S)
                self._rediscover.clear()
                await until_done("discovery", lambda: self._watch_all(tasks), failures)

    async def _watch_all(self, tasks: asyncio.TaskGroup) -> None:
        """Watch what is served, and no longer what is not."""
        retry_s = 0.1
        while True:
            try:
                served = await self._discovery.served()
                break
            except (StatusError, OSError) as error:
                log.debug("discovery: %s", error)
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, 10)
        fresh: list[Informer] = []
        self._drop({each.resource for each in served})
        for resource, verbs in served:
            self._by_kind.setdefault((resource.group, resource.kind), resource)
            if resource in self._informers_by_resource or (resource.group, resource.plural) in _IGNORED:
                continue
            if not {"delete", "list", "watch"} <= verbs:
                continue
            informer = self._informer_of(resource, tasks)
            self._informers_by_resource[resource] = informer
            fresh.append(informer)
            if resource.plural == _DEFINITIONS:
                informer.add_handler(
                    added=self._definition_changed, updated=lambda _old, new: self._definition_changed(new)
                )
        with contextlib.suppress(TimeoutError):
            # A resource may go before all of it has come.
            async with asyncio.timeout(_SYNC_S):
                for informer in fresh:
                    await informer.synced()
        if fresh:
            # Owners of a kind that was not known can be looked for now.
            for node in list(self.graph.nodes.values()):
                if node.virtual:
                    self.enqueue(Key(_EXAMINE, node.uid))

    def _drop(self, served: set[Resource]) -> None:
        """Forget what is served no longer. That its objects cannot be asked for does not mean that they are gone: as
        owners they are in doubt, and nothing is deleted on a guess."""
        silent = self._discovery.uncertain()
        for resource in [each for each in self._informers_by_resource if each not in served]:
            if resource.group in silent or resource in self.context.shared:
                continue
            del self._informers_by_resource[resource]
            if self._by_kind.get((resource.group, resource.kind)) == resource:
                del self._by_kind[resource.group, resource.kind]
            if (task := self._running.pop(resource, None)) is not None:
                task.cancel()
            self.graph.doubt(resource)

    def _informer_of(self, resource: Resource, tasks: asyncio.TaskGroup) -> Informer:
        if resource in self.context.shared:
            informer = self.context.informers.get(resource)
        else:
            informer = Informer(self.client, resource, transform=_lean)
            name = f"metadata of {resource.group_resource}"
            self._running[resource] = tasks.create_task(informer.run(), name=name)

        def observe(obj: Obj) -> None:
            self._take(self.graph.observe(resource, obj))

        def update(old: Obj, new: Obj) -> None:
            before, after = old["metadata"], new["metadata"]
            fields = ("uid", "ownerReferences", "finalizers", "deletionTimestamp")
            if any(before.get(field) != after.get(field) for field in fields):
                if before["uid"] != after["uid"]:
                    self._take(self.graph.remove(before["uid"]))
                observe(new)
            elif (node := self.graph.nodes.get(after["uid"])) is not None:
                node.revision = after.get("resourceVersion", "")

        informer.add_handler(observe, update, lambda obj: self._take(self.graph.remove(uid_of(obj))))
        return informer

    def _definition_changed(self, _definition: Obj) -> None:
        self._rediscover.set()

    def _take(self, changes: Changes) -> None:
        for uid in changes.examine:
            self.enqueue(Key(_EXAMINE, uid))
        for uid in changes.orphan:
            self.enqueue(Key(_ORPHAN, uid))
        for dependent, owner in changes.foreign:
            self._tell_foreign(dependent, owner)

    def _tell_foreign(self, dependent: Node, owner: Node) -> None:
        for reference in dependent.owners:
            if reference["uid"] == owner.uid:
                named = f"{reference['apiVersion']}/{reference['kind']}, namespace: {dependent.namespace}"
                what = f"[{named}, name: {reference['name']}, uid: {owner.uid}]"
                message = f'ownerRef {what} does not exist in namespace "{dependent.namespace}"'
                self._recorder.event(_reference_to(dependent), "Warning", "OwnerRefInvalidNamespace", message)

    # Working.

    async def reconcile(self, key: Key) -> Requeue | None:
        node = self.graph.nodes.get(key.name)
        if node is None:
            return None
        if key.namespace == _ORPHAN:
            await self._orphan(node)
            return None
        if node.virtual:
            return await self._verify(node)
        if node.waits_for_dependents:
            await self._finish_foreground(node)
        elif not node.deleting and node.owners:
            return await self._examine(node)
        return None

    async def _verify(self, node: Node) -> Requeue | None:
        """Is there such an owner? Its dependents live in the namespaces that it must be looked for in."""
        if self.graph.is_gone(node.uid):
            self._forget(node)
            return None
        for namespace in dict.fromkeys(dependent.namespace for dependent in node.dependents.values()):
            found = await self._exists(node.api_version, node.kind, node.name, node.uid, namespace)
            if found is None:
                return Requeue(30.0)
            if not found:
                self.graph.note_absent(namespace, node.reference)
        if node.virtual:
            for dependent in node.dependents.values():
                references = [ref for ref in dependent.owners if ref["uid"] == node.uid]
                # One that says something else of the owner is looked up by itself.
                if any(
                    self.graph.is_absent(dependent.namespace, ref) or not node.is_named_by(ref) for ref in references
                ):
                    self.enqueue(Key(_EXAMINE, dependent.uid))
        return None

    def _forget(self, node: Node) -> None:
        for uid in list(node.dependents):
            self.enqueue(Key(_EXAMINE, uid))

    async def _exists(self, api_version: str, kind: str, name: str, uid: str, namespace: str) -> bool | None:
        """None where that cannot be told, as the kind is not known."""
        group = api_version.rpartition("/")[0]
        resource = self._by_kind.get((group, kind))
        if resource is None:
            self._rediscover.set()
            return None
        if resource.namespaced and not namespace:
            # A cluster-wide object cannot be owned by one in some namespace; what it means cannot be known.
            return None
        live = await self.client.find(resource, name, namespace if resource.namespaced else "")
        return live is not None and uid_of(live) == uid

    async def _examine(self, node: Node) -> Requeue | None:
        """Delete an object without living owners, or take the dead ones off its list."""
        solid: list[str] = []
        gone: list[str] = []
        waiting: list[Node] = []
        for reference in node.owners:
            owner = self.graph.nodes.get(reference["uid"])
            state = await self._owner_state(node, reference, owner)
            if state is None:
                return Requeue(30.0)
            if not state:
                gone.append(reference["uid"])
            elif owner is not None and owner.waits_for_dependents:
                waiting.append(owner)
            else:
                solid.append(reference["uid"])
        if solid:
            dead = gone + [owner.uid for owner in waiting if node.blocks(owner)]
            if dead:
                await self._drop_owners(node, dead)
            return None
        if waiting and node.dependents:
            if any(dependent.waits_for_dependents for dependent in node.dependents.values()):
                # A circle of foreground deletions would wait for itself.
                await self._unblock(node)
            await self._delete(node, "Foreground")
            return None
        policy = "Background"
        if ORPHAN in node.finalizers:
            policy = "Orphan"
        elif FOREGROUND in node.finalizers:
            policy = "Foreground"
        await self._delete(node, policy)
        return None

    async def _owner_state(self, node: Node, reference: Obj, owner: Node | None) -> bool | None:
        uid = reference["uid"]
        if self.graph.is_absent(node.namespace, reference):
            return False
        if owner is not None and not owner.virtual and owner.namespace in ("", node.namespace):
            if owner.is_named_by(reference):
                return True
        exists = await self._exists(reference["apiVersion"], reference["kind"], reference["name"], uid, node.namespace)
        if exists is False:
            self.graph.note_absent(node.namespace, reference)
        return exists

    async def _delete(self, node: Node, propagation: str) -> None:
        if node.resource is None:
            return
        try:
            await self.client.delete(
                node.resource,
                node.name,
                node.namespace,
                propagation=propagation,
                uid=node.uid,
                resource_version=node.revision or None,
            )
        except StatusError as error:
            if error.code == 404:
                self._take(self.graph.remove(node.uid))
            else:
                raise

    async def _finish_foreground(self, node: Node) -> None:
        blocking = [dependent for dependent in node.dependents.values() if dependent.blocks(node)]
        if not blocking:
            await self._remove_finalizer(node, FOREGROUND)
            return
        for dependent in blocking:
            if not dependent.waits_for_dependents and not dependent.deleting:
                self.enqueue(Key(_EXAMINE, dependent.uid))

    async def _orphan(self, node: Node) -> None:
        """Free the dependents, then the owner."""
        results = await asyncio.gather(
            *(self._drop_owners(dependent, [node.uid]) for dependent in list(node.dependents.values())),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        await self._remove_finalizer(node, ORPHAN)

    # Writing. Lists are written whole, guarded by the resourceVersion, as not every resource knows strategic patches.

    async def _drop_owners(self, node: Node, uids: list[str]) -> None:
        def change(live: Obj) -> Obj | None:
            references = owner_references_of(live)
            kept = [reference for reference in references if reference["uid"] not in uids]
            return None if len(kept) == len(references) else {"ownerReferences": kept or None}

        await self._change_metadata(node, change)

    async def _unblock(self, node: Node) -> None:
        def change(live: Obj) -> Obj | None:
            references = owner_references_of(live)
            if not any(reference.get("blockOwnerDeletion") for reference in references):
                return None
            return {"ownerReferences": [{**reference, "blockOwnerDeletion": False} for reference in references]}

        await self._change_metadata(node, change)

    async def _remove_finalizer(self, node: Node, finalizer: str) -> None:
        def change(live: Obj) -> Obj | None:
            finalizers = live["metadata"].get("finalizers") or []
            if finalizer not in finalizers or not is_deleting(live):
                return None
            return {"finalizers": [name for name in finalizers if name != finalizer] or None}

        await self._change_metadata(node, change)

    async def _change_metadata(self, node: Node, change: Any) -> None:
        if node.resource is None:
            return
        for _ in range(5):
            live = await self.client.find(node.resource, node.name, node.namespace)
            if live is None or uid_of(live) != node.uid:
                self._take(self.graph.remove(node.uid))
                return
            metadata = change(live)
            if metadata is None:
                return
            metadata |= {"uid": node.uid, "resourceVersion": live["metadata"]["resourceVersion"]}
            try:
                await self.client.patch(
                    node.resource, node.name, node.namespace, {"metadata": metadata}, kind=PatchKind.MERGE
                )
                return
            except StatusError as error:
                if error.code == 404:
                    return
                if error.code != 409:
                    raise
        self.enqueue(Key(_EXAMINE, node.uid))


def _lean(obj: Obj) -> Obj:
    """Only what the graph needs, so that the copy of everything is small."""
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "ownerReferences", "finalizers", "deletionTimestamp")
    return {"metadata": {name: metadata[name] for name in kept if name in metadata}}


def _reference_to(node: Node) -> Obj:
    metadata = {"namespace": node.namespace, "name": node.name, "uid": node.uid, "resourceVersion": node.revision}
    return {"apiVersion": node.api_version, "kind": node.kind, "metadata": metadata}
