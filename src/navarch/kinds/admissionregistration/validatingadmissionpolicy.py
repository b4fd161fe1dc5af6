"""ValidatingAdmissionPolicy and its binding: expressions that say which writes are refused.

An expression is compiled when its policy is written, and whatever is wrong with it is said then; `status.typeChecking`
is what a controller finds with the types of the resources that the policy is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from navarch.api.cel.types import BOOL
from navarch.api.errors import FieldError, duplicate, invalid_value, not_supported, required
from navarch.api.jsonpath import PathError, compile_path
from navarch.api.meta import Obj
from navarch.api.validation import validate_qualified_name
from navarch.kinds.admissionregistration.expressions import (
    ANNOTATION,
    MESSAGE,
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
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.conditions import validate_conditions
from navarch.kinds.strategies import strategy

GROUP: Final = "admissionregistration.k8s.io"
REASONS: Final = ("Forbidden", "Invalid", "RequestEntityTooLarge")
ACTIONS: Final = ("Audit", "Deny", "Warn")
_MOST_ANNOTATIONS: Final = 20
_LONGEST_ANNOTATION: Final = 5 * 1024


def _validations(obj: Obj, now: datetime) -> int:
    return len(obj["spec"].get("validations") or ())


@strategy(GROUP, "ValidatingAdmissionPolicy")
class ValidatingAdmissionPolicyStrategy(PolicyStrategy):
    status_keeps = SETTABLE_METADATA
    columns = (
        NAME,
        Column("Validations", _validations, type="integer", description="How many validations the policy has."),
        PARAM_KIND,
        AGE,
    )

    def complete(self, obj: Obj) -> None:
        obj.setdefault("status", {})

    def validate_actions(self, obj: Obj, variables: Variables) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        knowing = variables.environment
        messages = variables.within(environment(params=spec.get("paramKind") is not None, authorizing=False))
        validations, annotations = spec.get("validations") or (), spec.get("auditAnnotations") or ()
        if not validations and not annotations:
            needed = "validations or auditAnnotations must contain at least one item"
            yield required("spec.validations", needed)
            yield required("spec.auditAnnotations", needed)
        for index, validation in enumerate(validations):
            path = f"spec.validations[{index}]"
            yield from _validate_validation(validation, path, knowing, messages)
        yield from self._validate_annotations(obj, annotations, knowing)

    def _validate_annotations(
        self, obj: Obj, annotations: Sequence[Obj], environment: AdmissionEnvironment
    ) -> Iterator[FieldError]:
        if len(annotations) > _MOST_ANNOTATIONS:
            detail = f"must not have more than {_MOST_ANNOTATIONS} auditAnnotations"
            yield invalid_value("spec.auditAnnotations", [_go_form(each) for each in annotations], detail)
        seen: set[str] = set()
        for index, annotation in enumerate(annotations):
            path, key = f"spec.auditAnnotations[{index}]", annotation.get("key") or ""
            if policy := obj["metadata"].get("name"):
                yield from validate_qualified_name(f"{policy}/{key}", f"{path}.key")
            else:
                yield invalid_value(f"{path}.key", key, "requires metadata.name be non-empty")
            expression = annotation.get("valueExpression") or ""
            if not expression.strip():
                yield required(f"{path}.valueExpression", "valueExpression is not specified")
            elif len(expression.strip().encode()) > _LONGEST_ANNOTATION:
                yield required(f"{path}.valueExpression", f"must not exceed {_LONGEST_ANNOTATION} bytes in length")
            else:
                # Told as it is written, looked at without what is around it.
                for problem in problems(environment, expression.strip(), f"{path}.valueExpression", *ANNOTATION):
                    yield replace(problem, value=expression)
            if key in seen:
                yield duplicate(f"{path}.key", key)
            seen.add(key)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        status = obj.get("status") or {}
        checking = status.get("typeChecking") or {}
        for index, warning in enumerate(checking.get("expressionWarnings") or ()):
            path = f"status.typeChecking.expressionWarnings[{index}]"
            if not warning.get("warning"):
                yield required(f"{path}.warning")
            yield from _validate_field_reference((warning.get("fieldRef") or "").strip(), f"{path}.fieldRef")
        yield from validate_conditions(status.get("conditions") or (), "status.conditions")


def _go_form(annotation: Obj) -> Obj:
    """As Kubernetes' messages show it."""
    return {"Key": annotation.get("key") or "", "ValueExpression": annotation.get("valueExpression") or ""}


def _validate_field_reference(reference: str, path: str) -> Iterator[FieldError]:
    if not reference:
        yield required(path)
        return
    try:
        compile_path(f"{{{reference}}}")
    except PathError as error:
        yield invalid_value(path, reference, f"invalid JSONPath: {error}")


def _validate_validation(
    validation: Obj, path: str, environment: AdmissionEnvironment, messages: AdmissionEnvironment
) -> Iterator[FieldError]:
    expression, message = validation.get("expression") or "", validation.get("message") or ""
    worded = validation.get("messageExpression") or ""
    if not expression.strip():
        yield required(f"{path}.expression", "expression is not specified")
    else:
        yield from problems(environment, expression, f"{path}.expression", BOOL)
    if worded and not worded.strip():
        yield invalid_value(f"{path}.messageExpression", worded, "must be non-empty if specified")
    elif worded:
        yield from problems(messages, worded, f"{path}.messageExpression", *MESSAGE)
    if message and not message.strip():
        yield invalid_value(f"{path}.message", message, "must be non-empty if specified")
    elif "\n" in message.strip() or "\r" in message.strip():
        yield invalid_value(f"{path}.message", message, "must not contain line breaks")
    reason = validation.get("reason")
    if reason is not None and reason not in REASONS:
        yield not_supported(f"{path}.reason", reason, REASONS)


@strategy(GROUP, "ValidatingAdmissionPolicyBinding")
class ValidatingAdmissionPolicyBindingStrategy(Strategy):
    has_generation = True
    finalizers_have_domains = False
    allow_unconditional_update = False
    columns = (NAME, POLICY_NAME, PARAM_REF, AGE)

    def defaults(self, obj: Obj) -> None:
        default_match_resources((obj.get("spec") or {}).get("matchResources"))

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        yield from validate_binding(spec)
        yield from _validate_actions(spec.get("validationActions") or [])


def _validate_actions(actions: list[str]) -> Iterator[FieldError]:
    path = "spec.validationActions"
    seen: set[str] = set()
    for index, action in enumerate(actions):
        if action not in ACTIONS:
            yield not_supported(f"{path}[{index}]", action, ACTIONS)
        if action in seen:
            yield duplicate(f"{path}[{index}]", action)
        seen.add(action)
    if {"Deny", "Warn"} <= seen:
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        yield invalid_value(path, actions, detail)
    if not seen:
        yield required(path, "at least one validation action is required")
