"""MutatingAdmissionPolicy and its binding: expressions that say what becomes of objects that are written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.kinds.admissionregistration.expressions import (
    CONFIGURATION,
    PATCHES,
    AdmissionEnvironment,
    environment,
    problems,
)
from navarch.kinds.admissionregistration.policies import (
    PARAM_KIND,
    PARAM_REF,
    POLICY_NAME,
    PolicyStrategy,
    Variables,
    default_match_resources,
    validate_binding,
)
from navarch.kinds.admissionregistration.validatingadmissionpolicy import GROUP
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy

REINVOCATION_POLICIES: Final = ("IfNeeded", "Never")
# By the patch's type: where its expression is, and what it gives.
PATCH_TYPES: Final = {
    "ApplyConfiguration": ("applyConfiguration", CONFIGURATION),
    "JSONPatch": ("jsonPatch", PATCHES),
}


def _mutations(obj: Obj, now: datetime) -> int:
    return len(obj["spec"].get("mutations") or ())


@strategy(GROUP, "MutatingAdmissionPolicy")
class MutatingAdmissionPolicyStrategy(PolicyStrategy):
    mutating = True
    columns = (
        NAME,
        Column("Mutations", _mutations, type="integer", description="How many mutations the policy has."),
        PARAM_KIND,
        AGE,
    )

    def validate_actions(self, obj: Obj, variables: Variables) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        knowing = variables.within(environment(params=spec.get("paramKind") is not None, mutating=True))
        mutations = spec.get("mutations") or ()
        if not mutations:
            yield required("spec.mutations", "mutations must contain at least one item")
        for index, mutation in enumerate(mutations):
            yield from _validate_mutation(mutation, f"spec.mutations[{index}]", knowing)
        reinvocation = spec.get("reinvocationPolicy")
        if not reinvocation:
            yield required("spec.reinvocationPolicy")
        elif reinvocation not in REINVOCATION_POLICIES:
            yield not_supported("spec.reinvocationPolicy", reinvocation, REINVOCATION_POLICIES)


def _validate_mutation(mutation: Obj, path: str, knowing: AdmissionEnvironment) -> Iterator[FieldError]:
    patch_type = mutation.get("patchType") or ""
    if not patch_type:
        yield required(f"{path}.patchType")
        return
    if patch_type not in PATCH_TYPES:
        yield not_supported(f"{path}.patchType", patch_type, tuple(PATCH_TYPES))
        return
    for each, (field, wanted) in PATCH_TYPES.items():
        stated = mutation.get(field)
        if each != patch_type:
            if stated is not None:
                yield invalid_value(
                    f"{path}.{field}", f"{{{field}}}", f"must not be specified when patchType is {patch_type}"
                )
        elif stated is None:
            yield required(f"{path}.{field}", f"must be specified when patchType is {patch_type}")
        elif not (expression := (stated.get("expression") or "").strip()):
            yield required(f"{path}.{field}.expression")
        else:
            yield from problems(knowing, expression, f"{path}.{field}.expression", wanted)


@strategy(GROUP, "MutatingAdmissionPolicyBinding")
class MutatingAdmissionPolicyBindingStrategy(Strategy):
    has_generation = True
    finalizers_have_domains = False
    allow_unconditional_update = False
    columns = (NAME, POLICY_NAME, PARAM_REF, AGE)

    def defaults(self, obj: Obj) -> None:
        default_match_resources((obj.get("spec") or {}).get("matchResources"))

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from validate_binding(obj.get("spec") or {}, mutating=True)
