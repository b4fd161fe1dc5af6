"""A cluster, or a node of one, in the foreground: its supervisor is this command's until somebody stops it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable

from navarch.cli.steps import phases, say
from navarch.cluster import kubeconfig, lifecycle, vanished
from navarch.cluster.config import ClusterConfig, flags_of
from navarch.cluster.state import ClusterState
from navarch.world import MACHINE

_SUCCESSOR_S = 30.0
_STOP_S = 60.0


def abandon(process: subprocess.Popen[bytes], config: ClusterConfig) -> None:
    """Stop what was started here, even a supervisor that has not written down yet that it is there."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    lifecycle.stop(config)


def wait_until_usable(
    usable: Callable[[Callable[[str], None]], None],
    config: ClusterConfig,
    process: subprocess.Popen[bytes] | None,
    *,
    detach: bool,
) -> float:
    """How many seconds it took until what was started is usable, which `usable` waits for, telling what for. What runs
    for the foreground alone is stopped again if it does not get there.  Raises StartError."""
    started_s = MACHINE.monotonic()
    try:
        with phases() as row:
            usable(row.now)
    except lifecycle.StartError as error:
        if process is not None and not detach:
            abandon(process, config)
            raise
        if process is not None and process.poll() is not None:
            raise
        raise lifecycle.StartError(
            f"{error}\nIt goes on in the background; `navarch down{flags_of(config)}` ends it."
        ) from None
    return MACHINE.monotonic() - started_s


def ending_with_signals() -> None:
    """Until there is something to stop in order, SIGTERM and the terminal's end are like Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def stay(process: subprocess.Popen[bytes], config: ClusterConfig) -> int:
    """In the foreground until Ctrl-C, SIGTERM or the terminal's end, which stop the cluster's processes in order, or
    until `navarch down` has stopped them."""
    pid, asked = process.pid, False

    def stop(*_: object) -> None:
        nonlocal asked
        asked = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    say("Running in the foreground; Ctrl-C stops the cluster, --detach leaves it running.")
    while True:
        _wait_for_end(pid)
        process.poll()
        successor = 0 if asked else _successor(config, pid)
        if not successor:
            break
        pid = successor
        if asked:
            # While it was looked for, and the one before had nothing to be told any more.
            stop()
        say("The supervisor died; another one has taken over.")
    # As `down` does: a context whose server is gone is in the way.
    kubeconfig.remove(config)
    if vanished.is_gone(config):
        say(f"{config.root} is gone, and with it the cluster. Its processes were ended.")
        return 1
    again = "agent" if config.is_agent else "up"
    say(f"Stopped. Its data stay in {config.root}; `navarch {again}{flags_of(config)}` starts it again.")
    if config.runtime == "containerd":
        say(f"Its containers stay, too; `navarch down{flags_of(config)}` removes them.")
    return 0


def _wait_for_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Signals are handled in between; select then goes on waiting.
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)


def _successor(config: ClusterConfig, pid: int) -> int:
    """The pid of the supervisor that follows one that was killed; 0 where the cluster was stopped or none comes."""
    give_up_s = MACHINE.monotonic() + _SUCCESSOR_S
    while MACHINE.monotonic() < give_up_s:
        state = ClusterState.load(config.run)
        if state.stopping or vanished.is_gone(config):
            return 0
        if state.supervisor_alive and state.supervisor_pid != pid:
            return state.supervisor_pid
        MACHINE.pause(0.1)
    return 0
