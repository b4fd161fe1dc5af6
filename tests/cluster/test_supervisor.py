"""The supervisor with small processes of the test's own: restart, orderly stop, taking over from a killed one, and what
becomes of processes when it fails or dies between any two of its steps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from navarch.cluster import locks, strays
from navarch.cluster.config import ClusterConfig
from navarch.cluster.lifecycle import StartError
from navarch.cluster.readiness import _look_after
from navarch.cluster.state import HOPELESS, ClusterState, alive, is_alive, start_ticks
from navarch.cluster.strays import Stray
from navarch.cluster.supervisor import Supervisor
from navarch.cluster.watchdog import watch_supervisor

_BODY = """
import signal, sys, time
from pathlib import Path
from navarch.cluster import gate
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
try:
    gate.enter(Path(sys.argv[1], "run"), sys.argv[2])
except gate.NotAdmitted as error:
    sys.exit(str(error))
if sys.argv[2] == "hopeless":
    sys.exit(78)
time.sleep(600)
"""
_RUN = """
import sys
from navarch.cluster import processes, run_supervisor, supervisor
from navarch.cluster.processes import ProcessSpec
root, names, steady_s, body = sys.argv[1:5]
argv = lambda name: (sys.executable, "-c", body, root, name)
supervisor.specs = lambda config: [ProcessSpec(name, argv(name)) for name in names.split(",")]
supervisor._STEADY_S = float(steady_s)
supervisor._LOOK_AFTER_FOLDER_S = 0.1
sys.exit(run_supervisor.main(sys.argv))
"""


class Supervised:
    """A supervisor over sleeping processes, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.config = ClusterConfig("test", str(folder), port=0, kubeconfig=str(folder / "kubeconfig"))
        self.config.save()
        self.started: list[subprocess.Popen[bytes]] = []

    def spawn(self, names: str = "one,two", failpoints: str = "", steady_s: float = 10.0) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _RUN, str(self.config.root), names, str(steady_s), _BODY]
        process = subprocess.Popen(command, env={**os.environ, "NAVARCH_FAILPOINTS": failpoints})
        self.started.append(process)
        return process

    def start(self, names: str = "one,two", failpoints: str = "", steady_s: float = 10.0) -> subprocess.Popen[bytes]:
        """A supervisor that has all of its processes alive."""
        process = self.spawn(names, failpoints, steady_s)
        wanted = len(names.split(","))
        self.wait(lambda state: state.supervisor_pid == process.pid and len(self.living(state)) == wanted)
        return process

    def living(self, state: ClusterState | None = None) -> list[int]:
        """Those that have passed their gates."""
        state = state or self.state()
        known = [(name, one.pid) for name, one in state.components.items() if one.pid]
        return [pid for name, pid in known if locks.holder(self.config.run, name) == pid]

    def on_machine(self) -> list[int]:
        """Every process that a supervisor of this world has started, whatever is written down."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    arguments = (entry / "cmdline").read_bytes().split(b"\0")
                    if len(arguments) > 4 and arguments[1] == b"-c" and arguments[3] == str(self.config.root).encode():
                        if arguments[4] in (b"one", b"two") and start_ticks(int(entry.name)):
                            found.append(int(entry.name))
        return found

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

    def until(self, condition: Callable[[], bool], what: str) -> None:
        give_up_s = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < give_up_s, f"{what}: {self.on_machine()}, {self.state()}"
            time.sleep(0.02)

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        for pid in {*self.pids(), *self.on_machine()}:
            with contextlib.suppress(ProcessLookupError):
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


def test_what_says_that_it_cannot_start_is_not_tried_again_before_the_cluster_is_started(
    supervised: Supervised,
) -> None:
    first = supervised.spawn("one,hopeless")
    state = supervised.wait(lambda state: state.failed == ["hopeless"] and alive(state.components["one"]))
    victim = state.components["one"].pid

    # Who is killed has the first delay to wait, as what failed before it would have had.
    os.kill(victim, signal.SIGKILL)

    state = supervised.wait(lambda state: alive(state.components["one"]) and state.components["one"].pid != victim)
    failed = state.components["hopeless"]
    assert (failed.state, failed.restarts, failed.last_exit) == ("failed", 0, f"exit code {HOPELESS}")
    with pytest.raises(StartError, match="hopeless cannot start; its last words"):
        _look_after(supervised.config, first)
    first.terminate()
    first.wait(timeout=20)
    assert supervised.state().failed == []


def test_a_supervisor_that_is_killed_while_somebody_waits_has_failed_only_if_nothing_of_it_lives(
    supervised: Supervised,
) -> None:
    process = supervised.start()
    process.kill()
    process.wait(timeout=20)

    _look_after(supervised.config, process)

    for pid in supervised.pids():
        os.kill(pid, signal.SIGKILL)
    supervised.wait(lambda state: not state.living)
    with pytest.raises(StartError, match="the supervisor ended"):
        _look_after(supervised.config, process)


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
        [sys.executable, "-c", _RUN, str(supervised.config.root), "one,two", "10", _BODY], check=False, timeout=20
    )

    assert other.returncode == 0
    assert supervised.state().supervisor_pid == first.pid


def test_a_reused_pid_is_not_mistaken_for_the_process() -> None:
    ticks = start_ticks(os.getpid())

    assert is_alive(os.getpid(), ticks)
    assert not is_alive(os.getpid(), ticks - 1)
    assert not is_alive(0, 0)


@pytest.mark.parametrize("place", ["started", "recorded", "gate"])
def test_a_supervisor_killed_while_it_starts_processes_leaves_none_that_is_alone(
    supervised: Supervised, place: str
) -> None:
    supervised.spawn(failpoints=f"supervisor.{place}=kill").wait(timeout=20)

    supervised.until(lambda: supervised.on_machine() == [], "what had not been let in ended by itself")
    assert supervised.living() == []
    supervised.start()
    assert len(supervised.on_machine()) == 2


def test_a_supervisor_that_fails_after_a_start_takes_the_process_with_it(supervised: Supervised) -> None:
    assert supervised.spawn(failpoints="supervisor.started=error").wait(timeout=20) == 1

    assert supervised.on_machine() == []
    assert not supervised.state().supervisor_alive


@pytest.mark.parametrize("obstacle", ["folder", "state"])
def test_a_supervisor_that_cannot_write_supervises_and_is_known(supervised: Supervised, obstacle: str) -> None:
    supervised.config.run.mkdir()
    if obstacle == "folder":
        (supervised.config.run / "state.json.partial").mkdir()
    if obstacle == "state":
        (supervised.config.run / "state.json").mkdir()
    first = supervised.start()
    victim = supervised.state().components["one"].pid

    os.kill(victim, signal.SIGKILL)

    supervised.wait(lambda state: len(self_living := supervised.living(state)) == 2 and victim not in self_living)
    before = supervised.living()
    first.kill()
    first.wait()
    assert not supervised.state().supervisor_alive
    assert supervised.living() == before, "unsupervised, and known"
    second = supervised.start()
    assert supervised.living() == before, "taken over, though nothing was written down"
    second.terminate()
    assert second.wait(timeout=20) == 0
    assert supervised.on_machine() == []


def test_what_could_not_be_written_is_written_later(supervised: Supervised) -> None:
    supervised.config.run.mkdir()
    obstacle = supervised.config.run / "state.json.partial"
    obstacle.mkdir()
    process = supervised.start()
    assert not (supervised.config.run / "state.json").exists()

    obstacle.rmdir()

    supervised.until((supervised.config.run / "state.json").exists, "the state is written")
    assert supervised.state().supervisor_pid == process.pid


def test_a_cluster_whose_folder_is_deleted_ends(supervised: Supervised) -> None:
    process = supervised.start()

    # At one stroke: a process that still writes its state would do so into a folder that is being emptied.
    process.send_signal(signal.SIGSTOP)
    shutil.rmtree(supervised.config.root)
    process.send_signal(signal.SIGCONT)

    assert process.wait(timeout=20) == HOPELESS
    assert supervised.on_machine() == []
    assert not supervised.config.root.exists(), "nor does it come back"


async def test_a_process_whose_supervisor_and_folder_are_gone_leaves(tmp_path: Path) -> None:
    left = asyncio.Event()

    async with asyncio.timeout(20):
        await watch_supervisor(ClusterConfig("gone", str(tmp_path / "gone")), left.set)

    assert left.is_set()
    assert not (tmp_path / "gone").exists()


def test_settings_that_are_lost_alone_are_written_anew(supervised: Supervised) -> None:
    supervised.config.pki.mkdir()
    process = supervised.start()

    (supervised.config.root / "cluster.json").unlink()

    supervised.until((supervised.config.root / "cluster.json").exists, "the settings are written")
    assert ClusterConfig.load(supervised.config.root) == supervised.config
    assert process.poll() is None
    assert len(supervised.on_machine()) == 2


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", '{"components": 5}', '{"components": {"one": null}}',
     '{"components": {"one": {"pid": 1.5}}}', '{"components": {"one": {"pid": "x"}}}',
     '{"components": {}, "supervisor_pid": "1"}'],
)  # fmt: skip
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)

    state = ClusterState.load(tmp_path)

    assert (state.living, state.supervisor_alive) == ({}, False)


def test_a_lost_record_loses_no_process(supervised: Supervised) -> None:
    supervised.start().kill()
    before = supervised.living()
    (supervised.config.run / "state.json").unlink()

    supervised.start()

    assert supervised.living() == before
    assert sorted(supervised.on_machine()) == sorted(before)


def test_nobody_lives_twice(supervised: Supervised) -> None:
    supervised.start()
    command = [sys.executable, "-c", _BODY, str(supervised.config.root), "one"]

    second = subprocess.run(command, stdin=subprocess.DEVNULL, text=True, capture_output=True, check=False, timeout=20)

    assert second.returncode == 1
    assert f"another one of this cluster lives: process {supervised.state().components['one'].pid}" in second.stderr


def test_the_delay_grows_with_failures_and_begins_anew_after_health(supervised: Supervised) -> None:
    supervised.start("one", steady_s=1.5)
    for failures in (1, 2, 3, 4, 5):
        kill_one(supervised)
        assert supervised.state().components["one"].failures == failures
    began_s = supervised.state().components["one"].since
    supervised.until(lambda: time.time() - began_s > 1.6, "a while of health")

    took_s = kill_one(supervised)

    component = supervised.state().components["one"]
    assert component.failures == 1
    assert component.restarts == 6
    assert took_s < 3, "the sixth delay in a row would have been 3.2 s"


def kill_one(supervised: Supervised) -> float:
    """How long it took until it lived again."""
    victim = supervised.living()[0]
    began_s = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    supervised.wait(lambda state: supervised.living(state) not in ([], [victim]))
    return time.monotonic() - began_s


def test_strays_are_ended_until_nobody_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The second is a child of the first, which was about to become a supervisor and still has its parent's sockets.
    found = [[Stray("apiserver", 11, 1)], [Stray("apiserver", 12, 2)], []]
    ended: list[int] = []

    def end(given: list[Stray]) -> list[Stray]:
        ended.extend(stray.pid for stray in given)
        return []

    monkeypatch.setattr(strays, "processes_of", lambda root: found.pop(0))
    monkeypatch.setattr(strays, "end", end)

    Supervisor(ClusterConfig("strays", str(tmp_path)))._end_strays()

    assert ended == [11, 12]
    assert found == []


def test_while_the_cluster_is_taken_down_no_supervisor_starts(supervised: Supervised) -> None:
    locks.hold(supervised.config.run, locks.SUPERVISOR, locks.STOPPING)
    try:
        assert supervised.spawn().wait(timeout=20) == 0
        assert supervised.on_machine() == []
    finally:
        locks.release(supervised.config.run, locks.SUPERVISOR, locks.STOPPING)


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from navarch.cluster import locks
run = Path(sys.argv[1])
locks.hold(run, "x")
print(locks.holder(run, "x"), flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    assert locks.holder(tmp_path, "x") == process.pid
    with pytest.raises(locks.HeldError) as refused:
        locks.hold(tmp_path, "x")
    assert refused.value.pid == process.pid

    process.kill()
    process.wait()

    assert locks.holder(tmp_path, "x") == 0
    locks.hold(tmp_path, "x")
    assert locks.holder(tmp_path, "x") == os.getpid(), "asking does not lose one's own lock"
    assert locks.holder(tmp_path, "x") == os.getpid()
    locks.release(tmp_path, "x")
    assert locks.holder(tmp_path, "x") == 0
