"""What workload kinds share: their warnings, and checks of selector, template, counts, percentages and status.

In: parts of an object that has passed its type check, with their dotted path.  Out: `FieldError`s with Kubernetes'
words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

from navarch.api.errors import FieldError, StatusError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj, get_path
from navarch.api.selectors import label_selector_of
from navarch.api.validation import dns_label_problems, validate_label_selector, validate_non_negative
from navarch.kinds.base import Strategy
from navarch.kinds.core.pod_validation import validate_pod_template_spec
from navarch.kinds.core.pod_warnings import pod_spec_warnings
from navarch.numbers import saturated


class WorkloadStrategy(Strategy):
    """What kinds with a pod template have in common."""

    has_generation = True
    # Where the pod spec stands.
    pod_spec_path: ClassVar[str] = "spec.template.spec"

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        name = obj["metadata"].get("name") or ""
        if old is None and name and (problems := dns_label_problems(name)):
            yield (
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; "
                f"a DNS label is recommended: [{' '.join(problems)}]"
            )
        pod_spec = get_path(obj, self.pod_spec_path)
        if pod_spec and (old is None or get_path(old, self.pod_spec_path) != pod_spec):
            yield from pod_spec_warnings(pod_spec, self.pod_spec_path)


_match_percent: Final = re.compile(r"[0-9]+%").fullmatch
MISMATCH: Final = "`selector` does not match template `labels`"


def validate_counts(spec: Obj, names: Sequence[str], path: str = "spec") -> Iterator[FieldError]:
    """None of the named fields may be negative."""
    for name in names:
        if (value := spec.get(name)) is not None:
            yield from validate_non_negative(value, f"{path}.{name}")


def validate_selector(spec: Obj, workload: str, path: str = "spec") -> Iterator[FieldError]:
    """The selector is there, is well formed and does not select everything."""
    selector = spec.get("selector")
    if selector is None:
        yield required(f"{path}.selector")
        return
    yield from validate_label_selector(selector, f"{path}.selector")
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield invalid_value(f"{path}.selector", selector, f"empty selector is invalid for {workload}")


def validate_template(spec: Obj, workload: str, path: str = "spec") -> Iterator[FieldError]:
    """The pod template is valid, matches the selector, and is one of pods that always run."""
    template = spec.get("template") or {}
    at = f"{path}.template"
    yield from validate_template_labels(spec, path)
    yield from validate_pod_template_spec(template, at)
    pod_spec = template.get("spec") or {}
    if (policy := pod_spec.get("restartPolicy", "Always")) != "Always":
        yield not_supported(f"{at}.spec.restartPolicy", policy, ["Always"])
    if pod_spec.get("activeDeadlineSeconds") is not None:
        yield forbidden_field(
            f"{at}.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {workload} is not Supported"
        )


def validate_template_labels(spec: Obj, path: str = "spec") -> Iterator[FieldError]:
    selector = spec.get("selector")
    if not selector:
        return
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    try:
        matches = label_selector_of(selector).matches(labels)
    except (StatusError, ValueError):
        # The selector's own validation says what is wrong with it.
        return
    if not matches:
        yield invalid_value(f"{path}.template.metadata.labels", labels, MISMATCH)


def validate_int_or_percent(value: Any, path: str) -> Iterator[FieldError]:
    """A whole number, not negative, or a percentage."""
    if isinstance(value, str):
        if not _match_percent(value):
            yield invalid_value(
                path,
                value,
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
                "regex used for validation is '[0-9]+%')",
            )
    else:
        yield from validate_non_negative(value, path)


def validate_at_most_all(value: Any, path: str) -> Iterator[FieldError]:
    """A percentage of at most 100."""
    if isinstance(value, str) and _match_percent(value) and saturated(value[:-1]) > 100:
        yield invalid_value(path, value, "must not be greater than 100%")


def is_zero(value: Any) -> bool:
    """Whether a whole number or percentage is none at all."""
    return value == 0 or (isinstance(value, str) and bool(_match_percent(value)) and saturated(value[:-1]) == 0)


def validate_status_counts(
    status: Obj, names: Sequence[str], *, at_most: tuple[str, Sequence[str]] = ("", ())
) -> Iterator[FieldError]:
    """Counts in a status: not negative, and those in `at_most` not above the first; available never above ready."""
    yield from validate_counts(status, names, "status")
    total, parts = at_most
    for name in parts:
        if status.get(name, 0) > status.get(total, 0):
            yield invalid_value(f"status.{name}", status.get(name, 0), f"cannot be greater than status.{total}")
    if "readyReplicas" in names and status.get("availableReplicas", 0) > status.get("readyReplicas", 0):
        yield invalid_value(
            "status.availableReplicas", status.get("availableReplicas", 0), "cannot be greater than readyReplicas"
        )
