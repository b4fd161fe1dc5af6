"""What an autoscaler scales: any object with a scale subresource, built in or not.

In: a reference by apiVersion, kind and name.  Out: the Scale, as the API server shows it, and where to write it back.
Kinds are found by discovery, which is asked again only where it did not know a kind, or where what it knew was gone.
"""

from __future__ import annotations

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.client.base import Client
from navarch.controllers.discovery import Discovery
from navarch.records import frozen


class NoScaleError(Exception):
    """The target's scale could not be had; the message is for people."""


class Mapper:
    """The resources of kinds, remembered."""

    def __init__(self, client: Client) -> None:
        self._discovery = Discovery(client)
        self._known: dict[tuple[str, str], tuple[Resource, ...]] = {}

    async def find(self, group: str, kind: str) -> tuple[Resource, ...]:
        """The resources of a kind; none for one that is not served."""
        known = self._known.get((group, kind))
        if known is None:
            served = [each.resource for each in await self._discovery.served()]
            known = tuple(each for each in served if (each.group, each.kind) == (group, kind))
            if known:
                self._known[group, kind] = known
        return known

    def forget(self, group: str, kind: str) -> None:
        """What is known of a kind may not be true any more."""
        self._known.pop((group, kind), None)


@frozen
class Target:
    """A Scale, and the resource that it is one of."""

    resource: Resource
    scale: Obj

    @property
    def replicas(self) -> int:
        return int((self.scale.get("spec") or {}).get("replicas") or 0)

    @property
    def existing(self) -> int:
        return int((self.scale.get("status") or {}).get("replicas") or 0)

    @property
    def selector(self) -> str:
        return str((self.scale.get("status") or {}).get("selector") or "")


class Targets:
    """Reads and writes Scales."""

    def __init__(self, client: Client, mapper: Mapper) -> None:
        self._client = client
        self._mapper = mapper

    async def get(self, namespace: str, reference: Obj) -> Target:
        """Raises NoScaleError, OSError."""
        version, kind, name = reference.get("apiVersion") or "", reference["kind"], reference["name"]
        if version.count("/") > 1:
            raise NoScaleError(f"unexpected GroupVersion string: {version}")
        group = version.rpartition("/")[0]
        try:
            resources = await self._mapper.find(group, kind)
        except StatusError as error:
            raise NoScaleError(error.message) from error
        if not resources:
            raise NoScaleError(f'no matches for kind "{kind}" in group "{group}"')
        first: StatusError | None = None
        for resource in resources:
            try:
                return Target(resource, await self._client.get(resource, name, namespace, "scale"))
            except StatusError as error:
                first = first or error
        assert first is not None
        if first.code == 404:
            self._mapper.forget(group, kind)
        raise NoScaleError(_words(first)) from first

    async def scale(self, target: Target, replicas: int) -> None:
        """Raises StatusError, OSError."""
        try:
            await self._write(target, replicas)
        except StatusError as error:
            if error.code != 409:
                raise
            # Whoever has changed the object meanwhile need not have changed its size.
            metadata = target.scale["metadata"]
            now = Target(
                target.resource,
                await self._client.get(target.resource, metadata["name"], metadata.get("namespace", ""), "scale"),
            )
            if now.replicas != target.replicas:
                raise
            await self._write(now, replicas)

    async def _write(self, target: Target, replicas: int) -> None:
        wanted = {**target.scale, "spec": {**(target.scale.get("spec") or {}), "replicas": replicas}}
        await self._client.update(target.resource, wanted, subresource="scale")


def _words(error: StatusError) -> str:
    """A path that is not there is answered with a text of the router, which says nothing of it."""
    if error.code == 404 and error.message == "404 page not found":
        return "the server could not find the requested resource"
    return error.message
