"""One seed, one history: an hour of a cluster in virtual time is the same in every process, byte for byte."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[1]
LONGEST_CPU_S = 60.0


class Hour(NamedTuple):
    stored: bytes
    log: bytes
    cpu_s: float


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys and certificates cannot repeat; every run is given the same."""
    return tmp_path_factory.mktemp("hours") / "pki"


def play(keys: Path, out: Path, *, seed: int, hash_seed: int, ballast: int = 0) -> Hour:
    """Play the hour in a process of its own, whose hashes and addresses are its own too."""
    out.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "BALLAST": "x" * ballast}
    command = [sys.executable, "-m", "tests.scripted_hour", str(keys), str(out), str(seed)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Hour((out / "stored").read_bytes(), (out / "log").read_bytes(), cpu_s)


@pytest.fixture(scope="module")
def first(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Hour:
    return play(keys, tmp_path_factory.mktemp("first") / "out", seed=5, hash_seed=1)


def reasons(hour: Hour) -> set[str]:
    """The reasons of all events of the hour."""
    events = [line for line in hour.stored.splitlines() if b" /registry/core/events/" in line]
    return {match.decode() for line in events for match in re.findall(rb'"reason":"(\w+)"', line)}


def test_the_hour_is_one_in_which_much_happens(first: Hour) -> None:
    expected = {"NodeNotReady", "TaintManagerEviction", "ScalingReplicaSet", "Preempted", "BackoffLimitExceeded"}
    expected |= {"SuccessfulCreate", "SuccessfulDelete", "Scheduled", "Started", "SawCompletedJob"}
    assert expected <= reasons(first)
    assert first.log.count(b"\n") > 20


def test_another_process_lives_the_same_hour(first: Hour, keys: Path, tmp_path: Path) -> None:
    again = play(keys, tmp_path / "again", seed=5, hash_seed=2, ballast=50_000)

    assert again.stored == first.stored
    assert again.log == first.log


def test_another_seed_gives_another_hour(first: Hour, keys: Path, tmp_path: Path) -> None:
    other = play(keys, tmp_path / "other", seed=6, hash_seed=1)

    assert other.stored != first.stored
    assert reasons(other) >= {"NodeNotReady", "Preempted"}


def test_an_hour_takes_seconds(first: Hour) -> None:
    assert first.cpu_s < LONGEST_CPU_S
