"""Which flow schema a request belongs to: the first, in order of precedence, one of whose rules matches.

In: the stored FlowSchemas.  Out: for a user and what they ask, the schema's name, its priority level and the flow
within it (its distinguisher: the user, the namespace or nothing). Behaviour as in Kubernetes' API priority and
fairness; what no schema takes belongs to `catch-all`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.user import User
from navarch.records import frozen

EXEMPT: Final = "exempt"
CATCH_ALL: Final = "catch-all"
_ALL: Final = "*"
_ACCOUNT: Final = "system:serviceaccount:"

_Test = Callable[[User, RequestAttributes], bool]


@frozen
class Schema:
    """A flow schema; `level` names its priority level, `by` says what tells its flows apart."""

    name: str
    uid: str
    precedence: int
    level: str
    by: str
    matches: _Test

    def flow(self, user: User, attributes: RequestAttributes) -> str:
        """What requests of one flow have in common."""
        if self.by == "ByUser":
            return user.name
        return attributes.namespace if self.by == "ByNamespace" else ""


def schemas_of(stored: Iterable[Obj]) -> list[Schema]:
    """In the order in which they are asked. The two that every server has are there though nobody has stored them."""
    found = {schema.name: schema for schema in map(_schema_of, stored)}
    found.setdefault(EXEMPT, Schema(EXEMPT, "", 1, EXEMPT, "", lambda user, asked: "system:masters" in user.groups))
    found.setdefault(CATCH_ALL, Schema(CATCH_ALL, "", 10_000, CATCH_ALL, "ByUser", lambda user, asked: True))
    return sorted(found.values(), key=lambda schema: (schema.precedence, schema.name))


def first(schemas: Sequence[Schema], user: User, attributes: RequestAttributes) -> Schema:
    """The last of the mandatory ones takes what nobody else does, whatever somebody made of its rules."""
    for schema in schemas:
        if schema.matches(user, attributes):
            return schema
    return next(schema for schema in schemas if schema.name == CATCH_ALL)


def _schema_of(obj: Obj) -> Schema:
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    rules = [_rule_of(rule) for rule in spec.get("rules") or ()]

    def matches(user: User, asked: RequestAttributes) -> bool:
        return any(rule(user, asked) for rule in rules)

    return Schema(
        metadata["name"],
        metadata.get("uid", ""),
        int(spec.get("matchingPrecedence") or 1000),
        (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
        (spec.get("distinguisherMethod") or {}).get("type", ""),
        matches,
    )


def _rule_of(rule: Obj) -> _Test:
    subjects = [_subject_of(subject) for subject in rule.get("subjects") or ()]
    resources = [_resource_rule_of(each) for each in rule.get("resourceRules") or ()]
    others = [_path_rule_of(each) for each in rule.get("nonResourceRules") or ()]

    def matches(user: User, asked: RequestAttributes) -> bool:
        return any(subject(user) for subject in subjects) and any(
            each(asked) for each in (resources if asked.resource else others)
        )

    return matches


def _subject_of(subject: Obj) -> Callable[[User], bool]:
    kind = subject.get("kind")
    if kind == "User":
        name = (subject.get("user") or {}).get("name", "")
        return lambda user: name in (_ALL, user.name)
    if kind == "Group":
        group = (subject.get("group") or {}).get("name", "")
        return lambda user: group == _ALL or group in user.groups
    account = subject.get("serviceAccount") or {}
    of_namespace = f"{_ACCOUNT}{account.get('namespace', '')}:"
    if account.get("name") == _ALL:
        return lambda user: user.name.startswith(of_namespace)
    own = of_namespace + account.get("name", "")
    return lambda user: user.name == own


def _resource_rule_of(rule: Obj) -> Callable[[RequestAttributes], bool]:
    has_verb, has_group = _among(rule.get("verbs")), _among(rule.get("apiGroups"))
    has_resource, has_namespace = _among(rule.get("resources")), _among(rule.get("namespaces"))
    cluster_scope = bool(rule.get("clusterScope"))

    def matches(asked: RequestAttributes) -> bool:
        resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
        within = has_namespace(asked.namespace) if asked.namespace else cluster_scope
        return within and has_verb(asked.verb) and has_group(asked.group) and has_resource(resource)

    return matches


def _path_rule_of(rule: Obj) -> Callable[[RequestAttributes], bool]:
    has_verb, urls = _among(rule.get("verbs")), list(rule.get("nonResourceURLs") or ())
    exact = frozenset(urls)
    prefixes = tuple(url[:-1] for url in urls if url.endswith(_ALL))

    def matches(asked: RequestAttributes) -> bool:
        return has_verb(asked.verb) and (asked.path in exact or asked.path.startswith(prefixes))

    return matches


def _among(allowed: Sequence[str] | None) -> Callable[[str], bool]:
    values = frozenset(allowed or ())
    return (lambda value: True) if _ALL in values else values.__contains__
