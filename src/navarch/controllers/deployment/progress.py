"""Progress: a Deployment's status and its conditions Available, Progressing and ReplicaFailure. Pure.

Invariant: a condition whose status and reason stay the same is left as it is, so that `lastUpdateTime` of Progressing
is when the rollout last moved; the progress deadline counts from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from navarch.api.meta import Obj, name_of
from navarch.api.time import format_time, parse_time
from navarch.controllers.deployment.revisions import replicas, surge_and_unavailable
from navarch.kinds.core.pod_state import condition_of

_NO_DEADLINE = 2**31 - 1


def has_deadline(deployment: Obj) -> bool:
    deadline_s = deployment["spec"].get("progressDeadlineSeconds")
    return deadline_s is not None and deadline_s != _NO_DEADLINE


def condition(type: str, status: str, reason: str, message: str, now: datetime) -> Obj:
    stamp = format_time(now)
    return {
        "type": type,
        "status": status,
        "lastUpdateTime": stamp,
        "lastTransitionTime": stamp,
        "reason": reason,
        "message": message,
    }


def with_condition(status: Obj, new: Obj) -> Obj:
    """`status` with the condition set; unchanged where it says the same already."""
    conditions = status.get("conditions") or []
    current = next((c for c in conditions if c.get("type") == new["type"]), None)
    if current is not None:
        if current.get("status") == new["status"] and current.get("reason") == new["reason"]:
            return status
        if current.get("status") == new["status"]:
            new = {**new, "lastTransitionTime": current.get("lastTransitionTime", new["lastTransitionTime"])}
    return {**status, "conditions": [c for c in conditions if c.get("type") != new["type"]] + [new]}


def without_condition(status: Obj, type: str) -> Obj:
    conditions = status.get("conditions") or []
    kept = [c for c in conditions if c.get("type") != type]
    return status if len(kept) == len(conditions) else {**status, "conditions": kept}


def _count(sets: Sequence[Obj], field: str) -> int:
    return sum(int((rs.get("status") or {}).get(field) or 0) for rs in sets)


def base_status(deployment: Obj, sets: Sequence[Obj], new: Obj | None, now: datetime) -> Obj:
    """Counts and the Available condition; `sets` are all ReplicaSets."""
    current = deployment.get("status") or {}
    available = _count(sets, "availableReplicas")
    status: Obj = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": _count(sets, "replicas"),
        "updatedReplicas": _count([new] if new else [], "replicas"),
        "readyReplicas": _count(sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(sum(replicas(rs) for rs in sets) - available, 0),
        "collisionCount": current.get("collisionCount"),
        "conditions": current.get("conditions") or [],
    }
    status = {name: value for name, value in status.items() if value}
    if all((rs.get("status") or {}).get("terminatingReplicas") is not None for rs in sets):
        status["terminatingReplicas"] = _count(sets, "terminatingReplicas")
    _, unavailable = surge_and_unavailable(deployment)
    if available >= replicas(deployment) - unavailable:
        message = "Deployment has minimum availability."
        return with_condition(status, condition("Available", "True", "MinimumReplicasAvailable", message, now))
    message = "Deployment does not have minimum availability."
    return with_condition(status, condition("Available", "False", "MinimumReplicasUnavailable", message, now))


def is_complete(deployment: Obj, status: Obj) -> bool:
    wanted = replicas(deployment)
    fields = ("updatedReplicas", "replicas", "availableReplicas")
    observed = int(status.get("observedGeneration") or 0)
    return observed >= int(deployment["metadata"].get("generation") or 0) and all(
        int(status.get(field) or 0) == wanted for field in fields
    )


def has_progressed(deployment: Obj, status: Obj) -> bool:
    old = deployment.get("status") or {}

    def outdated(of: Obj) -> int:
        return int(of.get("replicas") or 0) - int(of.get("updatedReplicas") or 0)

    fields = ("updatedReplicas", "readyReplicas", "availableReplicas")
    grown = any(int(status.get(field) or 0) > int(old.get(field) or 0) for field in fields)
    return grown or outdated(status) < outdated(old)


def has_timed_out(deployment: Obj, status: Obj, now: datetime) -> bool:
    current = condition_of({"status": status}, "Progressing")
    if current is None or current.get("reason") == "NewReplicaSetAvailable":
        return False
    if current.get("reason") == "ProgressDeadlineExceeded":
        return True
    if not current.get("lastUpdateTime"):
        return False
    deadline = timedelta(seconds=deployment["spec"]["progressDeadlineSeconds"])
    return parse_time(current["lastUpdateTime"]) + deadline < now


def rollout_status(deployment: Obj, sets: Sequence[Obj], new: Obj | None, now: datetime) -> Obj:
    """The whole status during and after a rollout."""
    status = base_status(deployment, sets, new, now)
    if not has_deadline(deployment):
        status = without_condition(status, "Progressing")
    else:
        status = _with_progress(deployment, status, new, now)
    failure = _replica_failure(sets, new)
    if failure is None:
        return without_condition(status, "ReplicaFailure")
    message, reason = failure.get("message", ""), failure.get("reason", "")
    told = condition("ReplicaFailure", failure.get("status", "True"), reason, message, now)
    # Since when, the ReplicaSet knows.
    since = failure.get("lastTransitionTime") or told["lastTransitionTime"]
    return with_condition(status, told | {"lastTransitionTime": since, "lastUpdateTime": since})


def _with_progress(deployment: Obj, status: Obj, new: Obj | None, now: datetime) -> Obj:
    current = condition_of({"status": status}, "Progressing")
    finished = (
        current is not None
        and current.get("reason") == "NewReplicaSetAvailable"
        and status.get("replicas", 0) == status.get("updatedReplicas", 0)
    )
    if finished:
        return status
    subject = f'ReplicaSet "{name_of(new)}"' if new else f'Deployment "{name_of(deployment)}"'
    if is_complete(deployment, status):
        message = f"{subject} has successfully progressed."
        return with_condition(status, condition("Progressing", "True", "NewReplicaSetAvailable", message, now))
    if has_progressed(deployment, status):
        moved = condition("Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.", now)
        if current is not None and current.get("status") == "True":
            moved["lastTransitionTime"] = current.get("lastTransitionTime", moved["lastTransitionTime"])
        # Replaced even where status and reason are the same: lastUpdateTime carries the deadline forward.
        return with_condition(without_condition(status, "Progressing"), moved)
    if has_timed_out(deployment, status, now):
        message = f"{subject} has timed out progressing."
        return with_condition(status, condition("Progressing", "False", "ProgressDeadlineExceeded", message, now))
    return status


def _replica_failure(sets: Sequence[Obj], new: Obj | None) -> Obj | None:
    """The new ReplicaSet's failure, else that of any other."""
    found = (condition_of(rs, "ReplicaFailure") for rs in ([new] if new else []) + list(sets))
    return next((failure for failure in found if failure is not None), None)


def deadline_wait_s(deployment: Obj, status: Obj, now: datetime) -> float | None:
    """Seconds until the progress deadline has to be looked at; None where nothing is under way."""
    current = condition_of({"status": status}, "Progressing")
    if not has_deadline(deployment) or current is None or is_complete(deployment, status):
        return None
    if current.get("reason") in ("ProgressDeadlineExceeded", "NewReplicaSetAvailable", "DeploymentPaused"):
        return None
    if not current.get("lastUpdateTime"):
        return None
    deadline = parse_time(current["lastUpdateTime"]) + timedelta(seconds=deployment["spec"]["progressDeadlineSeconds"])
    # A second more, as the stamp has whole seconds only.
    return max((deadline - now).total_seconds(), 0.0) + 1.0
