"""The API servers behind this one, put together: who there is, how they are, and requests that are theirs.

In: APIServices, Services and EndpointSlices, as the caches have them.  Out: answers of other servers (`Delegate`), the
condition of each APIService, what discovery and OpenAPI show of them, and the APIServices of what is served here.
Each other server has a loop of its own, which looks again when something of it changes, every half a minute, and,
where it failed, after a growing delay. Without other servers nothing runs and a request pays nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Reader
from navarch.apiserver.aggregation import foreign
from navarch.apiserver.aggregation.availability import LOCAL, Finding, look_at, with_condition
from navarch.apiserver.aggregation.directory import Remote, is_available, remote_of
from navarch.apiserver.aggregation.foreign import ForeignVersion
from navarch.apiserver.aggregation.proxy import Proxy, UnreachableError, unavailable
from navarch.apiserver.aggregation.registration import ALWAYS, LABEL, Keeper, Writer
from navarch.apiserver.changes import Change
from navarch.apiserver.core import Core, Embedded
from navarch.apiserver.user import User
from navarch.apiserver.webhooks.services import SERVICE_LABEL, Services
from navarch.client.supervision import Delay
from navarch.client.transport import Request, Response
from navarch.kinds.resources import API_SERVICES, ENDPOINT_SLICES, SERVICES
from navarch.store.base import StoreUnavailable

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 30.0
_RETRY_S: Final = 0.05
_ATTEMPTS: Final = 5
_UNAVAILABLE: Final = "aggregator_unavailable_apiservice"


class Aggregator:
    """`core.Delegate`."""

    def __init__(
        self,
        core: Core,
        reader: Reader,
        writer: Writer,
        certificate: tuple[Path, Path] | None = None,
        embedded: Iterable[Embedded] = (),
    ) -> None:
        self._core = core
        self._reader = reader
        self._writer = writer
        self.embedded: Mapping[tuple[str, str], Embedded] = {(own.group, own.version): own for own in embedded}
        services = {str(own.api_service["metadata"]["name"]): own for own in self.embedded.values()}
        self._embedded_services = services
        self._keeper = Keeper(reader, writer, [own.api_service for own in services.values()])
        self._proxy = Proxy(Services(core.caches, core.world), certificate)
        # By group and version; the server looks here first, and passes by while it is empty.
        self.remotes: dict[tuple[str, str], Remote] = {}
        self.foreign = foreign.NOTHING
        for name in services:
            self._show_embedded(name)
        self._available: set[str] = set()
        self._loops: dict[str, tuple[Remote, asyncio.Task[None], asyncio.Event]] = {}
        # By namespace and name of their services, whose changes are theirs.
        self._by_service: dict[tuple[str, str], set[str]] = {}
        self._saying: set[asyncio.Task[None]] = set()
        # What was known of a document the last time, by its server and path.
        self._tags: dict[tuple[Remote, str], str] = {}
        self._registering: asyncio.Task[None] | None = None
        self._served_changed = asyncio.Event()

    # From start to stop

    async def start(self) -> None:
        """Keep the APIServices of what is served here, and look at all others.  Raises StatusError."""
        caches = self._core.caches
        await self._keeper.keep(self._core.registry, starting=True)
        caches.of(API_SERVICES).listeners.append(self._changed)
        caches.of(SERVICES).listeners.append(self._service_changed)
        caches.of(ENDPOINT_SLICES).listeners.append(self._slice_changed)
        self._core.served_changed.append(self._served_changed.set)
        for cached in caches.of(API_SERVICES).items(""):
            self._take(cached.name, cached.obj())
        self._registering = asyncio.create_task(self._keep_registered(), name="apiservice-registration")
        for own in self.embedded.values():
            await own.start()

    async def stop(self) -> None:
        for own in self.embedded.values():
            await own.stop()
        caches = self._core.caches
        for resource, listener in (
            (API_SERVICES, self._changed),
            (SERVICES, self._service_changed),
            (ENDPOINT_SLICES, self._slice_changed),
        ):
            with contextlib.suppress(ValueError):
                caches.of(resource).listeners.remove(listener)
        tasks = [*self._saying, *(task for _, task, _ in self._loops.values())]
        if self._registering is not None:
            tasks.append(self._registering)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loops.clear()
        await self._proxy.close()

    async def _keep_registered(self) -> None:
        """Custom resources come and go, and their versions' APIServices with them."""
        delay = Delay(_RETRY_S, _LOOK_EVERY_S)
        while True:
            await self._served_changed.wait()
            self._served_changed.clear()
            try:
                await self._keeper.keep(self._core.registry, starting=False)
            except (StatusError, StoreUnavailable):
                log.warning("the APIServices of what is served here cannot be kept", exc_info=True)
                await asyncio.sleep(delay.failed())
                self._served_changed.set()
            else:
                delay.succeeded()

    # Changes

    def _changed(self, change: Change) -> None:
        cached = change.new
        if cached is not None:
            self._take(cached.name, cached.obj())
        elif change.old is not None:
            self._leave(change.old.name)
            if change.old.name in self._embedded_services:
                # Whoever took it over has gone.
                self._served_changed.set()
        if change.old is not None and change.old.labels.get(LABEL) == ALWAYS:
            # What somebody did to it may have to be undone.
            self._served_changed.set()

    def _service_changed(self, change: Change) -> None:
        if self._by_service and (cached := change.new or change.old) is not None:
            self._wake(cached.namespace, cached.name)

    def _slice_changed(self, change: Change) -> None:
        if self._by_service and (cached := change.new or change.old) is not None:
            self._wake(cached.namespace, cached.labels.get(SERVICE_LABEL, ""))

    def _wake(self, namespace: str, service: str) -> None:
        for name in sorted(self._by_service.get((namespace, service), ())):
            self._loops[name][2].set()

    def _take(self, name: str, obj: Obj) -> None:
        """An APIService as it is now."""
        remote = remote_of(obj)
        known = self._loops.get(name)
        if remote is None:
            self._leave(name)
            if not is_available(obj):
                self._be_local(name)
            return
        if is_available(obj):
            self._available.add(name)
        else:
            self._available.discard(name)
        if known is not None and known[0] == remote:
            return
        if known is not None:
            self._leave(name)
        self.remotes[remote.group, remote.version] = remote
        self.foreign = self.foreign.with_version(ForeignVersion(remote))
        self._by_service.setdefault((remote.namespace, remote.service), set()).add(name)
        wake = asyncio.Event()
        task = asyncio.create_task(self._look_after(remote, wake), name=f"apiservice {name}")
        self._loops[name] = (remote, task, wake)

    def _leave(self, name: str) -> None:
        known = self._loops.pop(name, None)
        if known is None:
            return
        remote, task, _ = known
        task.cancel()
        self._available.discard(name)
        self.remotes.pop((remote.group, remote.version), None)
        self.foreign = self.foreign.without(remote.group, remote.version)
        service = (remote.namespace, remote.service)
        names = self._by_service[service]
        names.discard(name)
        if not names:
            del self._by_service[service]
        self._tags = {key: tag for key, tag in self._tags.items() if key[0] != remote}
        self._show_embedded(name)

    def _show_embedded(self, name: str) -> None:
        """What is answered for here is shown as what others serve is, while none of these does."""
        own = self._embedded_services.get(name)
        if own is None:
            return
        spec = own.api_service["spec"]
        priorities = (spec["groupPriorityMinimum"], spec["versionPriority"])
        here = Remote(name, own.group, own.version, *priorities, "", "", 0, b"", False)
        self.foreign = self.foreign.with_version(ForeignVersion(here, own.resources, True))

    def _be_local(self, name: str) -> None:
        """One that named a service and does no longer is always available."""
        task = asyncio.create_task(self._say_local(name), name=f"apiservice {name}")
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)

    async def _say_local(self, name: str) -> None:
        try:
            await self._say(name, LOCAL)
        except (StatusError, StoreUnavailable):
            log.warning("the status of APIService %s cannot be written", name, exc_info=True)

    # One server's loop

    async def _look_after(self, remote: Remote, wake: asyncio.Event) -> None:
        delay = Delay(_RETRY_S, _LOOK_EVERY_S)
        while True:
            wake.clear()
            pause_s = _LOOK_EVERY_S
            try:
                finding = await look_at(remote, self._core.caches, self._proxy)
                await self._say(remote.name, finding)
                await self._read_documents(remote, finding)
                if finding.ok:
                    delay.succeeded()
                elif finding.reason == "FailedDiscoveryCheck":
                    pause_s = delay.failed()
            except Exception:
                # Whatever it was, this server is looked at again.
                log.exception("APIService %s cannot be looked after", remote.name)
                pause_s = delay.failed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await wake.wait()

    async def _say(self, name: str, finding: Finding) -> None:
        """Raises StatusError."""
        for _ in range(_ATTEMPTS):
            obj = self._reader.get(API_SERVICES, "", name)
            changed = None if obj is None else with_condition(obj, finding, self._core.now_text())
            if changed is None:
                return
            try:
                await self._writer.update(API_SERVICES, changed, "status")
            except StatusError as error:
                if error.code not in (404, 409):
                    raise
                await self._core.caches.sync()
            else:
                return

    async def _read_documents(self, remote: Remote, finding: Finding) -> None:
        """What the server says that it serves; what was known, marked as stale, where it does not say."""
        key = (remote.group, remote.version)
        known = self.foreign.versions.get(key) or ForeignVersion(remote)
        found = ForeignVersion(remote, known.resources, False, known.openapi, known.swagger)
        if finding.ok:
            with contextlib.suppress(UnreachableError):
                found = await self._read(remote, known)
        if found != known and self.remotes.get(key) is remote:
            self.foreign = self.foreign.with_version(found)

    async def _read(self, remote: Remote, known: ForeignVersion) -> ForeignVersion:
        """Raises UnreachableError."""
        resources: tuple[Obj, ...] | None = None
        if (groups := await self._document(remote, "/apis", foreign.AGGREGATED)) is not None:
            resources = foreign.resources_of(groups, remote.group, remote.version)
            if resources is None and (listed := await self._document(remote, remote.root)) is not None:
                resources = foreign.resources_of(listed, remote.group, remote.version)
        openapi, swagger = known.openapi, known.swagger
        with contextlib.suppress(UnreachableError):
            if (index := await self._document(remote, "/openapi/v3")) is not None:
                openapi = foreign.openapi_address(index, remote)
            if (document := await self._document(remote, "/openapi/v2")) is not None:
                swagger = await self._core.world.in_thread(foreign.swagger_of, document, remote)
        return ForeignVersion(remote, known.resources if resources is None else resources, True, openapi, swagger)

    async def _document(self, remote: Remote, path: str, accept: str = "application/json") -> Obj | None:
        """None where it is the same as the last time, or not there.  Raises UnreachableError."""
        key = (remote, path)
        status, headers, data = await self._proxy.fetch(remote, path, accept=accept, tag=self._tags.get(key, ""))
        if status != 200:
            return None
        found = await self._core.world.in_thread(_object, data)
        self._tags[key] = headers.get("ETag", "")
        return found

    def lines(self) -> Iterator[str]:
        """What `/metrics` shows of the other servers, under Kubernetes' name."""
        if self._loops:
            yield f"# HELP {_UNAVAILABLE} Gauge of APIServices which are marked as unavailable, by name."
            yield f"# TYPE {_UNAVAILABLE} gauge"
        for name in self._loops:
            yield f'{_UNAVAILABLE}{{name="{name}"}} {int(name not in self._available)}'

    # Requests

    async def handle(self, request: Request, remote: Remote, user: User) -> Response:
        """A request for what another server serves."""
        if user.uid and not self._core.features.on("RemoteRequestHeaderUID"):
            user = replace(user, uid="")
        if remote.name not in self._available:
            return unavailable()
        return await self._proxy.forward(request, user, remote)


def _object(data: bytes) -> Obj:
    """Raises UnreachableError for what is no JSON object."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UnreachableError(str(error)) from None
    if not isinstance(found, dict):
        raise UnreachableError("it is no object")
    return found
