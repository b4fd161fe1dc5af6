"""ResourceQuota: how much of what a namespace may hold; enforced by admission, counted again by its controller."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from navarch.api.errors import FieldError, invalid_value, required
from navarch.api.meta import Obj
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.pod_validation_resources import (
    is_standard_resource,
    resource_name_problems,
    validate_resource_value,
)
from navarch.kinds.internal import internal
from navarch.kinds.strategies import strategy

SCOPES: Final = (
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
)
_OPPOSITES: Final = (frozenset({"BestEffort", "NotBestEffort"}), frozenset({"Terminating", "NotTerminating"}))
_POD_SCOPES: Final = ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "PriorityClass",
                      "CrossNamespacePodAffinity")  # fmt: skip
_VALUED_SCOPES: Final = ("PriorityClass", "VolumeAttributesClass")
_CLAIM_RESOURCES: Final = ("persistentvolumeclaims", "requests.storage")
_POD_RESOURCES: Final = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")


def _usage(obj: Obj, *, limits: bool) -> str:
    status = obj.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    shown = [
        f"{name}: {used.get(name, '0')}/{hard[name]}" for name in sorted(hard) if name.startswith("limits.") == limits
    ]
    return ", ".join(shown)


def _request_cell(obj: Obj, now: datetime) -> str:
    return _usage(obj, limits=False)


def _limit_cell(obj: Obj, now: datetime) -> str:
    return _usage(obj, limits=True)


@strategy("", "ResourceQuota")
class ResourceQuotaStrategy(Strategy):
    returns_deleted = True
    columns = (
        NAME,
        Column("Request", _request_cell, description="Requests and counts: used of how many"),
        Column("Limit", _limit_cell, description="Limits: used of how many"),
        AGE,
    )

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        for name, value in (spec.get("hard") or {}).items():
            at = f"spec.hard[{name}]"
            yield from _validate_quota_resource(name, at)
            yield from validate_resource_value(name, value, at)
        scopes, hard = spec.get("scopes") or [], sorted(spec.get("hard") or ())
        for scope in scopes:
            if scope not in SCOPES:
                yield invalid_value("spec.scopes", scopes, "unsupported scope")
            yield from _validate_scoped(scope, hard, "spec.scopes", scopes)
        yield from _validate_opposites(scopes, "spec.scopes", scopes)
        selector = spec.get("scopeSelector")
        if selector is not None:
            at = "spec.scopeSelector.matchExpressions"
            terms = selector.get("matchExpressions") or ()
            for term in terms:
                scope = term.get("scopeName") or ""
                if scope not in SCOPES:
                    yield invalid_value(f"{at}.scopeName", scope, "unsupported scope")
                yield from _validate_scoped(scope, hard, at, internal(selector, "ScopeSelector"))
                yield from _validate_scope_term(term, scope, at)
            yield from _validate_opposites([term.get("scopeName") or "" for term in terms], at, scopes or None)
        if old is not None:
            before = (old.get("spec") or {}).get("scopes") or []
            if set(before) != set(scopes):
                yield invalid_value("spec.scopes", scopes or None, "field is immutable")

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        status = obj.get("status") or {}
        for field in ("hard", "used"):
            for name, value in (status.get(field) or {}).items():
                at = f"status.{field}[{name}]"
                yield from _validate_quota_resource(name, at)
                yield from validate_resource_value(name, value, at)


def _validate_quota_resource(name: str, path: str) -> Iterator[FieldError]:
    for problem in resource_name_problems(name):
        yield invalid_value(path, name, problem)
    if "/" not in name and (not is_standard_resource(name) or name == "storage"):
        yield invalid_value(path, name, "must be a standard resource for quota")


def _validate_scoped(scope: str, hard: list[str], path: str, shown: Any) -> Iterator[FieldError]:
    """A scope of pods limits what pods use, one of claims what claims use."""
    if scope == "VolumeAttributesClass":
        allowed: tuple[str, ...] = _CLAIM_RESOURCES
    elif scope in _POD_SCOPES:
        allowed = ("pods",) if scope == "BestEffort" else ("pods", *_POD_RESOURCES)
    else:
        return
    for name in hard:
        if is_standard_resource(name) and name not in allowed:
            yield invalid_value(path, shown, "unsupported scope applied to resource")


def _validate_opposites(scopes: list[str], path: str, shown: Any) -> Iterator[FieldError]:
    for pair in _OPPOSITES:
        if pair <= set(scopes):
            yield invalid_value(path, shown, "conflicting scopes")


def _validate_scope_term(term: Obj, scope: str, path: str) -> Iterator[FieldError]:
    operator, values = term.get("operator") or "", term.get("values") or []
    if scope in SCOPES and scope not in _VALUED_SCOPES and operator != "Exists":
        detail = (
            "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
            "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or "
            "ResourceQuotaScopeCrossNamespacePodAffinity"
        )
        yield invalid_value(f"{path}.operator", operator, detail)
    if operator in ("In", "NotIn"):
        if not values:
            detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            yield required(f"{path}.values", detail)
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            yield invalid_value(f"{path}.values", values, detail)
    else:
        yield invalid_value(f"{path}.operator", operator, "not a valid selector operator")
