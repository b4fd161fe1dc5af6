"""What is wrong with a Job: its spec (also inside a CronJob), its update, its status.

Invariant worth knowing: a Job's template may change only while the Job is suspended and has not started, and then only
in what says where its pods may run.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

from navarch.api.errors import (
    FieldError,
    duplicate,
    immutable,
    invalid_value,
    not_supported,
    required,
    too_many,
)
from navarch.api.meta import Obj
from navarch.api.validation import (
    qualified_name_problems,
    validate_immutable,
    validate_label_selector,
)
from navarch.kinds.core.pod_validation import validate_pod_template_spec
from navarch.kinds.rollout import validate_counts, validate_template_labels

_COUNTS: Final = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_STATUS_COUNTS: Final = ("active", "succeeded", "failed", "ready", "terminating")
_MAX_PARALLEL_INDEXED: Final = 100_000
_MAX_RULES: Final = 20
_ACTIONS: Final = ("Count", "FailIndex", "FailJob", "Ignore")


def validate_job_spec(spec: Obj, path: str, *, selector_required: bool) -> Iterator[FieldError]:
    """A Job's spec at `path`; a CronJob's template has no selector yet."""
    yield from validate_counts(spec, _COUNTS, path)
    yield from _validate_completion_mode(spec, path)
    yield from _validate_per_index(spec, path)
    if managed_by := spec.get("managedBy"):
        for problem in qualified_name_problems(managed_by):
            yield invalid_value(f"{path}.managedBy", managed_by, problem)
        if "/" not in managed_by:
            yield invalid_value(
                f"{path}.managedBy", managed_by, 'must be a domain-prefixed path (such as "acme.io/foo")'
            )
    if spec.get("podFailurePolicy") is not None:
        yield from _validate_failure_policy(spec, path)
    if spec.get("successPolicy") is not None:
        yield from _validate_success_policy(spec, path)
    yield from _validate_replacement_policy(spec, path)
    if selector_required:
        if spec.get("selector") is None:
            yield required(f"{path}.selector")
        else:
            yield from validate_label_selector(spec["selector"], f"{path}.selector")
            yield from validate_template_labels(spec, path)
    yield from validate_pod_template_spec(spec.get("template") or {}, f"{path}.template")
    yield from _validate_restart_policy(spec, f"{path}.template.spec.restartPolicy")


def _validate_restart_policy(spec: Obj, path: str) -> Iterator[FieldError]:
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy", "Always")
    if policy == "Always":
        # The default of every other pod; here the author has to choose.
        yield required(path, 'valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        yield not_supported(path, policy, ["OnFailure", "Never"])
    elif policy != "Never" and spec.get("podFailurePolicy") is not None:
        yield invalid_value(path, policy, 'only "Never" is supported when podFailurePolicy is specified')


def _validate_completion_mode(spec: Obj, path: str) -> Iterator[FieldError]:
    mode = spec.get("completionMode", "NonIndexed")
    if mode not in ("NonIndexed", "Indexed"):
        yield not_supported(f"{path}.completionMode", mode, ["NonIndexed", "Indexed"])
    elif mode == "Indexed":
        if spec.get("completions") is None:
            yield required(f"{path}.completions", "when completion mode is Indexed")
        if (parallelism := spec.get("parallelism") or 0) > _MAX_PARALLEL_INDEXED:
            detail = f"must be less than or equal to {_MAX_PARALLEL_INDEXED} when completion mode is Indexed"
            yield invalid_value(f"{path}.parallelism", parallelism, detail)


def _validate_per_index(spec: Obj, path: str) -> Iterator[FieldError]:
    per_index, most = spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes")
    if per_index is not None and spec.get("completionMode") != "Indexed":
        yield invalid_value(f"{path}.backoffLimitPerIndex", per_index, "requires indexed completion mode")
    if most is None:
        return
    if per_index is None:
        yield required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if (completions := spec.get("completions")) is not None and most > completions:
        yield invalid_value(f"{path}.maxFailedIndexes", most, "must be less than or equal to completions")


def _validate_replacement_policy(spec: Obj, path: str) -> Iterator[FieldError]:
    policy = spec.get("podReplacementPolicy")
    if policy is None:
        return
    supported = ["Failed"] if spec.get("podFailurePolicy") is not None else ["Failed", "TerminatingOrFailed"]
    if policy not in supported:
        yield not_supported(f"{path}.podReplacementPolicy", policy, supported)


def _validate_failure_policy(spec: Obj, path: str) -> Iterator[FieldError]:
    rules, at = spec["podFailurePolicy"].get("rules") or [], f"{path}.podFailurePolicy.rules"
    if len(rules) > _MAX_RULES:
        yield too_many(at, len(rules), _MAX_RULES)
    pod_spec = (spec.get("template") or {}).get("spec") or {}
    names = {c.get("name") for field in ("containers", "initContainers") for c in pod_spec.get(field) or ()}
    for index, rule in enumerate(rules):
        where = f"{at}[{index}]"
        action = rule.get("action", "")
        if not action:
            yield required(f"{where}.action", "valid values: " + ", ".join(f'"{name}"' for name in _ACTIONS))
        elif action not in _ACTIONS:
            yield not_supported(f"{where}.action", action, _ACTIONS)
        elif action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            yield invalid_value(f"{where}.action", action, "requires the backoffLimitPerIndex to be set")
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or []
        if codes is not None and conditions:
            yield invalid_value(where, "", "specifying both OnExitCodes and OnPodConditions is not supported")
        elif codes is not None:
            yield from _validate_exit_codes(codes, f"{where}.onExitCodes", names)
        elif not conditions:
            yield invalid_value(where, "", "specifying one of OnExitCodes and OnPodConditions is required")
        for number, pattern in enumerate(conditions):
            at_pattern = f"{where}.onPodConditions[{number}]"
            for problem in qualified_name_problems(pattern.get("type", "")):
                yield invalid_value(f"{at_pattern}.type", pattern.get("type", ""), problem)
            if pattern.get("status") not in ("True", "False", "Unknown"):
                yield not_supported(f"{at_pattern}.status", pattern.get("status"), ["True", "False", "Unknown"])


def _validate_exit_codes(codes: Obj, path: str, containers: set[Any]) -> Iterator[FieldError]:
    operator, values = codes.get("operator", ""), codes.get("values") or []
    if operator not in ("In", "NotIn"):
        if operator:
            yield not_supported(f"{path}.operator", operator, ["In", "NotIn"])
        else:
            yield required(f"{path}.operator", 'valid values: "In", "NotIn"')
    name = codes.get("containerName")
    if name is not None and name not in containers:
        detail = "must be one of the container or initContainer names in the pod template"
        yield invalid_value(f"{path}.containerName", name, detail)
    if not values:
        yield invalid_value(f"{path}.values", values, "at least one value is required")
    elif len(values) > 255:
        yield too_many(f"{path}.values", len(values), 255)
    for index, value in enumerate(values):
        if operator == "In" and value == 0:
            yield invalid_value(f"{path}.values[{index}]", value, "must not be 0 for the In operator")
        if value in values[:index]:
            yield duplicate(f"{path}.values[{index}]", value)
        elif index and value < values[index - 1]:
            yield invalid_value(f"{path}.values", values, "must be ordered")


def _validate_success_policy(spec: Obj, path: str) -> Iterator[FieldError]:
    rules, at = spec["successPolicy"].get("rules") or [], f"{path}.successPolicy.rules"
    if spec.get("completionMode") != "Indexed":
        yield invalid_value(f"{path}.successPolicy", spec["successPolicy"], "requires indexed completion mode")
    if not rules:
        yield required(at, "at least one rules must be specified when the successPolicy is specified")
    elif len(rules) > _MAX_RULES:
        yield too_many(at, len(rules), _MAX_RULES)
    completions = spec.get("completions") or 0
    for index, rule in enumerate(rules):
        wanted, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
        if wanted is None and indexes is None:
            yield required(f"{at}[{index}]", "at least one of succeededCount or succeededIndexes must be specified")
        if wanted is not None and not 0 < wanted <= completions:
            bound = "must be greater than 0" if wanted <= 0 else f"must be less than or equal to {completions}"
            yield invalid_value(
                f"{at}[{index}].succeededCount",
                wanted,
                f"{bound} (the number of specified completions)" if wanted > 0 else bound,
            )


def validate_generated_selector(obj: Obj) -> Iterator[FieldError]:
    """On create without `manualSelector`, the labels and the selector must be those that the server generates."""
    spec, metadata = obj.get("spec") or {}, obj["metadata"]
    if spec.get("manualSelector"):
        return
    if not spec.get("selector"):
        return
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    uid, name = metadata.get("uid", ""), metadata.get("name", "")
    for key, value in (
        ("batch.kubernetes.io/controller-uid", uid),
        ("controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
        ("job-name", name),
    ):
        if labels.get(key) != value:
            yield invalid_value("spec.template.metadata.labels", labels, f"must be '{value}'")
    match = spec["selector"].get("matchLabels") or {}
    if match != {"batch.kubernetes.io/controller-uid": uid} or spec["selector"].get("matchExpressions"):
        yield invalid_value("spec.selector", spec["selector"], "`selector` not auto-generated")


def validate_job_update(obj: Obj, old: Obj) -> Iterator[FieldError]:
    """What may not change once a Job is there."""
    spec, before = obj["spec"], old["spec"]
    yield from _validate_completions_update(spec, before)
    yield from validate_immutable(spec.get("selector"), before.get("selector"), "spec.selector")
    yield from _validate_template_update(spec, before, old)
    for name in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        yield from validate_immutable(spec.get(name), before.get(name), f"spec.{name}")


def _validate_completions_update(spec: Obj, before: Obj) -> Iterator[FieldError]:
    """Only an Indexed Job grows and shrinks, and then as a whole."""
    completions, path = spec.get("completions"), "spec.completions"
    if spec.get("completionMode") != "Indexed":
        yield from validate_immutable(completions, before.get("completions"), path)
    elif completions is None:
        yield required(path, "when completion mode is Indexed")
    elif completions != before.get("completions") and completions != spec.get("parallelism"):
        yield invalid_value(path, completions, "can only be modified in tandem with spec.parallelism")


def _validate_template_update(spec: Obj, before: Obj, old: Obj) -> Iterator[FieldError]:
    template, was = spec.get("template") or {}, before.get("template") or {}
    if template == was:
        return
    started = bool((old.get("status") or {}).get("startTime"))
    if before.get("suspend") and not started:
        if _without_placement(template) == _without_placement(was):
            return
    yield immutable("spec.template", template)


def _without_placement(template: Obj) -> Obj:
    """A template without what a suspended Job may still change: where its pods run, and what they are labelled."""
    rest = deepcopy(template)
    for name in ("labels", "annotations"):
        rest.get("metadata", {}).pop(name, None)
    pod_spec = rest.get("spec") or {}
    for name in ("nodeSelector", "tolerations", "schedulingGates"):
        pod_spec.pop(name, None)
    (pod_spec.get("affinity") or {}).pop("nodeAffinity", None)
    if not pod_spec.get("affinity"):
        pod_spec.pop("affinity", None)
    for field in ("containers", "initContainers"):
        for container in pod_spec.get(field) or ():
            container.pop("resources", None)
    return rest


def validate_job_status(obj: Obj, old: Obj) -> Iterator[FieldError]:
    status, before = obj.get("status") or {}, old.get("status") or {}
    yield from validate_counts(status, _STATUS_COUNTS, "status")
    true = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    if {"Complete", "Failed"} <= true:
        yield invalid_value("status.conditions", "", "cannot set Complete=True and Failed=true conditions")
    if status.get("completionTime") and "Complete" not in true and not before.get("completionTime"):
        yield invalid_value(
            "status.completionTime",
            status["completionTime"],
            "cannot set completionTime when there is no Complete=True condition",
        )
    was = {c.get("type") for c in before.get("conditions") or () if c.get("status") == "True"}
    for name in ("Complete", "Failed"):
        if name in was and name not in true:
            yield invalid_value("status.conditions", "", f"cannot disable the terminal {name}=True condition")
    uncounted = status.get("uncountedTerminatedPods")
    if uncounted and (true & {"Complete", "Failed"}) and any(uncounted.values()):
        yield invalid_value(
            "status.uncountedTerminatedPods", uncounted, "uncountedTerminatedPods needs to be empty for finished job"
        )
