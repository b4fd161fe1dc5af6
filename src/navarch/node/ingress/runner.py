"""The Ingress controller of one node: follows the API, and has HAProxy serve what it says.

In: Ingresses and IngressClasses from the start; Services, EndpointSlices and the Secrets that Ingresses name only once
there is an Ingress to serve. Out: a proxy that serves them at the node's addresses, the annotation of the Node that
says so (`controllers/ingress_status.py` tells it to the Ingresses), and events on Ingresses that cannot be served.
Changes of endpoints alone reach the running proxy within its moment; all others make another configuration.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from navarch.api.meta import Key, Obj, annotations_of, key_of, labels_of, namespace_of
from navarch.client.base import Client, PatchKind
from navarch.client.events import EventRecorder
from navarch.client.following import Applier
from navarch.client.informer import Informer
from navarch.client.resources import ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, NODES, SECRETS, SERVICES
from navarch.client.supervision import Failures, supervised
from navarch.kinds.networking.ingress_classes import SERVES, is_ours
from navarch.node.ingress import backends, certificates, rules
from navarch.node.ingress.backends import Address, Backend, NoBackend
from navarch.node.ingress.certificates import BadCertificate, Pem
from navarch.node.ingress.haproxy import HAProxy, ProxyError
from navarch.node.ingress.rendering import Listening, Rendered, render
from navarch.node.ingress.rules import Problem, Routes, Target
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)

_BY_SERVICE: Final = "service"
_CALM_S: Final = 0.05
_CHECK_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class IngressConfig:
    """`folder` is the proxy's own."""

    node_name: str
    folder: Path
    listening: Listening


def on_node(node_name: str, folder: Path, address: str) -> IngressConfig:
    """As a node serves: at its address, with the worker as the user that Debian's package makes for it."""
    try:
        user = pwd.getpwnam("haproxy").pw_name if os.geteuid() == 0 else ""
    except KeyError:
        user = ""
    return IngressConfig(node_name, folder, Listening((address,), user=user))


class IngressController:
    """`client` has rights to read what Ingresses need; `node_client` acts as the node, whose Node it annotates."""

    def __init__(
        self, client: Client, node_client: Client, config: IngressConfig, *, world: World | None = None
    ) -> None:
        self.config = config
        self._client = client
        self._node_client = node_client
        self._world = world or RealWorld()
        self._failures = Failures()
        self._ingresses = Informer(client, INGRESSES, transform=_slim)
        self._classes = Informer(client, INGRESS_CLASSES, transform=_slim)
        self._services = Informer(client, SERVICES, transform=_slim)
        self._slices = Informer(client, ENDPOINT_SLICES, indexers={_BY_SERVICE: _service_of}, transform=_slim)
        self._recorder = EventRecorder(client, "ingress-controller", host=config.node_name, world=self._world)
        self._applier = Applier(
            "Ingresses", self._apply, self._failures, calm_s=_CALM_S, check=self._look, check_every_s=_CHECK_S
        )
        self._needed = asyncio.Event()
        self._proxy = HAProxy(config.folder)
        self._stand_in = certificates.stand_in()
        self._secrets: dict[Key, tuple[Informer, asyncio.Task[None]]] = {}
        self._slots: dict[Target, Backend] = {}
        self._served: Rendered | None = None
        self._structure = ""
        self._told: set[Problem] = set()

    async def run(self) -> None:
        """Until cancelled; the proxy goes on."""
        for informer in (self._ingresses, self._classes, self._services, self._slices):
            informer.add_handler(lambda _: self._applier.changed(), self._updated, lambda _: self._applier.changed())
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for informer in (self._ingresses, self._classes):
                self._keep(tasks, informer)
            tasks.create_task(self._recorder.run(), name="events of Ingresses")
            await asyncio.gather(self._ingresses.synced(), self._classes.synced())
            self._applier.changed()
            tasks.create_task(self._applier.run(), name="Ingresses")
            await self._needed.wait()
            for informer in (self._services, self._slices):
                self._keep(tasks, informer)

    def _keep(self, tasks: asyncio.TaskGroup, informer: Informer) -> asyncio.Task[None]:
        what = f"Ingresses' informer of {informer.resource.group_resource}"
        return tasks.create_task(supervised(what, informer.run, self._failures), name=what)

    def _updated(self, old: Obj, new: Obj) -> None:
        if any(old.get(field) != new.get(field) for field in ("spec", "endpoints", "ports", "data")) or (
            annotations_of(old) != annotations_of(new) or _is_going(old) != _is_going(new)
        ):
            self._applier.changed()

    # Applying.

    async def _apply(self) -> None:
        classes = self._classes.list()
        ours = [ingress for ingress in self._ingresses.list() if is_ours(ingress, classes)]
        if not ours and self._served is None and not self._proxy.is_running:
            return
        self._needed.set()
        await asyncio.gather(self._services.synced(), self._slices.synced())
        routes = rules.read(ours)
        problems = list(routes.problems)
        await self._follow_secrets(dict.fromkeys(entry.secret for entry in routes.tls))
        found = self._backends(routes, problems)
        shown = self._certificates(routes, problems)
        try:
            await self._serve(routes, found, shown)
        except ProxyError as error:
            self._tell([*problems, *(Problem(key_of(each), "NotServed", str(error)) for each in ours)])
            raise
        self._tell(problems)
        await self._annotate()

    async def _serve(self, routes: Routes, found: list[Backend], shown: list[tuple[Pem, tuple[str, ...]]]) -> None:
        # What does not depend on which endpoints there are.
        bare = [Backend(each.target, each.protocol, (None,) * len(each.slots)) for each in found]
        structure = render(self.config.listening, routes, bare, shown, self._stand_in).generation
        if self._served is not None and structure == self._structure and self._proxy.is_running:
            commands = backends.changes(self._slots.values(), found)
            if commands is not None:
                await self._proxy.tell(commands)
                self._slots = {each.target: each for each in found}
                return
        # Whatever the proxy has heard counts no longer once it is told anew.
        self._structure = ""
        rendered = render(self.config.listening, routes, found, shown, self._stand_in)
        await self._proxy.apply(rendered)
        self._slots = {each.target: each for each in found}
        self._served, self._structure = rendered, structure

    def _backends(self, routes: Routes, problems: list[Problem]) -> list[Backend]:
        found: list[Backend] = []
        for target in sorted({*routes.exact.values(), *routes.prefix.values()}):
            service = self._services.get(target.namespace, target.service)
            before = self._slots.get(target)
            here: list[Address] = []
            protocol = "http"
            try:
                port, protocol = backends.port_of(service, target)
            except NoBackend as error:
                problems.append(Problem(routes.users[target], "ServiceNotFound", str(error)))
            else:
                slices = self._slices.by_index(_BY_SERVICE, f"{target.namespace}/{target.service}")
                here = backends.addresses(slices, port)
            found.append(Backend(target, protocol, backends.fill(before.slots if before else (), here)))
        return found

    # Certificates.

    async def _follow_secrets(self, wanted: Collection[Key]) -> None:
        """Each by its name: no other Secret is anything to this controller, nor may it see it."""
        for key in [key for key in self._secrets if key not in wanted]:
            self._secrets.pop(key)[1].cancel()
        for key in [key for key in wanted if key not in self._secrets]:
            informer = Informer(
                self._client, SECRETS, namespace=key.namespace, fields=f"metadata.name={key.name}", world=self._world
            )
            informer.add_handler(lambda _: self._applier.changed(), self._updated, lambda _: self._applier.changed())
            self._secrets[key] = informer, self._keep(self._tasks, informer)
        for key in wanted:
            # One that cannot be read must not keep the others from being served.
            try:
                async with asyncio.timeout(1.0):
                    await self._secrets[key][0].synced()
            except TimeoutError:
                log.warning("Secret %s cannot be read yet", key)

    def _certificates(self, routes: Routes, problems: list[Problem]) -> list[tuple[Pem, tuple[str, ...]]]:
        found: list[tuple[Pem, tuple[str, ...]]] = []
        for entry in routes.tls:
            try:
                pem = certificates.read(self._secrets[entry.secret][0].get(*entry.secret))
            except BadCertificate as error:
                problems.append(Problem(entry.ingress, "BadCertificate", f"Secret {entry.secret.name!r} {error}"))
            else:
                found.append((pem, entry.hosts))
        return found

    # Telling.

    def _tell(self, problems: Iterable[Problem]) -> None:
        """Each problem once, as long as it lasts."""
        now = set(problems)
        for problem in sorted(now - self._told, key=lambda each: (str(each.ingress), each.reason, each.message)):
            ingress = self._ingresses.get(*problem.ingress)
            if ingress is not None:
                self._recorder.event(ingress, "Warning", problem.reason, problem.message)
        self._told = now

    async def _annotate(self) -> None:
        """Say on the Node that Ingresses are served here."""
        patch = {"metadata": {"annotations": {SERVES: ",".join(self.config.listening.addresses)}}}
        node = await self._node_client.get(NODES, self.config.node_name)
        if annotations_of(node).get(SERVES) != patch["metadata"]["annotations"][SERVES]:
            await self._node_client.patch(NODES, self.config.node_name, "", patch, kind=PatchKind.MERGE)

    async def _look(self) -> None:
        """A proxy that is gone is started again."""
        if self._served is not None and not self._proxy.is_running:
            log.error("HAProxy has ended; starting it again")
            self._applier.changed()


def _is_going(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def _service_of(each: Obj) -> tuple[str, ...]:
    name = labels_of(each).get("kubernetes.io/service-name")
    return (f"{namespace_of(each)}/{name}",) if name else ()


def _slim(obj: Obj) -> Obj:
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": metadata}
