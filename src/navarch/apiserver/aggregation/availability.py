"""Whether an API server behind this one can be asked: the condition `Available` of its APIService.

In: a `Remote`, and what the caches say of its Service.  Out: the condition, in Kubernetes' words: that the Service is
there, listens on the port, has a ready endpoint, and that one of its endpoints answers to discovery.
"""

from __future__ import annotations

import asyncio
from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.aggregation.directory import Remote
from navarch.apiserver.aggregation.proxy import Proxy, UnreachableError
from navarch.apiserver.caches import Caches
from navarch.apiserver.webhooks.services import SERVICE_LABEL
from navarch.kinds.apiregistration.apiservice import available
from navarch.kinds.resources import ENDPOINT_SLICES, SERVICES
from navarch.records import frozen

_ATTEMPTS: Final = 5
_TIMEOUT_S: Final = 5.0


@frozen
class Finding:
    """What the condition should say."""

    ok: bool
    reason: str
    message: str


LOCAL: Final = Finding(True, "Local", "Local APIServices are always available")
_PASSED: Final = Finding(True, "Passed", "all checks passed")


async def look_at(remote: Remote, caches: Caches, proxy: Proxy) -> Finding:
    """Look at the Service, and then ask."""
    return _service(remote, caches) or await _discovery(remote, proxy)


def _service(remote: Remote, caches: Caches) -> Finding | None:
    """What is wrong with the Service; None for one that can be asked."""
    shown = f'service/{remote.service} in "{remote.namespace}"'
    cached = caches.of(SERVICES).get(remote.namespace, remote.service)
    if cached is None:
        return Finding(False, "ServiceNotFound", f"{shown} is not present")
    spec = cached.obj().get("spec") or {}
    if (spec.get("type") or "ClusterIP") != "ClusterIP":
        return None
    ports = [port for port in spec.get("ports") or () if port.get("port") == remote.port]
    if not ports:
        return Finding(False, "ServicePortError", f"{shown} is not listening on port {remote.port}")
    slices = [
        endpoint_slice.obj()
        for endpoint_slice in caches.of(ENDPOINT_SLICES).items(remote.namespace)
        if endpoint_slice.labels.get(SERVICE_LABEL) == remote.service
    ]
    if not slices:
        return Finding(False, "EndpointsNotFound", f"cannot find endpointslices for {shown}")
    name = ports[0].get("name") or ""
    if not any(_is_ready(endpoint_slice, name) for endpoint_slice in slices):
        message = f'endpointslices for {shown} have no addresses with port name "{name}"'
        return Finding(False, "MissingEndpoints", message)
    return None


def _is_ready(endpoint_slice: Obj, port_name: str) -> bool:
    ready = any(
        (endpoint.get("conditions") or {}).get("ready", True) for endpoint in endpoint_slice.get("endpoints") or ()
    )
    named = any(
        (port.get("name") or "") == port_name and port.get("port") for port in endpoint_slice.get("ports") or ()
    )
    return ready and named


async def _discovery(remote: Remote, proxy: Proxy) -> Finding:
    """Several at once, each at an endpoint of its own choice: one answer will do."""
    tasks = [asyncio.ensure_future(_ask(remote, proxy)) for _ in range(_ATTEMPTS)]
    wrong = ""
    try:
        for task in asyncio.as_completed(tasks):
            wrong = await task
            if not wrong:
                return _PASSED
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Finding(False, "FailedDiscoveryCheck", wrong)


async def _ask(remote: Remote, proxy: Proxy) -> str:
    """What is wrong with the answer; empty for a good one."""
    shown = f"https://{remote.host}:{remote.port}{remote.root}"
    try:
        status, _, _ = await proxy.fetch(remote, remote.root, timeout_s=_TIMEOUT_S, verify=False)
    except UnreachableError as error:
        return f"failing or missing response from {shown}: {error}"
    if not 200 <= status < 300:
        return f"failing or missing response from {shown}: bad status from {shown}: {status}"
    return ""


def with_condition(obj: Obj, finding: Finding, now: str) -> Obj | None:
    """The APIService with the condition that was found; None where it says so already."""
    before = available(obj)
    status = "True" if finding.ok else "False"
    condition = {
        "type": "Available",
        "status": status,
        "lastTransitionTime": now,
        "reason": finding.reason,
        "message": finding.message,
    }
    if before is not None:
        if before.get("status") == status:
            condition["lastTransitionTime"] = before.get("lastTransitionTime") or now
        if before == condition:
            return None
    conditions = list((obj.get("status") or {}).get("conditions") or ())
    if before is None:
        conditions.append(condition)
    else:
        conditions[conditions.index(before)] = condition
    return {**obj, "status": {**(obj.get("status") or {}), "conditions": conditions}}
