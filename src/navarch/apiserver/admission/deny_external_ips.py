"""DenyServiceExternalIPs: no Service takes an external address that it does not have already; not on by default."""

from __future__ import annotations

from navarch.apiserver.admission.base import Attributes, Plugin


class DenyServiceExternalIPs(Plugin):
    name = "DenyServiceExternalIPs"
    resources = frozenset({("", "services")})

    async def validate(self, attributes: Attributes) -> None:
        if attributes.obj is None:
            return
        new = set(attributes.obj["spec"].get("externalIPs") or ())
        old = set(attributes.old["spec"].get("externalIPs") or ()) if attributes.old is not None else set()
        if not new <= old:
            raise attributes.refused("Use of external IPs is denied by admission control.")
