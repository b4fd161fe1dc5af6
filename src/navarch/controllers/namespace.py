"""Namespace lifecycle: empty a namespace that is being deleted, then let it go.

In: a Namespace with a deletion timestamp. Out: everything in it deleted, conditions that say what is left and why, and
finally the `kubernetes` finalizer removed through the `finalize` subresource. Pods go by their own grace; the namespace
is looked at again until nothing is left.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import datetime
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, Resource, is_deleting, name_of
from navarch.api.time import format_time, parse_time
from navarch.client.resources import NAMESPACES, PODS
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.discovery import Discovery, Served
from navarch.kinds.core.pod_state import is_finished
from navarch.records import mutable

_FINALIZER = "kubernetes"
_LAST_LOOK_S = 5.0
_KEPT_CONDITIONS = (
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    ("NamespaceDeletionContentFailure", "ContentDeleted",
     "All content successfully deleted, may be waiting on finalization"),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
)  # fmt: skip


@mutable
class _Remaining:
    """What one pass left behind."""

    objects: dict[str, int] = field(default_factory=dict)
    finalizers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    discovery_failure: str = ""
    longest_grace_s: int = 0
    age_s: float = 0.0
    """For how long the namespace has been going away."""


class NamespaceController(Controller):
    name: ClassVar[str] = "namespace"
    workers: ClassVar[int] = 10
    max_retry_s: ClassVar[float] = 60.0

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._namespaces = self.watch_primary(NAMESPACES, is_deleting)
        self._discovery = Discovery(self.client)
        self._served: list[Served] = []
        self._passes: dict[Key, int] = {}

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self._namespaces.get("", key.name)
        if cached is None or not is_deleting(cached):
            return None
        namespace = self.newest(NAMESPACES, cached)
        if _FINALIZER not in (namespace["spec"].get("finalizers") or ()):
            return None
        remaining = await self._empty(key.name, parse_time(namespace["metadata"]["deletionTimestamp"]))
        conditions = self._conditions(namespace, remaining)
        if conditions is not None:
            status = {**(namespace.get("status") or {}), "phase": "Terminating", "conditions": conditions}
            namespace = await self.write_status(NAMESPACES, namespace, status)
        if remaining.objects or remaining.failures or remaining.discovery_failure:
            # Soon at first, as most pods end well within their grace; then ever more rarely, as finalizers take long.
            passes = self._passes.get(key, 0)
            self._passes[key] = passes + 1
            return Requeue(min(0.1 * 1.6**passes, max(remaining.longest_grace_s / 2, _LAST_LOOK_S)))
        self._passes.pop(key, None)
        finalizers = [name for name in namespace["spec"].get("finalizers") or () if name != _FINALIZER]
        try:
            await self.client.update(
                NAMESPACES,
                {**namespace, "spec": {**namespace["spec"], "finalizers": finalizers}},
                subresource="finalize",
            )
        except StatusError as error:
            if error.code != 404:
                raise
        return None

    async def _empty(self, namespace: str, deleted_at: datetime) -> _Remaining:
        age_s = (self.clock.now() - deleted_at).total_seconds()
        remaining = _Remaining(age_s=age_s)
        try:
            self._served = await self._discovery.served()
        except StatusError as error:
            remaining.discovery_failure = error.message
        else:
            # What a group that does not answer has in the namespace, nobody knows: it is not empty until they do.
            remaining.discovery_failure = _discovery_failure(self._discovery.failed())
        wanted = [s for s in self._served if s.resource.namespaced and {"delete", "list"} <= s.verbs]
        # Pods first and alone: as long as one runs, what it was given (its policies above all) must be there.
        for pods in (True, False):
            of_turn = [served for served in wanted if (served.resource == PODS) is pods]
            await asyncio.gather(*(self._empty_of(served, namespace, remaining) for served in of_turn))
            if remaining.objects or remaining.failures:
                break
        return remaining

    async def _empty_of(self, served: Served, namespace: str, remaining: _Remaining) -> None:
        resource = served.resource
        try:
            at_once = "deletecollection" in served.verbs
            # To know whether there is anything, one is enough.
            items = (await self.client.list(resource, namespace, limit=1 if at_once else 0)).items
            if not items:
                return
            if at_once:
                await self.client.delete_collection(resource, namespace, propagation="Background")
            else:
                await asyncio.gather(*(self._delete(resource, name_of(item), namespace) for item in items))
            items = (await self.client.list(resource, namespace)).items
        except StatusError as error:
            if error.code not in (404, 405):
                remaining.failures.append(error.message)
            return
        if not items:
            return
        remaining.objects[f"{resource.plural}.{resource.group}"] = len(items)
        finalizers = Counter(name for item in items for name in item["metadata"].get("finalizers") or ())
        remaining.finalizers.update(finalizers)
        grace_s = _longest_grace_s(items) if resource == PODS else 0
        remaining.longest_grace_s = max(remaining.longest_grace_s, grace_s)
        if not finalizers and grace_s <= remaining.age_s:
            # Nothing holds them, and still they are there.
            named = f"{resource.group}/{resource.version}, Resource={resource.plural}"
            remaining.failures.append(f"unexpected items still remain in namespace: {namespace} for gvr: {named}")

    async def _delete(self, resource: Resource, name: str, namespace: str) -> None:
        try:
            await self.client.delete(resource, name, namespace, propagation="Background")
        except StatusError as error:
            if error.code != 404:
                raise

    def _conditions(self, namespace: Obj, remaining: _Remaining) -> list[Obj] | None:
        """The conditions as they should be; None where they are so already."""
        wrong = _problems(remaining)
        current = (namespace.get("status") or {}).get("conditions") or []
        by_type = {condition["type"]: condition for condition in current}
        stamp = format_time(self.clock.now())
        conditions: list[Obj] = []
        for type, good_reason, good_message in _KEPT_CONDITIONS:
            reason, message = wrong.get(type, (good_reason, good_message))
            made = {
                "type": type,
                "status": "True" if type in wrong else "False",
                "lastTransitionTime": stamp,
                "reason": reason,
                "message": message,
            }
            before = by_type.pop(type, None)
            if before and before["status"] == made["status"]:
                made["lastTransitionTime"] = before.get("lastTransitionTime", stamp)
            conditions.append(made)
        conditions += list(by_type.values())
        return None if conditions == current else conditions


def _longest_grace_s(pods: Iterable[Obj]) -> int:
    """How long pods that have not finished may take to end."""
    graces = (pod["spec"].get("terminationGracePeriodSeconds") or 0 for pod in pods if not is_finished(pod))
    return max(map(int, graces), default=0)


def _discovery_failure(failed: Mapping[str, str]) -> str:
    if not failed:
        return ""
    each = ", ".join(f"{version}: {failed[version]}" for version in sorted(failed))
    return (
        f"Discovery failed for some groups, {len(failed)} failing: "
        f"unable to retrieve the complete list of server APIs: {each}"
    )


def _problems(remaining: _Remaining) -> dict[str, tuple[str, str]]:
    problems: dict[str, tuple[str, str]] = {}
    if remaining.discovery_failure:
        problems["NamespaceDeletionDiscoveryFailure"] = ("DiscoveryFailed", remaining.discovery_failure)
    if remaining.failures:
        message = f"Failed to delete all resource types, {len(remaining.failures)} remaining: "
        problems["NamespaceDeletionContentFailure"] = (
            "ContentDeletionFailed", message + ", ".join(sorted(remaining.failures)))  # fmt: skip
    if remaining.objects:
        message = "Some resources are remaining: " + _counted(remaining.objects, "{} has {} resource instances")
        problems["NamespaceContentRemaining"] = ("SomeResourcesRemain", message)
    if remaining.finalizers:
        message = "Some content in the namespace has finalizers remaining: "
        message += _counted(remaining.finalizers, "{} in {} resource instances")
        problems["NamespaceFinalizersRemaining"] = ("SomeFinalizersRemain", message)
    return problems


def _counted(counts: Mapping[str, int], form: str) -> str:
    return ", ".join(form.format(name, counts[name]) for name in sorted(counts))
