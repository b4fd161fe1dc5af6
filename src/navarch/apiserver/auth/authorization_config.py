"""AuthorizationConfiguration (`apiserver.config.k8s.io/v1`): which authorizers there are, in which order.

In: Kubernetes' file.  Out: the authorizers' types, with a webhook's settings where it is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from navarch.api.cel.environment import Program
from navarch.api.cel.errors import CompileError
from navarch.api.cel.types import BOOL
from navarch.api.config_files import ListOf, ShapeError, Struct, fit
from navarch.api.duration import seconds_of
from navarch.api.meta import Obj
from navarch.api.yaml_reader import load
from navarch.apiserver.auth.access_webhook import REQUESTS, AccessWebhookSettings
from navarch.client.config import ConfigError, load_target

_VERSIONS: Final = tuple(f"apiserver.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
_PLAIN: Final = ("AlwaysAllow", "AlwaysDeny", "Node", "RBAC")


_WEBHOOK: Final = Struct(
    {
        "authorizedTTL": str,
        "cacheAuthorizedRequests": bool,
        "unauthorizedTTL": str,
        "cacheUnauthorizedRequests": bool,
        "timeout": str,
        "subjectAccessReviewVersion": str,
        "matchConditionSubjectAccessReviewVersion": str,
        "failurePolicy": str,
        "connectionInfo": Struct({"type": str, "kubeConfigFile": str}),
        "matchConditions": ListOf(Struct({"expression": str})),
    }
)
_SHAPE: Final = {"authorizers": ListOf(Struct({"type": str, "name": str, "webhook": _WEBHOOK}))}
# More conditions than these would make each request dear.
_MOST_CONDITIONS: Final = 64
_LONGEST_TIMEOUT_S: Final = 30.0


class AuthorizationError(ValueError):
    """The configuration cannot be used; the message says where and why."""


# An authorizer that needs no settings, by its type, or a webhook.
Authorizer = str | AccessWebhookSettings


def read(path: Path) -> list[Authorizer]:
    """Raises AuthorizationError."""
    try:
        document = load(path.read_bytes()).value
    except (OSError, ValueError) as error:
        raise AuthorizationError(f"failed to load AuthorizationConfiguration from file {path}: {error}") from None
    return parse(document, path.parent)


def parse(document: Any, folder: Path) -> list[Authorizer]:
    """Raises AuthorizationError."""
    if (
        not isinstance(document, dict)
        or document.get("apiVersion") not in _VERSIONS
        or document.get("kind") != "AuthorizationConfiguration"
    ):
        raise AuthorizationError("the file is no AuthorizationConfiguration of apiserver.config.k8s.io/v1")
    try:
        fit(document, _SHAPE)
    except ShapeError as error:
        raise AuthorizationError(str(error)) from None
    stated = document.get("authorizers") or []
    if not stated:
        raise AuthorizationError("authorizers: Required value: at least one authorization mode must be defined")
    found: list[Authorizer] = []
    names: set[str] = set()
    for index, each in enumerate(stated):
        path = f"authorizers[{index}]"
        type_, name = str(each.get("type") or ""), str(each.get("name") or "")
        if not name:
            raise AuthorizationError(f"{path}.name: Required value")
        if name in names:
            raise AuthorizationError(f'{path}.name: Duplicate value: "{name}"')
        names.add(name)
        if type_ in found:
            raise AuthorizationError(f'{path}.type: Duplicate value: "{type_}"')
        if type_ in _PLAIN and each.get("webhook") is not None:
            raise AuthorizationError(f"{path}.webhook: Invalid value: may only be specified when type=Webhook")
        if type_ == "Webhook":
            if each.get("webhook") is None:
                raise AuthorizationError(f"{path}.webhook: Required value: required when type=Webhook")
            found.append(_webhook(f"{path}.webhook", name, each["webhook"], folder))
        elif type_ in _PLAIN:
            found.append(type_)
        else:
            choices = ", ".join(f'"{choice}"' for choice in (*_PLAIN, "Webhook"))
            raise AuthorizationError(f'{path}.type: Unsupported value: "{type_}": supported values: {choices}')
    return found


def _webhook(path: str, name: str, stated: Obj, folder: Path) -> AccessWebhookSettings:
    connection = stated.get("connectionInfo") or {}
    if connection.get("type") != "KubeConfigFile":
        raise AuthorizationError(
            f'{path}.connectionInfo.type: Unsupported value: "{connection.get("type") or ""}": supported values: '
            '"InClusterConfig", "KubeConfigFile"'
        )
    version = stated.get("subjectAccessReviewVersion") or ""
    if version not in ("v1", "v1beta1"):
        why = 'supported values: "v1", "v1beta1"'
        raise AuthorizationError(f'{path}.subjectAccessReviewVersion: Unsupported value: "{version}": {why}')
    policy = stated.get("failurePolicy") or ""
    if policy not in ("NoOpinion", "Deny"):
        why = 'supported values: "Deny", "NoOpinion"'
        raise AuthorizationError(f'{path}.failurePolicy: Unsupported value: "{policy}": {why}')
    conditions = stated.get("matchConditions") or []
    if conditions and stated.get("matchConditionSubjectAccessReviewVersion") != "v1":
        seen = stated.get("matchConditionSubjectAccessReviewVersion") or ""
        where = f"{path}.matchConditionSubjectAccessReviewVersion"
        raise AuthorizationError(f'{where}: Unsupported value: "{seen}": supported values: "v1"')
    timeout_s = _duration(path, "timeout", stated, "3s")
    if not 0 < timeout_s <= _LONGEST_TIMEOUT_S:
        shown = stated["timeout"]
        raise AuthorizationError(f'{path}.timeout: Invalid value: "{shown}": must be > 0s and <= 30s')
    kept = {
        ttl: _duration(path, ttl, stated, default) if stated.get(switch) is not False else 0.0
        for ttl, default, switch in (
            ("authorizedTTL", "5m", "cacheAuthorizedRequests"),
            ("unauthorizedTTL", "30s", "cacheUnauthorizedRequests"),
        )
    }
    programs = [*_conditions(f"{path}.matchConditions", conditions)]
    try:
        target = load_target(folder / str(connection.get("kubeConfigFile") or ""))
    except (ConfigError, ValueError) as error:
        raise AuthorizationError(f"{path}: Invalid value: {error}") from None
    return AccessWebhookSettings(
        name,
        target,
        version,
        kept["authorizedTTL"],
        kept["unauthorizedTTL"],
        policy == "Deny",
        programs,
        timeout_s,
    )


def _duration(path: str, name: str, stated: Obj, default: str) -> float:
    try:
        seconds = seconds_of(str(stated.get(name) or default))
    except ValueError:
        seconds = -1.0
    if seconds < 0:
        raise AuthorizationError(f'{path}.{name}: Invalid value: "{stated[name]}": must be a duration of 0s or more')
    return seconds


def _conditions(path: str, stated: Sequence[Obj]) -> Iterator[Program]:
    if len(stated) > _MOST_CONDITIONS:
        raise AuthorizationError(f"{path}: Too many: {len(stated)}: must have at most {_MOST_CONDITIONS} items")
    seen: list[str] = []
    for index, condition in enumerate(stated):
        where, expression = f"{path}[{index}].expression", condition.get("expression") or ""
        if not expression.strip():
            raise AuthorizationError(f"{where}: Required value")
        if expression in seen:
            raise AuthorizationError(f'{where}: Duplicate value: "{expression}"')
        seen.append(expression)
        try:
            program = REQUESTS.compile(expression)
        except CompileError as error:
            raise AuthorizationError(f'{where}: Invalid value: "{expression}": compilation failed: {error}') from None
        if program.type != BOOL:
            raise AuthorizationError(f'{where}: Invalid value: "{expression}": must evaluate to bool')
        yield program
