"""When a Job gives up: pod failure policy, back-off limits, success policy; and how long it waits between attempts.

Pure, but for `Streak`, which its owner keeps from pass to pass. A pod counts as failed when it has failed, or, unless
failed pods only are to be replaced, when it is being deleted without having succeeded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from datetime import datetime, timedelta
from typing import NamedTuple

from navarch.api.meta import Obj, is_deleting, name_of, namespace_of, uid_of
from navarch.api.time import parse_time
from navarch.controllers.job import indexes
from navarch.controllers.pods import created_at
from navarch.kinds.core.pod_state import phase_of
from navarch.records import mutable

_BACKOFF_S = 10.0
_LONGEST_BACKOFF_S = 600.0


class Match(NamedTuple):
    """A rule of the pod failure policy that a pod meets."""

    action: str
    message: str


def replaces_failed_only(job: Obj) -> bool:
    policy = job["spec"].get("podReplacementPolicy")
    return policy == "Failed" or (policy is None and bool(job["spec"].get("podFailurePolicy")))


def has_failed(job: Obj, pod: Obj) -> bool:
    if phase_of(pod) == "Failed":
        return True
    if replaces_failed_only(job):
        # A pod that never ran has no kubelet to fail it.
        return is_deleting(pod) and not pod["spec"].get("nodeName")
    return is_deleting(pod) and phase_of(pod) != "Succeeded"


def match(job: Obj, pod: Obj) -> Match | None:
    """The first rule of the policy that the failed pod meets."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or []
    for number, rule in enumerate(rules):
        action = rule.get("action", "")
        codes = rule.get("onExitCodes")
        if codes is not None:
            found = _exit_code(pod, codes)
            if found is not None:
                name, code = found
                where = f"Container {name} for pod {namespace_of(pod)}/{name_of(pod)}"
                return Match(action, f"{where} failed with exit code {code} matching {action} rule at index {number}")
        for pattern in rule.get("onPodConditions") or ():
            for condition in (pod.get("status") or {}).get("conditions") or ():
                wanted = pattern.get("status") or "True"
                if condition.get("type") == pattern.get("type") and condition.get("status") == wanted:
                    where = f"Pod {namespace_of(pod)}/{name_of(pod)} has condition {pattern['type']}"
                    return Match(action, f"{where} matching {action} rule at index {number}")
    return None


def _exit_code(pod: Obj, codes: Obj) -> tuple[str, int] | None:
    status = pod.get("status") or {}
    values = codes.get("values") or []
    for container in [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]:
        if codes.get("containerName") and codes["containerName"] != container.get("name"):
            continue
        ended = (container.get("state") or {}).get("terminated")
        if ended is None or not ended.get("exitCode"):
            continue
        code = int(ended["exitCode"])
        if (code in values) == (codes.get("operator") == "In"):
            return str(container.get("name")), code
    return None


def restarts_exceed(job: Obj, pods: Iterable[Obj]) -> bool:
    """With restartPolicy OnFailure the kubelet retries, so its restarts count towards the limit."""
    spec = job["spec"]
    if ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy") != "OnFailure":
        return False
    restarts = 0
    for pod in pods:
        if phase_of(pod) not in ("Running", "Pending"):
            continue
        status = pod.get("status") or {}
        for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
            restarts += int(container.get("restartCount") or 0)
    limit = int(spec.get("backoffLimit", 6))
    return restarts > 0 if limit == 0 else restarts >= limit


def finished_at(pod: Obj) -> datetime:
    """When its last container ended."""
    ends = [
        ended["finishedAt"]
        for container in (pod.get("status") or {}).get("containerStatuses") or ()
        if (ended := (container.get("state") or {}).get("terminated")) and ended.get("finishedAt")
    ]
    if ends:
        return parse_time(max(ends))
    deleted = pod["metadata"].get("deletionTimestamp")
    return parse_time(deleted) if deleted else created_at(pod)


@mutable
class Streak:
    """A Job's failures in a row, by pod uid, with the time of each. It outlives the pods, so that deleting a failed pod
    does not shorten the wait for the next."""

    job_uid: str
    failed: dict[str, datetime] = field(default_factory=dict)

    def see(self, job: Obj, pods: Iterable[Obj]) -> None:
        """Take in the pods as they are now; a success ends the row of failures before it."""
        last_success: datetime | None = None
        for pod in pods:
            if phase_of(pod) == "Succeeded":
                ended = finished_at(pod)
                last_success = ended if last_success is None else max(last_success, ended)
            elif has_failed(job, pod):
                self.failed[uid_of(pod)] = finished_at(pod)
        if last_success is not None:
            self.failed = {uid: ended for uid, ended in self.failed.items() if ended > last_success}

    def wait_s(self, now: datetime) -> float:
        """Seconds until the next pod may be made: ten after the first failure, then twice as many each time."""
        return _remaining_s(max(self.failed.values()), len(self.failed), now) if self.failed else 0.0


def index_backoff_s(failed: Iterable[Obj], failures: int, now: datetime) -> float:
    """Seconds until the next pod of one index may be made."""
    last = max((finished_at(pod) for pod in failed), default=None)
    return 0.0 if last is None or failures == 0 else _remaining_s(last, failures, now)


def _remaining_s(last: datetime, failures: int, now: datetime) -> float:
    delay_s = min(_BACKOFF_S * 2 ** min(failures - 1, 10), _LONGEST_BACKOFF_S)
    return max((last + timedelta(seconds=delay_s) - now).total_seconds(), 0.0)


def success_rule(job: Obj, completed: set[int]) -> str | None:
    """The message of the first rule of the success policy that is met."""
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        within = completed
        if rule.get("succeededIndexes"):
            wanted = indexes.parse(rule["succeededIndexes"])
            within = completed & wanted
            needed = int(rule.get("succeededCount") or len(wanted))
        else:
            needed = int(rule.get("succeededCount") or 0)
        if needed and len(within) >= needed:
            return f"Matched rules at index {number}"
    return None
