"""The access reviews: what a question must say. The answer comes from the API server's authorizers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value
from navarch.api.meta import Obj
from navarch.kinds.base import Strategy
from navarch.kinds.strategies import strategy

_GROUP: Final = "authorization.k8s.io"


def _validate_question(spec: Obj) -> Iterator[FieldError]:
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and other is not None:
        detail = "cannot be specified in combination with resourceAttributes"
        yield invalid_value("spec.nonResourceAttributes", other, detail)
    if resource is None and other is None:
        detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        yield invalid_value("spec.resourceAttributes", resource, detail)
    for name in ("fieldSelector", "labelSelector"):
        selector = (resource or {}).get(name)
        if selector is not None and selector.get("rawSelector") and selector.get("requirements"):
            path = f"spec.resourceAttributes.{name}.rawSelector"
            yield forbidden_field(path, "may not specified at the same time as requirements")


@strategy(_GROUP, "SelfSubjectAccessReview")
class SelfSubjectAccessReviewStrategy(Strategy):
    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from _validate_question(obj.get("spec") or {})


@strategy(_GROUP, "SubjectAccessReview")
class SubjectAccessReviewStrategy(Strategy):
    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        yield from _validate_question(spec)
        if not spec.get("user") and not spec.get("groups"):
            yield invalid_value("spec.user", "", "at least one of user or group must be specified")


@strategy(_GROUP, "LocalSubjectAccessReview")
class LocalSubjectAccessReviewStrategy(SubjectAccessReviewStrategy):
    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from super().validate(obj, old)
        attributes = (obj.get("spec") or {}).get("resourceAttributes")
        if (obj.get("spec") or {}).get("nonResourceAttributes") is not None:
            yield forbidden_field("spec.nonResourceAttributes", "disallowed on this kind of request")
        namespace = obj.get("metadata", {}).get("namespace", "")
        if attributes is not None and attributes.get("namespace", "") != namespace:
            detail = "must match metadata.namespace"
            yield invalid_value("spec.resourceAttributes.namespace", attributes.get("namespace", ""), detail)
