"""FlowSchema: which requests belong to which priority level, in order of precedence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import dns_label_problems, validate_dns_label, validate_dns_subdomain
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.flowcontrol.mandatory import SCHEMAS
from navarch.kinds.internal import internal
from navarch.kinds.strategies import strategy

_GROUP: Final = "flowcontrol.apiserver.k8s.io"
_DEFAULT_PRECEDENCE: Final = 1000
_LARGEST_PRECEDENCE: Final = 10000
_METHODS: Final = ("ByNamespace", "ByUser")
# Kind of subject → the field that names one.
_SUBJECTS: Final = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}
_NAMESPACES: Final = "each member of this list must be '*' or a DNS-1123 label"
_VERBS: Final = frozenset(
    ("get", "list", "create", "update", "delete", "deletecollection", "patch", "watch", "proxy"),
)


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
    nulls_within = ("spec.rules.*.resourceRules.*.namespaces",)
    orders_rows = True
    columns = (
        NAME,
        Column("PriorityLevel", ".spec.priorityLevelConfiguration.name"),
        Column("MatchingPrecedence", ".spec.matchingPrecedence"),
        Column("DistinguisherMethod", ".spec.distinguisherMethod.type", none=True),
        AGE,
        Column("MissingPL", lambda obj, now: _missing_level(obj)),
    )

    def row_order(self, obj: Obj) -> tuple[int, str]:
        """As requests are matched."""
        return int((obj.get("spec") or {}).get("matchingPrecedence") or 0), str(obj["metadata"]["name"])

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
        if precedence == 1 and (obj.get("metadata") or {}).get("name") != "exempt":
            detail = "only the schema named 'exempt' may have matchingPrecedence 1"
            yield invalid_value("spec.matchingPrecedence", precedence, detail)
        method = spec.get("distinguisherMethod")
        if method is not None and method.get("type") not in _METHODS:
            shown = internal(method, "FlowDistinguisherMethod")
            yield not_supported("spec.distinguisherMethod.type", shown, _METHODS)
        level = (spec.get("priorityLevelConfiguration") or {}).get("name")
        if level:
            yield from validate_dns_subdomain(level, "spec.priorityLevelConfiguration.name")
        else:
            yield required("spec.priorityLevelConfiguration.name", "must reference a priority level")
        for index, rule in enumerate(spec.get("rules") or ()):
            yield from _validate_rule(rule, f"spec.rules[{index}]")
        name = (obj.get("metadata") or {}).get("name") or ""
        fixed = SCHEMAS.get(name)
        if fixed is not None and internal(spec, "FlowSchemaSpec") != internal(fixed, "FlowSchemaSpec"):
            shown = internal(spec, "FlowSchemaSpec")
            yield invalid_value("spec", shown, f"spec of '{name}' must equal the fixed value")

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return validate_typed_conditions(obj)


def validate_typed_conditions(obj: Obj) -> Iterator[FieldError]:
    """Conditions have a type, each another."""
    seen: set[str] = set()
    for index, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        at, kind = f"status.conditions[{index}].type", condition.get("type") or ""
        if kind in seen:
            yield duplicate(at, kind)
        seen.add(kind)
        if not kind:
            yield required(at)


def _validate_rule(rule: Obj, path: str) -> Iterator[FieldError]:
    subjects = rule.get("subjects") or []
    if not subjects:
        yield required(f"{path}.subjects", "subjects must contain at least one value")
    for index, subject in enumerate(subjects):
        yield from _validate_subject(subject, f"{path}.subjects[{index}]")
    resource_rules, other_rules = rule.get("resourceRules") or [], rule.get("nonResourceRules") or []
    if not resource_rules and not other_rules:
        yield required(path, "at least one of resourceRules and nonResourceRules has to be non-empty")
    for index, entry in enumerate(resource_rules):
        yield from _validate_resources(entry, f"{path}.resourceRules[{index}]")
    for index, entry in enumerate(other_rules):
        yield from _validate_urls(entry, f"{path}.nonResourceRules[{index}]")


def _validate_subject(subject: Obj, path: str) -> Iterator[FieldError]:
    kind = subject.get("kind") or ""
    field = _SUBJECTS.get(kind)
    if field is None:
        yield not_supported(f"{path}.kind", kind, sorted(_SUBJECTS))
        return
    who, at = subject.get(field), f"{path}.{field}"
    if who is None:
        yield required(at, f"{field} is required when subject kind is '{kind}'")
    else:
        name = who.get("name") or ""
        if not name:
            yield required(f"{at}.name")
        if field == "serviceAccount":
            if name and name != "*":
                yield from validate_dns_subdomain(name, f"{at}.name")
            if namespace := who.get("namespace"):
                yield from validate_dns_label(namespace, f"{at}.namespace")
            else:
                yield required(f"{at}.namespace", "must specify namespace for service account")
    for other_kind, other in _SUBJECTS.items():
        if other != field and subject.get(other) is not None:
            yield forbidden_field(f"{path}.{other}", f"{other} is forbidden when subject kind is not '{other_kind}'")


def _validate_set(entry: Obj, field: str, path: str, what: str, missing: str) -> Iterator[FieldError]:
    """Some of them, or `*` and nothing else."""
    values = entry.get(field) or []
    if not values:
        yield required(f"{path}.{field}", missing)
    elif "*" in values and len(values) > 1:
        yield invalid_value(f"{path}.{field}", values, f"if '*' is present, must not specify other {what}")


def _validate_verbs(entry: Obj, path: str) -> Iterator[FieldError]:
    yield from _validate_set(entry, "verbs", path, "verbs", "verbs must contain at least one value")
    verbs = entry.get("verbs") or []
    if "*" not in verbs and not _VERBS.issuperset(verbs):
        yield not_supported(f"{path}.verbs", verbs, sorted(_VERBS))


def _validate_resources(entry: Obj, path: str) -> Iterator[FieldError]:
    yield from _validate_verbs(entry, path)
    groups = "resource rules must supply at least one api group"
    yield from _validate_set(entry, "apiGroups", path, "api groups", groups)
    yield from _validate_set(entry, "resources", path, "resources", "resource rules must supply at least one resource")
    namespaces = entry.get("namespaces") or []
    if not namespaces:
        if not entry.get("clusterScope"):
            detail = "resource rules that are not cluster scoped must supply at least one namespace"
            yield required(f"{path}.namespaces", detail)
    elif "*" in namespaces:
        yield from _validate_set(entry, "namespaces", path, "namespaces", "")
    else:
        for index, namespace in enumerate(namespaces):
            for problem in dns_label_problems(namespace):
                yield invalid_value(f"{path}.namespaces[{index}]", namespace, f"{_NAMESPACES}; {problem}")


def _validate_urls(entry: Obj, path: str) -> Iterator[FieldError]:
    yield from _validate_verbs(entry, path)
    missing = "nonResourceURLs must contain at least one value"
    yield from _validate_set(entry, "nonResourceURLs", path, "non-resource URLs", missing)
    urls = entry.get("nonResourceURLs") or []
    for index, url in enumerate(urls if "*" not in urls else ()):
        if problem := _url_problem(url):
            yield invalid_value(f"{path}.nonResourceURLs[{index}]", url, problem)


def _url_problem(url: str) -> str:
    if not url:
        return "must not be empty"
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    if "*" in url.removesuffix("/*"):
        return "wildcard can only do suffix matching"
    return ""
