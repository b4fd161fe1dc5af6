"""A node whose disk is full: pods say why they do not start, and start when there is room; nothing that was is lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from navarch.node.certificates import KeyPair
from navarch.node.config import KubeletConfig
from navarch.node.engine import retries
from navarch.node.user_namespaces import UserNamespaces
from navarch.node.volumes.atomic import write_payload
from navarch.node.volumes.base import Payload
from navarch.world import RealWorld
from tests.node.engine.conftest import Simulated

_FILL = "filling"


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 1 MiB mounted at `place`."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    place.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=200", "none", str(place)]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    """No byte and no file more."""
    (disk / _FILL).mkdir()
    with (disk / _FILL / "bytes").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with contextlib.suppress(OSError):
        for number in range(1000):
            (disk / _FILL / str(number)).touch()


def make_room(disk: Path) -> None:
    subprocess.run(["rm", "-r", str(disk / _FILL)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as place:
        yield place


async def test_a_pod_says_that_its_logs_have_no_room_and_runs_when_they_have(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "AGAIN", timedelta(seconds=0.2))
    monkeypatch.setattr(retries, "SOON", timedelta(seconds=0.2))
    with small_disk(simulated.config.logs) as logs:
        fill(logs)
        await simulated.pod("late")

        await simulated.until(lambda: "FailedCreatePodSandBox" in simulated.reasons("late"))
        told = next(one["message"] for one in simulated.api.events() if one["reason"] == "FailedCreatePodSandBox")
        assert told.startswith(f"Failed to create pod sandbox: {logs}/default_late_")
        assert told.endswith(": no space left on device")

        make_room(logs)
        await simulated.running("late")
        await simulated.stop()


async def test_a_container_says_that_there_is_no_room_for_its_files_and_runs_when_there_is(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "AGAIN", timedelta(seconds=0.2))
    with small_disk(simulated.config.pods) as pods:
        fill(pods)
        await simulated.pod("late", automountServiceAccountToken=False)

        def waiting() -> str:
            statuses = (simulated.shown("late").get("status") or {}).get("containerStatuses") or [{}]
            return str(statuses[0].get("state", {}).get("waiting", {}))

        await simulated.until(lambda: "CreateContainerConfigError" in waiting())
        assert ": no space left on device" in waiting()
        assert "Failed" in simulated.reasons("late")

        make_room(pods)
        await simulated.running("late")
        await simulated.stop()


async def test_a_pod_says_that_there_is_no_room_for_its_volumes_and_runs_when_there_is(simulated: Simulated) -> None:
    with small_disk(simulated.config.pods) as pods:
        fill(pods)
        made = await simulated.pod("late", volumes=[{"name": "e", "emptyDir": {}}], automountServiceAccountToken=False)

        await simulated.until(lambda: "FailedMount" in simulated.reasons("late"))
        told = next(one["message"] for one in simulated.api.events() if one["reason"] == "FailedMount")
        place = pods / made["metadata"]["uid"]
        assert told == f'MountVolume.SetUp failed for volume "e" : {place}: no space left on device'

        make_room(pods)
        await simulated.running("late")
        await simulated.stop()


def test_a_certificate_stays_where_there_is_no_room_for_the_next(disk: Path) -> None:
    pair = KeyPair(disk, "kubelet-client")
    pair.write(b"certificate", b"key")
    fill(disk)

    with pytest.raises(OSError, match="No space left"):
        pair.write(b"new certificate" * 1000, b"new key" * 1000)

    assert (pair.certificate.read_bytes(), pair.key.read_bytes()) == (b"certificate", b"key")
    make_room(disk)
    pair.write(b"new certificate", b"new key")
    assert (pair.certificate.read_bytes(), pair.key.read_bytes()) == (b"new certificate", b"new key")


def test_files_of_a_volume_stay_as_they_were_and_what_was_begun_is_taken_away(disk: Path) -> None:
    place, now = disk / "volume", RealWorld().now()
    write_payload(place, {"a": Payload(b"old", 0o644)}, mode=0o755, group=None, now=now)
    before = sorted(entry.name for entry in place.iterdir())
    next_ones = {"a": Payload(b"new", 0o644), "b": Payload(bytes(2 << 20), 0o644)}

    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            write_payload(place, next_ones, mode=0o755, group=None, now=now)

    assert sorted(entry.name for entry in place.iterdir()) == before
    assert (place / "a").read_bytes() == b"old"


def test_no_pod_is_given_users_that_could_not_be_written_down(disk: Path) -> None:
    config = KubeletConfig("n1", disk, disk / "none")
    fill(disk)
    users = UserNamespaces(config)
    with pytest.raises(OSError, match="No space left"):
        users.of("one")

    make_room(disk)
    assert users.of("one") == UserNamespaces(config).of("one")
