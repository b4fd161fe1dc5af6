"""RoleBinding and ClusterRoleBinding: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import dns_subdomain_problems, path_segment_problems
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.columns import Cell
from navarch.kinds.internal import internal
from navarch.kinds.strategies import strategy

GROUP: Final = "rbac.authorization.k8s.io"


def _role_cell(obj: Obj, now: datetime) -> str:
    role = obj.get("roleRef") or {}
    return f"{role.get('kind', '')}/{role.get('name', '')}"


def _subjects_cell(kind: str) -> Cell:
    def cell(obj: Obj, now: datetime) -> str:
        subjects = [subject for subject in obj.get("subjects") or () if subject.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{subject.get('namespace', '')}/{subject.get('name', '')}" for subject in subjects)
        return ", ".join(str(subject.get("name", "")) for subject in subjects)

    return cell


class _BindingStrategy(Strategy):
    name_rule = "path"
    allow_create_on_update = True
    columns = (
        NAME,
        Column("Role", _role_cell),
        AGE,
        Column("Users", _subjects_cell("User"), wide=True),
        Column("Groups", _subjects_cell("Group"), wide=True),
        Column("ServiceAccounts", _subjects_cell("ServiceAccount"), wide=True),
    )
    roles: tuple[str, ...] = ("Role", "ClusterRole")
    namespaced: bool = True

    def defaults(self, obj: Obj) -> None:
        role = obj.setdefault("roleRef", {})
        if not role.get("apiGroup"):
            role["apiGroup"] = GROUP
        for subject in obj.get("subjects") or ():
            if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
                subject["apiGroup"] = GROUP

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        role = obj.get("roleRef") or {}
        if (group := role.get("apiGroup", "")) != GROUP:
            yield not_supported("roleRef.apiGroup", group, [GROUP])
        if (kind := role.get("kind", "")) not in self.roles:
            yield not_supported("roleRef.kind", kind, self.roles)
        if not role.get("name"):
            yield required("roleRef.name")
        else:
            for problem in path_segment_problems(role["name"]):
                yield invalid_value("roleRef.name", role["name"], problem)
        for index, subject in enumerate(obj.get("subjects") or ()):
            yield from self._validate_subject(subject, f"subjects[{index}]")
        if old is not None and role != (old.get("roleRef") or {}):
            yield invalid_value("roleRef", internal(role, "RoleRef"), "cannot change roleRef")

    def _validate_subject(self, subject: Obj, path: str) -> Iterator[FieldError]:
        name, kind, group = subject.get("name"), subject.get("kind", ""), subject.get("apiGroup") or ""
        if not name:
            yield required(f"{path}.name")
        if kind == "ServiceAccount":
            for problem in dns_subdomain_problems(name) if name else ():
                yield invalid_value(f"{path}.name", name, problem)
            if group:
                yield not_supported(f"{path}.apiGroup", group, [""])
            if not self.namespaced and not subject.get("namespace"):
                yield required(f"{path}.namespace")
        elif kind in ("User", "Group"):
            if group != GROUP:
                yield not_supported(f"{path}.apiGroup", group, [GROUP])
        else:
            yield not_supported(f"{path}.kind", kind, ["ServiceAccount", "User", "Group"])


@strategy(GROUP, "RoleBinding")
class RoleBindingStrategy(_BindingStrategy):
    def defaults(self, obj: Obj) -> None:
        super().defaults(obj)
        namespace = (obj.get("metadata") or {}).get("namespace")
        for subject in obj.get("subjects") or ():
            # A service account without a namespace is one of the binding's own.
            if subject.get("kind") == "ServiceAccount" and not subject.get("namespace") and namespace:
                subject["namespace"] = namespace


@strategy(GROUP, "ClusterRoleBinding")
class ClusterRoleBindingStrategy(_BindingStrategy):
    roles = ("ClusterRole",)
    namespaced = False
