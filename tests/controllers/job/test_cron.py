"""CronJobs against a real API server, with a clock that a test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from typing import Any

import pytest

from navarch.api.meta import Obj, annotations_of, controller_of, name_of
from navarch.api.time import parse_time
from navarch.client.resources import CRON_JOBS, JOBS, PODS, RESOURCE_QUOTAS
from tests.clocks import HalfPastClock
from tests.controllers.conftest import Cluster, running
from tests.controllers.objects import job


@pytest.fixture
def clock() -> HalfPastClock:
    return HalfPastClock()


@pytest.fixture
async def cluster(clock: HalfPastClock) -> AsyncIterator[Cluster]:
    async with running(clock=clock) as made:
        made.kubelet.outcomes.update({"ok": 0, "bad": 1})
        yield made


def cron_job(image: str = "ok", **spec: Any) -> Obj:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "default"},
        "spec": {
            "schedule": "* * * * *",
            "jobTemplate": {"spec": {**job(image=image)["spec"], "backoffLimit": 0}},
            **spec,
        },
    }


async def next_minute(cluster: Cluster, clock: HalfPastClock, **poke: Any) -> None:
    """Put the clock into the next minute and have the CronJob looked at."""
    clock.ahead += timedelta(minutes=1)
    note = {"metadata": {"annotations": {"looked-at": str(clock.ahead)}}}
    await cluster.patch(CRON_JOBS, "tick", {**note, **poke})


async def test_a_job_is_made_each_minute_and_named_after_it(cluster: Cluster, clock: HalfPastClock) -> None:
    await cluster.create(CRON_JOBS, cron_job())
    await next_minute(cluster, clock)

    (made,) = await cluster.until_count(JOBS, 1)

    due = parse_time(annotations_of(made)["batch.kubernetes.io/cronjob-scheduled-timestamp"])
    assert due.second == 0
    assert name_of(made) == f"tick-{int(due.timestamp()) // 60}"
    assert (controller_of(made) or {})["name"] == "tick"

    async def succeeded() -> Obj | None:
        status = (await cluster.get(CRON_JOBS, "tick")).get("status") or {}
        return status if status.get("lastSuccessfulTime") and not status.get("active") else None

    status = await cluster.until(succeeded)
    assert parse_time(status["lastScheduleTime"]) == due
    events = [reason for reason, _ in await cluster.events("tick")]
    assert {"SuccessfulCreate", "SawCompletedJob"} <= set(events)
    assert "UnexpectedJob" not in events


async def test_finished_jobs_beyond_the_limits_go(cluster: Cluster, clock: HalfPastClock) -> None:
    await cluster.create(CRON_JOBS, cron_job(successfulJobsHistoryLimit=1, failedJobsHistoryLimit=0))
    for image in ("ok", "ok", "bad"):
        template = {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}}
        await next_minute(cluster, clock, spec=template)

        async def ended() -> bool:
            status = (await cluster.get(CRON_JOBS, "tick")).get("status") or {}
            return bool(status.get("lastScheduleTime")) and not status.get("active")

        await cluster.until(ended)

    (kept,) = await cluster.until_count(JOBS, 1)
    conditions = {c["type"] for c in kept["status"]["conditions"] if c["status"] == "True"}
    assert "Complete" in conditions


async def test_forbid_skips_a_time_while_a_job_runs(cluster: Cluster, clock: HalfPastClock) -> None:
    await cluster.create(CRON_JOBS, cron_job(image="runs", concurrencyPolicy="Forbid"))
    await next_minute(cluster, clock)
    (first,) = await cluster.until_count(JOBS, 1)
    await next_minute(cluster, clock)

    async def told() -> bool:
        return any(reason == "JobAlreadyActive" for reason, _ in await cluster.events("tick"))

    await cluster.until(told)
    assert [name_of(each) for each in await cluster.list(JOBS)] == [name_of(first)]


async def test_replace_ends_the_job_that_runs(cluster: Cluster, clock: HalfPastClock) -> None:
    await cluster.create(CRON_JOBS, cron_job(image="runs", concurrencyPolicy="Replace"))
    await next_minute(cluster, clock)
    (first,) = await cluster.until_count(JOBS, 1)
    await cluster.until_count(PODS, 1)
    await next_minute(cluster, clock)

    async def replaced() -> bool:
        return name_of(first) not in [name_of(each) for each in await cluster.list(JOBS)]

    await cluster.until(replaced)
    (second,) = await cluster.until_count(JOBS, 1)

    async def only_the_second_counts() -> bool:
        status = (await cluster.get(CRON_JOBS, "tick"))["status"]
        return [each["name"] for each in status.get("active") or ()] == [name_of(second)]

    await cluster.until(only_the_second_counts)


async def test_allow_runs_jobs_side_by_side(cluster: Cluster, clock: HalfPastClock) -> None:
    await cluster.create(CRON_JOBS, cron_job(image="runs"))
    for count in (1, 2):
        await next_minute(cluster, clock)
        await cluster.until_count(JOBS, count)

    async def both() -> bool:
        return len((await cluster.get(CRON_JOBS, "tick"))["status"].get("active", ())) == 2

    await cluster.until(both)


async def test_a_suspended_one_starts_nothing_and_catches_up_with_the_latest_only(
    cluster: Cluster, clock: HalfPastClock
) -> None:
    await cluster.create(CRON_JOBS, cron_job(suspend=True))
    for _ in range(3):
        await next_minute(cluster, clock)
    assert await cluster.list(JOBS) == []

    await cluster.patch(CRON_JOBS, "tick", {"spec": {"suspend": False}})

    (made,) = await cluster.until_count(JOBS, 1)
    due = parse_time(annotations_of(made)["batch.kubernetes.io/cronjob-scheduled-timestamp"])
    assert clock.now().astimezone(UTC) - due < timedelta(minutes=1)


async def test_a_day_that_no_year_has_is_told(cluster: Cluster) -> None:
    await cluster.create(CRON_JOBS, cron_job(schedule="0 0 31 2 *"))

    async def told() -> bool:
        problem = "time difference between two schedules is less than 1 second"
        return ("InvalidSchedule", f"invalid schedule: 0 0 31 2 * : {problem}") in await cluster.events("tick")

    await cluster.until(told)


async def test_the_time_that_a_job_is_for_is_written_in_the_cron_jobs_zone(
    cluster: Cluster, clock: HalfPastClock
) -> None:
    await cluster.create(CRON_JOBS, cron_job(timeZone="Asia/Kolkata"))
    await next_minute(cluster, clock)

    (made,) = await cluster.until_count(JOBS, 1)

    text = annotations_of(made)["batch.kubernetes.io/cronjob-scheduled-timestamp"]
    assert text.endswith("+05:30")
    assert name_of(made) == f"tick-{int(parse_time(text).timestamp()) // 60}"


async def test_many_missed_times_are_told_and_the_latest_is_started(cluster: Cluster, clock: HalfPastClock) -> None:
    await cluster.create(CRON_JOBS, cron_job())
    clock.ahead += timedelta(hours=3)
    await next_minute(cluster, clock)

    (made,) = await cluster.until_count(JOBS, 1)

    due = parse_time(annotations_of(made)["batch.kubernetes.io/cronjob-scheduled-timestamp"])
    assert clock.now().astimezone(UTC) - due < timedelta(minutes=1)

    async def told() -> list[str]:
        return [message for reason, message in await cluster.events("tick") if reason == "TooManyMissedTimes"]

    words = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
    assert await cluster.until(told) == [words]


async def test_what_became_of_a_job_is_written_though_the_next_cannot_be_made(
    cluster: Cluster, clock: HalfPastClock
) -> None:
    await cluster.create(CRON_JOBS, cron_job(image="runs"))
    await next_minute(cluster, clock)
    await cluster.until_count(PODS, 1)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": "default"},
             "spec": {"hard": {"count/jobs.batch": "1"}}}  # fmt: skip
    await cluster.create(RESOURCE_QUOTAS, quota)
    await cluster.until_status(RESOURCE_QUOTAS, "none", used={"count/jobs.batch": "1"})
    await next_minute(cluster, clock)

    (pod,) = await cluster.list(PODS)
    await cluster.kubelet.report(pod, 0)

    async def ended() -> bool:
        status = (await cluster.get(CRON_JOBS, "tick"))["status"]
        return bool(status.get("lastSuccessfulTime")) and not status.get("active")

    await cluster.until(ended)
