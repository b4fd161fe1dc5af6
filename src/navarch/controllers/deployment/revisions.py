"""Revisions: which ReplicaSet is the Deployment's newest, what the others are called, and the annotations they carry.

Pure. The new ReplicaSet is the oldest one whose template equals the Deployment's; its revision is one above all others,
which is how a rollback to an old template makes an old ReplicaSet the newest again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from navarch.api.meta import Obj, annotations_of, controller_reference, name_of, namespace_of
from navarch.controllers.hash import template_hash
from navarch.controllers.pods import created_at, int_or_percent, same_semantics
from navarch.numbers import integer_or

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
ROLLBACK_TO = "deprecated.deployment.rollback.to"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    ROLLBACK_TO,
}
_HISTORY_LIMIT = 2000


def revision(obj: Obj) -> int:
    return integer_or(annotations_of(obj).get(REVISION, "0"), 0)


def replicas(obj: Obj) -> int:
    return int(obj["spec"].get("replicas") or 0)


def by_age(sets: Iterable[Obj]) -> list[Obj]:
    return sorted(sets, key=lambda rs: (created_at(rs), name_of(rs)))


def without_hash(template: Obj) -> Obj:
    metadata = template.get("metadata") or {}
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != HASH_LABEL}
    return {**template, "metadata": {**metadata, "labels": labels}}


def same_template(left: Obj, right: Obj) -> bool:
    """Equal but for the hash label."""
    return same_semantics(without_hash(left), without_hash(right))


def find_new(deployment: Obj, sets: Iterable[Obj]) -> Obj | None:
    """The ReplicaSet of the Deployment's current template."""
    template = deployment["spec"]["template"]
    return next((rs for rs in by_age(sets) if same_template(rs["spec"]["template"], template)), None)


def surge_and_unavailable(deployment: Obj) -> tuple[int, int]:
    """The limits of a rolling update as numbers of pods; (0, 0) for Recreate."""
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    total = replicas(deployment)
    surge = int_or_percent(rolling.get("maxSurge", "25%"), total, round_up=True)
    unavailable = int_or_percent(rolling.get("maxUnavailable", "25%"), total, round_up=False)
    if surge == 0 and unavailable == 0:
        # Both would round to nothing and the rollout could never move.
        unavailable = 1
    return surge, min(unavailable, total)


def size_annotations(deployment: Obj) -> dict[str, str]:
    """What a ReplicaSet remembers of the Deployment's size, for proportional scaling."""
    surge, _ = surge_and_unavailable(deployment)
    total = replicas(deployment)
    return {DESIRED_REPLICAS: str(total), MAX_REPLICAS: str(total + surge)}


def new_annotations(deployment: Obj, current: Obj | None, number: int) -> dict[str, str]:
    """The new ReplicaSet's annotations: the Deployment's own, its revision, and earlier revisions it stood for."""
    annotations = dict(annotations_of(current)) if current else {}
    annotations.update({k: v for k, v in annotations_of(deployment).items() if k not in _NOT_COPIED})
    before = annotations.get(REVISION)
    if before is None or revision({"metadata": {"annotations": annotations}}) < number:
        annotations[REVISION] = str(number)
        if before is not None:
            history = [entry for entry in annotations.get(REVISION_HISTORY, "").split(",") if entry]
            history.append(before)
            while len(",".join(history)) > _HISTORY_LIMIT:
                history.pop(0)
            annotations[REVISION_HISTORY] = ",".join(history)
    if current is None:
        annotations.update(size_annotations(deployment))
    return annotations


def own_annotations(current: Mapping[str, str], target: Obj) -> dict[str, str]:
    """A Deployment's annotations when it is rolled back to the ReplicaSet `target`: those that are not copied stay, all
    others are the ReplicaSet's."""
    kept = {name: value for name, value in current.items() if name in _NOT_COPIED}
    return kept | {name: value for name, value in annotations_of(target).items() if name not in _NOT_COPIED}


def make_new(deployment: Obj, number: int, collisions: int | None) -> Obj:
    """The ReplicaSet of the current template, with no replicas yet."""
    spec = deployment["spec"]
    template = spec["template"]
    digest = template_hash(template, collisions)
    metadata = template.get("metadata") or {}
    labels = {**(metadata.get("labels") or {}), HASH_LABEL: digest}
    selector = spec.get("selector") or {}
    matched = {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}
    made: Obj = {
        "replicas": 0,
        "selector": {**selector, "matchLabels": matched},
        "template": {**template, "metadata": {**metadata, "labels": labels}},
    }
    if spec.get("minReadySeconds"):
        made["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{name_of(deployment)}-{digest}",
            "namespace": namespace_of(deployment),
            "labels": labels,
            "annotations": new_annotations(deployment, None, number),
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": made,
    }


def expendable(old: Sequence[Obj], limit: int) -> list[Obj]:
    """Old ReplicaSets beyond the history limit, oldest revisions first; those still in use are passed over."""
    kept = [rs for rs in old if not rs["metadata"].get("deletionTimestamp")]
    surplus = len(kept) - limit
    if surplus <= 0:
        return []
    ordered = sorted(kept, key=lambda rs: (revision(rs), created_at(rs)))[:surplus]

    def idle(rs: Obj) -> bool:
        status = rs.get("status") or {}
        observed = int(status.get("observedGeneration") or 0)
        settled = int(rs["metadata"].get("generation") or 0) <= observed
        return not status.get("replicas") and replicas(rs) == 0 and settled

    return [rs for rs in ordered if idle(rs)]
