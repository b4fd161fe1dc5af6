"""The cluster's authorizer: masters may do everything, nodes what is theirs, everybody what RBAC grants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.auth.base import Decision, RequestAttributes, Unresolved
from navarch.apiserver.auth.node import NodeAuthorizer, node_of
from navarch.apiserver.auth.rbac import RBACAuthorizer
from navarch.apiserver.user import User

_MASTERS: Final = Decision(True)
_EVERYBODY: Final = Decision(True)
_NOBODY: Final = Decision(False)


DEFAULT_MODES: Final = ("Node", "RBAC")


class ClusterAuthorizer:
    """Asks in order: the group `system:masters`, the node authorizer, RBAC. `modes` are kube-apiserver's: without RBAC
    among them roles allow nobody anything, with AlwaysAllow among them everybody may do everything."""

    def __init__(
        self, rbac: RBACAuthorizer, nodes: NodeAuthorizer | None = None, modes: Sequence[str] = DEFAULT_MODES
    ) -> None:
        self.rbac = rbac
        self._nodes = nodes
        self._by_roles = "RBAC" in modes
        self._everybody = "AlwaysAllow" in modes

    def authorize(self, user: User, attributes: RequestAttributes) -> Decision:
        if "system:masters" in user.groups:
            return _MASTERS
        if self._nodes is not None and attributes.resource:
            decision = self._nodes.authorize(user, attributes)
            if decision.allowed:
                return decision
        if self._everybody:
            return _EVERYBODY
        return self.rbac.authorize(user, attributes) if self._by_roles else _NOBODY

    def rules(self, user: User, namespace: str) -> tuple[list[Obj], list[Obj]]:
        if self._everybody or "system:masters" in user.groups:
            everything: Obj = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            return [everything], [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
        return self.rbac.rules(user, namespace) if self._by_roles else ([], [])

    def unresolved(self, user: User, namespace: str) -> list[Unresolved]:
        found = []
        if self._nodes is not None and node_of(user) is not None:
            found.append(Unresolved("node authorizer does not support user rule resolution", partly=True))
        if self._by_roles:
            found += [Unresolved(text) for text in self.rbac.missing_roles(user, namespace)]
        return found
