"""Jobs against a real API server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from navarch.api.meta import Obj, annotations_of
from navarch.client.resources import JOBS, PODS
from tests.controllers.conftest import Cluster, running
from tests.controllers.objects import job


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running() as made:
        made.kubelet.outcomes.update({"ok": 0, "bad": 1, "worse": 42})
        yield made


async def condition(cluster: Cluster, name: str, type: str) -> Obj:
    async def check() -> Obj | None:
        status = (await cluster.get(JOBS, name)).get("status") or {}
        return next((c for c in status.get("conditions", ()) if c["type"] == type and c["status"] == "True"), None)

    found: Obj = await cluster.until(check)
    return found


async def test_a_job_runs_to_its_completions(cluster: Cluster) -> None:
    await cluster.create(JOBS, job(completions=5, parallelism=2))

    done = await condition(cluster, "work", "Complete")

    made = await cluster.get(JOBS, "work")
    assert done["reason"] == "CompletionsReached"
    assert made["status"]["succeeded"] == 5
    assert made["status"]["completionTime"]
    pods = await cluster.list(PODS)
    assert len(pods) == 5
    assert all(not pod["metadata"].get("finalizers") for pod in pods)

    async def told() -> bool:
        return ("Completed", "Job completed") in await cluster.events("work")

    await cluster.until(told)


async def test_indexed_pods_know_their_index(cluster: Cluster) -> None:
    await cluster.create(JOBS, job(completions=3, parallelism=3, completionMode="Indexed"))

    await condition(cluster, "work", "Complete")

    assert (await cluster.get(JOBS, "work"))["status"]["completedIndexes"] == "0-2"
    pods = await cluster.list(PODS)
    marks = sorted(annotations_of(pod)["batch.kubernetes.io/job-completion-index"] for pod in pods)
    assert marks == ["0", "1", "2"]
    assert {pod["spec"]["hostname"] for pod in pods} == {"work-0", "work-1", "work-2"}
    assert pods[0]["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"


async def test_a_job_gives_up_at_its_backoff_limit(cluster: Cluster) -> None:
    await cluster.create(JOBS, job(image="bad", backoffLimit=0))

    failed = await condition(cluster, "work", "Failed")

    assert (failed["reason"], failed["message"]) == (
        "BackoffLimitExceeded",
        "Job has reached the specified backoff limit",
    )
    assert (await cluster.get(JOBS, "work"))["status"]["failed"] == 1


async def test_a_failure_policy_ends_a_job_early(cluster: Cluster) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    await cluster.create(JOBS, job(image="worse", podFailurePolicy={"rules": [rule]}))

    failed = await condition(cluster, "work", "Failed")

    assert failed["reason"] == "PodFailurePolicy"
    assert failed["message"].endswith("failed with exit code 42 matching FailJob rule at index 0")


async def test_failed_indexes_do_not_hold_up_the_others(cluster: Cluster) -> None:
    rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}
    await cluster.create(
        JOBS,
        job(
            image="worse", completions=3, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=1,
            podFailurePolicy={"rules": [rule]},
        ),
    )  # fmt: skip

    failed = await condition(cluster, "work", "Failed")

    assert failed["reason"] == "FailedIndexes"
    assert (await cluster.get(JOBS, "work"))["status"]["failedIndexes"] == "0-2"


async def test_a_success_policy_ends_the_rest(cluster: Cluster) -> None:
    cluster.kubelet.outcomes.clear()
    policy = {"rules": [{"succeededIndexes": "0"}]}
    await cluster.create(JOBS, job(completions=3, parallelism=3, completionMode="Indexed", successPolicy=policy))
    pods = await cluster.until_count(PODS, 3)
    first = next(p for p in pods if annotations_of(p)["batch.kubernetes.io/job-completion-index"] == "0")

    await cluster.kubelet.report(first, 0)

    assert (await condition(cluster, "work", "Complete"))["reason"] == "SuccessPolicy"
    await cluster.until_count(PODS, 1)


async def test_a_suspended_job_runs_nothing_until_resumed(cluster: Cluster) -> None:
    cluster.kubelet.outcomes.clear()
    await cluster.create(JOBS, job(parallelism=2, completions=2))
    await cluster.until_count(PODS, 2)

    await cluster.patch(JOBS, "work", {"spec": {"suspend": True}})
    await condition(cluster, "work", "Suspended")
    await cluster.until_count(PODS, 0)

    cluster.kubelet.outcomes["ok"] = 0
    await cluster.patch(JOBS, "work", {"spec": {"suspend": False}})
    await condition(cluster, "work", "Complete")


async def test_a_deadline_ends_a_job(cluster: Cluster) -> None:
    cluster.kubelet.outcomes.clear()
    await cluster.create(JOBS, job(activeDeadlineSeconds=1))

    assert (await condition(cluster, "work", "Failed"))["reason"] == "DeadlineExceeded"
    await cluster.until_count(PODS, 0)


async def test_a_finished_job_goes_after_its_time(cluster: Cluster) -> None:
    await cluster.create(JOBS, job(ttlSecondsAfterFinished=0))

    await cluster.until_count(JOBS, 0)
    await cluster.until_count(PODS, 0)


async def test_deleting_a_running_job_frees_its_pods(cluster: Cluster) -> None:
    cluster.kubelet.outcomes.clear()
    await cluster.create(JOBS, job(parallelism=3, completions=3))
    await cluster.until_count(PODS, 3)

    await cluster.client.delete(JOBS, "work", "default", propagation="Background")

    await cluster.until_count(PODS, 0)


async def test_a_smaller_job_counts_what_is_left_of_it(cluster: Cluster) -> None:
    cluster.kubelet.outcomes.pop("ok")
    await cluster.create(JOBS, job(completions=4, parallelism=4, completionMode="Indexed"))
    made = await cluster.until_count(PODS, 4)
    pods = {annotations_of(pod)["batch.kubernetes.io/job-completion-index"]: pod for pod in made}
    for index in ("2", "3"):
        await cluster.kubelet.report(pods[index], 0)
    await cluster.until_status(JOBS, "work", succeeded=2, completedIndexes="2,3")

    await cluster.patch(JOBS, "work", {"spec": {"completions": 3, "parallelism": 3}})
    await cluster.until_status(JOBS, "work", succeeded=1, completedIndexes="2")
    for index in ("0", "1"):
        await cluster.kubelet.report(pods[index], 0)

    await condition(cluster, "work", "Complete")
    assert (await cluster.get(JOBS, "work"))["status"]["completedIndexes"] == "0-2"


async def test_a_job_that_has_both_failed_and_succeeded_has_failed(cluster: Cluster) -> None:
    cluster.kubelet.outcomes.clear()
    policy = {"rules": [{"succeededCount": 1}]}
    await cluster.create(
        JOBS,
        job(completions=2, parallelism=2, completionMode="Indexed", backoffLimit=0, successPolicy=policy, suspend=True),
    )
    await condition(cluster, "work", "Suspended")
    done = {"succeeded": 1, "completedIndexes": "0", "failed": 1}
    job_now = await cluster.get(JOBS, "work")
    await cluster.client.update(JOBS, {**job_now, "status": {**job_now["status"], **done}}, subresource="status")

    assert (await condition(cluster, "work", "Failed"))["reason"] == "BackoffLimitExceeded"


async def test_a_suspended_job_that_has_all_it_needs_is_complete(cluster: Cluster) -> None:
    await cluster.create(JOBS, job(completions=0, suspend=True))

    await condition(cluster, "work", "Complete")

    told = (await cluster.get(JOBS, "work"))["status"]["conditions"]
    assert [c["type"] for c in told] == ["SuccessCriteriaMet", "Complete"]


async def test_a_job_with_fewer_pods_at_a_time_gives_up_those_that_got_least_far(cluster: Cluster) -> None:
    cluster.kubelet.outcomes.clear()
    await cluster.create(JOBS, job(completions=5, parallelism=3, completionMode="Indexed"))
    await cluster.until_status(JOBS, "work", active=3, ready=3)
    pods = {index(pod): pod for pod in await cluster.list(PODS)}
    await cluster.kubelet.report(pods["0"], ready=False)
    await cluster.until_status(JOBS, "work", active=3, ready=2)

    await cluster.patch(JOBS, "work", {"spec": {"parallelism": 2}})

    left = await cluster.until_count(PODS, 2)
    assert sorted(index(pod) for pod in left) == ["1", "2"]


async def test_an_index_that_waits_for_its_next_attempt_holds_its_place(cluster: Cluster) -> None:
    cluster.kubelet.outcomes.clear()
    await cluster.create(JOBS, job(completions=2, parallelism=1, completionMode="Indexed", backoffLimitPerIndex=1))
    await cluster.until_status(JOBS, "work", active=1, ready=1)
    (first,) = await cluster.list(PODS)

    await cluster.kubelet.report(first, 1)

    await cluster.until_status(JOBS, "work", active=0, ready=0)
    assert [index(pod) for pod in await cluster.list(PODS)] == ["0"]


def index(pod: Obj) -> str:
    return str(annotations_of(pod)["batch.kubernetes.io/job-completion-index"])
