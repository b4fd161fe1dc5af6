"""`DeviceClaims`: the claims of this node's pods, each prepared once by its drivers however many pods use it.

In: pods that begin and end. Out: calls to drivers, and for each container the devices that the runtime gives it, by
their CDI names. What is prepared is written to a file before and after drivers are asked, so that a kubelet that
starts again knows what containers have, and what nobody needs any more.
Invariant: a claim stays prepared while a pod uses it, and is given back when the last has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, name_of, namespace_of, uid_of
from navarch.client.base import Client
from navarch.client.resources import RESOURCE_CLAIMS
from navarch.node.dra.drivers import DeviceDriver, DeviceDrivers
from navarch.node.dra.proto import dra_pb2 as dra
from navarch.node.plugins.sockets import PluginError
from navarch.world import World

log = logging.getLogger(__name__)

FILE: Final = "dra_manager_state"
_LOOK_EVERY_S: Final = 60.0


class DeviceError(Exception):
    """Why a pod's devices cannot be had now, in Kubernetes' words."""


@dataclass(slots=True)
class _Prepared:
    """What is known of one claim. `devices` are by driver: pool, device, requests, CDI names."""

    uid: str
    name: str
    namespace: str
    drivers: list[str]
    pods: set[str] = field(default_factory=set)
    devices: dict[str, list[Obj]] = field(default_factory=dict)
    is_prepared: bool = False

    @property
    def message(self) -> Any:
        return dra.Claim(namespace=self.namespace, uid=self.uid, name=self.name)

    def devices_for(self, request: str) -> Iterable[tuple[str, Obj]]:
        """The devices for a request, all where none is named, each with its driver."""
        for driver, devices in self.devices.items():
            for device in devices:
                names = device["requests"]
                # A request is answered by one of its alternatives, of which the device names it.
                if not request or not names or any(name.partition("/")[0] == request for name in names):
                    yield driver, device


class DeviceClaims:
    """`running` tells the uids of the pods that the node has."""

    def __init__(
        self, client: Client, drivers: DeviceDrivers, data: Path, world: World, running: Callable[[], set[str]]
    ) -> None:
        self._client = client
        self._drivers = drivers
        self._path = data / FILE
        self._world = world
        self._running = running
        self._claims: dict[tuple[str, str], _Prepared] = {}
        self._is_loaded = False
        # Pods that share a claim begin and end at the same time.
        self._changing = asyncio.Lock()

    async def run(self) -> None:
        """Give back what pods used that ended while the kubelet was away, until cancelled."""
        await self._load()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            staying = self._running()
            for uid in sorted({uid for claim in self._claims.values() for uid in claim.pods} - staying):
                try:
                    await self.unprepare(uid)
                except DeviceError as error:
                    log.warning("claims of pod %s: %s", uid, error)

    # What pods ask.

    async def prepare(self, pod: Obj) -> None:
        """Have everything that the pod claims ready for its containers. Raises DeviceError."""
        claims = [await self._claim_of(pod, name, is_own=is_own) for name, is_own in _claims_of(pod)]
        async with self._changing:
            await self._load()
            mine = [self._known(claim) for claim in claims]
            # Nothing is noted of a pod whose drivers are not there: there is nothing to give back when it goes.
            drivers = {name: self._driver(name) for known in mine for name in known.drivers}
            work: dict[DeviceDriver, list[_Prepared]] = {}
            for known in mine:
                known.pods.add(uid_of(pod))
                self._claims[known.namespace, known.name] = known
                for name in () if known.is_prepared else known.drivers:
                    work.setdefault(drivers[name], []).append(known)
            await self._save()
            for driver, wanted in work.items():
                await self._prepare_by(driver, wanted)
            for wanted in work.values():
                for known in wanted:
                    known.is_prepared = True
            if work:
                await self._save()

    async def unprepare(self, pod_uid: str) -> None:
        """The pod has ended: let go of what it was the last to use. Raises DeviceError."""
        async with self._changing:
            await self._load()
            mine = [claim for claim in self._claims.values() if pod_uid in claim.pods]
            if not mine:
                return
            work: dict[str, list[_Prepared]] = {}
            for claim in mine:
                if claim.pods == {pod_uid}:
                    for driver in claim.drivers:
                        work.setdefault(driver, []).append(claim)
            for driver, wanted in work.items():
                await self._unprepare_by(self._driver(driver), wanted)
            for claim in mine:
                claim.pods.discard(pod_uid)
                if not claim.pods:
                    del self._claims[claim.namespace, claim.name]
            await self._save()

    async def cdi_devices(self, pod: Obj, container: Obj) -> Sequence[str]:
        """CDI names of the devices that the container gets. Raises DeviceError."""
        wanted = list(_requests_of(pod, container))
        if not wanted:
            return ()
        await self._load()
        found: dict[str, None] = {}
        for name, request in wanted:
            claim = self._claims.get((namespace_of(pod), name))
            if claim is None:
                where = f"ResourceClaim {name} in namespace {namespace_of(pod)}"
                raise DeviceError(f"internal error: unable to get claim info for {where}")
            for _, device in claim.devices_for(request):
                found |= dict.fromkeys(device["cdi"])
        return list(found)

    def statuses(self, pod: Obj, container: Obj) -> list[Obj]:
        """`allocatedResourcesStatus` of the container, as far as it comes from claims."""
        entries = {entry["name"]: entry for entry in pod["spec"].get("resourceClaims") or ()}
        told = []
        for used in (container.get("resources") or {}).get("claims") or ():
            entry, request = entries.get(used["name"]), used.get("request") or ""
            try:
                name = _name_of(pod, entry) if entry is not None else None
            except DeviceError:
                continue
            claim = self._claims.get((namespace_of(pod), name or ""))
            if claim is not None:
                devices = [self._health_of(driver, device) for driver, device in claim.devices_for(request)]
                shown = f"claim:{used['name']}" + (f"/{request}" if request else "")
                if devices:
                    told.append({"name": shown, "resources": devices})
        return told

    def _health_of(self, driver: str, device: Obj) -> Obj:
        health = self._drivers.health.of(driver, device["pool"], device["device"])
        id = device["cdi"][0] if device["cdi"] else f"{driver}/{device['pool']}/{device['device']}"
        return {"resourceID": id, "health": health.status} | ({"message": health.message} if health.message else {})

    def used_by(self, pod: Obj, container: Obj) -> Iterable[tuple[str, str, list[tuple[str, Obj]]]]:
        """Namespace and name of each claim that the container uses, and the devices that it has of it."""
        wanted: dict[str, list[str]] = {}
        try:
            for name, request in _requests_of(pod, container):
                wanted.setdefault(name, []).append(request)
        except DeviceError:
            # A claim that is not made yet.
            return
        for name, requests in wanted.items():
            claim = self._claims.get((namespace_of(pod), name))
            if claim is not None:
                devices = [each for request in requests for each in claim.devices_for(request)]
                yield claim.namespace, name, devices

    def users_of(self, driver: str) -> set[str]:
        """Uids of the pods that have devices of a driver."""
        return {uid for claim in self._claims.values() if driver in claim.drivers for uid in claim.pods}

    # How.

    async def _claim_of(self, pod: Obj, name: str, *, is_own: bool) -> Obj:
        try:
            claim = await self._client.get(RESOURCE_CLAIMS, name, namespace_of(pod))
        except StatusError as error:
            raise DeviceError(f"fetch ResourceClaim {name}: {error.message}") from None
        owners = claim["metadata"].get("ownerReferences") or ()
        if is_own and not any(owner.get("uid") == uid_of(pod) for owner in owners):
            what = f"was not created for pod {namespace_of(pod)}/{name_of(pod)} (pod is not owner)"
            raise DeviceError(f"ResourceClaim {namespace_of(pod)}/{name} {what}")
        status = claim.get("status") or {}
        if not any(user.get("uid") == uid_of(pod) for user in status.get("reservedFor") or ()):
            who = f"pod {name_of(pod)} ({uid_of(pod)})"
            raise DeviceError(f"{who} is not allowed to use ResourceClaim {name} ({uid_of(claim)})")
        if status.get("allocation") is None:
            raise DeviceError(f"ResourceClaim {name}: not allocated")
        return claim

    def _known(self, claim: Obj) -> _Prepared:
        known = self._claims.get((namespace_of(claim), name_of(claim)))
        if known is None:
            results = claim["status"]["allocation"].get("devices", {}).get("results") or ()
            drivers = list(dict.fromkeys(result["driver"] for result in results))
            return _Prepared(uid_of(claim), name_of(claim), namespace_of(claim), drivers)
        if known.uid != uid_of(claim):
            what = f"old ResourceClaim with same name {known.name} and different UID {known.uid} still exists"
            raise DeviceError(f"{what} (previous pod force-deleted?!)")
        return known

    def _driver(self, name: str) -> DeviceDriver:
        driver = self._drivers.get(name)
        if driver is None:
            raise DeviceError(f"DRA driver {name} is not registered")
        return driver

    async def _prepare_by(self, driver: DeviceDriver, wanted: Sequence[_Prepared]) -> None:
        answers = await _answers("NodePrepareResources", driver.prepare, wanted)
        for claim in wanted:
            claim.devices[driver.name] = [
                {
                    "pool": device.pool_name,
                    "device": device.device_name,
                    "requests": list(device.request_names),
                    "cdi": list(device.cdi_device_ids),
                }
                for device in answers[claim.uid].devices
            ]

    async def _unprepare_by(self, driver: DeviceDriver, wanted: Sequence[_Prepared]) -> None:
        await _answers("NodeUnprepareResources", driver.unprepare, wanted)

    # The file.

    async def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        try:
            stored = orjson.loads(await self._world.in_thread(self._path.read_bytes))
            read = [_Prepared(**{**each, "pods": set(each["pods"])}) for each in stored["claims"]]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Drivers prepare again what they have prepared: nothing is lost but what nobody needs any more.
            log.warning("%s cannot be read: %s", self._path, error)
            return
        self._claims = {(claim.namespace, claim.name): claim for claim in read}

    async def _save(self) -> None:
        """Raises DeviceError."""
        claims = [
            {
                "uid": claim.uid,
                "name": claim.name,
                "namespace": claim.namespace,
                "drivers": claim.drivers,
                "pods": sorted(claim.pods),
                "devices": claim.devices,
                "is_prepared": claim.is_prepared,
            }
            for claim in self._claims.values()
        ]
        try:
            await self._world.in_thread(_write, self._path, orjson.dumps({"version": 1, "claims": claims}))
        except OSError as error:
            raise DeviceError(f"failed to checkpoint: {error}") from error


async def _answers(
    method: str, call: Callable[[Sequence[Any]], Awaitable[Any]], wanted: Sequence[_Prepared]
) -> Mapping[str, Any]:
    """What a driver says of each claim. Raises DeviceError where it does not say that all is well."""
    try:
        answers: Mapping[str, Any] = (await call([claim.message for claim in wanted])).claims
    except PluginError as error:
        raise DeviceError(f"{method}: {error}") from None
    by_uid = {claim.uid: claim for claim in wanted}
    for uid, answer in answers.items():
        if uid not in by_uid:
            raise DeviceError(f"{method} returned result for unknown claim UID {uid}")
        if answer.error:
            raise DeviceError(f"{method} failed for ResourceClaim {by_uid[uid].name}: {answer.error}")
    if len(answers) < len(wanted):
        raise DeviceError(f"{method} skipped {len(wanted) - len(answers)} ResourceClaims")
    return answers


def _claims_of(pod: Obj) -> Iterable[tuple[str, bool]]:
    """The names of the pod's claims, and whether each was made for it. Raises DeviceError."""
    status = pod.get("status") or {}
    for entry in pod["spec"].get("resourceClaims") or ():
        name = _name_of(pod, entry)
        if name:
            yield name, not entry.get("resourceClaimName")
    extended = (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName")
    if extended:
        yield extended, True


def _name_of(pod: Obj, entry: Obj) -> str | None:
    if entry.get("resourceClaimName"):
        return str(entry["resourceClaimName"])
    for told in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
        if told["name"] == entry["name"]:
            # Without a name: the template made none, on purpose.
            name = told.get("resourceClaimName")
            return str(name) if name else None
    raise DeviceError(f'pod "{namespace_of(pod)}/{name_of(pod)}": ResourceClaim not created yet')


def _requests_of(pod: Obj, container: Obj) -> Iterable[tuple[str, str]]:
    """The claims that the container uses, each with the request, empty for all of it."""
    entries = {entry["name"]: entry for entry in pod["spec"].get("resourceClaims") or ()}
    resources = container.get("resources") or {}
    for used in resources.get("claims") or ():
        entry = entries.get(used["name"])
        name = _name_of(pod, entry) if entry is not None else None
        if name:
            yield name, used.get("request") or ""
    extended = (pod.get("status") or {}).get("extendedResourceClaimStatus") or {}
    for mapping in extended.get("requestMappings") or ():
        wants = (resources.get("requests") or {}).get(mapping["resourceName"], "0") != "0"
        if mapping["containerName"] == container["name"] and wants:
            yield extended["resourceClaimName"], mapping["requestName"]


def has_claims(pod: Obj) -> bool:
    status = pod.get("status") or {}
    return bool(pod["spec"].get("resourceClaims") or status.get("extendedResourceClaimStatus"))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)
