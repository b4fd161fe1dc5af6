"""What the policies of admission and their bindings have in common: constraints, parameters, variables, columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import ClassVar, Final

from navarch.api.cel.names import is_identifier
from navarch.api.cel.types import Type
from navarch.api.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from navarch.api.go_text import go_label_selector
from navarch.api.meta import Obj
from navarch.api.validation import (
    dns_label_1035_problems,
    dns_subdomain_problems,
    path_segment_problems,
    validate_label_selector,
)
from navarch.kinds.admissionregistration.expressions import AdmissionEnvironment, ExpressionError, compiled, environment
from navarch.kinds.admissionregistration.match_conditions import validate_match_conditions
from navarch.kinds.admissionregistration.rules import OPERATIONS, default_rule, validate_rule
from navarch.kinds.base import Column, Strategy

FAILURE_POLICIES: Final = ("Fail", "Ignore")
_MATCH_POLICIES: Final = ("Equivalent", "Exact")
_NOT_FOUND_ACTIONS: Final = ("Allow", "Deny")
_MUTABLE: Final = tuple(operation for operation in OPERATIONS if operation != "DELETE")
_UNSET: Final = "<unset>"


def default_match_resources(match: Obj | None) -> None:
    if match is None:
        return
    for name in ("namespaceSelector", "objectSelector"):
        if match.get(name) is None:
            match[name] = {}
    if match.get("matchPolicy") is None:
        match["matchPolicy"] = "Equivalent"
    for rules in ("resourceRules", "excludeResourceRules"):
        for rule in match.get(rules) or ():
            default_rule(rule)


def validate_failure_policy(spec: Obj) -> Iterator[FieldError]:
    policy = spec.get("failurePolicy")
    if policy is None:
        yield required("spec.failurePolicy")
    elif policy not in FAILURE_POLICIES:
        yield not_supported("spec.failurePolicy", policy, FAILURE_POLICIES)


def validate_constraints(spec: Obj, *, mutating: bool = False) -> Iterator[FieldError]:
    """A policy says for which resources it is."""
    path, match = "spec.matchConstraints", spec.get("matchConstraints")
    if match is None:
        yield required(path)
        return
    yield from validate_match_resources(match, path)
    if not match.get("resourceRules"):
        yield required(f"{path}.resourceRules")
    if mutating:
        yield from _validate_mutable(match, path)


def _validate_mutable(match: Obj, path: str) -> Iterator[FieldError]:
    """There is nothing to change in what is deleted."""
    for rule in match.get("resourceRules") or ():
        for operation in rule.get("operations") or ():
            if operation not in _MUTABLE:
                # Kubernetes does not say of which rule.
                yield not_supported(f"{path}.resourceRules.operations", operation, _MUTABLE)


def validate_match_resources(match: Obj | None, path: str) -> Iterator[FieldError]:
    if match is None:
        return
    policy = match.get("matchPolicy")
    if policy is None:
        yield required(f"{path}.matchPolicy")
    elif policy not in _MATCH_POLICIES:
        yield not_supported(f"{path}.matchPolicy", policy, _MATCH_POLICIES)
    for name in ("namespaceSelector", "objectSelector"):
        if match.get(name) is None:
            yield required(f"{path}.{name}")
        else:
            yield from validate_label_selector(match[name], f"{path}.{name}")
    for rules in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(rules) or ()):
            yield from _validate_named_rule(rule, f"{path}.{rules}[{index}]")


def _validate_named_rule(rule: Obj, path: str) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, name in enumerate(rule.get("resourceNames") or ()):
        at = f"{path}.resourceNames[{index}]"
        for problem in path_segment_problems(name):
            yield invalid_value(at, name, problem)
        if name in seen:
            yield duplicate(at, name)
        seen.add(name)
    yield from validate_rule(rule, path)


def validate_param_kind(kind: Obj | None) -> Iterator[FieldError]:
    if kind is None:
        return
    path, version_text, name = "spec.paramKind", kind.get("apiVersion") or "", kind.get("kind") or ""
    if not version_text:
        yield required(f"{path}.apiVersion")
    elif version_text.count("/") > 1:
        yield invalid_value(f"{path}.apiVersion", version_text, f"unexpected GroupVersion string: {version_text}")
    else:
        yield from _validate_group_version(version_text, f"{path}.apiVersion")
    if not name:
        yield required(f"{path}.kind")
    elif problems := dns_label_1035_problems(name.lower()):
        detail = f"may have mixed case, but should otherwise match: {','.join(problems)}"
        yield invalid_value(f"{path}.kind", name, detail)


def _validate_group_version(text: str, path: str) -> Iterator[FieldError]:
    group, _, version = text.rpartition("/")
    if group and (problems := dns_subdomain_problems(group)):
        yield invalid_value(path, group, ",".join(problems))
    if not version:
        yield invalid_value(path, text, "version must be specified")
    elif problems := dns_label_1035_problems(version):
        yield invalid_value(path, version, ",".join(problems))


class Variables:
    """A policy's variables, each of which the ones behind it can use: what is wrong with them, and then the environment
    of the expressions that can use them all."""

    def __init__(self, environment: AdmissionEnvironment) -> None:
        self.environment = environment
        # None for a policy without variables, whose expressions cannot speak of any.
        self._known: dict[str, Type] | None = None

    def within(self, environment: AdmissionEnvironment) -> AdmissionEnvironment:
        """Another environment, with the variables."""
        return environment if self._known is None else environment.with_variables(self._known)

    def validate(self, variables: Sequence[Obj]) -> Iterator[FieldError]:
        known: dict[str, Type] = {}
        if variables:
            self._known = known
            self.environment = self.environment.with_variables(known)
        for index, variable in enumerate(variables):
            path = f"spec.variables[{index}]"
            name, expression = variable.get("name") or "", variable.get("expression") or ""
            if not name.strip():
                yield required(f"{path}.name", "name is not specified")
            elif not is_identifier(name):
                yield invalid_value(f"{path}.name", name, "must be a valid CEL identifier")
            if not expression.strip():
                yield required(f"{path}.expression", "expression is not specified")
                continue
            try:
                known[name] = compiled(self.environment, expression).type
            except ExpressionError as error:
                yield invalid_value(f"{path}.expression", expression, str(error))
                continue
            self.environment = self.environment.with_variables(known)


class PolicyStrategy(Strategy):
    """What every policy has, whatever its expressions are for: that is said by `validate_actions`."""

    has_generation = True
    finalizers_have_domains = False
    allow_unconditional_update = False
    # Whether its expressions make patches.
    mutating: ClassVar[bool] = False

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("failurePolicy") is None:
            spec["failurePolicy"] = "Fail"
        default_match_resources(spec.get("matchConstraints"))

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        if old is not None and old.get("spec") == spec:
            # What was accepted stays acceptable, and is not compiled once more for a label.
            return
        params = spec.get("paramKind") is not None
        yield from validate_failure_policy(spec)
        yield from validate_param_kind(spec.get("paramKind"))
        yield from validate_constraints(spec, mutating=self.mutating)
        yield from validate_match_conditions(spec.get("matchConditions") or (), "spec.matchConditions", params=params)
        # Patches are made by mutations alone, not by variables.
        variables = Variables(environment(params=params))
        yield from variables.validate(spec.get("variables") or ())
        yield from self.validate_actions(obj, variables)

    def validate_actions(self, obj: Obj, variables: Variables) -> Iterator[FieldError]:
        """Everything behind the variables."""
        raise NotImplementedError


def validate_binding(spec: Obj, *, mutating: bool = False) -> Iterator[FieldError]:
    name = spec.get("policyName") or ""
    if not name:
        yield required("spec.policyName")
    for problem in dns_subdomain_problems(name) if name else ():
        yield invalid_value("spec.policyName", name, problem)
    yield from _validate_param_ref(spec.get("paramRef"))
    match = spec.get("matchResources")
    yield from validate_match_resources(match, "spec.matchResources")
    if mutating and match is not None:
        yield from _validate_mutable(match, "spec.matchResources")


def _validate_param_ref(ref: Obj | None) -> Iterator[FieldError]:
    if ref is None:
        return
    path, name, selector = "spec.paramRef", ref.get("name") or "", ref.get("selector")
    exclusive = "name and selector are mutually exclusive"
    if name:
        for problem in path_segment_problems(name):
            yield invalid_value(f"{path}.name", name, problem)
        if selector is not None:
            yield forbidden_field(f"{path}.name", exclusive)
    if selector is not None:
        yield from validate_label_selector(selector, f"{path}.selector")
        if name:
            yield forbidden_field(f"{path}.selector", exclusive)
    if not name and selector is None:
        yield required(path, "one of name or selector must be specified")
    action = ref.get("parameterNotFoundAction")
    if not action:
        yield required(f"{path}.parameterNotFoundAction")
    elif action not in _NOT_FOUND_ACTIONS:
        yield not_supported(f"{path}.parameterNotFoundAction", action, ("Deny", "Allow"))


# Columns


def _param_kind(obj: Obj, now: datetime) -> str:
    kind = obj["spec"].get("paramKind")
    return f"{kind.get('apiVersion')}/{kind.get('kind')}" if kind else _UNSET


def _param_ref(obj: Obj, now: datetime) -> str:
    ref = obj["spec"].get("paramRef") or {}
    if ref.get("name"):
        return f"{ref.get('namespace') or '*'}/{ref['name']}"
    return go_label_selector(ref["selector"]) if ref.get("selector") is not None else _UNSET


PARAM_KIND: Final = Column("ParamKind", _param_kind, description="The kind of the objects that parametrize the policy.")
POLICY_NAME: Final = Column("PolicyName", ".spec.policyName", description="The policy that is bound.")
PARAM_REF: Final = Column("ParamRef", _param_ref, description="The objects that the policy is given.")
