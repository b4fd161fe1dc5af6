"""The command line with clusters that run: foreground and background, two side by side, and what goes wrong.

Each test is a new user with a home of their own; everything is taken down when it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from navarch.cluster.config import ClusterConfig
from navarch.cluster.state import ClusterState, alive
from navarch.node.containerd import why_unavailable

from ..ports import free_port

pytestmark = pytest.mark.e2e
NAVARCH = [sys.executable, "-m", "navarch.cli.main"]
Done = subprocess.CompletedProcess[str]


class User:
    """Someone at a terminal, with clusters, a kubeconfig and an environment of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.kubeconfig = home / "kube" / "config"
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("NAVARCH_")}
        self.env |= {"NAVARCH_HOME": str(home / "clusters"), "KUBECONFIG": str(self.kubeconfig), "TERM": "xterm"}

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> Done:
        return subprocess.run(
            [*NAVARCH, *arguments],
            env=self.env | (env or {}),
            cwd=self.home,
            text=True,
            capture_output=True,
            timeout=90,
            check=False,
        )

    def up(self, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
        done = self.run("up", "--detach", "--runtime", "simulated", "-o", "json", *arguments, env=env)
        assert done.returncode == 0, done.stderr
        described: dict[str, Any] = json.loads(done.stdout)
        return described

    def status(self, name: str = "default") -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.run("status", "--name", name, "-o", "json").stdout)
        return report

    def contexts(self) -> list[str]:
        if not self.kubeconfig.exists():
            return []
        return [entry["name"] for entry in yaml.safe_load(self.kubeconfig.read_text())["contexts"]]

    def folder(self, name: str = "default") -> Path:
        return self.home / "clusters" / name

    def processes(self, name: str = "default") -> list[int]:
        """The pids of a cluster's processes, the supervisor first."""
        state = ClusterState.load(ClusterConfig.load(self.folder(name)).run)
        return [state.supervisor_pid, *(entry.pid for entry in state.components.values() if alive(entry))]


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    someone = User(tmp_path)
    yield someone
    for folder in (tmp_path / "clusters").glob("*"):
        if (folder / "cluster.json").exists():
            someone.run("down", "--name", folder.name, "--purge")


def assert_explained(done: Done, *words: str, status: int | None = None) -> None:
    """A failure of a few plain lines that hold the words."""
    assert done.returncode != 0
    if status is not None:
        assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    failure = done.stderr[done.stderr.index("navarch: ") :]
    assert len(failure.splitlines()) <= 4, failure
    for word in words:
        assert word in failure


class Foreground:
    """`navarch up` in a terminal."""

    def __init__(self, user: User, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.screen = ""
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.chdir(user.home)
            command = [*NAVARCH, "up", "--runtime", "simulated", *arguments]
            os.execve(command[0], command, user.env | (env or {}))
        self.pid = pid

    def read_until(self, text: str, timeout_s: float = 60) -> None:
        give_up_s = time.monotonic() + timeout_s
        while text not in self.screen:
            assert time.monotonic() < give_up_s, self.screen
            if select.select([self.terminal], [], [], 0.2)[0]:
                try:
                    self.screen += os.read(self.terminal, 4096).decode(errors="replace")
                except OSError as error:
                    raise AssertionError(f"ended without {text!r}: {self.screen}") from error

    def press_ctrl_c(self) -> None:
        os.write(self.terminal, b"\x03")

    def exit_code(self) -> int:
        """Read to the end of the screen; then the code, or the negative signal."""
        with contextlib.suppress(OSError):
            while data := os.read(self.terminal, 4096):
                self.screen += data.decode(errors="replace")
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def end_by_ctrl_c(foreground: Foreground) -> None:
    foreground.press_ctrl_c()


def end_by_sigterm(foreground: Foreground) -> None:
    os.kill(foreground.pid, signal.SIGTERM)


@pytest.mark.parametrize("end", [end_by_ctrl_c, end_by_sigterm])
def test_a_foreground_cluster_stops_cleanly(user: User, end: Callable[[Foreground], None]) -> None:
    foreground = Foreground(user)
    foreground.read_until("Ctrl-C stops the cluster")
    assert user.contexts() == ["navarch-default"]
    pids = user.processes()

    end(foreground)

    assert foreground.exit_code() == 0
    assert "Stopped." in foreground.screen
    assert "⠋" in foreground.screen
    assert "Traceback" not in foreground.screen
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert user.contexts() == []


def test_ctrl_c_while_it_starts_leaves_nothing_running(user: User) -> None:
    # So many nodes that there is time to change one's mind.
    foreground = Foreground(user, "--nodes", "20000")
    foreground.read_until("the API server")

    foreground.press_ctrl_c()

    assert foreground.exit_code() == 130, foreground.screen
    assert "Interrupted" in foreground.screen
    assert not user.status()["running"]


def test_a_killed_supervisor_does_not_end_the_foreground(user: User) -> None:
    foreground = Foreground(user)
    foreground.read_until("Ctrl-C stops the cluster")

    os.kill(user.processes()[0], signal.SIGKILL)
    foreground.read_until("another one has taken over")
    foreground.press_ctrl_c()

    assert foreground.exit_code() == 0
    assert not user.status()["running"]


def test_no_color_leaves_out_colours(user: User) -> None:
    foreground = Foreground(user, env={"NO_COLOR": "1"})
    foreground.read_until("Ctrl-C stops the cluster")
    foreground.press_ctrl_c()

    assert foreground.exit_code() == 0
    assert "\x1b[3" not in foreground.screen
    assert "✔" in foreground.screen


def test_progress_goes_to_stderr_and_data_to_stdout(user: User) -> None:
    done = user.run("up", "-d", "--runtime", "simulated", "-o", "json")

    assert json.loads(done.stdout)["context"] == "navarch-default"
    assert "\x1b" not in done.stderr
    for phase in ("the API server", "nodes (1 of 1 ready)", "Ready at https://127.0.0.1:"):
        assert phase in done.stderr


def test_up_twice_is_one_cluster(user: User) -> None:
    first = user.up()
    pids = user.processes()

    again = user.run("up", "--detach")

    assert again.returncode == 0
    assert "it is running already" in again.stderr
    assert user.processes() == pids
    assert user.up() == first
    assert_explained(user.run("up", "-d", "--nodes", "3"), "is running with --nodes 1", "navarch down", status=2)
    assert_explained(user.run("up", "-d", "--store", "memory"), "exists with --store sqlite", "--purge", status=2)


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(user: User) -> None:
    (user.home / "cluster.yaml").write_text(
        "apiVersion: navarch.dev/v1\nkind: Cluster\nmetadata: {name: from-file}\n"
        "spec: {nodes: 4, store: memory, kubernetesVersion: '1.36', runtime: simulated, wait: 1m}\n"
    )
    environment = {"NAVARCH_NODES": "3", "NAVARCH_KUBERNETES_VERSION": "1.35"}

    done = user.run("up", "-d", "--config", "cluster.yaml", "--nodes", "2", "-o", "json", env=environment)

    assert done.returncode == 0, done.stderr
    report = user.status("from-file")
    assert report["nodes"]["total"] == 2
    assert report["kubernetesVersion"] == "1.35"
    assert report["store"] == "memory"


def test_a_setting_of_the_wrong_type_in_the_file_is_named(user: User) -> None:
    (user.home / "cluster.yaml").write_text("apiVersion: navarch.dev/v1\nkind: Cluster\nspec: {nodes: many}\n")

    assert_explained(user.run("up", "--config", "cluster.yaml"), "cluster.yaml: nodes: 'many'", status=2)


def test_two_clusters_live_side_by_side(user: User) -> None:
    one, two = user.up("--name", "one"), user.up("--name", "two", "--nodes", "2")

    assert one["server"] != two["server"]
    assert user.contexts() == ["navarch-one", "navarch-two"]
    assert len(user.run("kubectl", "--name", "two", "get", "nodes", "-o", "name").stdout.split()) == 2
    assert len(user.run("kubectl", "--name=one", "get", "nodes", "-o", "name").stdout.split()) == 1
    listed = json.loads(user.run("ls", "-o", "json").stdout)
    assert [(entry["name"], entry["running"]) for entry in listed] == [("one", True), ("two", True)]

    user.run("down", "--name", "one", "--purge")

    assert user.contexts() == ["navarch-two"]
    assert user.status("two")["ready"]
    assert not user.folder("one").exists()


def test_status_and_down_when_everything_was_killed(user: User) -> None:
    user.up()
    for pid in user.processes():
        os.kill(pid, signal.SIGKILL)

    status = user.run("status")
    down = user.run("down")

    assert status.returncode == 1
    assert "is not ready" in status.stdout
    assert "`navarch up --name default` starts it" in status.stderr
    assert down.returncode == 0
    assert "It was not running." in down.stderr
    assert user.up()["name"] == "default"


def test_objects_survive_down_and_up(user: User) -> None:
    user.up()
    user.run("kubectl", "create", "configmap", "kept", "--from-literal=a=b")
    user.run("down")

    user.up("--nodes", "2")

    assert user.run("kubectl", "get", "configmap", "kept", "-o", "jsonpath={.data.a}").stdout == "b"
    assert user.status()["nodes"]["total"] == 2


def test_fewer_nodes_than_before_are_fewer_nodes(user: User) -> None:
    user.up("--nodes", "3")
    user.run("down")

    user.up("--nodes", "1")

    assert user.run("kubectl", "get", "nodes", "-o", "name").stdout.split() == ["node/node-1"]


def test_kubectl_gives_its_exit_status_and_arguments_unharmed(user: User) -> None:
    user.up()

    missing = user.run("kubectl", "get", "pod", "nope")
    differing = user.run(
        "kubectl", "create", "configmap", "x", "--from-literal=a=--b", "--dry-run=client", "-o", "name"
    )
    unstated = user.run("kubectl", "frobnicate")

    assert missing.returncode == 1
    assert missing.stderr == 'Error from server (NotFound): pods "nope" not found\n'
    assert differing.stdout == "configmap/x\n"
    assert unstated.returncode == 1


def test_logs_of_one_of_all_and_of_none(user: User) -> None:
    user.up()

    assert "serving Kubernetes v1.37" in user.run("logs", "apiserver").stdout
    every = user.run("logs", "--tail", "1").stdout
    assert "apiserver " in every
    assert "supervisor " in every
    assert user.run("logs", "supervisor", "--tail", "0").stdout == ""
    assert_explained(user.run("logs", "nothing"), "there is no log of 'nothing'", "apiserver, controllers", status=2)


def test_following_logs_ends_at_ctrl_c_without_noise(user: User) -> None:
    user.up()
    following = subprocess.Popen(
        [*NAVARCH, "logs", "-f"], env=user.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert following.stdout is not None
    following.stdout.readline()

    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=10)

    assert following.returncode == 130
    assert said.strip() == ""


def test_a_token_opens_the_api(user: User) -> None:
    server = user.up()["server"]

    token = user.run("token", "account").stdout.strip()

    whoami = user.run("kubectl", "--server", server, "--token", token, "auth", "whoami", "-o", "name")
    assert token.count(".") == 2
    assert whoami.returncode == 0, whoami.stderr
    user.run("down")
    assert_explained(user.run("token", "account"), "is not running", "navarch up", status=2)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_in_use_is_refused_at_once_and_another_one_does(user: User, taken_port: int) -> None:
    started_s = time.monotonic()
    done = user.run("up", "-d", "--runtime", "simulated", "--port", str(taken_port))

    assert_explained(done, f"cannot listen on port {taken_port}", "--port", status=1)
    assert time.monotonic() - started_s < 10
    assert not user.folder().exists()


def test_a_stopped_cluster_can_move_to_another_port(user: User) -> None:
    first = user.up()["server"]
    user.run("down")

    second = user.up("--port", str(free_port()))["server"]

    assert second != first
    assert user.run("kubectl", "get", "nodes").returncode == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--kubeconfig=/proc/nowhere/config", ["cannot write /proc/nowhere/config", "--kubeconfig"]),
        ("--data-dir=/proc/nowhere", ["cannot write to /proc/nowhere", "--data-dir"]),
        ("--data-dir=/dev/null", ["cannot write to /dev/null", "--data-dir"]),
    ],
)
def test_what_cannot_be_written_is_named_before_anything_runs(user: User, option: str, words: list[str]) -> None:
    assert_explained(user.run("up", "-d", "--runtime", "simulated", option), *words, status=1)
    assert not user.folder().exists() or not user.status()["running"]


@pytest.mark.parametrize("text", ["{bad", "[]", "{}", '{"name": 7}'])
def test_a_damaged_cluster_file_is_named_and_kept(user: User, text: str) -> None:
    file = user.folder() / "cluster.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)

    for command in (["up", "-d"], ["status"], ["down", "--purge"], ["kubectl", "get", "pods"]):
        assert_explained(user.run(*command), f"cannot read {file}", "backup", status=2)
    assert user.run("ls").returncode == 0
    assert file.read_text() == text
    file.unlink()


def test_a_damaged_database_is_named_and_kept(user: User) -> None:
    user.up()
    user.run("down")
    database = user.folder() / "state.db"
    good = database.read_bytes()
    damaged = b"\x07" * 4096 + good[4096:]
    database.write_bytes(damaged)

    done = user.run("up", "-d", "--wait", "80s")

    assert_explained(done, "apiserver cannot start", "state.db", "file is not a database", status=1)
    # What ended so often before the supervisor was replaced is no reason to give up on the next one.
    os.kill(user.processes()[0], signal.SIGKILL)
    user.run("down")
    assert database.read_bytes() == damaged
    database.write_bytes(good)
    user.up()


def test_a_wait_that_is_too_short_says_what_it_waited_for(user: User) -> None:
    detached = user.run("up", "-d", "--runtime", "simulated", "--wait", "0s")

    assert_explained(detached, "timed out after 0 s waiting for the API server", "navarch status", status=1)
    assert "goes on in the background" in detached.stderr
    assert user.up()["name"] == "default"
    user.run("down")
    assert_explained(user.run("up", "--wait", "0s"), "timed out after 0 s", status=1)
    assert not user.status()["running"]


def test_images_are_for_real_containers(user: User) -> None:
    user.up()
    (user.home / "bad.tar").write_text("no image")

    assert_explained(user.run("image", "load", "bad.tar"), "simulated nodes, which need no images", status=2)


def test_without_root_real_containers_are_refused_with_the_reason(user: User) -> None:
    if os.geteuid() != 0:
        assert_explained(user.run("up", "--runtime", "containerd"), "needs root", "--runtime simulated", status=2)
        return
    # As root, what is missing is named instead.
    done = user.run("up", "--runtime", "containerd", env={"PATH": "/nowhere"})

    assert_explained(done, "containerd is not installed", "--runtime simulated", status=2)
    assert not user.folder().exists()


def test_a_full_disk_is_named(user: User) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small file system can be mounted by root alone")
    place = user.home / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(place)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        done = user.run("up", "-d", "--runtime", "simulated", "--data-dir", str(place / "c"), "--wait", "30s")

        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        user.run("down", "--data-dir", str(place / "c"), "--purge")
    finally:
        time.sleep(0.5)
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.containers
@pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable())
def test_a_real_node_and_simulated_ones_share_a_cluster(user: User) -> None:
    done = user.run("up", "-d", "--name", "mixed", "--runtime", "containerd", "--nodes", "3", "-o", "json")
    assert done.returncode == 0, done.stderr

    assert user.status("mixed")["nodes"] == {"ready": 4, "total": 4}
    (user.home / "bad.tar").write_text("no image")
    assert_explained(user.run("image", "load", "--name", "mixed", "bad.tar"), "bad.tar", status=2)
    assert user.run("image", "ls", "--name", "mixed").returncode == 0
    assert user.run("down", "--name", "mixed", "--purge").returncode == 0
    assert not user.folder("mixed").exists()
