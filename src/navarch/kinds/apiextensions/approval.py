"""Groups of the Kubernetes community are protected: a definition in one of them says where it was approved."""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import urlsplit

from navarch.api.meta import Obj, annotations_of
from navarch.records import frozen

ANNOTATION: Final = "api-approved.kubernetes.io"
_SEE: Final = "see https://github.com/kubernetes/enhancements/pull/1111"


@frozen
class Approval:
    state: Literal["missing", "bypassed", "approved", "invalid"]
    reason: str
    annotation: str


def is_protected(group: str) -> bool:
    return any(group == domain or group.endswith(f".{domain}") for domain in ("k8s.io", "kubernetes.io"))


def approval_of(crd: Obj) -> Approval:
    text = annotations_of(crd).get(ANNOTATION, "")
    if not text:
        return Approval("missing", f'protected groups must have approval annotation "{ANNOTATION}", {_SEE}', text)
    if text.startswith("unapproved"):
        return Approval("bypassed", f'not approved: "{text}"', text)
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = None
    if parts is not None and parts.scheme and parts.netloc:
        return Approval("approved", f"approved in {text}", text)
    why = f'with either a URL or a reason starting with "unapproved", {_SEE}'
    return Approval("invalid", f'protected groups must have approval annotation "{ANNOTATION}" {why}', text)
