"""Who makes a request, as authentication found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from navarch.api.meta import Obj
from navarch.records import frozen


@frozen
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def length(self) -> int:
        """Characters of all that is said of the user, which may be as many as a request's head has."""
        said = (*self.groups, self.uid, *self.extra, *(value for values in self.extra.values() for value in values))
        return len(self.name) + sum(map(len, said))

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


def user_of_info(info: Any) -> User | None:
    """Whom a UserInfo of somebody else stands for; None where it is none."""
    if not isinstance(info, dict):
        return None
    name, groups, uid = info.get("username") or "", info.get("groups") or [], info.get("uid") or ""
    extra = info.get("extra") or {}
    lists = [groups, *extra.values()] if isinstance(extra, dict) else [None]
    if not (isinstance(name, str) and isinstance(uid, str)) or not all(_are_texts(each) for each in lists):
        return None
    return User(name, tuple(groups), uid, {key: tuple(values) for key, values in extra.items()})


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
# The API server itself and in-process components without an identity of their own: member of system:masters.
LOOPBACK = User("system:apiserver", ("system:masters", "system:authenticated"))
