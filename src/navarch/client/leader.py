"""Leader election on a Lease: of several replicas of a component one acts (coordination.k8s.io/v1, as client-go's)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.api.time import format_micro_time, parse_time
from navarch.client.base import Client
from navarch.world import Clock, SystemClock

log = logging.getLogger(__name__)

_LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", True)


class LeadershipLost(RuntimeError):
    """Another replica has led in between: what this one knows is of another time, and it must begin anew."""


async def run_elected(elector: LeaderElector, run: Callable[[], Awaitable[None]]) -> None:
    """Run what can be run once, while this replica leads.  Raises LeadershipLost when it leads for a second time: its
    process is to be started anew, as Kubernetes' components do it."""
    led = False

    async def lead() -> None:
        nonlocal led
        if led:
            raise LeadershipLost("leads again after another has led")
        led = True
        await run()

    await elector.run(lead)


class LeaderElector:
    """Runs `lead` while this replica (`identity`) holds the Lease `namespace/name`; cancels it when it is lost."""

    def __init__(
        self,
        client: Client,
        name: str,
        identity: str,
        *,
        namespace: str = "kube-system",
        clock: Clock | None = None,
        lease_s: float = 15.0,
        renew_deadline_s: float = 10.0,
        retry_s: float = 2.0,
    ) -> None:
        self._client = client
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._clock = clock or SystemClock()
        self._lease_s = lease_s
        self._renew_deadline_s = renew_deadline_s
        self._retry_s = retry_s
        self._seen: tuple[str, str] | None = None
        self._seen_at_s = 0.0

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Acquire, lead, and after a loss acquire again, until cancelled; the Lease is given up on cancellation."""
        while True:
            if not await self._try_acquire():
                await asyncio.sleep(self._retry_s)
                continue
            log.info("%s became leader as %s", self._name, self._identity)
            try:
                await self._lead_until_lost(lead)
            finally:
                await asyncio.shield(self._release())

    async def _lead_until_lost(self, lead: Callable[[], Awaitable[None]]) -> None:
        leading = asyncio.ensure_future(lead())
        loop = asyncio.get_running_loop()
        renewed_s = loop.time()
        try:
            while not leading.done():
                await asyncio.wait({leading}, timeout=self._retry_s)
                if leading.done():
                    break
                if await self._try_acquire():
                    renewed_s = loop.time()
                elif loop.time() - renewed_s > self._renew_deadline_s:
                    log.warning("%s lost its lease", self._name)
                    return
            leading.result()
        finally:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)

    async def _try_acquire(self) -> bool:
        """Take or renew the Lease; False where another replica holds it or the server does not answer."""
        try:
            lease = await self._client.find(_LEASES, self._name, self._namespace)
            if lease is None:
                await self._client.create(_LEASES, self._fresh())
                return True
            spec = lease.get("spec") or {}
            holder = spec.get("holderIdentity") or ""
            if holder and holder != self._identity and not self._expired(spec):
                return False
            await self._client.update(_LEASES, {**lease, "spec": self._claim(spec, taken=holder != self._identity)})
        except StatusError as error:
            log.debug("lease %s: %s", self._name, error)
            return False
        except OSError:
            return False
        return True

    def _expired(self, spec: Obj) -> bool:
        # Judged by how long the record stands still on our own clock, so that clocks need not agree.
        record = (spec.get("holderIdentity") or "", spec.get("renewTime") or "")
        now_s = asyncio.get_running_loop().time()
        if record != self._seen:
            first_look = self._seen is None
            self._seen, self._seen_at_s = record, now_s
            if not first_look or not record[1]:
                return not record[1]
            age_s = (self._clock.now() - parse_time(record[1])).total_seconds()
            return age_s > float(spec.get("leaseDurationSeconds") or self._lease_s)
        return now_s - self._seen_at_s > float(spec.get("leaseDurationSeconds") or self._lease_s)

    def _claim(self, spec: Obj, *, taken: bool) -> Obj:
        now = format_micro_time(self._clock.now())
        return {
            **spec,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._lease_s),
            "acquireTime": now if taken else spec.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + int(taken),
        }

    def _fresh(self) -> Obj:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {**self._claim({}, taken=True), "leaseTransitions": 0},
        }

    async def _release(self) -> None:
        try:
            lease = await self._client.find(_LEASES, self._name, self._namespace)
            if lease is not None and lease.get("spec", {}).get("holderIdentity") == self._identity:
                await self._client.update(
                    _LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}}
                )
        except (StatusError, OSError) as error:
            log.debug("lease %s not released: %s", self._name, error)
