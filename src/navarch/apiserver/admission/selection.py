"""Selectors of webhooks and policies: by the labels of the namespace that a write is in, and of its objects."""

from __future__ import annotations

from collections.abc import Mapping

from navarch.api.errors import not_found
from navarch.api.selectors import LabelSelector
from navarch.apiserver.admission.base import Attributes
from navarch.apiserver.caches import Caches
from navarch.apiserver.webhooks import reviews
from navarch.kinds.resources import NAMESPACES


def selects(caches: Caches, namespaces: LabelSelector, objects: LabelSelector, attributes: Attributes) -> bool:
    """Raises StatusError 404 for a namespace that is not there."""
    if not namespaces.matches_everything:
        labels = namespace_labels(caches, attributes)
        if labels is not None and not namespaces.matches(labels):
            return False
    return objects.matches_everything or any(
        objects.matches((obj.get("metadata") or {}).get("labels"))
        for obj in (attributes.obj, attributes.old)
        if obj is not None and "metadata" in obj
    )


def namespace_labels(caches: Caches, attributes: Attributes) -> Mapping[str, str] | None:
    """Those of the namespace that a write is in; None where it is in none.  Raises StatusError 404."""
    resource, obj = attributes.asked.resource, attributes.obj
    if resource == NAMESPACES and not attributes.subresource and obj is not None:
        found: Mapping[str, str] = obj["metadata"].get("labels") or {}
        return found
    name = reviews.request_namespace(attributes)
    if not name:
        return None
    cached = caches.of(NAMESPACES).get("", name)
    if cached is None:
        raise not_found("namespaces", "", name)
    return cached.labels
