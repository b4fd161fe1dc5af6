"""ResourceQuota: what would take a namespace beyond one of its quotas is refused; what gets in is counted at once.

In: every write to namespaced objects.  Out: 403 `exceeded quota`, or the quota's `status.used` raised before the object
is stored and lowered again if it is not. Deletions and pods that end lower it afterwards; a new or changed quota is
counted from what is stored.

Invariant: between check and count nothing else of the namespace is checked (one lock per namespace here, the quota's
revision against other servers), so that two writes never share the last free place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Final
from weakref import WeakValueDictionary

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource, name_of
from navarch.apiserver.admission.base import Attributes, Plugin, Reader, Writer
from navarch.apiserver.admission.quota_usage import DEVICES, Amounts, covers, unsaid, usage_of
from navarch.kinds import resources as r
from navarch.kinds.base import Kind
from navarch.kinds.core.resource_lists import amount_of, format_amount

_STATE: Final = "ResourceQuota"
_ATTEMPTS: Final = 20
_IGNORED: Final = frozenset({("", "events"), ("events.k8s.io", "events"), ("", "bindings")})
_CHANGEABLE: Final = frozenset({("", "pods"), ("", "services"), ("", "persistentvolumeclaims"), ("", "resourcequotas")})
# A pod's size changes through `resize`, and it ends through its status.
_SUBRESOURCES: Final = {("", "pods"): ("", "resize", "status")}
# What is counted when a quota is new, besides whatever `count/…` names.
_COUNTED: Final = {
    each.plural: each
    for each in (
        r.PODS,
        r.SERVICES,
        r.PERSISTENT_VOLUME_CLAIMS,
        r.CONFIG_MAPS,
        r.SECRETS,
        r.REPLICATION_CONTROLLERS,
        r.RESOURCE_QUOTAS,
    )
}


class ResourceQuota(Plugin):
    name = "ResourceQuota"

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def concerns(self, kind: Kind, operation: str, subresource: str) -> bool:
        resource = kind.resource
        key = (resource.group, resource.plural)
        if (
            not resource.namespaced
            or kind.virtual
            or key in _IGNORED
            or operation not in ("CREATE", "UPDATE", "DELETE")
            or subresource not in _SUBRESOURCES.get(key, ("",))
        ):
            return False
        return operation != "UPDATE" or key in _CHANGEABLE

    # ---------------------------------------------------------------------------------------------------- the hooks

    async def validate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if attributes.operation == "DELETE" or obj is None or attributes.subresource == "status":
            return
        quotas = self._quotas(attributes.namespace)
        if not quotas:
            return
        resource = attributes.kind.resource
        grown = await attributes.apart(_growth, resource, attributes.old, obj)
        if not grown:
            return
        charged: dict[str, Amounts] = {}
        attributes.state[_STATE] = charged

        async def charge() -> None:
            async with self._lock(attributes.namespace):
                await self._charge(attributes, resource, obj, grown, charged)

        # To its end also for a client that goes away meanwhile: `charged` must tell what was.
        charging = asyncio.ensure_future(charge())
        try:
            await asyncio.shield(charging)
        except asyncio.CancelledError:
            await asyncio.wait({charging})
            raise

    async def committed(self, attributes: Attributes, stored: Obj) -> None:
        attributes.state.pop(_STATE, None)
        namespace, resource = attributes.namespace, attributes.kind.resource
        if resource == r.RESOURCE_QUOTAS and attributes.operation != "DELETE" and not attributes.subresource:
            old_hard = ((attributes.old or {}).get("spec") or {}).get("hard")
            if attributes.old is None or old_hard != (stored.get("spec") or {}).get("hard"):
                async with self._lock(namespace):
                    await self._recount(namespace, name_of(stored))
        if attributes.old is None or (attributes.subresource == "status" and not _ended(stored)):
            return
        if not self._quotas(namespace):
            return
        left = None if attributes.operation == "DELETE" or _finished(stored) else stored
        freed = await attributes.apart(_growth, resource, left, attributes.old)
        if freed:
            async with self._lock(namespace):
                for quota in self._quotas(namespace):
                    if await attributes.apart(covers, quota, resource, attributes.old):
                        await self._add(quota, {name: -amount for name, amount in freed.items()})

    async def rolled_back(self, attributes: Attributes) -> None:
        charged: dict[str, Amounts] | None = attributes.state.pop(_STATE, None)
        if charged:
            async with self._lock(attributes.namespace):
                await self._uncharge(attributes.namespace, charged)

    # ----------------------------------------------------------------------------------------------------- charging

    def _quotas(self, namespace: str) -> list[Obj]:
        return list(self._reader.list(r.RESOURCE_QUOTAS, namespace))

    def _lock(self, namespace: str) -> asyncio.Lock:
        lock = self._locks.get(namespace)
        if lock is None:
            lock = self._locks[namespace] = asyncio.Lock()
        return lock

    async def _charge(
        self, attributes: Attributes, resource: Resource, obj: Obj, grown: Amounts, charged: dict[str, Amounts]
    ) -> None:
        """Check against every quota that covers the object, then raise them all. `charged` tells what was raised."""
        quotas = self._quotas(attributes.namespace)
        covering = [quota for quota in quotas if await attributes.apart(covers, quota, resource, obj)]
        for quota in covering:
            await attributes.apart(self._check, attributes, resource, obj, quota, grown)
        if attributes.dry_run:
            return
        for quota in covering:
            await self._raise(attributes, resource, obj, quota, grown, charged)

    async def _raise(
        self,
        attributes: Attributes,
        resource: Resource,
        obj: Obj,
        quota: Obj,
        grown: Amounts,
        charged: dict[str, Amounts],
    ) -> None:
        for _ in range(_ATTEMPTS):
            mine = {name: amount for name, amount in grown.items() if name in _hard(quota)}
            if not mine:
                return
            try:
                await self._write(quota, mine)
            except StatusError as error:
                if error.reason != "Conflict":
                    raise
                # Somebody else counted meanwhile: look again, for the room may be gone.
                again = self._reader.get(r.RESOURCE_QUOTAS, attributes.namespace, name_of(quota))
                if again is None:
                    return
                quota = again
                await attributes.apart(self._check, attributes, resource, obj, quota, grown)
            else:
                charged[name_of(quota)] = mine
                return
        raise attributes.refused(f"failed quota: {name_of(quota)}: its usage is being changed too often; try again")

    def _check(self, attributes: Attributes, resource: Resource, obj: Obj, quota: Obj, grown: Amounts) -> None:
        """Raises StatusError 403."""
        hard = _hard(quota)
        if resource == r.PODS and attributes.operation == "CREATE":
            missing = unsaid(obj["spec"], hard)
            if missing:
                raise attributes.refused(f"failed quota: {name_of(quota)}: must specify {'; '.join(missing)}")
        used = self._used(quota)
        exceeded = [
            name
            for name, amount in sorted(grown.items())
            if name in hard and used.get(name, Fraction(0)) + amount > amount_of(hard[name])
        ]
        if exceeded:
            likes = {name: str(hard[name]) for name in exceeded}
            requested = _show({name: grown[name] for name in exceeded}, likes)
            shown_used = _show({name: used.get(name, Fraction(0)) for name in exceeded}, likes)
            limited = ",".join(f"{name}={hard[name]}" for name in exceeded)
            raise attributes.refused(
                f"exceeded quota: {name_of(quota)}, requested: {requested}, used: {shown_used}, limited: {limited}"
            )

    def _used(self, quota: Obj) -> Amounts:
        """What the quota's status says, and what is stored where it says nothing yet."""
        status = (quota.get("status") or {}).get("used") or {}
        hard = _hard(quota)
        used = {name: amount_of(value) for name, value in status.items()}
        unknown = [name for name in hard if name not in used]
        if unknown:
            used.update(self._count(quota, unknown))
        return used

    async def _write(self, quota: Obj, delta: Mapping[str, Fraction], manager: str = "kube-apiserver") -> None:
        """Change `status.used`.  Raises StatusError (Conflict)."""
        hard = _hard(quota)
        used = self._used(quota)
        for name, amount in delta.items():
            if name in hard:
                used[name] = max(Fraction(0), used.get(name, Fraction(0)) + amount)
        shown = {name: format_amount(used.get(name, Fraction(0)), str(hard[name])) for name in hard}
        status = {"hard": dict(hard), "used": shown} if hard else {}
        await self._writer.update(r.RESOURCE_QUOTAS, {**quota, "status": status}, "status", manager)

    async def _add(self, quota: Obj, delta: Mapping[str, Fraction]) -> None:
        """Change `status.used`, whoever else does meanwhile."""
        namespace, name = quota["metadata"].get("namespace", ""), name_of(quota)
        if not any(resource in _hard(quota) for resource in delta):
            return
        for _ in range(_ATTEMPTS):
            try:
                await self._write(quota, delta)
                return
            except StatusError as error:
                if error.reason == "NotFound":
                    return
                if error.reason != "Conflict":
                    raise
            again = self._reader.get(r.RESOURCE_QUOTAS, namespace, name)
            if again is None:
                return
            quota = again

    async def _uncharge(self, namespace: str, charged: Mapping[str, Amounts]) -> None:
        for name, amounts in charged.items():
            quota = self._reader.get(r.RESOURCE_QUOTAS, namespace, name)
            if quota is not None:
                await self._add(quota, {each: -amount for each, amount in amounts.items()})

    # ----------------------------------------------------------------------------------------------------- counting

    async def _recount(self, namespace: str, name: str) -> None:
        """Count a new or changed quota from what is stored: what Kubernetes' controller does a little later, and in
        its name."""
        for _ in range(_ATTEMPTS):
            quota = self._reader.get(r.RESOURCE_QUOTAS, namespace, name)
            if quota is None:
                return
            hard = (quota.get("spec") or {}).get("hard") or {}
            quota["status"] = {"hard": dict(hard), "used": {}}
            try:
                await self._write(quota, {}, "kube-controller-manager")
                return
            except StatusError as error:
                if error.reason == "NotFound":
                    return
                if error.reason != "Conflict":
                    raise

    def _count(self, quota: Obj, names: Iterable[str]) -> Amounts:
        """What the namespace holds of the named resources."""
        wanted = dict.fromkeys(names)
        total: Amounts = {name: Fraction(0) for name in wanted}
        for resource in _resources_for(wanted):
            for obj in self._reader.list(resource, quota["metadata"].get("namespace", "")):
                if not covers(quota, resource, obj):
                    continue
                for name, amount in usage_of(resource, obj).items():
                    if name in wanted:
                        total[name] += amount
        return total


def _resources_for(names: Iterable[str]) -> list[Resource]:
    """The resources whose objects have to be read to count these."""
    found: dict[str, Resource] = {}
    for name in names:
        if name.startswith("count/"):
            plural, _, group = name.removeprefix("count/").partition(".")
            resource = _builtin(group, plural)
        else:
            plain = name.removeprefix("requests.").removeprefix("limits.")
            if plain in _COUNTED:
                resource = _COUNTED[plain]
            elif plain.startswith("services."):
                resource = r.SERVICES
            elif plain == "storage" or ".storageclass.storage.k8s.io/" in plain:
                resource = r.PERSISTENT_VOLUME_CLAIMS
            elif plain.endswith(DEVICES):
                resource = r.RESOURCE_CLAIMS
            else:
                resource = r.PODS
        if resource is not None:
            found[resource.group_resource] = resource
    return list(found.values())


def _builtin(group: str, plural: str) -> Resource | None:
    for value in vars(r).values():
        if isinstance(value, Resource) and value.group == group and value.plural == plural:
            return value
    return None


def _hard(quota: Obj) -> Mapping[str, Any]:
    """The limits that hold: those of the spec, for nobody has to copy them first."""
    hard: Mapping[str, Any] = (quota.get("spec") or {}).get("hard") or {}
    return hard


def _growth(resource: Resource, before: Obj | None, after: Obj) -> Amounts:
    """What the second takes up more than the first."""
    return _minus(usage_of(resource, after), usage_of(resource, before) if before is not None else {}, only_growth=True)


def _minus(more: Mapping[str, Fraction], less: Mapping[str, Fraction], *, only_growth: bool) -> Amounts:
    difference = {name: amount - less.get(name, Fraction(0)) for name, amount in more.items()}
    return {name: amount for name, amount in difference.items() if amount > 0 or not only_growth}


def _show(amounts: Mapping[str, Fraction], likes: Mapping[str, str]) -> str:
    return ",".join(f"{name}={format_amount(amount, likes[name])}" for name, amount in sorted(amounts.items()))


def _ended(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _finished(obj: Obj) -> bool:
    metadata = obj["metadata"]
    return (
        bool(metadata.get("deletionTimestamp"))
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
    )
