"""The APIServices that this server keeps for what it serves itself.

In: the registry.  Out: one for each version of each group, with Kubernetes' priorities and the label that says who
keeps it: `onstart` for the built-in ones, which are looked at when a server starts, `true` for those of custom
resources, which come and go with them. What somebody has made without the label is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.apiserver.admission.base import Reader
from navarch.kinds.apiregistration.priorities import priority_of
from navarch.kinds.registry import Registry
from navarch.kinds.resources import API_SERVICES

LABEL: Final = "kube-aggregator.kubernetes.io/automanaged"
ON_START: Final = "onstart"
ALWAYS: Final = "true"


class Writer(Protocol):
    """The server's own writes."""

    async def create_all(self, objects: Iterable[tuple[Resource, Obj]]) -> None: ...

    async def update(self, resource: Resource, obj: Obj, subresource: str = "") -> Obj: ...

    async def delete(self, resource: Resource, namespace: str, name: str) -> None: ...


class Keeper:
    """Brings the stored ones into line."""

    def __init__(self, reader: Reader, writer: Writer, embedded: Iterable[Obj] = ()) -> None:
        """`embedded`: APIServices that are made where there are none, and then are whosesoever's."""
        self._reader = reader
        self._writer = writer
        self._embedded = [*embedded]

    async def keep(self, registry: Registry, *, starting: bool) -> None:
        """Make, change and delete what is to be. What another server was quicker to do is as well done.  Raises
        StatusError."""
        wanted = {obj["metadata"]["name"]: obj for obj in own_services(registry)}
        stored = {obj["metadata"]["name"]: obj for obj in self._reader.list(API_SERVICES)}
        await self._writer.create_all(
            (API_SERVICES, obj)
            for name, obj in wanted.items()
            if name not in stored and (starting or _keeper(obj) == ALWAYS)
        )
        lacking = [obj for obj in self._embedded if obj["metadata"]["name"] not in stored]
        await self._writer.create_all((API_SERVICES, obj) for obj in lacking)
        for name, obj in stored.items():
            keeper = _keeper(obj)
            if keeper != ALWAYS and not (starting and keeper == ON_START):
                continue
            desired = wanted.get(name)
            if desired is None:
                await self._writer.delete(API_SERVICES, "", name)
            elif obj.get("spec") != desired["spec"] or keeper != _keeper(desired):
                labels = {**(obj["metadata"].get("labels") or {}), LABEL: _keeper(desired)}
                changed = {**obj, "metadata": {**obj["metadata"], "labels": labels}, "spec": desired["spec"]}
                await self._update(changed)

    async def _update(self, obj: Obj) -> None:
        try:
            await self._writer.update(API_SERVICES, obj)
        except StatusError as error:
            if error.code not in (404, 409):
                raise


def _keeper(obj: Obj) -> str:
    return str((obj["metadata"].get("labels") or {}).get(LABEL, ""))


def own_services(registry: Registry) -> Iterator[Obj]:
    """All that there should be, one per version."""
    for group, versions in registry.versions().items():
        for version in versions:
            if group == "apiregistration.k8s.io":
                # The aggregator does not list itself.
                continue
            custom = all(kind.own_schemas is not None for kind in registry.of_version(group, version))
            yield api_service(group, version, ALWAYS if custom else ON_START)


def api_service(group: str, version: str, keeper: str) -> Obj:
    """The APIService of a version that is served here."""
    priority = priority_of(group, version)
    spec: Obj = {"group": group} if group else {}
    spec |= {"version": version, "groupPriorityMinimum": priority.group, "versionPriority": priority.version}
    return {"metadata": {"name": f"{version}.{group}", "labels": {LABEL: keeper}}, "spec": spec}
