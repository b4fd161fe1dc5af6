"""Which versions of which groups other API servers serve: the APIServices that name a Service.

In: APIService objects.  Out: a `Remote` for each, the ones of a group in the order of their priorities.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.apiregistration.apiservice import available
from navarch.records import frozen

OWN_GROUP: Final = "apiregistration.k8s.io"
"""Never anybody else's, whatever its APIService says: whoever gave it away could not take it back."""


@frozen
class Remote:
    """A version of a group behind a Service. `bundle` is PEM; without one, the system's roots count, or, where
    `insecure`, anybody is believed."""

    name: str
    group: str
    version: str
    group_priority: int
    version_priority: int
    namespace: str
    service: str
    port: int
    bundle: bytes
    insecure: bool

    @property
    def root(self) -> str:
        """Where its resources are."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def host(self) -> str:
        """What its certificate is for."""
        return f"{self.service}.{self.namespace}.svc"


def remote_of(obj: Obj) -> Remote | None:
    """None for what this server serves itself."""
    spec = obj.get("spec") or {}
    service = spec.get("service")
    if service is None or spec.get("group") == OWN_GROUP:
        return None
    try:
        bundle = base64.b64decode(spec.get("caBundle") or "")
    except (ValueError, binascii.Error):
        bundle = b"no certificate"
    return Remote(
        str(obj["metadata"]["name"]),
        str(spec.get("group") or ""),
        str(spec.get("version") or ""),
        int(spec.get("groupPriorityMinimum") or 0),
        int(spec.get("versionPriority") or 0),
        str(service.get("namespace") or ""),
        str(service.get("name") or ""),
        int(service.get("port") or 443),
        bundle,
        bool(spec.get("insecureSkipTLSVerify")),
    )


def is_available(obj: Obj) -> bool:
    """Whether its condition says so."""
    condition = available(obj)
    return condition is not None and condition.get("status") == "True"
