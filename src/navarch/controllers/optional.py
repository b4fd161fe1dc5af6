"""Controllers of kinds that an API server need not serve: another version of Kubernetes has none, or they are off.

In: discovery, once at the start. Such a controller asks for its informers when it knows that they have something to
follow, and else rests: an informer of what is not served would ask for it in vain for as long as the cluster runs.
"""

from __future__ import annotations

from typing import Any, ClassVar

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Resource
from navarch.client.base import Client
from navarch.controllers.base import Controller


class OptionalController(Controller):
    """Subclasses name what they `need` and ask for informers in `follow`, not in `__init__`."""

    needs: ClassVar[Resource]

    async def run(self) -> None:
        served = await served_as(self.client, self.needs)
        if served is not None:
            self.follow(served)
            await super().run()

    def follow(self, served: Resource) -> None:
        """Ask for informers; `served` is what the controller needs, in a version that there is."""
        raise NotImplementedError


async def served_as(client: Client, wanted: Resource) -> Resource | None:
    """The resource in the version wanted, or in the best that is served; None where there is none."""
    group = await _document(client, f"/apis/{wanted.group}")
    versions = [entry["version"] for entry in (group or {}).get("versions") or ()]
    for version in sorted(versions, key=lambda version: version != wanted.version):
        listed = await _document(client, f"/apis/{wanted.group}/{version}")
        if any(entry["name"] == wanted.plural for entry in (listed or {}).get("resources") or ()):
            return Resource(wanted.group, version, wanted.plural, wanted.kind, wanted.namespaced)
    return None


async def _document(client: Client, path: str) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = orjson.loads(await client.request("GET", path))
    except StatusError as error:
        if error.code == 404:
            return None
        raise
    return answer
