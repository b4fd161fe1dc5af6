"""What an API server serves: every resource in its preferred version, with its verbs.

The namespace controller empties namespaces of all of it, the garbage collector watches all of it. Resources come and go
while a cluster runs, so each of them asks again: for aggregated discovery, by its ETag; group by group where a server
has no such form, so that any Kubernetes API server will do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Resource
from navarch.client.base import Client

log = logging.getLogger(__name__)

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


_ROOTS = ("/api", "/apis")


class Served(NamedTuple):
    """A resource and what can be done with it (`verbs`)."""

    resource: Resource
    verbs: frozenset[str]


class Discovery:
    """What is served, asked for again and again: a document that is still the same is neither sent nor read again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, tuple[str, list[Served], Mapping[str, str]]] = {}

    async def served(self) -> list[Served]:
        """All resources, each in the version that its group prefers; a group that does not answer is left out.  Raises
        StatusError, OSError."""
        return [served for root in _ROOTS for served in (await self._of(root))[0]]

    def uncertain(self) -> frozenset[str]:
        """The groups about which the last answers say nothing, since who serves them does not answer."""
        return frozenset(version.rpartition("/")[0] for version in self.failed())

    def failed(self) -> dict[str, str]:
        """The versions of groups that the last answers say nothing about, and why, in the words of Kubernetes' client
        library."""
        return {version: why for _, _, failed in self._known.values() for version, why in failed.items()}

    async def _of(self, root: str) -> tuple[list[Served], Mapping[str, str]]:
        tag, found, failed = self._known.get(root, ("", [], {}))
        data, new_tag = await self._client.get_newer(root, tag, accept=_AGGREGATED)
        if data is None:
            return found, failed
        answer = orjson.loads(data)
        if answer.get("kind") == "APIGroupDiscoveryList":
            found = list(_aggregated(answer))
            failed = {version: f"stale GroupVersion discovery: {version}" for version in _stale(answer)}
        else:
            # The list of groups may stay the same when a group does not.
            failed = {}
            found, new_tag = await _by_group(self._client, root, answer, failed), ""
        self._known[root] = (new_tag, found, failed)
        return found, failed


async def _by_group(client: Client, root: str, answer: dict[str, Any], failed: dict[str, str]) -> list[Served]:
    """From a server that has no aggregated form; `failed` learns which versions do not answer."""
    if root == "/api":
        return await _one_version(client, "", (answer.get("versions") or ["v1"])[0], failed)
    found: list[Served] = []
    for group in answer.get("groups") or ():
        seen: set[str] = set()
        for version in _preferred_first(group):
            listed = await _one_version(client, group["name"], version, failed)
            fresh = [s for s in listed if s.resource.plural not in seen]
            seen |= {s.resource.plural for s in fresh}
            found += fresh
    return found


def _stale(answer: dict[str, Any]) -> Iterable[str]:
    for group in answer.get("items") or ():
        name = (group.get("metadata") or {}).get("name") or ""
        for version in group.get("versions") or ():
            if version.get("freshness") == "Stale":
                yield f"{name}/{version['version']}" if name else version["version"]


def _preferred_first(group: dict[str, Any]) -> list[str]:
    preferred = (group.get("preferredVersion") or {}).get("version")
    versions = [entry["version"] for entry in group.get("versions") or ()]
    return sorted(versions, key=lambda version: version != preferred)


def _aggregated(answer: dict[str, Any]) -> Iterable[Served]:
    for group in answer.get("items") or ():
        name = (group.get("metadata") or {}).get("name") or ""
        seen: set[str] = set()
        for version in group.get("versions") or ():
            if version.get("freshness") == "Stale":
                continue
            for entry in version.get("resources") or ():
                plural = entry["resource"]
                if plural in seen:
                    continue
                seen.add(plural)
                kind = (entry.get("responseKind") or {}).get("kind") or ""
                namespaced = entry.get("scope") == "Namespaced"
                resource = Resource(name, version["version"], plural, kind, namespaced)
                yield Served(resource, frozenset(entry.get("verbs") or ()))


async def _one_version(client: Client, group: str, version: str, failed: dict[str, str]) -> list[Served]:
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    try:
        answer = orjson.loads(await client.request("GET", path))
    except StatusError as error:
        log.warning("discovery of %s failed: %s", path, error)
        if error.code != 404:
            failed[f"{group}/{version}" if group else version] = error.message
        return []
    return [
        Served(
            Resource(group, version, entry["name"], entry["kind"], bool(entry.get("namespaced"))),
            frozenset(entry.get("verbs") or ()),
        )
        for entry in answer.get("resources") or ()
        if "/" not in entry["name"]
    ]
