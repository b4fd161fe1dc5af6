"""Pod validation, scheduling: node selectors, affinity, tolerations, topology spread, gates.

In: the parts of a pod's spec that the scheduler reads.  Out: field errors in Kubernetes' words. Node selector terms are
validated here for persistent volumes too.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Final

from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import (
    dns_subdomain_problems,
    label_value_problems,
    validate_dns_label,
    validate_label_selector,
    validate_qualified_name,
)

_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NO_KEY: Final = "can not be empty"
_NO_SELECTOR: Final = "must not be specified when labelSelector is not set"
_WEIGHT: Final = "must be in the range 1-100"


def validate_affinity(affinity: Obj, path: str) -> Iterator[FieldError]:
    node = affinity.get("nodeAffinity")
    if node:
        at = f"{path}.nodeAffinity"
        hard = node.get("requiredDuringSchedulingIgnoredDuringExecution")
        if hard is not None:
            yield from validate_node_selector(hard, f"{at}.requiredDuringSchedulingIgnoredDuringExecution")
        for index, term in enumerate(node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            here = f"{at}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            yield from _validate_weight(term, here)
            # A label that no node can have is a preference that costs nothing.
            preference = term.get("preference") or {}
            yield from validate_node_selector_term(preference, f"{here}.preference", any_values=True)
    for name in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(name)
        if not rules:
            continue
        hard_at = f"{path}.{name}.requiredDuringSchedulingIgnoredDuringExecution"
        for index, term in enumerate(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            yield from _validate_pod_term(term, f"{hard_at}[{index}]")
        soft_at = f"{path}.{name}.preferredDuringSchedulingIgnoredDuringExecution"
        for index, term in enumerate(rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            yield from _validate_weight(term, f"{soft_at}[{index}]")
            yield from _validate_pod_term(term.get("podAffinityTerm") or {}, f"{soft_at}[{index}].podAffinityTerm")


def _validate_weight(term: Obj, path: str) -> Iterator[FieldError]:
    weight = term.get("weight", 0)
    if not 1 <= weight <= 100:
        yield invalid_value(f"{path}.weight", weight, _WEIGHT)


def validate_node_selector(selector: Obj, path: str) -> Iterator[FieldError]:
    """A `v1.NodeSelector`."""
    terms = selector.get("nodeSelectorTerms") or ()
    if not terms:
        yield required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")
    for index, term in enumerate(terms):
        yield from validate_node_selector_term(term, f"{path}.nodeSelectorTerms[{index}]")


def validate_node_selector_term(term: Obj, path: str, *, any_values: bool = False) -> Iterator[FieldError]:
    """One alternative of a node selector."""
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        yield from _validate_expression(requirement, at)
        if not any_values:
            for number, value in enumerate(requirement.get("values") or ()):
                for problem in label_value_problems(value):
                    yield invalid_value(f"{at}.values[{number}]", value, problem)
    for index, requirement in enumerate(term.get("matchFields") or ()):
        yield from _validate_match_field(requirement, f"{path}.matchFields[{index}]")


def _validate_expression(requirement: Obj, path: str) -> Iterator[FieldError]:
    operator, values = requirement.get("operator") or "", requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            yield required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            yield forbidden_field(f"{path}.values", detail)
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            yield required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
    else:
        yield invalid_value(f"{path}.operator", operator, "not a valid selector operator")
    yield from validate_qualified_name(requirement.get("key") or "", f"{path}.key")


def _validate_match_field(requirement: Obj, path: str) -> Iterator[FieldError]:
    operator, values = requirement.get("operator") or "", requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if len(values) != 1:
            detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            yield required(f"{path}.values", detail)
    else:
        yield invalid_value(f"{path}.operator", operator, "not a valid selector operator")
    key = requirement.get("key") or ""
    if key != "metadata.name":
        yield invalid_value(f"{path}.key", key, "not a valid field selector key")
        return
    for number, value in enumerate(values):
        for problem in dns_subdomain_problems(value):
            yield invalid_value(f"{path}.values[{number}]", value, problem)


def _validate_pod_term(term: Obj, path: str) -> Iterator[FieldError]:
    yield from validate_label_selector(term.get("labelSelector"), f"{path}.labelSelector")
    yield from validate_label_selector(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for namespace in term.get("namespaces") or ():
        yield from validate_dns_label(namespace, f"{path}.namespace")
    yield from _validate_label_keys(term, path)
    key = term.get("topologyKey") or ""
    if not key:
        yield required(f"{path}.topologyKey", _NO_KEY)
    yield from validate_qualified_name(key, f"{path}.topologyKey")


def _validate_label_keys(term: Obj, path: str) -> Iterator[FieldError]:
    """`matchLabelKeys` and `mismatchLabelKeys`: keys of labels, beside a selector that does not speak of them."""
    matching, other = term.get("matchLabelKeys") or (), term.get("mismatchLabelKeys") or ()
    if not matching and not other:
        return
    selector = term.get("labelSelector")
    for field, keys in (("matchLabelKeys", matching), ("mismatchLabelKeys", other)):
        if keys and selector is None:
            yield forbidden_field(f"{path}.{field}", _NO_SELECTOR)
        elif keys:
            for number, key in enumerate(keys):
                yield from validate_qualified_name(key, f"{path}.{field}[{number}]")
    for key in _said_twice(selector or {}, matching):
        at = f"{path}[{list(matching).index(key)}]"
        yield invalid_value(at, key, "exists in both matchLabelKeys and labelSelector")
    for number, key in enumerate(matching):
        if key in other:
            detail = "exists in both matchLabelKeys and mismatchLabelKeys"
            yield invalid_value(f"{path}.matchLabelKeys[{number}]", key, detail)


def validate_tolerations(tolerations: Iterable[Obj], path: str) -> Iterator[FieldError]:
    for index, toleration in enumerate(tolerations):
        at = f"{path}[{index}]"
        key, operator = toleration.get("key") or "", toleration.get("operator") or ""
        effect, value = toleration.get("effect") or "", toleration.get("value") or ""
        if key:
            yield from validate_qualified_name(key, f"{at}.key")
        elif operator != "Exists":
            detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            yield invalid_value(f"{at}.operator", operator, detail)
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            yield invalid_value(f"{at}.effect", effect, detail)
        if operator in ("", "Equal"):
            if problems := label_value_problems(value):
                yield invalid_value(f"{at}.operator", value, ";".join(problems))
        elif operator == "Exists":
            if value:
                yield invalid_value(f"{at}.operator", value, "value must be empty when `operator` is 'Exists'")
        else:
            # Comparisons are known, but not switched on.
            known = ("Equal", "Exists", "Lt", "Gt") if operator in ("Lt", "Gt") else ("Equal", "Exists")
            yield not_supported(f"{at}.operator", operator, known)
        if effect and effect not in _EFFECTS:
            yield not_supported(f"{at}.effect", effect, _EFFECTS)


def validate_spread(constraints: Iterable[Obj], path: str) -> Iterator[FieldError]:
    constraints = list(constraints)
    pairs = [(each.get("topologyKey") or "", each.get("whenUnsatisfiable") or "") for each in constraints]
    for index, constraint in enumerate(constraints):
        at = f"{path}[{index}]"
        skew, key = constraint.get("maxSkew", 0), constraint.get("topologyKey") or ""
        action = constraint.get("whenUnsatisfiable") or ""
        if skew <= 0:
            yield invalid_value(f"{at}.maxSkew", skew, "must be greater than zero")
        if not key:
            yield required(f"{at}.topologyKey", _NO_KEY)
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            yield not_supported(f"{at}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway"))
        # Told of the first of two, as Kubernetes does.
        if (key, action) in pairs[index + 1 :]:
            yield duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}")
        yield from _validate_min_domains(constraint, at, action)
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            policy = constraint.get(field)
            if policy is not None and policy not in ("Honor", "Ignore"):
                yield not_supported(f"{at}.{field}", policy, ("Honor", "Ignore"))
        yield from _validate_label_keys(constraint, at)
        yield from validate_label_selector(constraint.get("labelSelector"), f"{at}.labelSelector")


def _said_twice(selector: Obj, keys: Container[str]) -> Iterator[str]:
    """Keys of which the selector speaks itself. The server has put the pod's own value of each into the selector: once
    is as it should be."""
    said = set(selector.get("matchLabels") or ())
    for expression in selector.get("matchExpressions") or ():
        key = expression.get("key") or ""
        if key in said and key in keys:
            yield key
        said.add(key)


def _validate_min_domains(constraint: Obj, path: str, action: str) -> Iterator[FieldError]:
    minimum = constraint.get("minDomains")
    if minimum is None:
        return
    if minimum <= 0:
        yield invalid_value(f"{path}.minDomains", minimum, "must be greater than zero")
    if action != "DoNotSchedule":
        detail = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
        yield invalid_value(f"{path}.minDomains", minimum, detail)


def validate_gates(gates: Iterable[Obj], path: str) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, gate in enumerate(gates):
        name = gate.get("name") or ""
        yield from validate_qualified_name(name, f"{path}[{index}]")
        if name in seen:
            yield duplicate(f"{path}[{index}]", name)
        seen.add(name)
