"""The quota controller: what a namespace uses of its ResourceQuotas, counted anew.

In: ResourceQuotas and the objects that they count. Out: `status.hard` and `status.used`. Admission raises `used` as
objects are made; this controller brings it down when they go, and puts right whatever has drifted.
"""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

from navarch.api import quantity
from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, Resource, key_of, namespace_of
from navarch.client.resources import (
    CONFIG_MAPS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    REPLICATION_CONTROLLERS,
    RESOURCE_CLAIMS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICES,
)
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.discovery import Discovery
from navarch.controllers.pods import same_semantics
from navarch.kinds.core.pod_state import is_finished
from navarch.kinds.core.quota_usage import DEVICES, covers, usage_of

_WATCHED = (PODS, SERVICES, PERSISTENT_VOLUME_CLAIMS, SECRETS, CONFIG_MAPS, REPLICATION_CONTROLLERS)
_RESYNC_S = 300.0
_SETTLE_S = 0.1
_DRIFT_S = 1.0


class ResourceQuotaController(Controller):
    name: ClassVar[str] = "resourcequota"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._quotas = self.informer(RESOURCE_QUOTAS)
        self._quotas.add_handler(self._quota_added, self._quota_updated, self._gone)
        self._sources = {resource: self.informer(resource) for resource in _WATCHED}
        for resource, informer in self._sources.items():
            informer.add_handler(updated=self._pod_updated if resource == PODS else None, deleted=self._gone)
        self._discovery = Discovery(self.client)
        self._wrong: dict[Key, str] = {}
        """By quota: the revision that a recount did not agree with."""

    def _quota_added(self, quota: Obj) -> None:
        self.enqueue(key_of(quota))

    def _quota_updated(self, old: Obj, quota: Obj) -> None:
        if old.get("spec") != quota.get("spec"):
            self.enqueue(key_of(quota))
        elif _hard(old) != _hard(quota):
            # Admission raises `used` alone: limits in the status that change without the specification are somebody
            # else's, and wrong.
            self.enqueue(key_of(quota), _DRIFT_S)

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        if is_finished(pod) and not is_finished(old):
            self._gone(pod)

    def _gone(self, obj: Obj) -> None:
        for quota in self._quotas.list(namespace_of(obj)):
            self.enqueue(key_of(quota), _SETTLE_S)

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self._quotas.get(*key)
        if cached is None:
            self._wrong.pop(key, None)
            return None
        # Admission writes the status at every creation, so the API server is asked for what it says now.
        quota = await self.client.find(RESOURCE_QUOTAS, key.name, key.namespace)
        if quota is None:
            return None
        hard = (quota.get("spec") or {}).get("hard") or {}
        totals: dict[str, Fraction] = dict.fromkeys(hard, Fraction(0))
        now = self.clock.now()
        for resource in await self._resources(hard):
            for obj in await self._objects(resource, key.namespace):
                if covers(quota, resource, obj):
                    for name, amount in usage_of(resource, obj, now).items():
                        if name in totals:
                            totals[name] += amount
        used = {name: quantity.render(amount, quantity.form_of(hard[name])) for name, amount in totals.items()}
        status = {}
        if hard:
            status = {"hard": {name: quantity.canonical(value) for name, value in hard.items()}, "used": used}
        if same_semantics(status, quota.get("status") or {}):
            return Requeue(_RESYNC_S)
        if totals.keys() <= _used(quota).keys() and not self._still(key, quota):
            return Requeue(_DRIFT_S)
        await self.write_status(RESOURCE_QUOTAS, quota, status)
        return Requeue(_RESYNC_S)

    def _still(self, key: Key, quota: Obj) -> bool:
        """Whether the quota has not changed since a recount found it wrong. Admission counts an object before it is
        stored, and our own view of the objects lags: what is missing at first sight may be on its way."""
        revision = quota["metadata"]["resourceVersion"]
        if self._wrong.get(key) == revision:
            del self._wrong[key]
            return True
        self._wrong[key] = revision
        return False

    async def _resources(self, hard: Obj) -> list[Resource]:
        """The resources whose objects count for any of the names."""
        found: set[Resource] = set()
        counted = [name.removeprefix("count/") for name in hard if name.startswith("count/")]
        counted += [RESOURCE_CLAIMS.group_resource for name in hard if name.endswith(DEVICES)]
        if counted:
            # Asked each time: what is served, and in which version, may have changed.
            served = {each.resource.group_resource: each.resource for each in await self._discovery.served()}
            found.update(served[name] for name in counted if name in served)
        for name in hard:
            if name.startswith("count/") or name.endswith(DEVICES):
                continue
            found.add(_plain(name))
        return sorted(found)

    async def _objects(self, resource: Resource, namespace: str) -> list[Obj]:
        informer = self._sources.get(resource)
        if informer is not None:
            return informer.list(namespace)
        try:
            return (await self.client.list(resource, namespace)).items
        except StatusError as error:
            if error.code == 404:
                return []
            raise


def _used(quota: Obj) -> Obj:
    return (quota.get("status") or {}).get("used") or {}


def _hard(quota: Obj) -> Obj:
    return (quota.get("status") or {}).get("hard") or {}


def _plain(name: str) -> Resource:
    """The resource that a quota name without `count/` is about."""
    by_name = {resource.plural: resource for resource in (*_WATCHED, RESOURCE_QUOTAS)}
    if name in by_name:
        return by_name[name]
    if name.startswith("services."):
        return SERVICES
    if name == "requests.storage" or ".storageclass.storage.k8s.io/" in name:
        return PERSISTENT_VOLUME_CLAIMS
    return PODS
