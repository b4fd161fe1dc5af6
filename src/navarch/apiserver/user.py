"""Who makes a request, as authentication found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
# The API server itself and in-process components without an identity of their own: member of system:masters.
LOOPBACK = User("system:apiserver", ("system:masters", "system:authenticated"))
