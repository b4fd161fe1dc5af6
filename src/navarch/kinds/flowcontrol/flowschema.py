"""FlowSchema: which requests belong to which priority level, in order of precedence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import validate_dns_subdomain
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.strategies import strategy

_GROUP: Final = "flowcontrol.apiserver.k8s.io"
_DEFAULT_PRECEDENCE: Final = 1000
_LARGEST_PRECEDENCE: Final = 10000
_SUBJECTS: Final = ("Group", "ServiceAccount", "User")


def _missing_level(obj: Obj) -> str:
    """Whether the priority level is known to be missing: the Dangling condition, `?` while it is not known."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Dangling":
            return str(condition.get("status") or "?")
    return "?"


@strategy(_GROUP, "FlowSchema")
class FlowSchemaStrategy(Strategy):
    """Generation, defaults and checks of a flow schema."""

    has_generation = True
    status_keeps = SETTABLE_METADATA
    columns = (
        NAME,
        Column("PriorityLevel", ".spec.priorityLevelConfiguration.name"),
        Column("MatchingPrecedence", ".spec.matchingPrecedence"),
        Column("DistinguisherMethod", ".spec.distinguisherMethod.type", none=True),
        AGE,
        Column("MissingPL", lambda obj, now: _missing_level(obj)),
    )

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("matchingPrecedence"):
            spec["matchingPrecedence"] = _DEFAULT_PRECEDENCE

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        precedence = spec["matchingPrecedence"]
        if precedence <= 0:
            yield invalid_value("spec.matchingPrecedence", precedence, "must be a positive value")
        if precedence > _LARGEST_PRECEDENCE:
            detail = f"must not be greater than {_LARGEST_PRECEDENCE}"
            yield invalid_value("spec.matchingPrecedence", precedence, detail)
        if precedence == 1 and obj["metadata"].get("name") != "exempt":
            detail = "only the schema named 'exempt' may have matchingPrecedence 1"
            yield invalid_value("spec.matchingPrecedence", precedence, detail)
        method = spec.get("distinguisherMethod")
        if method is not None and method.get("type") not in ("ByNamespace", "ByUser"):
            yield not_supported("spec.distinguisherMethod", method, ("ByNamespace", "ByUser"))
        level = (spec.get("priorityLevelConfiguration") or {}).get("name")
        if level:
            yield from validate_dns_subdomain(level, "spec.priorityLevelConfiguration.name")
        else:
            yield required("spec.priorityLevelConfiguration.name", "must reference a priority level")
        for index, rule in enumerate(spec.get("rules") or ()):
            yield from _validate_rule(rule, f"spec.rules[{index}]")


def _validate_rule(rule: Obj, path: str) -> Iterator[FieldError]:
    subjects = rule.get("subjects") or []
    if not subjects:
        yield required(f"{path}.subjects", "subjects must contain at least one value")
    for index, subject in enumerate(subjects):
        if subject.get("kind") not in _SUBJECTS:
            yield not_supported(f"{path}.subjects[{index}].kind", subject.get("kind", ""), _SUBJECTS)
    resource_rules, other_rules = rule.get("resourceRules") or [], rule.get("nonResourceRules") or []
    if not resource_rules and not other_rules:
        yield required(path, "at least one of resourceRules and nonResourceRules has to be non-empty")
    for index, entry in enumerate(resource_rules):
        at = f"{path}.resourceRules[{index}]"
        for name in ("verbs", "apiGroups", "resources"):
            if not entry.get(name):
                yield required(f"{at}.{name}")
        if not entry.get("namespaces") and not entry.get("clusterScope"):
            detail = "resource rules that are not cluster scoped must supply at least one namespace"
            yield required(f"{at}.namespaces", detail)
    for index, entry in enumerate(other_rules):
        for name in ("verbs", "nonResourceURLs"):
            if not entry.get(name):
                yield required(f"{path}.nonResourceRules[{index}].{name}")
