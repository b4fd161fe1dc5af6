"""AuthorizationConfiguration (`apiserver.config.k8s.io/v1`): which authorizers there are, in which order.

In: Kubernetes' file.  Out: the authorizers' types, with a webhook's settings where it is one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from navarch.api.cel.errors import CompileError
from navarch.api.duration import seconds_of
from navarch.api.meta import Obj
from navarch.api.yaml_reader import load
from navarch.apiserver.auth.access_webhook import REQUESTS, AccessWebhookSettings
from navarch.client.config import ConfigError, load_target

_VERSIONS: Final = tuple(f"apiserver.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
_PLAIN: Final = ("AlwaysAllow", "AlwaysDeny", "Node", "RBAC")


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
        if type_ == "Webhook":
            found.append(_webhook(f"{path}.webhook", name, each.get("webhook") or {}, folder))
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
    try:
        return AccessWebhookSettings(
            name,
            load_target(folder / str(connection.get("kubeConfigFile") or "")),
            version,
            seconds_of(str(stated.get("authorizedTTL") or "5m")),
            seconds_of(str(stated.get("unauthorizedTTL") or "30s")),
            policy == "Deny",
            [REQUESTS.compile(condition.get("expression") or "") for condition in stated.get("matchConditions") or []],
        )
    except CompileError as error:
        raise AuthorizationError(f"{path}.matchConditions: Invalid value: compilation failed: {error}") from None
    except (ConfigError, ValueError) as error:
        raise AuthorizationError(f"{path}: Invalid value: {error}") from None
