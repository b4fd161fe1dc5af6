"""What of a request is written into the audit log: Kubernetes' policy file (`audit.k8s.io/v1`, kind Policy).

In: the file, then a request's user and attributes.  Out: how much of it is logged and at which stages. The first rule
that matches decides; what none matches is not logged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from navarch.api.config_files import TEXTS, ListOf, Shape, ShapeError, Struct, fit
from navarch.api.meta import Obj
from navarch.api.yaml_reader import load
from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.user import User
from navarch.records import frozen

NONE: Final = "None"
METADATA: Final = "Metadata"
REQUEST: Final = "Request"
REQUEST_RESPONSE: Final = "RequestResponse"
LEVELS: Final = (NONE, METADATA, REQUEST, REQUEST_RESPONSE)

RECEIVED: Final = "RequestReceived"
STARTED: Final = "ResponseStarted"
COMPLETE: Final = "ResponseComplete"
PANIC: Final = "Panic"
STAGES: Final = (RECEIVED, STARTED, COMPLETE, PANIC)

log = logging.getLogger(__name__)

_VERSIONS: Final = ("audit.k8s.io/v1",)


_RULE: Final = Struct(
    {
        "level": str,
        "users": TEXTS,
        "userGroups": TEXTS,
        "verbs": TEXTS,
        "resources": ListOf(Struct({"group": str, "resources": TEXTS, "resourceNames": TEXTS})),
        "namespaces": TEXTS,
        "nonResourceURLs": TEXTS,
        "omitStages": TEXTS,
        "omitManagedFields": bool,
    }
)
_SHAPE: Final[Mapping[str, Shape]] = {"rules": ListOf(_RULE), "omitStages": TEXTS, "omitManagedFields": bool}


class PolicyError(ValueError):
    """The file is no policy; the message says where and why."""


@frozen
class GroupResources:
    group: str
    resources: tuple[str, ...]
    names: tuple[str, ...]

    def matches(self, asked: RequestAttributes) -> bool:
        if self.group != asked.group:
            return False
        if not self.resources:
            return True
        if self.names and asked.name not in self.names:
            return False
        whole = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
        return any(
            resource in ("*", whole)
            or (resource.startswith("*/") and resource[2:] == asked.subresource)
            or (resource.endswith("/*") and resource[:-2] == asked.resource)
            for resource in self.resources
        )


@frozen
class Rule:
    level: str
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[GroupResources, ...] = ()
    namespaces: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    omitted: frozenset[str] = frozenset()
    omit_managed_fields: bool = False

    def matches(self, user: User, asked: RequestAttributes) -> bool:
        if self.users and user.name not in self.users:
            return False
        if self.groups and not set(self.groups) & set(user.groups):
            return False
        if self.verbs and asked.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            return self._matches_resource(asked)
        if self.paths:
            return not asked.is_resource and any(_matches_path(path, asked.path) for path in self.paths)
        return True

    def _matches_resource(self, asked: RequestAttributes) -> bool:
        if not asked.is_resource or (self.namespaces and asked.namespace not in self.namespaces):
            return False
        return not self.resources or any(each.matches(asked) for each in self.resources)


def _matches_path(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


_NOTHING: Final = Rule(NONE)


@frozen
class Policy:
    rules: Sequence[Rule] = field(default=())

    def rule_for(self, user: User, asked: RequestAttributes) -> Rule:
        return next((rule for rule in self.rules if rule.matches(user, asked)), _NOTHING)


def read(path: Path) -> Policy:
    """Raises PolicyError."""
    try:
        document = load(path.read_bytes()).value
    except OSError as error:
        raise PolicyError(f'failed to read file path "{path}": {error.strerror}') from None
    except ValueError as error:
        raise PolicyError(f'failed decoding file "{path}": {error}') from None
    return parse(document, str(path))


def parse(document: Any, name: str) -> Policy:
    """Raises PolicyError."""
    if not isinstance(document, dict):
        raise PolicyError(f'failed decoding file "{name}": it holds no object')
    if document.get("apiVersion") not in _VERSIONS or document.get("kind") != "Policy":
        raise PolicyError(f"unknown group version field {document.get('apiVersion')} in policy file {name}")
    try:
        if unknown := fit(document, _SHAPE, strict=False):
            # Kubernetes takes them too, and says so.
            log.warning("audit policy %s: unknown fields: %s", name, ", ".join(unknown))
    except ShapeError as error:
        raise PolicyError(f'failed decoding file "{name}": {error}') from None
    rules = document.get("rules") or []
    if not rules:
        raise PolicyError(f"loaded illegal policy with 0 rules from file {name}")
    problems = [*_stage_problems("omitStages", document.get("omitStages"))]
    for index, rule in enumerate(rules):
        problems += _rule_problems(f"rules[{index}]", rule)
    if problems:
        raise PolicyError(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    omitted, fields = frozenset(document.get("omitStages") or ()), bool(document.get("omitManagedFields"))
    return Policy(tuple(_rule(rule, omitted, omit_managed_fields=fields) for rule in rules))


def _rule(stated: Obj, omitted: frozenset[str], *, omit_managed_fields: bool) -> Rule:
    own = stated.get("omitManagedFields")
    return Rule(
        level=stated["level"],
        users=tuple(stated.get("users") or ()),
        groups=tuple(stated.get("userGroups") or ()),
        verbs=tuple(stated.get("verbs") or ()),
        resources=tuple(
            GroupResources(
                each.get("group") or "", tuple(each.get("resources") or ()), tuple(each.get("resourceNames") or ())
            )
            for each in stated.get("resources") or ()
        ),
        namespaces=tuple(stated.get("namespaces") or ()),
        paths=tuple(stated.get("nonResourceURLs") or ()),
        omitted=omitted | frozenset(stated.get("omitStages") or ()),
        omit_managed_fields=omit_managed_fields if own is None else bool(own),
    )


def _rule_problems(path: str, rule: Any) -> Iterator[str]:
    if not isinstance(rule, dict):
        yield f"{path}: Invalid value: {rule!r}: must be an object"
        return
    level = rule.get("level", "")
    if not level:
        yield f"{path}.level: Required value"
    elif level not in LEVELS:
        choices = ", ".join(f'"{choice}"' for choice in LEVELS)
        yield f'{path}.level: Unsupported value: "{level}": supported values: {choices}'
    for index, url in enumerate(rule.get("nonResourceURLs") or ()):
        if url != "*" and not str(url).startswith("/"):
            why = "non-resource URL rules must begin with a '/' character"
            yield f'{path}.nonResourceURLs[{index}]: Invalid value: "{url}": {why}'
        elif url != "*" and "*" in str(url)[:-1]:
            why = "non-resource URL wildcards '*' must be the final character of the rule"
            yield f'{path}.nonResourceURLs[{index}]: Invalid value: "{url}": {why}'
    if rule.get("nonResourceURLs") and (rule.get("resources") or rule.get("namespaces")):
        why = "rules cannot apply to both regular resources and non-resource URLs"
        yield f"{path}.nonResourceURLs: Invalid value: {why}"
    for index, each in enumerate(rule.get("resources") or ()):
        if each.get("resourceNames") and not each.get("resources"):
            why = "using resourceNames requires at least one resource"
            yield f"{path}.resources[{index}].resourceNames: Invalid value: {each['resourceNames']}: {why}"
    yield from _stage_problems(f"{path}.omitStages", rule.get("omitStages"))


def _stage_problems(path: str, stages: Any) -> Iterator[str]:
    for index, stage in enumerate(stages or ()):
        if stage not in STAGES:
            yield f'{path}[{index}]: Invalid value: "{stage}": allowed stages are {",".join(STAGES)}'
