"""Pod: defaults, validation, what may change, how it is deleted, how it is shown.

The pieces are modules of their own, because workloads share them: `pod_defaults`, `pod_validation` (and its parts),
`pod_update`, `pod_warnings`, `pod_columns`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from navarch.api.errors import FieldError, forbidden_field
from navarch.api.meta import Obj, Resource
from navarch.api.validation import validate_dns_subdomain
from navarch.kinds.base import Strategy, Subresource
from navarch.kinds.core.pod_annotations import (
    take_annotated_profiles,
    validate_annotation_changes,
    validate_pod_annotations,
    validate_profiles_agree,
)
from navarch.kinds.core.pod_columns import POD_COLUMNS
from navarch.kinds.core.pod_defaults import default_pod
from navarch.kinds.core.pod_prepare import GATES, prepare_pod_spec
from navarch.kinds.core.pod_sound import SoundSpecs
from navarch.kinds.core.pod_state import is_finished
from navarch.kinds.core.pod_status import complete_pod_status, validate_pod_status_update
from navarch.kinds.core.pod_subresources import resized, validate_ephemeral_update, validate_resize
from navarch.kinds.core.pod_update import validate_pod_update
from navarch.kinds.core.pod_warnings import annotation_warnings, name_warnings, taken_profile_warnings
from navarch.kinds.core.resource_lists import qos_class
from navarch.kinds.strategies import strategy

_GATED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
}

_SOUND = SoundSpecs()


class Binding(Subresource):
    """`/binding`: the server itself writes the node's name and nothing else."""

    trusted = True

    def prepare(self, strategy: Strategy, obj: Obj, old: Obj) -> None:
        pass

    def validate(self, strategy: Strategy, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return iter(())


class EphemeralContainers(Subresource):
    """`/ephemeralcontainers`: more of them."""

    def prepare(self, strategy: Strategy, obj: Obj, old: Obj) -> None:
        added = (obj.get("spec") or {}).get("ephemeralContainers")
        obj["spec"] = {**old["spec"], "ephemeralContainers": added or []}
        if not added:
            del obj["spec"]["ephemeralContainers"]
        _keep_status(obj, old)

    def validate(self, strategy: Strategy, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return validate_ephemeral_update(obj, old)


class Resize(Subresource):
    """`/resize`: the amounts of CPU and memory, and what a change of them does to a container. Whatever else the pod
    says is not looked at: who replaces it may have an older one in hand."""

    owns_what_it_says = True

    def prepare(self, strategy: Strategy, obj: Obj, old: Obj) -> None:
        obj["spec"] = resized(obj.get("spec") or {}, old["spec"])
        _keep_status(obj, old)

    def validate(self, strategy: Strategy, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return validate_resize(obj, old)


def _keep_status(obj: Obj, old: Obj) -> None:
    if "status" in old:
        obj["status"] = old["status"]
    else:
        obj.pop("status", None)


def _completed(reason: str, message: str) -> list[Obj]:
    return [{"type": "Completed", "status": "True", "reason": reason, "message": message}]


# By phase: by what kubectl tells the pods apart that are over.
_ROW_CONDITIONS: dict[str, list[Obj]] = {
    "Succeeded": _completed("Succeeded", "The pod has completed successfully."),
    "Failed": _completed("Failed", "The pod failed."),
}


@strategy("", "Pod")
class PodStrategy(Strategy):
    gates = GATES
    returns_deleted = True
    columns = POD_COLUMNS
    selectable = (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    )
    has_generation = True
    deletes_gracefully = True
    defaults_specification_only = True
    defaults_ignore_name = True
    status_keeps = ("ownerReferences",)
    status_alone = True
    subresources: ClassVar[Mapping[str, Subresource]] = {
        "binding": Binding(),
        "ephemeralcontainers": EphemeralContainers(),
        "resize": Resize(),
    }

    def row_conditions(self, obj: Obj) -> list[Obj] | None:
        return _ROW_CONDITIONS.get((obj.get("status") or {}).get("phase") or "")

    def defaults(self, obj: Obj) -> None:
        default_pod(obj)

    def complete(self, obj: Obj) -> None:
        if status := obj.get("status"):
            complete_pod_status(status)

    def selector_fields(self, resource: Resource) -> Mapping[str, str]:
        # The first is how the earliest clients spelt it; the second can be named, but no pod is found by it.
        return {**super().selector_fields(resource), "spec.host": "spec.nodeName", "status.podIPs": "status.podIPs"}

    def selected(self, obj: Obj) -> dict[str, str]:
        spec, status = (obj.get("spec") or {}).get, (obj.get("status") or {}).get
        return {
            "spec.nodeName": spec("nodeName") or "",
            "spec.restartPolicy": spec("restartPolicy") or "",
            "spec.schedulerName": spec("schedulerName") or "",
            "spec.serviceAccountName": spec("serviceAccountName") or "",
            "spec.hostNetwork": "true" if spec("hostNetwork") else "false",
            "status.phase": status("phase") or "",
            "status.podIP": status("podIP") or "",
            "status.nominatedNodeName": status("nominatedNodeName") or "",
        }

    def field_value(self, obj: Obj, path: str) -> str:
        if path == "spec.hostNetwork":
            return "true" if obj.get("spec", {}).get("hostNetwork") else "false"
        part, _, field = path.partition(".")
        return str((obj.get(part) or {}).get(field) or "")

    def prepare_create(self, obj: Obj) -> None:
        spec = obj["spec"]
        prepare_pod_spec(spec, on=self.on)
        take_annotated_profiles(obj)
        _correct_grace(spec)
        status: Obj = {"phase": "Pending", "qosClass": qos_class(spec)}
        if spec.get("schedulingGates"):
            status["conditions"] = [{**_GATED, "lastTransitionTime": obj["metadata"].get("creationTimestamp")}]
        obj["status"] = status
        _merge_match_label_keys(obj)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        prepare_pod_spec(obj["spec"], old["spec"], self.on)
        _correct_grace(obj["spec"])

    def prepare_status(self, obj: Obj, old: Obj) -> None:
        super().prepare_status(obj, old)
        status, was = obj.setdefault("status", {}), old.get("status") or {}
        if was.get("qosClass") and not status.get("qosClass"):
            status["qosClass"] = was["qosClass"]
        for single, listed in (("podIP", "podIPs"), ("hostIP", "hostIPs")):
            _agree(status, single, listed)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec, annotations = obj["spec"], obj["metadata"].get("annotations")
        changed = old is None or spec != old["spec"]
        if annotations:
            yield from validate_pod_annotations(annotations, spec, "metadata.annotations")
        if changed:
            yield from _SOUND.validate(obj)
        elif node := spec.get("nodeName"):
            # The one field that a spec has from somebody who is not asked whether it is sound: a Binding.
            yield from validate_dns_subdomain(node, "spec.nodeName")
        if old is not None:
            yield from validate_annotation_changes(obj, old)
            if changed:
                yield from validate_pod_update(obj, old)
            return
        if spec.get("ephemeralContainers"):
            yield forbidden_field("spec.ephemeralContainers", "cannot be set on create")
        if spec.get("schedulingGates") and spec.get("nodeName"):
            yield forbidden_field("spec.nodeName", "cannot be set until all schedulingGates have been cleared")
        if annotations:
            yield from validate_profiles_agree(annotations, spec, "spec")

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        yield from validate_annotation_changes(obj, old)
        yield from validate_pod_status_update(obj, old)

    def early_warnings(self, obj: Obj) -> Iterator[str]:
        annotations = obj["metadata"].get("annotations")
        return taken_profile_warnings(annotations, obj["spec"]) if annotations else iter(())

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        # Who writes to a pod that exists is a program that reads no warnings.
        if old is not None:
            return
        yield from name_warnings(obj, "the Pod's hostname")
        if annotations := obj["metadata"].get("annotations"):
            yield from annotation_warnings(annotations, obj["spec"])
        yield from _SOUND.warnings(obj["spec"])

    def delete_grace_s(self, obj: Obj, requested_s: int | None) -> int:
        spec = obj.get("spec") or {}
        seconds = requested_s
        if seconds is None:
            seconds = spec.get("terminationGracePeriodSeconds") or 0
        if not spec.get("nodeName") or is_finished(obj):
            # No kubelet holds anything of the pod that would have to be stopped first.
            return 0
        return max(seconds, 1) if seconds else 0


def _correct_grace(spec: Obj) -> None:
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        spec["terminationGracePeriodSeconds"] = 1


def _agree(status: Obj, single: str, listed: str) -> None:
    """The single address and the first of the list are the same thing; a writer may give either."""
    one, several = status.get(single), status.get(listed)
    if several and not one:
        status[single] = several[0].get("ip", "")
    elif one and not (several and several[0].get("ip") == one):
        status[listed] = [{"ip": one}]


def _merge_match_label_keys(pod: Obj) -> None:
    """`matchLabelKeys` stand for the pod's own values of these labels: written out once, when the pod is made."""
    spec = pod["spec"]
    if "affinity" not in spec and "topologySpreadConstraints" not in spec:
        return
    labels = pod["metadata"].get("labels") or {}
    affinity = spec.get("affinity") or {}
    terms: list[Obj] = []
    for name in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(name) or {}
        terms += rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        preferred = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [term["podAffinityTerm"] for term in preferred if "podAffinityTerm" in term]
    terms += spec.get("topologySpreadConstraints") or ()
    for term in terms:
        selector = term.get("labelSelector")
        if selector is None:
            continue
        for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
            for key in term.get(field) or ():
                if key in labels:
                    requirement = {"key": key, "operator": operator, "values": [labels[key]]}
                    expressions = selector.setdefault("matchExpressions", [])
                    if requirement not in expressions:
                        expressions.append(requirement)
