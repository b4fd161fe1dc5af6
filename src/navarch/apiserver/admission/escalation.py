"""RBAC escalation: nobody gives away what they do not have.

In: a role or binding on its way to the store.  Out: the same, or 403. Who writes a role must hold every permission in
it, or the verb `escalate` on it; who writes a binding must hold all that its role gives, or the verb `bind` on the role
(https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Final

from navarch.api.errors import not_found
from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.apiserver.auth.base import Decide, RequestAttributes
from navarch.apiserver.user import User
from navarch.kinds.resources import CLUSTER_ROLES, ROLES

Rules = Callable[[User, str], tuple[list[Obj], list[Obj]]]

_GROUP: Final = "rbac.authorization.k8s.io"
_MASTERS: Final = "system:masters"
_EVERYTHING: Final[tuple[Obj, ...]] = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)


class RoleEscalation(Plugin):
    """`rules` says what a user may in a namespace; without an authorizer everybody may everything."""

    name = "RBACEscalation"
    resources = frozenset(
        (_GROUP, plural) for plural in ("roles", "clusterroles", "rolebindings", "clusterrolebindings")
    )

    def __init__(self, reader: Reader, authorize: Decide | None, rules: Rules | None) -> None:
        self._reader = reader
        self._authorize = authorize
        self._rules = rules

    async def validate(self, attributes: Attributes) -> None:
        obj, old = attributes.obj, attributes.old
        if obj is None or self._rules is None or _MASTERS in attributes.user.groups:
            return
        if old is not None and _only_lets_go(obj, old):
            return
        if attributes.kind.resource.plural in ("roles", "clusterroles"):
            await self._check_role(attributes, obj, old)
        else:
            await self._check_binding(attributes, obj)

    async def _check_role(self, attributes: Attributes, obj: Obj, old: Obj | None) -> None:
        plural, namespace = attributes.kind.resource.plural, attributes.namespace
        if await self._may(
            attributes.user, "escalate", plural, namespace, attributes.name or obj["metadata"].get("name", "")
        ):
            return
        self._require(attributes, obj.get("rules") or ())
        aggregation = obj.get("aggregationRule")
        if aggregation == (old or {}).get("aggregationRule"):
            return
        # What an aggregated role will hold is up to others, so that only who may do everything can begin it.
        if _missing(self._held(attributes), _EVERYTHING):
            raise attributes.refused("must have cluster-admin privileges to use the aggregationRule")

    async def _check_binding(self, attributes: Attributes, obj: Obj) -> None:
        reference = obj.get("roleRef") or {}
        name, namespace = reference.get("name", ""), attributes.namespace
        resource = ROLES if reference.get("kind") == "Role" else CLUSTER_ROLES
        if await self._may(attributes.user, "bind", resource.plural, namespace, name):
            return
        role = self._reader.get(resource, namespace if resource is ROLES else "", name)
        if role is None:
            # Kubernetes names the resource that was asked for, not the one that is missing.
            raise not_found(attributes.kind.resource.plural, resource.group, name)
        self._require(attributes, role.get("rules") or ())

    async def _may(self, user: User, verb: str, plural: str, namespace: str, name: str) -> bool:
        asked = RequestAttributes(verb, _GROUP, "v1", plural, "", namespace, name)
        return self._authorize is not None and (await self._authorize(user, asked)).allowed

    def _held(self, attributes: Attributes) -> list[Obj]:
        assert self._rules is not None
        resources, paths = self._rules(attributes.user, attributes.namespace)
        return [*resources, *paths]

    def _require(self, attributes: Attributes, rules: Sequence[Obj]) -> None:
        missing = _missing(self._held(attributes), rules)
        if not missing:
            return
        user = attributes.user
        told = "\n".join(sorted({_words(rule) for rule in _compact(missing)}))
        raise attributes.refused(
            f'user "{user.name}" (groups={_quoted(user.groups)}) is attempting to grant RBAC permissions not currently '
            f"held:\n{told}"
        )


def _only_lets_go(obj: Obj, old: Obj) -> bool:
    """Whether nothing is changed but what deletion waits for."""
    ignored = ("managedFields", "resourceVersion", "ownerReferences", "finalizers", "generation")

    def rest(one: Obj) -> Obj:
        kept = {key: value for key, value in one["metadata"].items() if key not in ignored}
        return {**one, "metadata": kept}

    return rest(obj) == rest(old)


def _missing(held: Sequence[Obj], wanted: Iterable[Obj]) -> list[Obj]:
    """The parts of the wanted rules, each of one verb on one thing, that no held rule covers."""
    return [part for rule in wanted for part in _parts(rule) if not any(_covers(owned, part) for owned in held)]


def _parts(rule: Obj) -> Iterator[Obj]:
    verbs, names = rule.get("verbs") or (), rule.get("resourceNames") or ()
    for group, resource, verb in product(rule.get("apiGroups") or (), rule.get("resources") or (), verbs):
        part: Obj = {"verbs": [verb], "apiGroups": [group], "resources": [resource]}
        yield from ({**part, "resourceNames": [name]} for name in names) if names else (part,)
    for path, verb in product(rule.get("nonResourceURLs") or (), verbs):
        yield {"verbs": [verb], "nonResourceURLs": [path]}


def _has(owned: Iterable[str] | None, word: str) -> bool:
    return any(item in ("*", word) for item in owned or ())


def _covers(owned: Obj, part: Obj) -> bool:
    """Whether a held rule gives all of a part, which is one verb on one thing."""
    if not _has(owned.get("verbs"), part["verbs"][0]):
        return False
    if "nonResourceURLs" in part:
        path = part["nonResourceURLs"][0]
        return any(_path_covers(pattern, path) for pattern in owned.get("nonResourceURLs") or ())
    if not _has(owned.get("apiGroups"), part["apiGroups"][0]):
        return False
    resource = part["resources"][0]
    _, slash, subresource = resource.partition("/")
    listed = owned.get("resources") or ()
    if not _has(listed, resource) and not (slash and f"*/{subresource}" in listed):
        return False
    names = owned.get("resourceNames")
    return not names or ("resourceNames" in part and part["resourceNames"][0] in names)


def _path_covers(pattern: str, path: str) -> bool:
    if pattern.endswith("*"):
        return path.rstrip("*").startswith(pattern[:-1])
    return pattern == path


def _compact(parts: Iterable[Obj]) -> list[Obj]:
    """Parts on the same thing put together, their verbs in one list."""
    merged: dict[tuple[object, ...], Obj] = {}
    for part in parts:
        key = tuple(tuple(part.get(field) or ()) for field in ("apiGroups", "resources", "resourceNames"))
        if "nonResourceURLs" in part:
            merged[*key, part["nonResourceURLs"][0], part["verbs"][0]] = part
        elif (known := merged.get(key)) is None:
            merged[key] = part
        elif part["verbs"][0] not in known["verbs"]:
            known["verbs"].append(part["verbs"][0])
    return list(merged.values())


def _words(rule: Obj) -> str:
    titles = (
        ("apiGroups", "APIGroups"),
        ("resources", "Resources"),
        ("nonResourceURLs", "NonResourceURLs"),
        ("resourceNames", "ResourceNames"),
        ("verbs", "Verbs"),
    )
    return "{" + ", ".join(f"{title}:{_quoted(rule[field])}" for field, title in titles if rule.get(field)) + "}"


def _quoted(words: Iterable[str]) -> str:
    return "[" + " ".join(f'"{word}"' for word in words) + "]"
