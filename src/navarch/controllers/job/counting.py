"""Counting: which of a Job's pods have ended, and which of those are in its status already. Pure.

A pod carries a finalizer until its end is counted. Its uid first goes into `status.uncountedTerminatedPods`, then the
finalizer comes off, then the number goes up and the uid out; so a pod is counted exactly once, whatever fails between.
Succeeded pods of indexed Jobs need no such list: their index in `completedIndexes` says it all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from navarch.api.meta import Obj, is_deleting, uid_of
from navarch.controllers.job import failure, indexes
from navarch.controllers.job.conditions import of_type
from navarch.kinds.core.pod_state import is_active, is_finished, is_ready, phase_of

FINALIZER = "batch.kubernetes.io/job-tracking"


def is_tracked(pod: Obj) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


@dataclass(slots=True)
class Tally:
    """A Job's pods and counts at one moment; `released` may lose their finalizer once the status is written."""

    active: list[Obj] = field(default_factory=list)
    ready: int = 0
    terminating: int = 0
    succeeded: int = 0
    failed: int = 0
    uncounted_succeeded: list[str] = field(default_factory=list)
    uncounted_failed: list[str] = field(default_factory=list)
    completed: set[int] = field(default_factory=set)
    failed_indexes: set[int] = field(default_factory=set)
    released: list[Obj] = field(default_factory=list)
    job_failure: str = ""

    @property
    def all_succeeded(self) -> int:
        return self.succeeded + len(self.uncounted_succeeded)

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.uncounted_failed)


def tally(job: Obj, pods: Iterable[Obj]) -> Tally:
    listed = list(pods)
    status = job.get("status") or {}
    uncounted = status.get("uncountedTerminatedPods") or {}
    tracked = {uid_of(pod) for pod in listed if is_tracked(pod)}
    result = Tally()
    done_succeeded = [uid for uid in uncounted.get("succeeded") or () if uid not in tracked]
    done_failed = [uid for uid in uncounted.get("failed") or () if uid not in tracked]
    result.uncounted_succeeded = [uid for uid in uncounted.get("succeeded") or () if uid in tracked]
    result.uncounted_failed = [uid for uid in uncounted.get("failed") or () if uid in tracked]
    result.succeeded = int(status.get("succeeded") or 0) + len(done_succeeded)
    result.failed = int(status.get("failed") or 0) + len(done_failed)
    # A Job that was made smaller counts what is left of it.
    end = int(job["spec"].get("completions") or 0)
    result.completed = {n for n in indexes.parse(status.get("completedIndexes") or "") if n < end}
    result.failed_indexes = {n for n in indexes.parse(status.get("failedIndexes") or "") if n < end}
    for pod in listed:
        if is_active(pod):
            result.active.append(pod)
            result.ready += is_ready(pod)
        elif is_deleting(pod) and not is_finished(pod):
            result.terminating += 1
        if is_tracked(pod):
            _count(job, pod, listed, result)
    if indexes.is_indexed(job):
        result.succeeded = len(result.completed)
    return result


def _count(job: Obj, pod: Obj, pods: list[Obj], result: Tally) -> None:
    uid = uid_of(pod)
    if uid in result.uncounted_succeeded or uid in result.uncounted_failed:
        result.released.append(pod)
    elif phase_of(pod) == "Succeeded":
        if indexes.is_indexed(job):
            index = indexes.index_of(pod)
            if index is not None and index < int(job["spec"].get("completions") or 0):
                result.completed.add(index)
                result.failed_indexes.discard(index)
        else:
            result.uncounted_succeeded.append(uid)
        result.released.append(pod)
    elif failure.has_failed(job, pod) or _is_failing(job):
        # Of a Job that has failed every pod that has not ended yet has failed with it.
        _count_failure(job, pod, pods, result)
        result.released.append(pod)


def _is_failing(job: Obj) -> bool:
    return of_type((job.get("status") or {}).get("conditions") or [], "FailureTarget") is not None


def _count_failure(job: Obj, pod: Obj, pods: list[Obj], result: Tally) -> None:
    matched = failure.match(job, pod) if phase_of(pod) == "Failed" else None
    if matched is not None and matched.action == "Ignore":
        return
    result.uncounted_failed.append(uid_of(pod))
    if matched is not None and matched.action == "FailJob":
        result.job_failure = result.job_failure or matched.message
    limit = job["spec"].get("backoffLimitPerIndex")
    index = indexes.index_of(pod)
    if limit is None or index is None or index in result.completed:
        return
    if (matched is not None and matched.action == "FailIndex") or indexes.failures_before([pod]) >= int(limit):
        result.failed_indexes.add(index)
