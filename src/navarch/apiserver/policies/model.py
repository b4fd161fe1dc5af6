"""Policies and bindings as admission uses them: compiled, in Kubernetes' order.

In: the stored objects.  Out: `Policy`s with their `Binding`s, by name. Expressions were looked at when the objects were
written; one that does not compile any more (another version stored it) fails when it is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from navarch.api.cel.types import BOOL, Type
from navarch.api.meta import Obj
from navarch.apiserver.policies.conditions import Conditions, conditions_of, expression_of
from navarch.apiserver.policies.evaluation import Expression
from navarch.apiserver.policies.matching import Matcher, matcher_of
from navarch.kinds.admissionregistration.expressions import (
    ANNOTATION,
    MESSAGE,
    AdmissionEnvironment,
    environment,
)
from navarch.kinds.admissionregistration.mutatingadmissionpolicy import PATCH_TYPES
from navarch.records import frozen


@frozen(eq=False)
class Validation:
    expression: Expression
    message: str
    worded: Expression | None
    reason: str


@frozen(eq=False)
class Binding:
    """`matcher` is None for one that is for all that its policy is for."""

    name: str
    policy: str
    matcher: Matcher | None
    params: Obj | None
    actions: tuple[str, ...]


@frozen(eq=False)
class Policy:
    name: str
    bindings: tuple[Binding, ...]
    closed: bool
    matcher: Matcher
    param_kind: Obj | None
    conditions: Conditions
    variables: Mapping[str, Expression]
    validations: tuple[Validation, ...] = ()
    annotations: tuple[tuple[str, Expression], ...] = ()
    # The patch's type and its expression.
    mutations: tuple[tuple[str, Expression], ...] = ()
    reinvocable: bool = False


def policies_of(policies: Iterable[Obj], bindings: Iterable[Obj]) -> list[Policy]:
    """Those that are bound, each with its bindings, by name."""
    bound: dict[str, list[Binding]] = {}
    for each in sorted(bindings, key=_name):
        binding = _binding(each)
        bound.setdefault(binding.policy, []).append(binding)
    return [_policy(each, tuple(bound[_name(each)])) for each in sorted(policies, key=_name) if _name(each) in bound]


def _name(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def _binding(obj: Obj) -> Binding:
    spec = obj.get("spec") or {}
    match = spec.get("matchResources")
    return Binding(
        _name(obj),
        str(spec.get("policyName") or ""),
        matcher_of(match) if match is not None else None,
        spec.get("paramRef"),
        tuple(spec.get("validationActions") or ()),
    )


def _policy(obj: Obj, bindings: tuple[Binding, ...]) -> Policy:
    spec = obj.get("spec") or {}
    params, mutating = spec.get("paramKind") is not None, obj.get("kind") == "MutatingAdmissionPolicy"
    variables, values = _variables(environment(params=params, mutating=mutating), spec.get("variables") or ())
    # Message expressions have no authorizer.
    messages, _ = _variables(environment(params=params, authorizing=False), spec.get("variables") or ())
    return Policy(
        _name(obj),
        bindings,
        spec.get("failurePolicy") != "Ignore",
        matcher_of(spec.get("matchConstraints") or {}),
        spec.get("paramKind"),
        conditions_of(spec.get("matchConditions") or (), params=params),
        values,
        tuple(_validation(each, variables, messages) for each in spec.get("validations") or ()),
        tuple(
            (
                str(each.get("key")),
                expression_of(variables, str(each.get("valueExpression") or "").strip(), *ANNOTATION),
            )
            for each in spec.get("auditAnnotations") or ()
        ),
        tuple(_mutation(each, variables) for each in spec.get("mutations") or ()),
        spec.get("reinvocationPolicy") == "IfNeeded",
    )


def _variables(
    environment: AdmissionEnvironment, variables: Sequence[Obj]
) -> tuple[AdmissionEnvironment, dict[str, Expression]]:
    """The environment of what can use them all, and each compiled with those before it."""
    if not variables:
        return environment, {}
    known: dict[str, Type] = {}
    expressions: dict[str, Expression] = {}
    environment = environment.with_variables(known)
    for variable in variables:
        name = str(variable.get("name"))
        expression = expressions[name] = expression_of(environment, str(variable.get("expression") or ""))
        if expression.program is not None:
            known[name] = expression.program.type
            environment = environment.with_variables(known)
    return environment, expressions


def _validation(validation: Obj, environment: AdmissionEnvironment, messages: AdmissionEnvironment) -> Validation:
    worded = validation.get("messageExpression") or ""
    return Validation(
        expression_of(environment, str(validation.get("expression") or ""), BOOL),
        str(validation.get("message") or "").strip(),
        expression_of(messages, worded, *MESSAGE) if worded.strip() else None,
        str(validation.get("reason") or "Invalid"),
    )


_NO_PATCH: Final[tuple[str, Any]] = ("", None)


def _mutation(mutation: Obj, environment: AdmissionEnvironment) -> tuple[str, Expression]:
    patch_type = str(mutation.get("patchType") or "")
    field, wanted = PATCH_TYPES.get(patch_type, _NO_PATCH)
    stated = mutation.get(field) or {}
    text = str(stated.get("expression") or "").strip()
    return patch_type, expression_of(environment, text, *([wanted] if wanted else ()))
