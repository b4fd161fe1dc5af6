"""Starting, stopping and deleting a cluster from outside its processes: what the command line calls."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator

from navarch.cluster import config as settings
from navarch.cluster import locks, strays, workers
from navarch.cluster.config import ClusterConfig
from navarch.cluster.neighbours import note
from navarch.cluster.run_supervisor import spawn
from navarch.cluster.state import ClusterState, ComponentState, started_at
from navarch.world import MACHINE

_LOOK_EVERY_S = 0.02
_SETTLE_S = 1.5
_TAKEN_DOWN_S = 90.0
_STRAY_GRACE_S = 10.0
_ROUNDS = 5


class StartError(Exception):
    """The cluster did not come up; the message says what to look at."""


class PortTaken(StartError):
    """Somebody else listens on the API server's port."""


def start(config: ClusterConfig) -> subprocess.Popen[bytes] | None:
    """Start the supervisor; None where one runs already.  Raises StartError."""
    _wait_until_down(config)
    state = ClusterState.load(config.run)
    if state.supervisor_alive:
        if not state.failed:
            return None
        # Perhaps what has kept it from starting was mended.
        stop(config)
    # Perhaps by a supervisor of this very cluster that has not come far, or by what one that was killed has left.
    give_up_s = MACHINE.monotonic() + _SETTLE_S
    while not ClusterState.load(config.run).living and (taken := port_taken(config)):
        if ClusterState.load(config.run).supervisor_alive:
            return None
        if strays.processes_of(config.root):
            break
        if MACHINE.monotonic() > give_up_s:
            raise PortTaken(f"cannot listen on port {config.port}: {taken}; choose another with --port")
        MACHINE.pause(_LOOK_EVERY_S)
    try:
        config.save()
        settings.remember(config)
        note(config)
        workers.retire_surplus(config)
        return spawn(config)
    except OSError as error:
        why = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise StartError(f"cannot write to {config.root}: {why}; choose another folder with --data-dir") from None


def _wait_until_down(config: ClusterConfig) -> None:
    """Raises StartError where somebody who takes the cluster down does not get done."""
    give_up_s = MACHINE.monotonic() + _TAKEN_DOWN_S
    while pid := locks.holder(config.run, locks.SUPERVISOR, locks.STOPPING):
        if MACHINE.monotonic() > give_up_s:
            raise StartError(
                f"cluster {config.name!r} is being taken down by process {pid}; try again when it has ended"
            )
        MACHINE.pause(_LOOK_EVERY_S)


def port_taken(config: ClusterConfig) -> str:
    """Why the API server's port cannot be listened on; empty where it can, or where the API server is elsewhere."""
    if config.is_agent:
        return ""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.bind_address if config.listens_everywhere else "127.0.0.1", config.port))
        except OSError as error:
            return str(error.strerror)
    return ""


@contextlib.contextmanager
def taking_down(config: ClusterConfig) -> Iterator[None]:
    """While this is held no supervisor of the cluster starts.  Raises StartError where another process holds it."""
    if not config.run.is_dir():
        # It was never started, or somebody has removed what tells.
        yield
        return
    give_up_s = MACHINE.monotonic() + _TAKEN_DOWN_S
    while True:
        try:
            locks.hold(config.run, locks.SUPERVISOR, locks.STOPPING)
            break
        except locks.HeldError as error:
            if MACHINE.monotonic() > give_up_s:
                raise StartError(f"cluster {config.name!r} is being taken down by another process: {error}") from None
            MACHINE.pause(_LOOK_EVERY_S)
        except OSError:
            # A full disk. What runs is ended all the same; should a supervisor start meanwhile, so is that.
            yield
            return
    try:
        yield
    finally:
        locks.release(config.run, locks.SUPERVISOR, locks.STOPPING)


def stop(config: ClusterConfig, timeout_s: float = 60.0) -> bool:
    """Stop the supervisor and with it the processes, and whatever else of the cluster runs; False where nothing ran.

    Raises StartError where a process does not end.
    """
    with taking_down(config):
        state = current(config)
        ran = state.supervisor_alive or bool(state.living)
        if state.supervisor_alive:
            supervisor = strays.Stray(locks.SUPERVISOR, state.supervisor_pid, state.supervisor_ticks)
            strays.end([supervisor], grace_s=timeout_s)
        _say_stopping(config)
        left: list[strays.Stray] = []
        for _ in range(_ROUNDS):
            # Each look may find a process that one of those before has started.
            found = running(config)
            if not found:
                return ran
            ran = True
            left = strays.end(found, grace_s=_STRAY_GRACE_S)
        left = left or running(config)
        if left:
            raise StartError("; ".join(f"{stray.name}, process {stray.pid}, does not end" for stray in left))
        return ran


def current(config: ClusterConfig) -> ClusterState:
    """What of the cluster runs: by its record, by the locks, and by the command lines of the machine's processes."""
    state = ClusterState.load(config.run)
    for stray in strays.processes_of(config.root):
        if stray.name == locks.SUPERVISOR:
            if not state.supervisor_alive:
                state.supervisor_pid, state.supervisor_ticks = stray.pid, stray.ticks
                state.started = started_at(stray.pid)
        elif stray.name not in state.living:
            state.components.setdefault(stray.name, ComponentState()).become(stray.pid)
    return state


def running(config: ClusterConfig) -> list[strays.Stray]:
    """The same as a list of processes, those that are there twice included."""
    state = current(config)
    known = {strays.Stray(name, one.pid, one.start_ticks) for name, one in state.living.items()}
    if state.supervisor_alive:
        known.add(strays.Stray(locks.SUPERVISOR, state.supervisor_pid, state.supervisor_ticks))
    return sorted(known | set(strays.processes_of(config.root)))


def _say_stopping(config: ClusterConfig) -> None:
    """Written down, so that no process that is left starts another supervisor."""
    state = ClusterState.load(config.run)
    state.stopping = True
    if config.run.is_dir():
        # On a full disk the processes are ended all the same.
        with contextlib.suppress(OSError):
            state.save(config.run)


def delete(config: ClusterConfig) -> None:
    """Remove the stopped cluster's folder and its entries in the user's kubeconfig.

    Raises StartError, with nothing removed, while anybody uses what is in the folder.
    """
    from navarch.cluster import kubeconfig
    from navarch.store.lock import holder

    if users := running(config):
        raise StartError(
            f"nothing was deleted: {users[0].name}, process {users[0].pid}, of cluster {config.name!r} still runs"
        )
    pid = holder(config.database)
    if pid is not None:
        who = f"process {pid}" if pid else "another process"
        raise StartError(f"nothing was deleted: {who} has {config.database} open")
    kubeconfig.remove(config)
    settings.forget(config)
    shutil.rmtree(config.root, ignore_errors=False)
