"""ConfigMaps, Secrets and service-account tokens for pods, as fresh as volumes need them and no fresher.

Objects are asked for when a pod needs them and kept for a while, so that a node neither watches the whole cluster nor
asks for the same object for each of its pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.api.time import parse_time
from navarch.client.base import Client
from navarch.client.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from navarch.world import Clock

_TTL: Final = timedelta(seconds=10)
_FORGET_AFTER: Final = timedelta(hours=1)


class ObjectSource(Protocol):
    """Where volumes and variables get what they refer to."""

    async def config_map(self, namespace: str, name: str) -> Obj | None: ...
    async def secret(self, namespace: str, name: str) -> Obj | None: ...
    async def token(self, pod: Obj, audience: str, expiration_s: int) -> str: ...
    async def issued(self, pod: Obj, audience: str, expiration_s: int) -> IssuedToken: ...
    async def get(self, resource: Resource, namespace: str, name: str) -> Obj | None: ...
    async def listed(self, resource: Resource, fields: str) -> Sequence[Obj]: ...


class _Kept(NamedTuple):
    obj: Obj | None
    fetched: datetime


class IssuedToken(NamedTuple):
    """A service-account token, as issued: `expires` is the API's text."""

    value: str
    expires: str
    refresh_at: datetime


class APISource:
    """The source behind a `Client`.

    `renewed(namespace, name)` forgets what is kept for a pod that starts, so that it sees the objects of now."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._objects: dict[tuple[Resource, str, str], _Kept] = {}
        self._pending: dict[tuple[Resource, str, str], asyncio.Task[Obj | None]] = {}
        self._tokens: dict[tuple[str, str, int], IssuedToken] = {}

    async def config_map(self, namespace: str, name: str) -> Obj | None:
        return await self._kept(CONFIG_MAPS, namespace, name)

    async def secret(self, namespace: str, name: str) -> Obj | None:
        return await self._kept(SECRETS, namespace, name)

    async def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        """Any object, asked for anew."""
        return await self._client.find(resource, name, namespace)

    async def listed(self, resource: Resource, fields: str) -> Sequence[Obj]:
        """All objects that a field selector names, asked for anew."""
        return (await self._client.list(resource, fields=fields)).items

    async def _kept(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        key = (resource, namespace, name)
        kept = self._objects.get(key)
        # A missing object is asked for again each time: somebody is waiting for it to appear.
        if kept is not None and kept.obj is not None and self._clock.now() - kept.fetched < _TTL:
            return kept.obj
        task = self._pending.get(key)
        if task is None:
            task = asyncio.create_task(self._client.find(resource, name, namespace))
            self._pending[key] = task
            task.add_done_callback(lambda _: self._pending.pop(key, None))
        try:
            obj = await asyncio.shield(task)
        except OSError:
            # While the API server is away, what it said last still holds.
            if kept is not None:
                return kept.obj
            raise
        self._objects[key] = _Kept(obj, self._clock.now())
        return obj

    def forget_pod(self, pod: Obj) -> None:
        """Drop the pod's tokens, and objects that nobody asked for in a while."""
        uid = pod["metadata"]["uid"]
        for key in [key for key in self._tokens if key[0] == uid]:
            del self._tokens[key]
        stale = self._clock.now() - _FORGET_AFTER
        for kept_key in [key for key, kept in self._objects.items() if kept.fetched < stale]:
            del self._objects[kept_key]

    def renewed(self, pod: Obj) -> None:
        """The pod is new: what its namespace's objects were a while ago does not count for it."""
        namespace = pod["metadata"]["namespace"]
        for key in [key for key in self._objects if key[1] == namespace]:
            del self._objects[key]

    async def token(self, pod: Obj, audience: str, expiration_s: int) -> str:
        """The text of `issued`."""
        return (await self.issued(pod, audience, expiration_s)).value

    async def issued(self, pod: Obj, audience: str, expiration_s: int) -> IssuedToken:
        """A token of the pod's service account, bound to the pod; renewed at 80 % of its life or after a day."""
        key = (pod["metadata"]["uid"], audience, expiration_s)
        now = self._clock.now()
        kept = self._tokens.get(key)
        if kept is not None and now < kept.refresh_at:
            return kept
        spec: dict[str, Any] = {
            "expirationSeconds": expiration_s,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"],
            },
        }
        audiences: Sequence[str] = [audience] if audience else []
        if audiences:
            spec["audiences"] = list(audiences)
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        try:
            answer = await self._client.create(
                SERVICE_ACCOUNTS,
                request,
                namespace=pod["metadata"]["namespace"],
                name=pod["spec"].get("serviceAccountName") or "default",
                subresource="token",
            )
        except (StatusError, OSError):
            # An old token that is still valid is better than none while the API server is away.
            if kept is not None:
                return kept
            raise
        status = answer["status"]
        life = parse_time(status["expirationTimestamp"]) - now
        refresh_at = now + min(life * 0.8, timedelta(hours=24))
        token = self._tokens[key] = IssuedToken(status["token"], status["expirationTimestamp"], refresh_at)
        return token
