"""The cluster's authorizer: masters may do everything, nodes what is theirs, everybody what RBAC grants."""

from __future__ import annotations

from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.auth.base import Decision, RequestAttributes
from navarch.apiserver.auth.node import NodeAuthorizer
from navarch.apiserver.auth.rbac import RBACAuthorizer
from navarch.apiserver.user import User

_MASTERS: Final = Decision(True)


class ClusterAuthorizer:
    """Asks in order: the group `system:masters`, the node authorizer, RBAC."""

    def __init__(self, rbac: RBACAuthorizer, nodes: NodeAuthorizer | None = None) -> None:
        self.rbac = rbac
        self._nodes = nodes

    def authorize(self, user: User, attributes: RequestAttributes) -> Decision:
        if "system:masters" in user.groups:
            return _MASTERS
        if self._nodes is not None and attributes.resource:
            decision = self._nodes.authorize(user, attributes)
            if decision.allowed:
                return decision
        return self.rbac.authorize(user, attributes)

    def rules(self, user: User, namespace: str) -> tuple[list[Obj], list[Obj]]:
        if "system:masters" in user.groups:
            everything: Obj = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            return [everything], [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
        return self.rbac.rules(user, namespace)
