"""Processes that are forked instead of started by `exec`: they are told apart, own nothing of their parent's, end and
are started again like others; and where they cannot be forked, they are started all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from navarch.cluster import forkserver
from navarch.cluster.state import ClusterState, alive

from .test_supervisor import _BODY, Supervised

_RUN = """
import os, sys
from navarch.cluster import component, forkserver, run_supervisor, supervisor
from navarch.cluster.processes import ProcessSpec
root, names, shared, body = sys.argv[1:5]
argv = lambda name: (sys.executable, "-c", body, root, name)
supervisor.specs = lambda config: [ProcessSpec(name, argv(name), shares=True) for name in names.split(",")]
forkserver.SHARED = shared.split(",")
component.main = lambda argv: exec(body, {})
sys.exit(run_supervisor.main(sys.argv))
"""


class Forking(Supervised):
    shared = "colorsys"

    def spawn(self, names: str = "one,two", failpoints: str = "", steady_s: float = 10.0) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _RUN, str(self.config.root), names, self.shared, _BODY]
        process = subprocess.Popen(command, env={**os.environ, "NAVARCH_FAILPOINTS": failpoints})
        self.started.append(process)
        return process

    def pid(self, name: str) -> int:
        return self.state().components[name].pid


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Forking]:
    world = Forking(tmp_path)
    yield world
    world.close()


def arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_each_is_known_by_its_own_command_line_and_is_the_supervisors_child(forking: Forking) -> None:
    supervisor = forking.start().pid

    for name in ("one", "two"):
        pid = forking.pid(name)
        assert arguments(pid) == [sys.executable, "-c", _BODY, str(forking.config.root), name]
        assert parent(pid) == supervisor
        assert os.getsid(pid) == pid
    assert arguments(supervisor)[2] == _RUN


def test_none_has_anything_of_the_supervisors(forking: Forking) -> None:
    forking.start()

    for name in ("one", "two"):
        folder = Path(f"/proc/{forking.pid(name)}/fd")
        held = {int(entry.name): os.readlink(entry) for entry in folder.iterdir()}
        root = forking.config.root
        assert held.pop(0).startswith("pipe:")
        assert sorted(held.values()) == sorted(
            [str(root / "run" / f"{name}.lock"), *[str(root / f"logs/{name}.log")] * 2]
        )


def test_one_that_is_killed_is_started_again_and_what_ended_it_is_told(forking: Forking) -> None:
    forking.start()
    first = forking.pid("one")

    os.kill(first, signal.SIGKILL)

    def again(state: ClusterState) -> bool:
        return alive(state.components["one"]) and state.components["one"].pid != first

    state = forking.wait(again)
    assert state.components["one"].last_exit == "signal SIGKILL"
    assert state.components["two"].restarts == 0
    assert not Path(f"/proc/{first}").exists(), "it was waited for"


def test_sigterm_stops_them(forking: Forking) -> None:
    process = forking.start()

    process.terminate()

    assert process.wait(timeout=20) == 0
    assert forking.on_machine() == []
    assert {one.last_exit for one in forking.state().components.values()} == {"exit code 0"}


@pytest.mark.parametrize("place", ["started", "recorded", "gate"])
def test_a_supervisor_killed_while_it_forks_leaves_none_that_is_alone(forking: Forking, place: str) -> None:
    forking.spawn(failpoints=f"supervisor.{place}=kill").wait(timeout=20)

    forking.until(lambda: forking.on_machine() == [], "what had not been let in ended by itself")
    assert forking.living() == []
    forking.start()
    assert len(forking.on_machine()) == 2


def test_a_supervisor_that_fails_after_a_fork_takes_the_process_with_it(forking: Forking) -> None:
    assert forking.spawn(failpoints="supervisor.started=error").wait(timeout=20) == 1

    assert forking.on_machine() == []
    assert not forking.state().supervisor_alive


def test_where_what_they_share_cannot_be_loaded_each_is_started_by_itself(forking: Forking) -> None:
    forking.shared = "no.such.module"

    supervisor = forking.start()

    assert len(forking.living()) == 2
    supervisor.terminate()
    assert supervisor.wait(timeout=20) == 0


def test_a_command_line_that_is_too_long_for_the_parents_is_refused() -> None:
    script = """
from navarch.cluster import forkserver
forkserver.SHARED = ()
server = forkserver.ForkServer()
try:
    server.fork(("python", "-m", "x" * 10_000), (0, 1), {}, {})
except forkserver.ForkError as error:
    print(error)
server.close()
"""
    told = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=True, timeout=60)

    assert told.stdout == "the command line of the supervisor leaves no room for that of the process\n"


def loads(component: str) -> set[str]:
    """The modules that a component has loaded when it waits to be let in."""
    script = f"""
import sys
from navarch.cluster import component
component._load({component!r})
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=True, timeout=120)
    return set(done.stdout.split())


def test_components_load_what_they_share_and_nothing_that_is_heavy_and_seldom_needed() -> None:
    apiserver, controllers = loads("apiserver"), loads("controllers")

    assert set(forkserver.SHARED) <= apiserver & controllers
    seldom = {"yaml", "grpc", "google.protobuf", "aiohttp.web", "click", "dns", "h2"}
    assert not seldom & (apiserver | controllers)
    assert not {"numpy", "navarch.scheduler", "navarch.controllers"} & apiserver
    assert not {"cryptography.x509", "navarch.apiserver", "sqlite3", "aiohttp"} & controllers
