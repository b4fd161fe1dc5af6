"""Kubernetes' authorizer: `authorizer.group('').resource('pods').namespace('x').check('create').allowed()`.

In: what decides (`Decide`), given with the value of the variable `authorizer`.  Out: its decisions. Nothing here knows
who decides how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Final

from navarch.api.cel.declarations import declared
from navarch.api.cel.errors import CelError
from navarch.api.cel.values import Opaque
from navarch.api.validation import dns_label_problems, dns_subdomain_problems
from navarch.records import frozen


@frozen
class Question:
    """What somebody wants to do: with a path, or with a resource."""

    verb: str
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""


@frozen
class Decision(Opaque):
    type_name: ClassVar[str] = "kubernetes.authorization.Decision"
    allowed: bool
    reason: str = ""
    error: str = ""


# The user is None for who asks, else the service account (namespace, name).
Decide = Callable[[tuple[str, str] | None, Question], Decision]


@frozen
class Authorizer(Opaque):
    type_name: ClassVar[str] = "kubernetes.authorization.Authorizer"
    decide: Decide
    account: tuple[str, str] | None = None


@frozen
class PathCheck(Opaque):
    type_name: ClassVar[str] = "kubernetes.authorization.PathCheck"
    authorizer: Authorizer
    path: str


@frozen
class GroupCheck(Opaque):
    type_name: ClassVar[str] = "kubernetes.authorization.GroupCheck"
    authorizer: Authorizer
    group: str


@frozen
class ResourceCheck(Opaque):
    type_name: ClassVar[str] = "kubernetes.authorization.ResourceCheck"
    authorizer: Authorizer
    question: Question


def _path(authorizer: Authorizer, path: str) -> PathCheck:
    if not path.strip():
        raise CelError("path must not be empty")
    return PathCheck(authorizer, path)


def _resource(group: GroupCheck, resource: str) -> ResourceCheck:
    if not resource.strip():
        raise CelError("resource must not be empty")
    return ResourceCheck(group.authorizer, Question("", group=group.group, resource=resource))


def _service_account(authorizer: Authorizer, namespace: str, name: str) -> Authorizer:
    if list(dns_subdomain_problems(name)):
        raise CelError("Invalid service account name")
    if list(dns_label_problems(namespace)):
        raise CelError("Invalid service account namespace")
    return replace(authorizer, account=(namespace, name))


def _with(field: str) -> Callable[[ResourceCheck, str], ResourceCheck]:
    def changed(check: ResourceCheck, value: str) -> ResourceCheck:
        settings: dict[str, Any] = {field: value}
        return ResourceCheck(check.authorizer, replace(check.question, **settings))

    return changed


def _check_path(check: PathCheck, verb: str) -> Decision:
    return check.authorizer.decide(check.authorizer.account, Question(verb, path=check.path))


def _check_resource(check: ResourceCheck, verb: str) -> Decision:
    return check.authorizer.decide(check.authorizer.account, replace(check.question, verb=verb))


def request_resource(
    authorizer: Authorizer, group: str, resource: str, subresource: str, namespace: str, name: str
) -> ResourceCheck:
    """The value of `authorizer.requestResource`."""
    return ResourceCheck(authorizer, Question("", "", group, resource, subresource, namespace, name))


_ROOT: Final = "kubernetes.authorization."
FUNCTIONS: Final = declared(
    f"""
    path authorizer_path {_ROOT}Authorizer.(string) {_ROOT}PathCheck
    group authorizer_group {_ROOT}Authorizer.(string) {_ROOT}GroupCheck
    serviceAccount authorizer_serviceaccount {_ROOT}Authorizer.(string, string) {_ROOT}Authorizer
    resource groupcheck_resource {_ROOT}GroupCheck.(string) {_ROOT}ResourceCheck
    subresource resourcecheck_subresource {_ROOT}ResourceCheck.(string) {_ROOT}ResourceCheck
    namespace resourcecheck_namespace {_ROOT}ResourceCheck.(string) {_ROOT}ResourceCheck
    name resourcecheck_name {_ROOT}ResourceCheck.(string) {_ROOT}ResourceCheck
    check pathcheck_check {_ROOT}PathCheck.(string) {_ROOT}Decision
    check resourcecheck_check {_ROOT}ResourceCheck.(string) {_ROOT}Decision
    errored decision_errored {_ROOT}Decision.() bool
    error decision_error {_ROOT}Decision.() string
    allowed decision_allowed {_ROOT}Decision.() bool
    reason decision_reason {_ROOT}Decision.() string
    fieldSelector authorizer_fieldselector {_ROOT}ResourceCheck.(string) {_ROOT}ResourceCheck
    labelSelector authorizer_labelselector {_ROOT}ResourceCheck.(string) {_ROOT}ResourceCheck
    """,
    {
        "authorizer_path": _path,
        "authorizer_group": GroupCheck,
        "authorizer_serviceaccount": _service_account,
        "groupcheck_resource": _resource,
        "resourcecheck_subresource": _with("subresource"),
        "resourcecheck_namespace": _with("namespace"),
        "resourcecheck_name": _with("name"),
        "pathcheck_check": _check_path,
        "resourcecheck_check": _check_resource,
        "decision_errored": lambda decision: bool(decision.error),
        "decision_error": lambda decision: decision.error,
        "decision_allowed": lambda decision: decision.allowed,
        "decision_reason": lambda decision: decision.reason,
        "authorizer_fieldselector": _with("field_selector"),
        "authorizer_labelselector": _with("label_selector"),
    },
)
