"""`Controller`: level-triggered work on one key at a time, with the loop that every controller shares.

Informer callbacks put keys into the queue; `workers` tasks take them out and call `reconcile`, which reads what is,
computes what should be and writes the difference. A failure puts the key back after its back-off; a conflict means
that the informer is behind, so the key simply comes back. Invariant: one key is never reconciled twice at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import ClassVar, NamedTuple, Protocol

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, Resource, controller_of, key_of, revision_of
from navarch.client.base import Client
from navarch.client.events import EventRecorder
from navarch.client.informer import Informer, Informers
from navarch.client.sharing import without_managed_fields
from navarch.client.supervision import Failures, until_done
from navarch.client.workqueue import WorkQueue
from navarch.records import frozen, mutable
from navarch.world import Clock, World

log = logging.getLogger(__name__)

_REMEMBERED_WRITES = 8192


class Requeue(NamedTuple):
    """Reconcile the key again in `after_s` seconds."""

    after_s: float


class TokenIssuer(Protocol):
    """Signs a service-account token that never expires, for a Secret of type kubernetes.io/service-account-token."""

    def __call__(self, service_account: Obj, secret: Obj) -> str: ...


class CertificateSigner(Protocol):
    """Signs a PEM certificate request; returns the PEM certificate. `usages` are the API's words ("client auth")."""

    def __call__(self, request_pem: bytes, usages: list[str], lifetime_s: int) -> bytes: ...


@frozen
class ControllerConfig:
    """What differs from cluster to cluster. Periods are Kubernetes' defaults.

    `garbage_collector_delay_s` keeps the collector, which watches every resource there is, out of the way of a cluster
    that starts; with `local_path` the cluster has a default StorageClass whose volumes are directories of nodes;
    `load_balancer` has Services of that type given nodes' addresses, `ingress` has Ingresses told where they are
    served; `disabled` names controllers that are not to run. With `terminating_replicas` ReplicaSets and Deployments
    tell how many of their pods are ending, as by default since Kubernetes 1.35.
    """

    # One range, or one of each IP family with a comma between.
    cluster_cidr: str = "10.42.0.0/16"
    node_cidr_mask: int = 24
    node_cidr_mask_ipv6: int = 64
    allocate_node_cidrs: bool = True
    root_ca: str = ""
    token_issuer: TokenIssuer | None = None
    certificate_signer: CertificateSigner | None = None
    certificate_lifetime_s: int = 365 * 24 * 3600
    node_monitor_grace_s: float = 50.0
    node_startup_grace_s: float = 60.0
    node_monitor_period_s: float = 5.0
    terminated_pod_threshold: int = 12500
    garbage_collector_delay_s: float = 0.0
    local_path: bool = False
    discovery_interval_s: float = 30.0
    load_balancer: bool = True
    ingress: bool = True
    disabled: frozenset[str] = frozenset()
    terminating_replicas: bool = True


@mutable
class Metrics:
    """Counters of one controller, in the words of Kubernetes' work queue metrics."""

    adds: int = 0
    reconciles: int = 0
    errors: int = 0
    conflicts: int = 0
    retries: int = 0
    work_s: float = 0.0


@mutable
class Context:
    """What all controllers of a process share."""

    client: Client
    informers: Informers
    world: World
    config: ControllerConfig = field(default_factory=ControllerConfig)
    recorders: dict[str, EventRecorder] = field(default_factory=dict)
    shared: set[Resource] = field(default_factory=set)
    failures: Failures = field(default_factory=Failures)

    def recorder(self, component: str) -> EventRecorder:
        """The event recorder of one component; one for all who speak in its name."""
        if component not in self.recorders:
            self.recorders[component] = EventRecorder(self.client, component, world=self.world)
        return self.recorders[component]


class Runnable(Protocol):
    """What `ControllerManager` runs: a `Controller` or something with a loop of its own."""

    name: ClassVar[str]
    metrics: Metrics

    async def run(self) -> None: ...


class Controller:
    """Subclasses set `name`, ask for informers in `__init__` and implement `reconcile`."""

    name: ClassVar[str] = ""
    workers: ClassVar[int] = 5
    max_retry_s: ClassVar[float] = 1000.0

    def __init__(self, context: Context) -> None:
        self.context = context
        self.client = context.client
        self.clock: Clock = context.world
        self.metrics = Metrics()
        self.queue: WorkQueue[Key] = WorkQueue(max_delay_s=self.max_retry_s)
        self._informers: list[Informer] = []
        self._written: OrderedDict[tuple[str, Key], Obj] = OrderedDict()

    async def reconcile(self, key: Key) -> Requeue | None:
        """Bring the cluster closer to what the object `key` asks for."""
        raise NotImplementedError

    # Setting up.

    def informer(self, resource: Resource) -> Informer:
        """The shared informer of a resource; workers start when all that were asked for have synced."""
        informer = self.context.informers.get(resource)
        self.context.shared.add(resource)
        if informer not in self._informers:
            self._informers.append(informer)
        return informer

    def watch_primary(self, resource: Resource, wanted: Callable[[Obj], bool] | None = None) -> Informer:
        """Enqueue the objects of `resource` themselves at every change of them."""
        informer = self.informer(resource)

        def enqueue(obj: Obj) -> None:
            if wanted is None or wanted(obj):
                self.enqueue(key_of(obj))

        informer.add_handler(added=enqueue, updated=lambda _old, new: enqueue(new), deleted=enqueue)
        return informer

    def enqueue(self, key: Key, after_s: float = 0.0) -> None:
        self.metrics.adds += 1
        if after_s > 0:
            self.queue.add_after(key, after_s)
        else:
            self.queue.add(key)

    # Writing.

    async def write(self, resource: Resource, obj: Obj, *, subresource: str = "") -> Obj:
        """Update `obj`, guarded by its resourceVersion, and remember the outcome until the informer shows it."""
        written = without_managed_fields(await self.client.update(resource, obj, subresource=subresource))
        self._written[resource.plural, key_of(written)] = written
        if len(self._written) > _REMEMBERED_WRITES:
            self._written.popitem(last=False)
        return written

    async def write_status(self, resource: Resource, obj: Obj, status: Obj) -> Obj:
        return await self.write(resource, {**obj, "status": status}, subresource="status")

    async def count_collision(self, resource: Resource, obj: Obj) -> None:
        """The hash of the object's template is that of another's: the next try is salted with a higher count."""
        status = obj.get("status") or {}
        await self.write_status(resource, obj, {**status, "collisionCount": int(status.get("collisionCount") or 0) + 1})

    def newest(self, resource: Resource, obj: Obj) -> Obj:
        """`obj` as the informer shows it, or as this controller wrote it if that is later: reading one's own writes
        saves the conflict that a second write on top of the old version would meet."""
        identity = (resource.plural, key_of(obj))
        written = self._written.get(identity)
        if written is None:
            return obj
        if written["metadata"].get("uid") == obj["metadata"].get("uid") and revision_of(written) > revision_of(obj):
            return written
        del self._written[identity]
        return obj

    def is_own_write(self, resource: Resource, obj: Obj) -> bool:
        """Whether `obj` is exactly what this controller wrote last, so that its event tells it nothing new."""
        written = self._written.get((resource.plural, key_of(obj)))
        return written is not None and revision_of(written) == revision_of(obj)

    # Running.

    async def synced(self) -> None:
        for informer in self._informers:
            await informer.synced()

    async def run(self) -> None:
        """Work until cancelled."""
        await self.synced()
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self.workers):
                    tasks.create_task(self._work(), name=f"{self.name} worker {number}")
                what = f"{self.name} background"
                tasks.create_task(until_done(what, self.background, self.context.failures), name=what)
        finally:
            self.queue.close()

    async def background(self) -> None:
        """What a controller does besides its queue; by default nothing."""

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._reconcile_once(key)
            finally:
                self.queue.done(key)

    async def _reconcile_once(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        self.metrics.reconciles += 1
        try:
            requeue = await self.reconcile(key)
        except StatusError as error:
            self._failed(key, error)
        except OSError as error:
            log.debug("%s %s: the server is away: %s", self.name, key, error)
            self._retry(key)
        except Exception:
            # A defect in one object's handling must not stop the work on all others.
            log.exception("%s failed on %s", self.name, key)
            self.metrics.errors += 1
            self._retry(key)
        else:
            self.queue.forget(key)
            if requeue is not None:
                self.enqueue(key, max(requeue.after_s, 0.001))
        finally:
            self.metrics.work_s += loop.time() - started_s

    def _failed(self, key: Key, error: StatusError) -> None:
        if error.code == 409:
            self.metrics.conflicts += 1
            log.debug("%s %s: %s", self.name, key, error)
        elif error.code == 404:
            # Something went away while it was being worked on; the next look will know.
            log.debug("%s %s: %s", self.name, key, error)
        elif is_namespace_terminating(error):
            # Everything in the namespace goes away; there is nothing left to bring about.
            self.queue.forget(key)
            return
        else:
            self.metrics.errors += 1
            log.warning("%s %s: %s", self.name, key, error)
        self._retry(key)

    def _retry(self, key: Key) -> None:
        self.metrics.retries += 1
        self.queue.add_rate_limited(key)


def is_namespace_terminating(error: StatusError) -> bool:
    """Whether a write was refused because its namespace is being deleted."""
    causes = (error.details or {}).get("causes") or []
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


def index_by_controller(informer: Informer) -> None:
    """Indexes `controller` (uid of the managing owner) and `orphan` (namespace, of objects that have none)."""
    informer.add_indexer("controller", _controller_uid)
    informer.add_indexer("orphan", _orphan_namespace)


def _controller_uid(obj: Obj) -> tuple[str, ...]:
    reference = controller_of(obj)
    return (reference["uid"],) if reference else ()


def _orphan_namespace(obj: Obj) -> tuple[str, ...]:
    return () if controller_of(obj) else (obj["metadata"].get("namespace", ""),)


def index_by_uid(informer: Informer) -> None:
    informer.add_indexer("uid", lambda obj: (obj["metadata"]["uid"],))


def metrics_text(metrics: Mapping[str, tuple[Metrics, int]], failures: Failures) -> str:
    """Prometheus text: counters and queue depth by controller name, and errors caught in loops by kind."""
    lines: list[str] = []
    columns: list[tuple[str, str, Callable[[Metrics, int], float]]] = [
        ("workqueue_adds_total", "counter", lambda m, _depth: m.adds),
        ("workqueue_depth", "gauge", lambda _m, depth: depth),
        ("workqueue_retries_total", "counter", lambda m, _depth: m.retries),
        ("workqueue_work_duration_seconds_sum", "counter", lambda m, _depth: m.work_s),
        ("workqueue_work_duration_seconds_count", "counter", lambda m, _depth: m.reconciles),
        ("controller_reconcile_errors_total", "counter", lambda m, _depth: m.errors),
        ("controller_reconcile_conflicts_total", "counter", lambda m, _depth: m.conflicts),
    ]
    for metric, kind, value in columns:
        lines.append(f"# TYPE {metric} {kind}")
        lines += [f'{metric}{{name="{name}"}} {value(m, depth):g}' for name, (m, depth) in metrics.items()]
    lines.append("# TYPE navarch_caught_errors_total counter")
    lines += [
        f'navarch_caught_errors_total{{kind="{kind}"}} {count}' for kind, count in sorted(failures.counts.items())
    ]
    return "\n".join(lines) + "\n"
