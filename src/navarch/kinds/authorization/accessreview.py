"""The access reviews: what a question must say. The answer comes from the API server's authorizers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, required
from navarch.api.meta import Obj
from navarch.kinds.base import Strategy
from navarch.kinds.internal import internal
from navarch.kinds.strategies import strategy

_GROUP: Final = "authorization.k8s.io"


def _validate_question(spec: Obj, *, of_someone: bool) -> Iterator[FieldError]:
    """`of_someone`: the question says whom it is about."""
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and other is not None:
        detail = "cannot be specified in combination with resourceAttributes"
        yield invalid_value("spec.nonResourceAttributes", internal(other, "NonResourceAttributes"), detail)
    if resource is None and other is None:
        detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        yield invalid_value("spec.resourceAttributes", None, detail)
    if of_someone and not spec.get("user") and not spec.get("groups"):
        yield invalid_value("spec.user", "", "at least one of user or group must be specified")
    for name in ("fieldSelector", "labelSelector"):
        selector = (resource or {}).get(name)
        if selector is not None:
            yield from _validate_selector(selector, f"spec.resourceAttributes.{name}")


def _validate_selector(selector: Obj, path: str) -> Iterator[FieldError]:
    raw, requirements = selector.get("rawSelector") or "", selector.get("requirements") or ()
    if raw and requirements:
        yield invalid_value(f"{path}.rawSelector", raw, "may not specified at the same time as requirements")
    if not raw and not requirements:
        detail = f"when {path} is specified, requirements or rawSelector is required"
        yield required(f"{path}.requirements", detail)
    for index, term in enumerate(requirements):
        at, operator, values = f"{path}.requirements[{index}]", term.get("operator"), term.get("values")
        if not term.get("key"):
            yield required(f"{at}.key", "must be specified")
        # An operator that is not known here may be known to whoever asks.
        if operator in ("In", "NotIn") and not values:
            yield required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            yield forbidden_field(f"{at}.values", detail)


def _validate_metadata(obj: Obj, kept: tuple[str, ...], detail: str) -> Iterator[FieldError]:
    stated = {name: value for name, value in (obj.get("metadata") or {}).items() if name not in kept and value}
    if stated:
        yield invalid_value("metadata", stated, detail)


@strategy(_GROUP, "SelfSubjectAccessReview")
class SelfSubjectAccessReviewStrategy(Strategy):
    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from _validate_question(obj.get("spec") or {}, of_someone=False)
        yield from _validate_metadata(obj, ("managedFields",), "must be empty")


@strategy(_GROUP, "SubjectAccessReview")
class SubjectAccessReviewStrategy(Strategy):
    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from _validate_question(obj.get("spec") or {}, of_someone=True)
        yield from _validate_metadata(obj, ("managedFields",), "must be empty")


@strategy(_GROUP, "LocalSubjectAccessReview")
class LocalSubjectAccessReviewStrategy(Strategy):
    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        yield from _validate_question(spec, of_someone=True)
        yield from _validate_metadata(obj, ("managedFields", "namespace"), "must be empty except for namespace")
        attributes, namespace = spec.get("resourceAttributes"), (obj.get("metadata") or {}).get("namespace") or ""
        if attributes is not None and (stated := attributes.get("namespace") or "") != namespace:
            yield invalid_value("spec.resourceAttributes.namespace", stated, "must match metadata.namespace")
        if (other := spec.get("nonResourceAttributes")) is not None:
            shown = internal(other, "NonResourceAttributes")
            yield invalid_value("spec.nonResourceAttributes", shown, "disallowed on this kind of request")
