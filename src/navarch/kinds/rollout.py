"""What workload kinds share: their warnings, and checks of selector, template, counts, percentages and status.

In: parts of an object that has passed its type check, with their dotted path.  Out: `FieldError`s with Kubernetes'
words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj, get_path, is_new_generation
from navarch.api.selectors import label_selector_of
from navarch.api.validation import validate_label_selector, validate_non_negative
from navarch.kinds.base import Strategy
from navarch.kinds.core.pod_prepare import GATES, prepare_template
from navarch.kinds.core.pod_validation import validate_pod_template_spec
from navarch.kinds.core.pod_warnings import name_warnings, pod_warnings
from navarch.numbers import saturated


class WorkloadStrategy(Strategy):
    """What kinds with a pod template have in common."""

    has_generation = True
    gates = GATES
    # Where the pod template stands.
    template_path: ClassVar[str] = "spec.template"

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        *parents, _ = self.template_path.split(".")
        at = ".".join(parents)
        prepare_template(get_path(obj, at) or {}, get_path(old, at), self.on)

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        if old is None:
            yield from name_warnings(obj)
        template = get_path(obj, self.template_path)
        if template and (old is None or self.warns_again(obj, old)):
            yield from pod_warnings(template, self.template_path)

    def warns_again(self, obj: Obj, old: Obj) -> bool:
        """Whether a change is one after which the template is warned of: any that counts as a generation."""
        return is_new_generation(obj, old)


_match_percent: Final = re.compile(r"[0-9]+%").fullmatch
MISMATCH: Final = "`selector` does not match template `labels`"


def validate_selector(spec: Obj, workload: str, path: str = "spec") -> Iterator[FieldError]:
    """The selector is there, is well formed and does not select everything."""
    selector = spec.get("selector")
    if selector is None:
        yield required(f"{path}.selector")
        return
    yield from validate_label_selector(selector, f"{path}.selector")
    if is_empty_selector(selector):
        yield invalid_value(f"{path}.selector", selector, f"empty selector is invalid for {workload}")


def is_empty_selector(selector: Obj) -> bool:
    return not selector.get("matchLabels") and not selector.get("matchExpressions")


def validate_template(spec: Obj, workload: str, *, mistaken_selector: str = "") -> Iterator[FieldError]:
    """The pod template is valid, matches the selector, and is one of pods that always run; `mistaken_selector` is said
    of a selector that selects nothing because it is malformed: then nothing is said of the template's labels."""
    template = spec.get("template") or {}
    at = "spec.template"
    selector = spec.get("selector")
    if is_malformed(selector):
        yield invalid_value("spec.selector", selector, mistaken_selector)
    else:
        if selector is None or not is_empty_selector(selector):
            yield from validate_template_labels(spec)
        yield from validate_pod_template_spec(template, at)
    yield from validate_always_runs(template, workload, at)


def validate_always_runs(template: Obj, workload: str, at: str = "spec.template") -> Iterator[FieldError]:
    pod_spec = template.get("spec") or {}
    if (policy := pod_spec.get("restartPolicy", "Always")) != "Always":
        yield not_supported(f"{at}.spec.restartPolicy", policy, ["Always"])
    if pod_spec.get("activeDeadlineSeconds") is not None:
        yield forbidden_field(
            f"{at}.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {workload} is not Supported"
        )


def is_malformed(selector: Obj | None) -> bool:
    """Whether no selector can be made of it."""
    return selector is not None and next(validate_label_selector(selector, ""), None) is not None


def validate_template_labels(spec: Obj, path: str = "spec") -> Iterator[FieldError]:
    """The selector, if it is well formed, selects the template's labels; none selects nothing."""
    selector = spec.get("selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if is_malformed(selector):
        return
    if selector is None or not label_selector_of(selector).matches(labels or {}):
        yield invalid_value(f"{path}.template.metadata.labels", labels or None, MISMATCH)


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


_GCE_DETAIL: Final = (
    "must be read-only for replicated pods > 1; GCE PD can only be mounted on multiple machines if it is read-only"
)


def validate_read_only_disks(spec: Obj, old: Obj | None) -> Iterator[FieldError]:
    """A disk that only one machine can write to is not one of several pods; what is stored stays."""
    volumes = _volumes(spec)
    if not volumes:
        return
    kept = [volume for volume in _volumes(old or {}) if _is_written_disk(volume)]
    for index, volume in enumerate(volumes):
        if _is_written_disk(volume) and volume not in kept:
            at = f"spec.template.spec.volumes[{index}].gcePersistentDisk.readOnly"
            yield invalid_value(at, False, _GCE_DETAIL)


def _volumes(spec: Obj) -> Sequence[Obj]:
    return ((spec.get("template") or {}).get("spec") or {}).get("volumes") or ()


def _is_written_disk(volume: Obj) -> bool:
    disk = volume.get("gcePersistentDisk")
    return disk is not None and not disk.get("readOnly")
