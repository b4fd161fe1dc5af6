"""Where the API servers of a cluster are: the endpoints of the service `kubernetes`.

Each server keeps a key with its address that expires soon unless it is renewed, and writes down everybody whose key is
there: as Kubernetes' lease reconciler does, so that any number of servers share the service, and one that is gone is
not led to any more. A server that stops takes its key away, but leaves the last address standing: where it is alone, it
is about to be started again, and its listening socket waits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final, NamedTuple, Protocol

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource, labels_of
from navarch.apiserver.admission.base import Reader
from navarch.apiserver.caches import Caches
from navarch.apiserver.codec import Codec
from navarch.kinds.resources import ENDPOINT_SLICES, ENDPOINTS
from navarch.store.base import Conflict, Delete, Put

EVERY_S: Final = 10.0
LEASE_S: Final = 15.0
_LEASES: Final = Codec(Resource("presence.navarch.dev", "v1", "apiservers", "ApiServer", False))
_NAMESPACE: Final = "default"
_NAME: Final = "kubernetes"
_SERVICE_LABEL: Final = "kubernetes.io/service-name"
_ATTEMPTS: Final = 10


class Writer(Protocol):
    async def create(self, resource: Resource, obj: Obj) -> Obj: ...

    async def update(self, resource: Resource, obj: Obj, subresource: str = "") -> Obj: ...

    async def delete(self, resource: Resource, namespace: str, name: str) -> None: ...


class Place(NamedTuple):
    """Ordered by port, so that servers of one port stand together."""

    port: int
    address: str


class Presence:
    """One server's."""

    def __init__(self, caches: Caches, reader: Reader, writer: Writer, place: Place) -> None:
        self._caches = caches
        self._store = caches.store
        self._reader = reader
        self._writer = writer
        self._place = place
        self._key = _LEASES.key("", f"{place.address}:{place.port}")

    async def renew(self) -> None:
        """Say that this server is there, and write down who is.  Raises StoreUnavailable, StatusError."""
        value = orjson.dumps({"address": self._place.address, "port": self._place.port})
        await self._store.commit([Put(self._key, value, None, LEASE_S)])
        await self._store.expire()
        await self._publish(await self._present())

    async def leave(self) -> None:
        """Raises StoreUnavailable, StatusError."""
        with contextlib.suppress(Conflict):
            await self._store.commit([Delete(self._key)])
        others = await self._present()
        if others:
            await self._publish(others)

    async def _present(self) -> list[Place]:
        page = await self._store.range(_LEASES.prefix)
        found = [orjson.loads(entry.value) for entry in page.entries]
        return sorted(Place(each["port"], each["address"]) for each in found)

    async def _publish(self, places: Sequence[Place]) -> None:
        slices = _slices(places)
        await self._caches.sync()
        await self._put(ENDPOINTS, _endpoints(places), ("subsets",))
        for each in slices:
            await self._put(ENDPOINT_SLICES, each, ("addressType", "endpoints", "ports"))
        wanted = {each["metadata"]["name"] for each in slices}
        for each in list(self._reader.list(ENDPOINT_SLICES, _NAMESPACE)):
            name = each["metadata"]["name"]
            ours = name.startswith(f"{_NAME}-at-") and labels_of(each).get(_SERVICE_LABEL) == _NAME
            if ours and name not in wanted:
                await self._writer.delete(ENDPOINT_SLICES, _NAMESPACE, name)

    async def _put(self, resource: Resource, wanted: Obj, parts: Sequence[str]) -> None:
        """Create, or bring the named parts to what is wanted; another server may be at it, too."""
        for attempt in range(_ATTEMPTS):
            stored = self._reader.get(resource, _NAMESPACE, wanted["metadata"]["name"])
            if stored is not None and all(stored.get(part) == wanted[part] for part in parts):
                return
            try:
                if stored is None:
                    await self._writer.create(resource, {**wanted, "metadata": dict(wanted["metadata"])})
                else:
                    await self._writer.update(resource, {**stored, **{part: wanted[part] for part in parts}})
                return
            except StatusError as error:
                # Somebody was quicker; what is stored now is looked at again.
                if error.code not in (404, 409) or attempt + 1 == _ATTEMPTS:
                    raise
                await self._caches.sync()


def _endpoints(places: Sequence[Place]) -> Obj:
    return {
        "metadata": {
            "name": _NAME,
            "namespace": _NAMESPACE,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [
            {
                "addresses": [{"ip": address} for address in addresses],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }
            for port, addresses in _by_port(places).items()
        ],
    }


def _slices(places: Sequence[Place]) -> list[Obj]:
    """One per port and address family: nearly always one."""
    found: list[Obj] = []
    for port, addresses in _by_port(places).items():
        for version in (4, 6):
            within = [address for address in addresses if ip_address(address).version == version]
            if within:
                name = f"{_NAME}-at-{port}-ipv{version}" if found else _NAME
                found.append(_slice(name, f"IPv{version}", within, port))
    return found


def _slice(name: str, family: str, addresses: Sequence[str], port: int) -> Obj:
    return {
        "metadata": {"name": name, "namespace": _NAMESPACE, "labels": {_SERVICE_LABEL: _NAME}},
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }


def _by_port(places: Sequence[Place]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for port, address in places:
        found.setdefault(port, []).append(address)
    return found
