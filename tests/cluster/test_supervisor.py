"""The supervisor with small processes of the test's own: restart, orderly stop, and taking over from a killed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from navarch.cluster.config import ClusterConfig
from navarch.cluster.state import ClusterState, alive, is_alive, start_ticks

_RUN = """
import sys
from pathlib import Path
from navarch.cluster import processes, supervisor
from navarch.cluster.processes import ProcessSpec
names = sys.argv[2].split(",")
body = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); time.sleep(600)"
def specs(config):
    return [ProcessSpec(name, (sys.executable, "-c", "import sys; sys.stdin.readline(); " + body)) for name in names]
supervisor.specs = specs
sys.exit(supervisor.main(sys.argv))
"""


class Supervised:
    """A supervisor over sleeping processes, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.config = ClusterConfig("test", str(folder), port=0)
        self.config.save()
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, names: str = "one,two") -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", _RUN, str(self.config.root), names])
        self.started.append(process)
        self.wait(lambda state: state.supervisor_pid == process.pid and self.pids(state) != [])
        return process

    def state(self) -> ClusterState:
        return ClusterState.load(self.config.run)

    def pids(self, state: ClusterState | None = None) -> list[int]:
        state = state or self.state()
        return [component.pid for component in state.components.values() if alive(component)]

    def wait(self, condition: Callable[[ClusterState], bool]) -> ClusterState:
        give_up_s = time.monotonic() + 15
        while time.monotonic() < give_up_s:
            state = self.state()
            if condition(state):
                return state
            time.sleep(0.02)
        raise AssertionError(f"did not happen; the state is {self.state()}")

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    world = Supervised(tmp_path)
    yield world
    world.close()


def test_a_killed_process_is_started_again(supervised: Supervised) -> None:
    supervised.start()
    first = supervised.state().components["one"].pid

    os.kill(first, signal.SIGKILL)

    state = supervised.wait(lambda state: alive(state.components["one"]) and state.components["one"].pid != first)
    assert state.components["one"].restarts == 1
    assert state.components["one"].last_exit == "signal SIGKILL"
    assert state.components["two"].restarts == 0


def test_sigterm_stops_everything(supervised: Supervised) -> None:
    process = supervised.start()
    assert len(supervised.pids()) == 2

    process.terminate()

    assert process.wait(timeout=20) == 0
    assert supervised.pids() == []
    assert supervised.state().stopping


def test_a_new_supervisor_takes_over_from_a_killed_one(supervised: Supervised) -> None:
    supervised.start().kill()
    before = supervised.pids()

    second = supervised.start()

    assert supervised.pids() == before
    os.kill(before[0], signal.SIGKILL)
    supervised.wait(lambda state: alive(state.components["one"]) and state.components["one"].pid != before[0])
    second.terminate()
    second.wait(timeout=20)
    assert supervised.pids() == []


def test_a_second_supervisor_leaves_the_first_alone(supervised: Supervised) -> None:
    first = supervised.start()
    other = subprocess.run(
        [sys.executable, "-c", _RUN, str(supervised.config.root), "one,two"], check=False, timeout=20
    )

    assert other.returncode == 0
    assert supervised.state().supervisor_pid == first.pid


def test_a_reused_pid_is_not_mistaken_for_the_process() -> None:
    ticks = start_ticks(os.getpid())

    assert is_alive(os.getpid(), ticks)
    assert not is_alive(os.getpid(), ticks - 1)
    assert not is_alive(0, 0)
