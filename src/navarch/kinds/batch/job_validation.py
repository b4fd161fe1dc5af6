"""What is wrong with a Job's spec, also inside a CronJob; its update and its status are in `job_changes`.

In: a spec with its defaults.  Out: `FieldError`s in Kubernetes' order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from navarch.api.errors import (
    FieldError,
    duplicate,
    invalid_value,
    invalid_whole,
    not_supported,
    required,
    too_long,
    too_many,
)
from navarch.api.meta import Obj
from navarch.api.selectors import label_selector_of
from navarch.api.validation import (
    dns_label_problems,
    qualified_name_problems,
    validate_domain_prefixed_path,
    validate_label_selector,
)
from navarch.kinds.batch.indexes import interval_problem_and_count
from navarch.kinds.core.pod_validation import validate_pod_template_spec
from navarch.kinds.counts import validate_counts
from navarch.kinds.internal import internal
from navarch.kinds.rollout import is_malformed, validate_template_labels

_COUNTS: Final = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_MAX_PARALLEL_INDEXED: Final = 100_000
_MAX_FAILED_INDEXES: Final = 100_000
# Above so many completions a limit per index is only for Jobs that stay below the next two.
_MANY_COMPLETIONS: Final = 100_000
_PARALLEL_OF_MANY: Final = 10_000
_FAILED_OF_MANY: Final = 10_000
_MAX_RULES: Final = 20
_MAX_CODES: Final = 255
_MAX_INDEXES_TEXT: Final = 64 * 1024
_MAX_MANAGER: Final = 63
_ACTIONS: Final = ("Count", "FailIndex", "FailJob", "Ignore")


def validate_job_spec(spec: Obj, path: str, *, selector_required: bool) -> Iterator[FieldError]:
    """A Job's spec at `path`; a CronJob's template has no selector yet."""
    yield from validate_counts(spec, _COUNTS, path)
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        yield required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if (managed_by := spec.get("managedBy")) is not None:
        yield from validate_domain_prefixed_path(managed_by, f"{path}.managedBy")
        if len(managed_by) > _MAX_MANAGER:
            yield too_long(f"{path}.managedBy", _MAX_MANAGER)
    yield from _validate_completion_mode(spec, path)
    if spec.get("podFailurePolicy") is not None:
        yield from _validate_failure_policy(spec, path)
    if spec.get("successPolicy") is not None:
        yield from _validate_success_policy(spec, path)
    yield from _validate_replacement_policy(spec, path)
    yield from validate_pod_template_spec(spec.get("template") or {}, f"{path}.template")
    yield from _validate_restart_policy(spec, f"{path}.template.spec.restartPolicy")
    if selector_required:
        if spec.get("selector") is None:
            yield required(f"{path}.selector")
        else:
            yield from validate_label_selector(spec["selector"], f"{path}.selector")
        yield from validate_template_labels(spec, path)


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
    if mode == "Indexed":
        yield from _validate_indexed(spec, path)
    elif mode != "NonIndexed":
        yield not_supported(f"{path}.completionMode", mode, ["NonIndexed", "Indexed"])
    else:
        for name in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if (value := spec.get(name)) is not None:
                yield invalid_value(f"{path}.{name}", value, "requires indexed completion mode")


def _validate_indexed(spec: Obj, path: str) -> Iterator[FieldError]:
    completions, parallelism, most = spec.get("completions"), spec.get("parallelism") or 0, spec.get("maxFailedIndexes")
    if completions is None:
        yield required(f"{path}.completions", "when completion mode is Indexed")
    if parallelism > _MAX_PARALLEL_INDEXED:
        detail = f"must be less than or equal to {_MAX_PARALLEL_INDEXED} when completion mode is Indexed"
        yield invalid_value(f"{path}.parallelism", parallelism, detail)
    if completions is not None and most is not None and most > completions:
        yield invalid_value(f"{path}.maxFailedIndexes", most, "must be less than or equal to completions")
    if most is not None and most > _MAX_FAILED_INDEXES:
        yield invalid_value(f"{path}.maxFailedIndexes", most, f"must be less than or equal to {_MAX_FAILED_INDEXES}")
    if (completions or 0) > _MANY_COMPLETIONS and spec.get("backoffLimitPerIndex") is not None:
        why = f"when completions are above {_MANY_COMPLETIONS} and used with backoff limit per index"
        if most is None:
            detail = f"must be specified when completions is above {_MANY_COMPLETIONS}"
            yield required(f"{path}.maxFailedIndexes", detail)
        if parallelism > _PARALLEL_OF_MANY:
            detail = f"must be less than or equal to {_PARALLEL_OF_MANY} {why}"
            yield invalid_value(f"{path}.parallelism", parallelism, detail)
        if most is not None and most > _FAILED_OF_MANY:
            yield invalid_value(
                f"{path}.maxFailedIndexes", most, f"must be less than or equal to {_FAILED_OF_MANY} {why}"
            )


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
        yield from _validate_rule(spec, rule, f"{at}[{index}]", names)


def _validate_rule(spec: Obj, rule: Obj, where: str, containers: set[Any]) -> Iterator[FieldError]:
    action = rule.get("action", "")
    if not action:
        yield required(f"{where}.action", f"valid values: {_listed(_ACTIONS)}")
    elif action not in _ACTIONS:
        yield not_supported(f"{where}.action", action, _ACTIONS)
    elif action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
        yield invalid_value(f"{where}.action", action, "requires the backoffLimitPerIndex to be set")
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or []
    if codes is not None:
        yield from _validate_exit_codes(codes, f"{where}.onExitCodes", containers)
    if conditions:
        yield from _validate_patterns(conditions, f"{where}.onPodConditions")
    if codes is not None and conditions:
        yield invalid_whole(where, "specifying both OnExitCodes and OnPodConditions is not supported")
    if codes is None and not conditions:
        yield invalid_whole(where, "specifying one of OnExitCodes and OnPodConditions is required")


def _listed(values: tuple[str, ...]) -> str:
    return "[" + " ".join(f'"{value}"' for value in values) + "]"


def _validate_patterns(patterns: list[Obj], path: str) -> Iterator[FieldError]:
    if len(patterns) > _MAX_RULES:
        yield too_many(path, len(patterns), _MAX_RULES)
    statuses = ("False", "True", "Unknown")
    for index, pattern in enumerate(patterns):
        for problem in qualified_name_problems(pattern.get("type", "")):
            yield invalid_value(f"{path}[{index}].type", pattern.get("type", ""), problem)
        if not (status := pattern.get("status", "")):
            yield required(f"{path}[{index}].status", f"valid values: {_listed(statuses)}")
        elif status not in statuses:
            yield not_supported(f"{path}[{index}].status", status, statuses)


def _validate_exit_codes(codes: Obj, path: str, containers: set[Any]) -> Iterator[FieldError]:
    operator, values = codes.get("operator", ""), codes.get("values") or []
    if not operator:
        yield required(f"{path}.operator", f"valid values: {_listed(('In', 'NotIn'))}")
    elif operator not in ("In", "NotIn"):
        yield not_supported(f"{path}.operator", operator, ["In", "NotIn"])
    name = codes.get("containerName")
    if name is not None and name not in containers:
        detail = "must be one of the container or initContainer names in the pod template"
        yield invalid_value(f"{path}.containerName", name, detail)
    if not values:
        yield invalid_value(f"{path}.values", values, "at least one value is required")
    elif len(values) > _MAX_CODES:
        yield too_many(f"{path}.values", len(values), _MAX_CODES)
    seen: set[Any] = set()
    for index, value in enumerate(values):
        if operator == "In" and value == 0:
            yield invalid_value(f"{path}.values[{index}]", value, "must not be 0 for the In operator")
        if value in seen:
            yield duplicate(f"{path}.values[{index}]", value)
        seen.add(value)
    if values != sorted(values):
        yield invalid_value(f"{path}.values", values, "must be ordered")


def _validate_success_policy(spec: Obj, path: str) -> Iterator[FieldError]:
    policy, at = spec["successPolicy"], f"{path}.successPolicy"
    if spec.get("completionMode") != "Indexed":
        yield invalid_value(at, internal(policy, "SuccessPolicy"), "requires indexed completion mode")
        return
    rules = policy.get("rules") or []
    if not rules:
        yield required(f"{at}.rules", "at least one rules must be specified when the successPolicy is specified")
    elif len(rules) > _MAX_RULES:
        yield too_many(f"{at}.rules", len(rules), _MAX_RULES)
    completions = spec.get("completions") or 0
    for index, rule in enumerate(rules):
        yield from _validate_success_rule(rule, f"{at}.rules[{index}]", completions)


def _validate_success_rule(rule: Obj, path: str, completions: int) -> Iterator[FieldError]:
    wanted, indexes, total = rule.get("succeededCount"), rule.get("succeededIndexes"), 0
    if wanted is None and indexes is None:
        yield required(path, "at least one of succeededCount or succeededIndexes must be specified")
    if indexes is not None:
        if len(indexes) > _MAX_INDEXES_TEXT:
            yield too_long(f"{path}.succeededIndexes", _MAX_INDEXES_TEXT)
        problem, total = interval_problem_and_count(indexes, completions)
        if problem:
            yield invalid_value(f"{path}.succeededIndexes", indexes, f"error parsing succeededIndexes: {problem}")
    if wanted is None:
        return
    yield from validate_counts(rule, ("succeededCount",), path)
    bounds = [(completions, "specified completions")]
    if indexes is not None:
        bounds.append((total, "indexes in the specified succeededIndexes field"))
    for bound, what in bounds:
        if wanted > bound:
            detail = f"must be less than or equal to {bound} (the number of {what})"
            yield invalid_value(f"{path}.succeededCount", wanted, detail)


def validate_pod_names(obj: Obj) -> Iterator[FieldError]:
    """The pods of an Indexed Job are named by its name and their index, and so are their hosts."""
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name") or ""
    completions = spec.get("completions") or 0
    if spec.get("completionMode") != "Indexed" or completions <= 0:
        return
    longest = f"{name}-{completions - 1}"
    if dns_label_problems(longest):
        yield invalid_value("metadata.name", name, f"will not able to create pod with invalid DNS label: {longest}")


def validate_generated_selector(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    """Without `manualSelector`, the labels and the selector must be those that the server generates; a Job that came
    before the labels had prefixes goes on without these."""
    spec, metadata = obj.get("spec") or {}, obj["metadata"]
    if spec.get("manualSelector") or spec.get("selector") is None:
        return
    labels, uid, name = _pod_labels(obj), metadata.get("uid", ""), metadata.get("name", "")
    expected = {"controller-uid": uid, "job-name": name}
    prefixed = {f"batch.kubernetes.io/{key}": value for key, value in expected.items()}
    if old is None or prefixed.keys() <= _pod_labels(old).keys():
        expected |= prefixed
    for key, value in expected.items():
        at = f"spec.template.metadata.labels[{key}]"
        if key not in labels:
            yield required(at, f"must be '{value}'")
        elif labels[key] != value:
            yield invalid_value(at, dict(sorted(labels.items())), f"must be '{value}'")
    selector = spec["selector"]
    if not is_malformed(selector) and not label_selector_of(selector).matches(expected):
        yield invalid_value("spec.selector", selector, "`selector` not auto-generated")


def _pod_labels(job: Obj) -> Obj:
    return ((job["spec"].get("template") or {}).get("metadata") or {}).get("labels") or {}
