"""StatefulSet: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj, get_path
from navarch.api.validation import validate_dns_label, validate_non_negative
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column
from navarch.kinds.core.pod_defaults import default_claim_spec, default_pod_template
from navarch.kinds.core.pod_prepare import GATES, prepare_template
from navarch.kinds.core.pod_validation_volumes import validate_claim_spec
from navarch.kinds.core.storage_warnings import claim_warnings
from navarch.kinds.counts import complete_conditions, validate_collisions, validate_counts, validate_status_counts
from navarch.kinds.internal import internal
from navarch.kinds.rollout import (
    WorkloadStrategy,
    validate_at_most_all,
    validate_int_or_percent,
    validate_selector,
    validate_template,
)
from navarch.kinds.strategies import strategy

_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_PARTS = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
_STATUS_COUNTS = ("replicas", *_PARTS, "observedGeneration", "collisionCount")
_ALL_REVISIONS = (
    "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
)
_UPDATE_REFUSED = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


_MAX_UNAVAILABLE: Final = "MaxUnavailableStatefulSet"


@strategy("apps", "StatefulSet")
class StatefulSetStrategy(WorkloadStrategy):
    gates = (*GATES, _MAX_UNAVAILABLE)
    # Its pods' names and their labels are made from it.
    name_rule = "label"
    columns = (
        NAME,
        Column(
            "Ready",
            columns.ratio("status.readyReplicas", "spec.replicas"),
            description="Number of the pod with ready state",
        ),
        AGE,
        *columns.pod_template_columns("spec.template.spec"),
    )

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        yield from super().warnings(obj, old)
        spec = obj["spec"]
        for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
            at = f"spec.volumeClaimTemplates[{index}]"
            # Of a change Kubernetes names the field as its Go structure does.
            yield from claim_warnings(claim.get("spec") or {}, at if old is None else f"{at}.Spec")
        if spec.get("revisionHistoryLimit", 0) < 0:
            yield _ALL_REVISIONS

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("podManagementPolicy"):
            spec["podManagementPolicy"] = "OrderedReady"
        update = spec.setdefault("updateStrategy", {})
        if not update.get("type"):
            update["type"] = "RollingUpdate"
        if update["type"] == "RollingUpdate":
            rolling = update.setdefault("rollingUpdate", {})
            rolling.setdefault("partition", 0)
            if _MAX_UNAVAILABLE in self.on:
                rolling.setdefault("maxUnavailable", 1)
        retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        retention.setdefault("whenDeleted", "Retain")
        retention.setdefault("whenScaled", "Retain")
        if spec.get("ordinals") is not None:
            spec["ordinals"].setdefault("start", 0)
        spec.setdefault("replicas", 1)
        spec.setdefault("revisionHistoryLimit", 10)
        default_pod_template(spec.setdefault("template", {}))
        for claim in spec.get("volumeClaimTemplates") or ():
            claim.setdefault("apiVersion", "v1")
            claim.setdefault("kind", "PersistentVolumeClaim")
            default_claim_spec(claim.setdefault("spec", {}))
            claim.setdefault("status", {}).setdefault("phase", "Pending")

    def complete(self, obj: Obj) -> None:
        obj["spec"].setdefault("serviceName", "")
        complete_conditions(obj)

    def prepare_create(self, obj: Obj) -> None:
        prepare_template(obj["spec"], on=self.on)
        self._drop_max_unavailable(obj, {})
        obj["status"] = {"replicas": 0, "availableReplicas": 0}

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        self._drop_max_unavailable(obj, old)

    def _drop_max_unavailable(self, obj: Obj, old: Obj) -> None:
        """Switched off it is for those that have one already."""
        at = "spec.updateStrategy.rollingUpdate"
        rolling = get_path(obj, at)
        if _MAX_UNAVAILABLE in self.on or not rolling or rolling.get("maxUnavailable") is None:
            return
        if get_path(old, f"{at}.maxUnavailable") is None:
            kept = {name: value for name, value in rolling.items() if name != "maxUnavailable"}
            obj["spec"]["updateStrategy"] = {**obj["spec"]["updateStrategy"], "rollingUpdate": kept}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        yield from _validate_policies(spec)
        # Neither the service's name nor the claims can change: what was once accepted stays.
        if old is None and spec.get("serviceName"):
            yield from validate_dns_label(spec["serviceName"], "spec.serviceName")
        yield from validate_counts(spec, ("replicas", "minReadySeconds", "revisionHistoryLimit"))
        if (start := (spec.get("ordinals") or {}).get("start")) is not None and start < 0:
            yield from validate_non_negative(start, "spec.ordinals.start")
        if old is None:
            for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
                yield from validate_claim_spec(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{index}].spec")
        yield from validate_selector(spec, "statefulset")
        yield from validate_template(_with_claims_as_volumes(spec), "StatefulSet")
        if old is not None and _fixed_part(spec) != _fixed_part(old["spec"]):
            yield forbidden_field("spec", _UPDATE_REFUSED)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        status = obj.get("status") or {}
        detail = "cannot be greater than status.readyReplicas"
        yield from validate_status_counts(status, _STATUS_COUNTS, at_most=_PARTS, available=detail)
        yield from validate_collisions(obj, old)


def _with_claims_as_volumes(spec: Obj) -> Obj:
    """The spec as its pods will have it: each claim template is a volume of its name, before and instead of others."""
    claims = spec.get("volumeClaimTemplates")
    template = spec.get("template") or {}
    if not claims:
        return spec
    names = list(dict.fromkeys((claim.get("metadata") or {}).get("name") or "" for claim in claims))
    pod = template.get("spec") or {}
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    volumes += [volume for volume in pod.get("volumes") or () if volume.get("name") not in names]
    return {**spec, "template": {**template, "spec": {**pod, "volumes": volumes}}}


def _fixed_part(spec: Obj) -> Obj:
    return {name: value for name, value in spec.items() if name not in _MUTABLE}


def _validate_policies(spec: Obj) -> Iterator[FieldError]:
    policy = spec.get("podManagementPolicy")
    if policy not in ("OrderedReady", "Parallel"):
        yield invalid_value("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'")
    update = spec.get("updateStrategy") or {}
    rolling, path = update.get("rollingUpdate"), "spec.updateStrategy"
    match update.get("type"):
        case None | "":
            yield required(path)
        case "OnDelete":
            if rolling is not None:
                detail = "only allowed for updateStrategy 'RollingUpdate'"
                shown = internal(rolling, "RollingUpdateStatefulSet")
                yield invalid_value(f"{path}.rollingUpdate", shown, detail)
        case "RollingUpdate":
            yield from _validate_rolling(rolling or {}, f"{path}.rollingUpdate")
        case _:
            yield invalid_value(
                path, internal(update, "StatefulSetUpdateStrategy"), "must be 'RollingUpdate' or 'OnDelete'"
            )
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for name in ("whenDeleted", "whenScaled"):
        if (value := retention.get(name, "Retain")) not in ("Retain", "Delete"):
            yield not_supported(f"spec.persistentVolumeClaimRetentionPolicy.{name}", value, ["Retain", "Delete"])


def _validate_rolling(rolling: Obj, path: str) -> Iterator[FieldError]:
    yield from validate_counts(rolling, ("partition",), path)
    unavailable = rolling.get("maxUnavailable")
    if unavailable is None:
        return
    yield from validate_int_or_percent(unavailable, f"{path}.maxUnavailable")
    if unavailable in (0, "0%"):
        yield invalid_value(f"{path}.maxUnavailable", unavailable, "cannot be 0")
    yield from validate_at_most_all(unavailable, f"{path}.maxUnavailable")
