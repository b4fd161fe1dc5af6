"""Which Ingresses are the embedded controller's, and where a Node says that it serves them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from navarch.api.meta import Obj, annotations_of, name_of

CONTROLLER: Final = "navarch.dev/ingress-controller"
CLASS: Final = "navarch"
DEFAULT_CLASS: Final = "ingressclass.kubernetes.io/is-default-class"
SERVES: Final = "navarch.dev/ingress-address"
"""A Node's annotation: the addresses at which it serves Ingresses, with commas between."""
_ANNOTATION: Final = "kubernetes.io/ingress.class"


def is_ours(ingress: Obj, classes: Iterable[Obj]) -> bool:
    """Whether the Ingress names a class of the embedded controller, or has the old annotation for it."""
    named = (ingress.get("spec") or {}).get("ingressClassName")
    if not named:
        return annotations_of(ingress).get(_ANNOTATION) == CLASS
    return any(name_of(each) == named and (each.get("spec") or {}).get("controller") == CONTROLLER for each in classes)
