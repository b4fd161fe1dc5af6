"""What the server says of a CustomResourceDefinition, apart from its deletion: names and conditions.

In: a definition, the names that others in its group have, the time.  Out: the status that it should have. Pure: the
same on every server that looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.apiextensions.approval import approval_of, is_protected
from navarch.kinds.apiextensions.conditions import Condition, is_said, with_conditions
from navarch.kinds.apiextensions.names import accepted_names, established
from navarch.kinds.apiextensions.structurality import structural_errors, unsupported

_APPROVALS: Final = {
    "missing": ("False", "MissingAnnotation"),
    "invalid": ("False", "InvalidAnnotation"),
    "bypassed": ("False", "UnapprovedAnnotation"),
    "approved": ("True", "ApprovedAnnotation"),
}
_APPROVAL: Final = "KubernetesAPIApprovalPolicyConformant"
_NON_STRUCTURAL: Final = "NonStructuralSchema"


def status_of(crd: Obj, others: Iterable[Obj], now: str) -> Obj:
    """Its status as it should be; the one that it has where that is right."""
    status = crd.get("status") or {}
    names, accepted = accepted_names(crd, others)
    conditions = [accepted, established(crd, accepted)]
    without: list[str] = []
    for type_, condition in ((_NON_STRUCTURAL, _non_structural(crd)), (_APPROVAL, _approval(crd))):
        if condition is None:
            without.append(type_)
        else:
            conditions.append(condition)
    said = status.get("conditions") or ()
    if (
        names == (status.get("acceptedNames") or {})
        and all(is_said(crd, condition) for condition in conditions)
        and not any(each.get("type") in without for each in said)
    ):
        return status
    return {**status, "acceptedNames": names, "conditions": with_conditions(crd, conditions, now, without)}


def _non_structural(crd: Obj) -> Condition | None:
    """Only definitions from before schemas had to be structural are not."""
    spec = crd.get("spec") or {}
    if not spec.get("preserveUnknownFields"):
        return None
    messages: list[str] = []
    for index, version in enumerate(spec.get("versions") or ()):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            continue
        if problem := unsupported(schema):
            why = f"failed to check validation schema for version {version['name']}: {problem}"
            return Condition(_NON_STRUCTURAL, "Unknown", "StructuralError", why)
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        messages += [str(error) for error in structural_errors(schema, path)]
    if not messages:
        return None
    text = messages[0] if len(messages) == 1 else f"[{', '.join(messages)}]"
    return Condition(_NON_STRUCTURAL, "True", "Violations", text)


def _approval(crd: Obj) -> Condition | None:
    if not is_protected((crd.get("spec") or {}).get("group", "")):
        return None
    approval = approval_of(crd)
    status, reason = _APPROVALS[approval.state]
    return Condition(_APPROVAL, status, reason, approval.reason)
