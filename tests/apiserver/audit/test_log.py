"""The audit log's file: lines in either form, rotated by size, with old files deleted."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from navarch.api.meta import Obj
from navarch.apiserver.audit.log import AuditLog, LogSettings
from navarch.world import RealWorld
from tests.clocks import SetClock

EVENT: Obj = {
    "auditID": "id",
    "stage": "ResponseComplete",
    "verb": "get",
    "requestURI": "/api/v1/pods",
    "user": {"username": "jane", "groups": ["a", "b"]},
    "sourceIPs": ["192.0.2.7"],
    "userAgent": "test/1",
    "objectRef": {"namespace": "default"},
    "responseStatus": {"code": 200},
    "stageTimestamp": "2024-01-02T03:04:05.000000Z",
}


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


def opened(path: Path, clock: SetClock, **settings: int | bool | str) -> AuditLog:
    return AuditLog(replace(LogSettings(str(path)), **settings), RealWorld(1, clock=clock))  # type: ignore[arg-type]


async def test_a_line_for_each_event_behind_those_that_were_there(tmp_path: Path, clock: SetClock) -> None:
    path = tmp_path / "deep" / "audit.log"
    for _ in range(2):
        log = opened(path, clock)
        log.write(EVENT)
        await log.close()

    assert [json.loads(line) for line in path.read_text().splitlines()] == [EVENT, EVENT]
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_older_form(tmp_path: Path, clock: SetClock) -> None:
    path = tmp_path / "audit.log"
    opened(path, clock, form="legacy").write(EVENT)

    assert path.read_text() == (
        '2024-01-02T03:04:05.000000Z AUDIT: id="id" stage="ResponseComplete" ip="192.0.2.7" method="get" user="jane" '
        'groups="a","b" as="<self>" asgroups=<self> user-agent="test/1" namespace="default" uri="/api/v1/pods" '
        'response="200"\n'
    )


async def test_a_log_that_has_grown_is_put_aside_and_the_oldest_go(tmp_path: Path, clock: SetClock) -> None:
    path = tmp_path / "audit.log"
    log = opened(path, clock, max_size_mb=1, max_backups=2, compress=True)
    for _ in range(5):
        log.write({**EVENT, "userAgent": "x" * 700_000})
        clock.time += timedelta(seconds=1)
    await log.close()

    backups = sorted(tmp_path.glob("audit-*.log.gz"))
    assert len(backups) == 2
    assert json.loads(gzip.decompress(backups[0].read_bytes()))["auditID"] == "id"
    assert len(path.read_text().splitlines()) == 1


def test_what_cannot_be_written_stops_nothing(
    tmp_path: Path, clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder").mkdir()

    opened(tmp_path / "folder", clock).write(EVENT)

    assert "an audit event could not be written" in caplog.text


async def test_files_beside_the_log_that_only_look_like_it_stay(tmp_path: Path, clock: SetClock) -> None:
    path = tmp_path / "audit.log"
    others = [tmp_path / name for name in ("audit-policy.log", "audit-2.log", "audit-.log", "audit-x.log.gz")]
    for other in others:
        other.write_text("mine")
    log = opened(path, clock, max_size_mb=1, max_backups=1, max_age_days=1)
    for _ in range(4):
        log.write({**EVENT, "userAgent": "x" * 700_000})
        clock.time += timedelta(hours=1)
    await log.close()

    assert all(other.read_text() == "mine" for other in others)
    assert len(list(tmp_path.iterdir())) == len(others) + 2


async def test_nothing_is_lost_of_what_is_put_aside_within_one_instant(tmp_path: Path, clock: SetClock) -> None:
    path = tmp_path / "audit.log"
    log = opened(path, clock, max_size_mb=1, compress=True)
    for number in range(4):
        log.write({**EVENT, "auditID": str(number), "userAgent": "x" * 700_000})
    await log.close()

    texts = [gzip.decompress(each.read_bytes()) for each in sorted(tmp_path.glob("*.gz"))]
    assert [json.loads(text)["auditID"] for text in (*texts, path.read_bytes())] == ["0", "1", "2", "3"]
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}
