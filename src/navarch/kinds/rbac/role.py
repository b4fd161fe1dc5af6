"""Role and ClusterRole: validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from navarch.api.errors import FieldError, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.validation import validate_label_selector
from navarch.kinds.base import NAME, Column, Strategy
from navarch.kinds.rollout import is_malformed
from navarch.kinds.strategies import strategy

_CREATED = Column("Created At", ".metadata.creationTimestamp", type="date")


def validate_rule(rule: Obj, path: str, *, namespaced: bool) -> Iterator[FieldError]:
    """One PolicyRule."""
    if not rule.get("verbs"):
        yield required(f"{path}.verbs", "verbs must contain at least one value")
    urls = rule.get("nonResourceURLs")
    if urls:
        if namespaced:
            yield invalid_value(f"{path}.nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs")
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            yield invalid_value(f"{path}.nonResourceURLs", urls, detail)
        return
    if not rule.get("apiGroups"):
        yield required(f"{path}.apiGroups", "resource rules must supply at least one api group")
    if not rule.get("resources"):
        yield required(f"{path}.resources", "resource rules must supply at least one resource")


class _RulesStrategy(Strategy):
    name_rule = "path"
    allow_create_on_update = True
    columns = (NAME, _CREATED)
    nulls = ("rules",)
    namespaced: ClassVar[bool]

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        for index, rule in enumerate(obj.get("rules") or ()):
            yield from validate_rule(rule, f"rules[{index}]", namespaced=self.namespaced)


@strategy("rbac.authorization.k8s.io", "Role")
class RoleStrategy(_RulesStrategy):
    namespaced = True


@strategy("rbac.authorization.k8s.io", "ClusterRole")
class ClusterRoleStrategy(_RulesStrategy):
    namespaced = False

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from super().validate(obj, old)
        aggregation = obj.get("aggregationRule")
        if aggregation is None:
            return
        selectors = aggregation.get("clusterRoleSelectors") or []
        path = "aggregationRule.clusterRoleSelectors"
        if not selectors:
            yield required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")
        for index, selector in enumerate(selectors):
            yield from validate_label_selector(selector, f"{path}[{index}]")
            if is_malformed(selector):
                yield invalid_value(f"{path}[{index}]", None, "invalid label selector.")
