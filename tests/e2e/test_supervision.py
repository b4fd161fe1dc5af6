"""A cluster whose records, locks and supervisors are taken away: nobody is left alone, and no data are deleted under
those who use them. And where it listens, and how it is found."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from navarch.cluster import locks, strays
from navarch.cluster.config import ClusterConfig, host_address

from .conftest import Cluster
from .test_command_line import User, assert_explained

pytestmark = pytest.mark.e2e


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    someone = User(tmp_path)
    yield someone
    for file in (tmp_path / "clusters").glob("*/cluster.json"):
        someone.run("down", "--name", file.parent.name, "--purge")


def pids(folder: Path) -> dict[str, int]:
    """By name. One that is starting a supervisor has a child that for a moment is called as it is: the older counts."""
    youngest_first = sorted(strays.processes_of(folder), key=lambda stray: -stray.ticks)
    return {stray.name: stray.pid for stray in youngest_first}


def test_a_lost_run_folder_hides_no_process(user: User) -> None:
    user.up()
    before = pids(user.folder())
    shutil.rmtree(user.folder() / "run")

    report = user.status()

    assert report["running"]
    assert {entry["name"]: entry["pid"] for entry in report["processes"]} == before
    assert user.run("down", "--purge").returncode == 0
    assert pids(user.folder()) == {}
    assert not user.folder().exists()


def test_a_lost_run_folder_makes_no_second_cluster(user: User) -> None:
    user.up()
    before = pids(user.folder())
    shutil.rmtree(user.folder() / "run")
    os.kill(before["supervisor"], signal.SIGKILL)

    assert user.up()["name"] == "default"

    found = strays.processes_of(user.folder())
    assert sorted(stray.name for stray in found) == ["apiserver", "controllers", "supervisor"]
    assert user.status()["ready"]


def test_processes_that_nobody_watches_are_shown_and_ended(user: User) -> None:
    user.up()
    config = ClusterConfig.load(user.folder())
    before = pids(config.root)
    # While somebody takes the cluster down none of its processes starts a supervisor.
    locks.hold(config.run, locks.SUPERVISOR, locks.STOPPING)
    try:
        os.kill(before["supervisor"], signal.SIGKILL)
        user_sees = user.run("status")
    finally:
        locks.release(config.run, locks.SUPERVISOR, locks.STOPPING)

    assert "Nobody watches its processes" in user_sees.stderr
    assert str(before["apiserver"]) in user_sees.stdout
    assert user.run("down").returncode == 0
    assert pids(config.root) == {}


def test_an_api_server_is_started_again_once_however_it_was_recorded(user: User) -> None:
    user.up()
    config = ClusterConfig.load(user.folder())
    before = pids(config.root)
    (config.run / "state.json").unlink()
    (config.run / "state.json.partial").mkdir()

    os.kill(before["supervisor"], signal.SIGKILL)

    user_waits(user, lambda: pids(config.root).get("supervisor") not in (None, before["supervisor"]))
    assert {name: pid for name, pid in pids(config.root).items() if name != "supervisor"} == {
        name: pid for name, pid in before.items() if name != "supervisor"
    }
    report = user.status()
    assert report["supervised"]
    assert report["ready"]


def user_waits(user: User, condition: object, timeout_s: float = 30) -> None:
    import time

    assert callable(condition)
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s, user.status()
        time.sleep(0.05)


_HOLDER = """
import asyncio, sys
from navarch.store.sqlite import SQLiteStore
async def main():
    store = SQLiteStore(sys.argv[1])
    await store.open()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await store.close()
asyncio.run(main())
"""


def test_data_that_somebody_uses_are_not_deleted(user: User) -> None:
    user.up()
    user.run("kubectl", "create", "configmap", "kept")
    user.run("down")
    database = user.folder() / "state.db"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    before = sorted(path.name for path in user.folder().iterdir())

    done = user.run("down", "--purge")

    assert_explained(done, "nothing was deleted", f"process {holder.pid} has {database} open", status=1)
    assert sorted(path.name for path in user.folder().iterdir()) == before
    holder.communicate("")
    user.up()
    assert user.run("kubectl", "get", "configmap", "kept").returncode == 0


def listening(folder: Path) -> set[str]:
    """The addresses at which a cluster's processes take TCP connections."""
    inodes = set()
    for stray in strays.processes_of(folder):
        for descriptor in Path(f"/proc/{stray.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(descriptor))
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
            found.add(socket.inet_ntoa(bytes.fromhex(words[1].partition(":")[0])[::-1]))
    for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
            found.add(words[1].partition(":")[0])
    return found


def test_a_simulated_cluster_listens_on_loopback(user: User) -> None:
    user.up()

    assert listening(user.folder()) == {"127.0.0.1"}


def test_a_cluster_listens_where_it_is_told_to(user: User) -> None:
    server = user.up("--bind-address", "0.0.0.0")["server"]

    assert "0.0.0.0" in listening(user.folder())
    tls = ssl.create_default_context(cafile=str(user.folder() / "pki" / "ca.crt"))
    port = int(server.rpartition(":")[2])
    with socket.create_connection((host_address(), port), timeout=5) as plain:
        tls.wrap_socket(plain, server_hostname=host_address()).close()
    assert_explained(user.run("up", "-d", "--bind-address", "here"), "invalid address 'here'", status=2)
    assert_explained(user.run("up", "-d", "--bind-address", "127.0.0.1"), "stop it first", status=2)


@pytest.mark.containers
def test_a_node_listens_where_its_pods_need_it(containers: Cluster) -> None:
    config = containers.config

    assert listening(config.root) == {"127.0.0.1", config.advertise_address}
    assert containers.get("nodes")["items"][0]["status"]["addresses"][0]["address"] == config.advertise_address


def test_a_cluster_is_found_wherever_it_was_put(user: User) -> None:
    place = user.home / "elsewhere" / "c"
    user.up("--name", "far", "--data-dir", str(place))

    assert user.status("far")["dataDir"] == str(place)
    assert [entry["name"] for entry in json.loads(user.run("ls", "-o", "json").stdout)] == ["far"]
    assert user.run("kubectl", "--name", "far", "get", "nodes").returncode == 0
    assert_explained(
        user.run("up", "-d", "--name", "far", "--data-dir", str(user.home / "other")), "already, in", status=2
    )
    stopped = user.run("down", "--name", "far")
    assert "`navarch up --name far`" in stopped.stderr
    # Whoever tidies up there has it back with the next start.
    (user.home / "clusters" / "far").unlink()
    user.up("--name", "far", "--data-dir", str(place))
    assert user.status("far")["ready"]
    assert user.run("down", "--name", "far", "--purge").returncode == 0
    assert list((user.home / "clusters").iterdir()) == []
    assert not place.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_on_a_full_disk_processes_are_watched_and_come_back_when_there_is_room(user: User) -> None:
    place = user.home / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(place)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    folder = place / "c"
    try:
        user.up("--name", "small", "--data-dir", str(folder))
        # Unbuffered: what did not fit would be tried again when the file is closed.
        with (place / "fill").open("wb", buffering=0) as fill, contextlib.suppress(OSError):
            while True:
                fill.write(bytes(1 << 16))
        first = pids(folder)

        for name in ("controllers", "supervisor"):
            os.kill(first[name], signal.SIGKILL)
            user_waits(user, lambda name=name: pids(folder).get(name) not in (None, first[name]))

        then = pids(folder)
        assert then["apiserver"] == first["apiserver"]
        assert user.status("small")["supervised"]
        (place / "fill").unlink()
        user_waits(user, lambda: user.status("small")["ready"])
        assert pids(folder)["supervisor"] == then["supervisor"]
        assert user.run("down", "--name", "small", "--purge").returncode == 0
        assert pids(folder) == {}
    finally:
        user.run("down", "--name", "small", "--purge")
        subprocess.run(["umount", str(place)], check=True)
