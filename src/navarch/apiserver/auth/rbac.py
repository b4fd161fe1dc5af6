"""RBAC: what the roles bound to a user allow (https://kubernetes.io/docs/reference/access-authn-authz/rbac/).

The rules that apply to a user in a namespace are gathered once and kept until a role or binding changes
(`invalidate`), so that a decision is two dictionary look-ups. Both dictionaries are keyed by what requests say, also
those of strangers: they are bounded in entries and in the length of what is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from navarch.api.meta import Obj, Resource
from navarch.apiserver.admission.base import Reader
from navarch.apiserver.auth.base import Decision, RequestAttributes
from navarch.apiserver.user import User

K = TypeVar("K")
V = TypeVar("V")

_GROUP = "rbac.authorization.k8s.io"
ROLES = Resource(_GROUP, "v1", "roles", "Role", True)
ROLE_BINDINGS = Resource(_GROUP, "v1", "rolebindings", "RoleBinding", True)
CLUSTER_ROLES = Resource(_GROUP, "v1", "clusterroles", "ClusterRole", False)
CLUSTER_ROLE_BINDINGS = Resource(_GROUP, "v1", "clusterrolebindings", "ClusterRoleBinding", False)

_RULES_KEPT = 4096
_DECISIONS_KEPT = 512
# Longer words than these are asked about by nobody twice.
_LONGEST = 256
# Whoever is impersonated may have any name, and any number of groups.
_LONGEST_USER = 4 << 10
_NO_OPINION = Decision(False)
_ALL = frozenset({""})


class _Rules:
    """The rules of one user in one namespace, with decisions remembered by what is asked."""

    def __init__(self, rules: list[tuple[Obj, str]]) -> None:
        self.rules = rules
        self._resources: dict[tuple[str, str, str, str], tuple[frozenset[str], Decision]] = {}

    def resource(self, asked: RequestAttributes) -> Decision:
        key = (asked.verb, asked.group, asked.resource, asked.subresource)
        known = self._resources.get(key)
        if known is None:
            allowed, reason = self._names(asked)
            known = allowed, Decision(True, reason)
            if sum(map(len, key)) <= _LONGEST:
                _remember(self._resources, key, known, _DECISIONS_KEPT)
        names, decision = known
        if "" in names or (asked.name and asked.name in names):
            return decision
        return _NO_OPINION

    def _names(self, asked: RequestAttributes) -> tuple[frozenset[str], str]:
        """The object names that the rules allow this for (`""`: all), and whose doing it is."""
        names: set[str] = set()
        reason = ""
        for rule, why in self.rules:
            if not _covers(rule, asked):
                continue
            allowed = rule.get("resourceNames")
            if not allowed:
                return _ALL, why
            names.update(allowed)
            reason = why
        return frozenset(names), reason

    def path(self, asked: RequestAttributes) -> Decision:
        for rule, why in self.rules:
            if _has(rule.get("verbs"), asked.verb) and any(
                _path_matches(pattern, asked.path) for pattern in rule.get("nonResourceURLs") or ()
            ):
                return Decision(True, why)
        return _NO_OPINION


class RBACAuthorizer:
    """Decides from the roles and bindings that `reader` shows."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._cache: dict[tuple[str, tuple[str, ...], str], _Rules] = {}

    def invalidate(self) -> None:
        """A role or binding has changed."""
        self._cache.clear()

    def authorize(self, user: User, attributes: RequestAttributes) -> Decision:
        rules = self._rules(user, attributes.namespace)
        return rules.resource(attributes) if attributes.resource else rules.path(attributes)

    def rules(self, user: User, namespace: str) -> tuple[list[Obj], list[Obj]]:
        """The resource rules and the non-resource rules that apply to `user` in `namespace`."""
        resources: list[Obj] = []
        paths: list[Obj] = []
        for rule, _ in self._rules(user, namespace).rules:
            if rule.get("resources"):
                kept = ("verbs", "apiGroups", "resources", "resourceNames")
                resources.append({key: rule[key] for key in kept if rule.get(key)})
            if rule.get("nonResourceURLs"):
                paths.append({"verbs": rule.get("verbs") or [], "nonResourceURLs": rule["nonResourceURLs"]})
        return resources, paths

    def missing_roles(self, user: User, namespace: str) -> list[str]:
        """Of the roles bound to the user, those that there are not, in words."""
        bindings = [(binding, "") for binding in self._reader.list(CLUSTER_ROLE_BINDINGS)]
        bindings += [(binding, namespace) for binding in self._reader.list(ROLE_BINDINGS, namespace)]
        found = []
        for binding, scope in bindings:
            if not _subject_of(binding, user, scope):
                continue
            reference = binding.get("roleRef") or {}
            role, place = (CLUSTER_ROLES, "") if reference.get("kind") == "ClusterRole" else (ROLES, scope)
            if self._reader.get(role, place, reference.get("name", "")) is None:
                found.append(f'{role.plural}.{_GROUP} "{reference.get("name", "")}" not found')
        return found

    def _rules(self, user: User, namespace: str) -> _Rules:
        key = (user.name, user.groups, namespace)
        known = self._cache.get(key)
        if known is None:
            known = self._gathered(user, namespace)
            if len(namespace) <= _LONGEST and user.length() <= _LONGEST_USER:
                _remember(self._cache, key, known, _RULES_KEPT)
        return known

    def _gathered(self, user: User, namespace: str) -> _Rules:
        if not namespace:
            return _Rules(list(self._cluster_rules(user)))
        everywhere = self._rules(user, "")
        own = list(self._namespace_rules(user, namespace))
        # Most namespaces give most users nothing of their own (and most that strangers name do not exist).
        return _Rules([*everywhere.rules, *own]) if own else everywhere

    def _cluster_rules(self, user: User) -> Iterator[tuple[Obj, str]]:
        for binding in self._reader.list(CLUSTER_ROLE_BINDINGS):
            subject = _subject_of(binding, user, "")
            if subject:
                why = f'RBAC: allowed by ClusterRoleBinding "{binding["metadata"]["name"]}" of '
                yield from self._role_rules(binding, "", why, subject)

    def _namespace_rules(self, user: User, namespace: str) -> Iterator[tuple[Obj, str]]:
        for binding in self._reader.list(ROLE_BINDINGS, namespace):
            subject = _subject_of(binding, user, namespace)
            if subject:
                why = f'RBAC: allowed by RoleBinding "{binding["metadata"]["name"]}/{namespace}" of '
                yield from self._role_rules(binding, namespace, why, subject)

    def _role_rules(self, binding: Obj, namespace: str, why: str, subject: str) -> Iterator[tuple[Obj, str]]:
        reference = binding.get("roleRef") or {}
        if reference.get("kind") == "ClusterRole":
            role = self._reader.get(CLUSTER_ROLES, "", reference.get("name", ""))
        else:
            role = self._reader.get(ROLES, namespace, reference.get("name", ""))
        why = f'{why}{reference.get("kind")} "{reference.get("name")}" to {subject}'
        for rule in (role or {}).get("rules") or ():
            yield rule, why


def _remember(memory: dict[K, V], key: K, value: V, limit: int) -> None:
    """Keep the value, in the place of the oldest quarter where there are too many: whoever is still asked about is
    gathered again at once, while emptying the whole would let a stranger make everybody's decisions slow."""
    if len(memory) >= limit:
        for old in list(islice(memory, limit // 4)):
            del memory[old]
    memory[key] = value


def _subject_of(binding: Obj, user: User, namespace: str) -> str:
    """The binding's subject that is this user, in words; empty where there is none."""
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name", "")
        if kind == "User" and name == user.name:
            return f'User "{name}"'
        if kind == "Group" and name in user.groups:
            return f'Group "{name}"'
        if kind == "ServiceAccount":
            owner = subject.get("namespace") or namespace
            if owner and user.name == f"system:serviceaccount:{owner}:{name}":
                return f'ServiceAccount "{name}/{owner}"'
    return ""


def _has(allowed: Iterable[str] | None, word: str) -> bool:
    return any(item in ("*", word) for item in allowed or ())


def _covers(rule: Obj, asked: RequestAttributes) -> bool:
    if not _has(rule.get("verbs"), asked.verb) or not _has(rule.get("apiGroups"), asked.group):
        return False
    wanted = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    for resource in rule.get("resources") or ():
        if resource in ("*", wanted) or (asked.subresource and resource == f"*/{asked.subresource}"):
            return True
    return False


def _path_matches(pattern: str, path: str) -> bool:
    if pattern == "*":
        return True
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern
