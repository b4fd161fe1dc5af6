"""Rules with operations: which requests an admission webhook, or a policy, is for.

In: a rule as an object states it.  Out: its default scope, and what is wrong with it in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj

OPERATIONS: Final = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
SCOPES: Final = ("*", "Cluster", "Namespaced")


def default_rule(rule: Obj) -> None:
    """Rules are for resources of either scope."""
    if rule.get("scope") is None:
        rule["scope"] = "*"


def validate_rule(rule: Obj, path: str) -> Iterator[FieldError]:
    """A rule whose resources may name subresources."""
    yield from _some(rule, "operations", "operations", path)
    for index, operation in enumerate(rule.get("operations") or ()):
        if operation not in OPERATIONS:
            yield not_supported(f"{path}.operations[{index}]", operation, OPERATIONS)
    yield from _some(rule, "apiGroups", "API groups", path)
    yield from _some(rule, "apiVersions", "API versions", path)
    for index, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            yield required(f"{path}.apiVersions[{index}]")
    yield from _validate_resources(rule.get("resources") or (), f"{path}.resources")
    scope = rule.get("scope")
    if scope is not None and scope not in SCOPES:
        yield not_supported(f"{path}.scope", scope, SCOPES)


def _some(rule: Obj, name: str, shown: str, path: str) -> Iterator[FieldError]:
    values = rule.get(name) or []
    if not values:
        yield required(f"{path}.{name}")
    elif len(values) > 1 and "*" in values:
        yield invalid_value(f"{path}.{name}", values, f"if '*' is present, must not specify other {shown}")


def _validate_resources(resources: Sequence[str], path: str) -> Iterator[FieldError]:
    """`pods`, `pods/status`, `pods/*`, `*/status`, `*`, `*/*`: none that another one covers."""
    if not resources:
        yield required(path)
    all_of: set[str] = set()
    for_all: set[str] = set()
    plain = False
    for index, text in enumerate(resources):
        if not text:
            yield required(f"{path}[{index}]")
            continue
        resource, slash, subresource = text.partition("/")
        if not slash:
            plain = text != "*"
            continue
        if resource in all_of:
            yield invalid_value(f"{path}[{index}]", text, f"if '{resource}/*' is present, must not specify {text}")
        if subresource in for_all:
            yield invalid_value(f"{path}[{index}]", text, f"if '*/{subresource}' is present, must not specify {text}")
        if subresource == "*":
            all_of.add(resource)
        if resource == "*":
            for_all.add(subresource)
    if len(resources) > 1 and "*/*" in resources:
        yield invalid_value(path, list(resources), "if '*/*' is present, must not specify other resources")
    if "*" in resources and plain:
        detail = "if '*' is present, must not specify other resources without subresources"
        yield invalid_value(path, list(resources), detail)
