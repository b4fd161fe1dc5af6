"""Counting: which of a Job's pods have ended, and which of those are in its status already. Pure.

A pod carries a finalizer until its end is counted. Its uid first goes into `status.uncountedTerminatedPods`, then the
finalizer comes off, then the number goes up and the uid out; so a pod is counted exactly once, whatever fails between.
Succeeded pods of indexed Jobs need no such list: their index in `completedIndexes` says it all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from navarch.api.meta import Obj, is_deleting, uid_of
from navarch.controllers.job import failure, indexes
from navarch.controllers.job.conditions import of_type
from navarch.kinds.core.pod_state import is_active, is_finished, is_ready, phase_of
from navarch.records import mutable

FINALIZER = "batch.kubernetes.io/job-tracking"


def is_tracked(pod: Obj) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


_MOST_UNCOUNTED = 500
"""Ends that one status write takes in, so that a Job of many pods keeps a small status and holds up no other."""


@mutable
class Tally:
    """A Job's pods and counts at one moment; `released` may lose their finalizer once the status is written. Ends that
    the status cannot take in yet are known, but count in a later pass."""

    active: list[Obj] = field(default_factory=list)
    ready: int = 0
    terminating: int = 0
    succeeded: int = 0
    failed: int = 0
    uncounted_succeeded: list[str] = field(default_factory=list)
    uncounted_failed: list[str] = field(default_factory=list)
    later_succeeded: int = 0
    later_failed: int = 0
    later_completed: int = 0
    completed: set[int] = field(default_factory=set)
    failed_indexes: set[int] = field(default_factory=set)
    released: list[Obj] = field(default_factory=list)
    job_failure: str = ""

    @property
    def all_succeeded(self) -> int:
        return self.succeeded + len(self.uncounted_succeeded) + self.later_succeeded

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.uncounted_failed) + self.later_failed

    @property
    def is_behind(self) -> bool:
        """Whether ends are left that only a later pass counts."""
        return self.later_succeeded + self.later_failed + self.later_completed > 0

    @property
    def is_full(self) -> bool:
        return len(self.released) >= _MOST_UNCOUNTED


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
    ended: list[Obj] = []
    for pod in listed:
        if is_active(pod):
            result.active.append(pod)
            result.ready += is_ready(pod)
        elif is_deleting(pod) and not is_finished(pod):
            result.terminating += 1
        # Of a Job that has failed every pod that has not ended yet has failed with it.
        if is_tracked(pod) and (phase_of(pod) == "Succeeded" or failure.has_failed(job, pod) or _is_failing(job)):
            ended.append(pod)
            _settle_index(job, pod, result)
    waiting = _awaiting_replacement(job, ended, result)
    # What the status names already comes first, so that its list shrinks.
    named = {*result.uncounted_succeeded, *result.uncounted_failed}
    for pod in sorted(ended, key=lambda pod: uid_of(pod) not in named):
        _count(job, pod, result, waits=uid_of(pod) in waiting)
    if indexes.is_indexed(job):
        result.succeeded = len(result.completed)
    return result


def _settle_index(job: Obj, pod: Obj, result: Tally) -> None:
    """Say of the pod's index that it is completed, or that it has failed for good."""
    index = _index_within(job, pod)
    if not indexes.is_indexed(job) or index is None:
        return
    if phase_of(pod) == "Succeeded":
        result.completed.add(index)
        result.failed_indexes.discard(index)
        return
    limit = job["spec"].get("backoffLimitPerIndex")
    matched = failure.match(job, pod) if phase_of(pod) == "Failed" else None
    if limit is None or index in result.completed or (matched is not None and matched.action == "Ignore"):
        return
    if (matched is not None and matched.action == "FailIndex") or indexes.failures_before([pod]) >= int(limit):
        result.failed_indexes.add(index)


def _awaiting_replacement(job: Obj, ended: Iterable[Obj], result: Tally) -> set[str]:
    """The failed pods that must stay until their index has another, which takes over how often the index has failed."""
    if job["spec"].get("backoffLimitPerIndex") is None or is_deleting(job) or is_ending(job):
        return set()
    settled = result.completed | result.failed_indexes | {indexes.index_of(pod) for pod in result.active}
    last: dict[int, Obj] = {}
    for pod in ended:
        index = _index_within(job, pod)
        if index is None or index in settled or phase_of(pod) == "Succeeded":
            continue
        if index not in last or indexes.all_failures(last[index]) <= indexes.all_failures(pod):
            last[index] = pod
    return {uid_of(pod) for pod in last.values()}


def _count(job: Obj, pod: Obj, result: Tally, *, waits: bool) -> None:
    uid = uid_of(pod)
    if uid in result.uncounted_succeeded or uid in result.uncounted_failed:
        result.released.append(pod)
        return
    withheld = waits or result.is_full
    if phase_of(pod) == "Succeeded":
        if indexes.is_indexed(job):
            result.later_completed += withheld
        elif withheld:
            result.later_succeeded += 1
        else:
            result.uncounted_succeeded.append(uid)
    else:
        matched = failure.match(job, pod) if phase_of(pod) == "Failed" else None
        if matched is not None and matched.action == "FailJob":
            result.job_failure = result.job_failure or matched.message
        ignored = matched is not None and matched.action == "Ignore"
        # An index that a Job made smaller no longer has neither succeeds nor fails.
        if not ignored and not (indexes.is_indexed(job) and _index_within(job, pod) is None):
            if withheld:
                result.later_failed += 1
            else:
                result.uncounted_failed.append(uid)
    if not withheld:
        result.released.append(pod)


def _index_within(job: Obj, pod: Obj) -> int | None:
    """The pod's index, where the Job has it."""
    index = indexes.index_of(pod)
    return index if index is not None and index < int(job["spec"].get("completions") or 0) else None


def _is_failing(job: Obj) -> bool:
    return of_type((job.get("status") or {}).get("conditions") or [], "FailureTarget") is not None


def is_ending(job: Obj) -> bool:
    """Whether it is decided how the Job ends."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return _is_failing(job) or of_type(conditions, "SuccessCriteriaMet") is not None
