"""ClusterRole aggregation: a role with an `aggregationRule` has the rules of all roles that the rule selects.

This is how `admin`, `edit` and `view` come to cover what others add to the cluster.
"""

from __future__ import annotations

from typing import ClassVar, Final

from navarch.api.meta import Key, Obj, is_deleting, key_of, labels_of, name_of
from navarch.api.selectors import label_selector_of
from navarch.client.resources import CLUSTER_ROLES
from navarch.controllers.base import Context, Controller, Requeue

_MANAGER: Final = "clusterrole-aggregation-controller"


class ClusterRoleAggregationController(Controller):
    name: ClassVar[str] = "clusterrole-aggregation"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._roles = self.informer(CLUSTER_ROLES)
        self._roles.add_indexer("aggregating", lambda role: ("",) if role.get("aggregationRule") else ())
        self._roles.add_handler(self._changed, self._updated, self._changed)

    def _changed(self, _role: Obj) -> None:
        for role in self._roles.by_index("aggregating", ""):
            self.enqueue(key_of(role), 0.02)

    def _updated(self, old: Obj, new: Obj) -> None:
        if old.get("rules") != new.get("rules") or labels_of(old) != labels_of(new):
            self._changed(new)
        elif old.get("aggregationRule") != new.get("aggregationRule"):
            self.enqueue(key_of(new))

    async def reconcile(self, key: Key) -> Requeue | None:
        role = self._roles.get("", key.name)
        if role is None or is_deleting(role) or not role.get("aggregationRule"):
            return None
        rules: list[Obj] = []
        for text in role["aggregationRule"].get("clusterRoleSelectors") or ():
            selector = label_selector_of(text)
            for other in sorted(self._roles.list(), key=name_of):
                if name_of(other) != key.name and selector.matches(labels_of(other)):
                    rules += [rule for rule in other.get("rules") or () if rule not in rules]
        if rules != (role.get("rules") or []):
            # Only the rules are the controller's, so that a role may be changed in all else beside it.
            applied: Obj = {
                "apiVersion": CLUSTER_ROLES.api_version,
                "kind": CLUSTER_ROLES.kind,
                "metadata": {"name": key.name},
            }
            if rules:
                applied["rules"] = rules
            # Without any, those that others gave the role stay, and those that were gathered before go.
            await self.client.apply(CLUSTER_ROLES, applied, field_manager=_MANAGER, force=True)
        return None
