"""What an API server serves: every resource in its preferred version, with its verbs.

The namespace controller empties namespaces of all of it, the garbage collector watches all of it. Asks for aggregated
discovery and falls back to group by group, so that any Kubernetes API server will do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Resource
from navarch.client.base import Client

log = logging.getLogger(__name__)

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


class Served(NamedTuple):
    """A resource and what can be done with it (`verbs`)."""

    resource: Resource
    verbs: frozenset[str]


async def discover(client: Client) -> list[Served]:
    """All resources, each in the version that its group prefers; a group that does not answer is left out."""
    found: list[Served] = []
    for root in ("/api", "/apis"):
        answer = orjson.loads(await client.request("GET", root, headers={"accept": _AGGREGATED}))
        if answer.get("kind") == "APIGroupDiscoveryList":
            found += _aggregated(answer)
        elif root == "/api":
            found += await _one_version(client, "", (answer.get("versions") or ["v1"])[0])
        else:
            for group in answer.get("groups") or ():
                seen: set[str] = set()
                for version in _preferred_first(group):
                    fresh = [s for s in await _one_version(client, group["name"], version)
                             if s.resource.plural not in seen]  # fmt: skip
                    seen |= {s.resource.plural for s in fresh}
                    found += fresh
    return found


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


async def _one_version(client: Client, group: str, version: str) -> list[Served]:
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    try:
        answer = orjson.loads(await client.request("GET", path))
    except StatusError as error:
        log.warning("discovery of %s failed: %s", path, error)
        return []
    return [
        Served(
            Resource(group, version, entry["name"], entry["kind"], bool(entry.get("namespaced"))),
            frozenset(entry.get("verbs") or ()),
        )
        for entry in answer.get("resources") or ()
        if "/" not in entry["name"]
    ]
