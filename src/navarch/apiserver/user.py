"""Who makes a request, as authentication found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from navarch.api.meta import Obj


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def info(self) -> Obj:
        """The `authentication.k8s.io` UserInfo, without what is empty."""
        info: Obj = {"username": self.name}
        if self.uid:
            info["uid"] = self.uid
        if self.groups:
            info["groups"] = list(self.groups)
        if self.extra:
            info["extra"] = {name: list(values) for name, values in self.extra.items()}
        return info


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
# The API server itself and in-process components without an identity of their own: member of system:masters.
LOOPBACK = User("system:apiserver", ("system:masters", "system:authenticated"))
