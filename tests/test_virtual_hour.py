"""One seed, one history: an hour of a cluster in virtual time is the same in every process, byte for byte."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from navarch.testing.embedded import EmbeddedCluster

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[1]
LONGEST_CPU_S = 60.0


class Hour(NamedTuple):
    stored: bytes
    log: bytes
    cpu_s: float


class Playing:
    """The hour, played in a process of its own, whose hashes and addresses are its own too."""

    def __init__(self, keys: Path, out: Path, *, seed: int, hash_seed: int, ballast: int = 0) -> None:
        out.mkdir()
        self._out = out
        environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "BALLAST": "x" * ballast}
        command = [sys.executable, "-m", "tests.scripted_hour", str(keys), str(out), str(seed)]
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment)

    def end(self) -> Hour:
        _, status, used = os.wait4(self._process.pid, 0)
        # Waited for by hand, for what it alone used of the processor.
        self._process.returncode = os.waitstatus_to_exitcode(status)
        assert self._process.returncode == 0
        return Hour(
            (self._out / "stored").read_bytes(), (self._out / "log").read_bytes(), used.ru_utime + used.ru_stime
        )

    def kill(self) -> None:
        """Where it has not ended."""
        self._process.kill()
        self._process.wait()


async def _make(keys: Path) -> None:
    async with EmbeddedCluster(nodes=0, controllers=False, keys=keys):
        pass


class Hours(NamedTuple):
    first: Hour
    again: Hour
    other_seed: Hour


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Hours:
    folder = tmp_path_factory.mktemp("hours")
    # Keys and certificates cannot repeat; every run is given the same.
    keys = folder / "pki"
    asyncio.run(_make(keys))
    playing = [
        Playing(keys, folder / "first", seed=5, hash_seed=1),
        Playing(keys, folder / "again", seed=5, hash_seed=2, ballast=50_000),
        Playing(keys, folder / "other", seed=6, hash_seed=1),
    ]
    try:
        return Hours(*(each.end() for each in playing))
    finally:
        for each in playing:
            each.kill()


def reasons(hour: Hour) -> set[str]:
    """The reasons of all events of the hour."""
    events = [line for line in hour.stored.splitlines() if b" /registry/core/events/" in line]
    return {match.decode() for line in events for match in re.findall(rb'"reason":"(\w+)"', line)}


def test_the_hour_is_one_in_which_much_happens(hours: Hours) -> None:
    expected = {"NodeNotReady", "TaintManagerEviction", "ScalingReplicaSet", "Preempted", "BackoffLimitExceeded"}
    expected |= {"SuccessfulCreate", "SuccessfulDelete", "Scheduled", "Started", "SawCompletedJob"}
    assert expected <= reasons(hours.first)
    assert hours.first.log.count(b"\n") > 20


def test_another_process_lives_the_same_hour(hours: Hours) -> None:
    assert hours.again.stored == hours.first.stored
    assert hours.again.log == hours.first.log


def test_another_seed_gives_another_hour(hours: Hours) -> None:
    assert hours.other_seed.stored != hours.first.stored
    assert reasons(hours.other_seed) >= {"NodeNotReady", "Preempted"}


def test_an_hour_takes_seconds(hours: Hours) -> None:
    assert hours.first.cpu_s < LONGEST_CPU_S
