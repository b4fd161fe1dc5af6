"""What a Job knows of its ended pods, and what of it one status takes in."""

from __future__ import annotations

from typing import Any

from navarch.api.meta import Obj, name_of
from navarch.controllers.job import indexes
from navarch.controllers.job.counting import FINALIZER, tally
from tests.controllers.objects import job


def pod(name: str, phase: str, index: int | None = None, failures: int = 0) -> Obj:
    annotations = {} if index is None else {indexes.INDEX: str(index), indexes.FAILURES: str(failures)}
    metadata = {"name": name, "uid": name, "namespace": "default", "finalizers": [FINALIZER]}
    return {"metadata": {**metadata, "annotations": annotations}, "spec": {}, "status": {"phase": phase}}


def indexed(**spec: Any) -> Obj:
    return job(completions=2, completionMode="Indexed", backoffLimitPerIndex=2, **spec)


def test_a_status_takes_in_five_hundred_ends_at_a_time_and_all_are_known() -> None:
    pods = [pod(f"p{number}", "Succeeded" if number % 2 else "Failed") for number in range(1200)]

    counted = tally(job(completions=1200, parallelism=1200), pods)

    assert len(counted.uncounted_succeeded) + len(counted.uncounted_failed) == len(counted.released) == 500
    assert (counted.all_succeeded, counted.all_failed) == (600, 600)
    assert counted.is_behind


def test_what_the_status_names_is_let_go_before_more_is_named() -> None:
    pods = [pod(f"p{number}", "Succeeded") for number in range(600)]
    named = [f"p{number}" for number in range(550, 600)]

    counted = tally(job(completions=600) | {"status": {"uncountedTerminatedPods": {"succeeded": named}}}, pods)

    assert set(named) <= {name_of(p) for p in counted.released}
    assert len(counted.uncounted_succeeded) == 500
    assert counted.all_succeeded == 600


def test_an_indexs_last_failure_stays_until_another_pod_knows_of_it() -> None:
    failed = [pod("first", "Failed", 0), pod("second", "Failed", 0, failures=1)]

    alone = tally(indexed(), failed)
    replaced = tally(indexed(), [*failed, pod("third", "Running", 0, failures=2)])

    assert [name_of(p) for p in alone.released] == ["first"]
    assert alone.all_failed == 2
    assert {name_of(p) for p in replaced.released} == {"first", "second"}


def test_nothing_waits_for_a_replacement_that_does_not_come() -> None:
    ending = {"status": {"conditions": [{"type": "FailureTarget", "status": "True"}]}}
    failed = [pod("a", "Failed", 0, failures=2), pod("b", "Failed", 1)]

    assert [name_of(p) for p in tally(indexed(), failed).released] == ["a"]
    assert tally(indexed(), failed[:1]).failed_indexes == {0}
    assert len(tally(indexed() | ending, failed).released) == 2


def test_an_index_that_the_job_no_longer_has_neither_succeeds_nor_fails() -> None:
    counted = tally(indexed(), [pod("old", "Failed", 7), pod("older", "Succeeded", 8)])

    assert len(counted.released) == 2
    assert (counted.all_failed, counted.all_succeeded) == (0, 0)
