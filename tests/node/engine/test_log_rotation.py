"""Logs that have grown too long, as somebody finds them who looks into their folder."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from navarch.node.runtime import rotated_logs
from navarch.node.runtime.base import RuntimeFailure, State
from navarch.node.runtime.rotated_logs import make_way, remove_logs
from tests.node.engine.conftest import Simulated


def names(place: Path) -> list[str]:
    return sorted(file.name for file in place.iterdir())


def test_the_oldest_go_and_the_others_are_compressed(tmp_path: Path) -> None:
    for second in range(4):
        (tmp_path / f"0.log.20260101-00000{second}").write_text(f"said in second {second}")
    (tmp_path / "0.log").write_text("now")
    (tmp_path / "1.log.20260101-000000").write_text("of another")

    make_way(tmp_path / "0.log", 2)

    packed = ["0.log.20260101-000002.gz", "0.log.20260101-000003.gz"]
    assert names(tmp_path) == ["0.log", *packed, "1.log.20260101-000000"]
    assert [gzip.decompress((tmp_path / name).read_bytes()) for name in packed] == [
        b"said in second 2",
        b"said in second 3",
    ]


def test_what_an_earlier_attempt_left_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / "0.log.20260101-000000").write_text("whole")
    (tmp_path / "0.log.20260101-000000.gz").write_bytes(gzip.compress(b"whole"))
    (tmp_path / "0.log.20260101-000001").write_text("next")
    (tmp_path / "0.log.20260101-000001.tmp").write_text("ha")

    make_way(tmp_path / "0.log", 3)

    assert names(tmp_path) == ["0.log.20260101-000000.gz", "0.log.20260101-000001.gz"]


def test_without_room_to_compress_a_log_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rotated_logs.shutil, "copyfileobj", full)
    (tmp_path / "0.log.20260101-000000").write_text("whole")

    with pytest.raises(OSError, match="No space left"):
        make_way(tmp_path / "0.log", 1)

    assert names(tmp_path) == ["0.log.20260101-000000"]
    assert (tmp_path / "0.log.20260101-000000").read_text() == "whole"


def test_with_a_log_goes_all_that_was_rotated_of_it(tmp_path: Path) -> None:
    for name in ("0.log", "0.log.20260101-000000.gz", "0.log.20260101-000001", "1.log"):
        (tmp_path / name).touch()

    remove_logs(tmp_path / "0.log")

    assert names(tmp_path) == ["1.log"]


@pytest.mark.parametrize("reopens", [True, False])
async def test_a_log_stays_where_it_was_if_the_runtime_cannot_begin_another(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reopens: bool
) -> None:
    async def reopen(_: str) -> None:
        if not reopens:
            raise RuntimeFailure("no space left on device")

    monkeypatch.setattr(simulated.runtime, "reopen_log", reopen)
    made = await simulated.pod("talk")
    await simulated.running("talk")
    worker = simulated.kubelet.pods.get(made["metadata"]["uid"])
    assert worker is not None
    path = tmp_path / "0.log"
    path.write_bytes(bytes(simulated.config.container_log_max_bytes))
    [container] = worker.observed.all()
    logged = replace(container, status=replace(container.status, log_path=str(path)))
    monkeypatch.setattr(worker, "observed", replace(worker.observed, containers={"c": [logged]}))

    await simulated.kubelet.logs.look()

    assert path.exists() is not reopens
    assert len(rotated_logs.rotated(path)) == reopens


async def test_what_goes_when_the_disk_is_short_takes_its_logs_along(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = await simulated.pod("again")
    await simulated.running("again")
    worker = simulated.kubelet.pods.get(made["metadata"]["uid"])
    assert worker is not None
    place = tmp_path / "logs"
    place.mkdir()
    for name in ("0.log", "0.log.20260101-000000.gz", "1.log"):
        (place / name).touch()
    [now] = worker.observed.all()
    newest = replace(now, status=replace(now.status, log_path=str(place / "1.log")))
    ended = replace(now.status, id="ended", state=State.EXITED, log_path=str(place / "0.log"))
    monkeypatch.setattr(
        worker, "observed", replace(worker.observed, containers={"c": [newest, replace(now, status=ended)]})
    )

    await simulated.kubelet.sweeper.remove_dead_containers()

    assert names(place) == ["1.log"]
