"""The cluster's processes as the machine shows them: found by their command lines, though no file and no lock tells.

What a supervisor has started names the cluster's folder in its arguments. This is the second net, for processes that
wait at their gate, and for those whose lock file somebody has removed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import NamedTuple

from navarch.cluster import locks
from navarch.cluster.state import is_alive, start_ticks
from navarch.numbers import is_digits
from navarch.world import MACHINE

_COMPONENT = "navarch.cluster.component"
_SUPERVISOR = "navarch.cluster.run_supervisor"


class Stray(NamedTuple):
    name: str
    pid: int
    ticks: int


def processes_of(root: Path) -> list[Stray]:
    """Every process of the cluster in `root` but this one, by what its command line says."""
    roots = {str(root), str(root.resolve())}
    own, space = os.getpid(), _pid_space("self")
    found = []
    for entry in os.scandir("/proc"):
        if not is_digits(entry.name) or int(entry.name) == own:
            continue
        try:
            arguments = Path(entry.path, "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
            name = _name_of(arguments, roots)
            # A pod's processes may call themselves what they like.
            if name and os.stat(entry.path).st_uid == os.geteuid() and _pid_space(entry.name) == space:
                pid = int(entry.name)
                found.append(Stray(name, pid, start_ticks(pid)))
        except OSError:
            continue
    return [stray for stray in found if stray.ticks]


def _pid_space(pid: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")


def _name_of(arguments: list[str], roots: set[str]) -> str:
    if len(arguments) >= 4 and arguments[1] == "-m":
        if arguments[2] == _SUPERVISOR and arguments[3] in roots:
            return locks.SUPERVISOR
        if arguments[2] == _COMPONENT and len(arguments) >= 5 and arguments[4] in roots:
            return arguments[3]
    if arguments[0].endswith("containerd") and len(arguments) >= 3 and arguments[1] == "--config":
        below = next((arguments[2][len(root) + 1 :] for root in roots if arguments[2].startswith(f"{root}/")), "")
        place = below.split("/")
        if place[0] == "workers" and len(place) > 2:
            return f"containerd@{place[1]}"
        return "containerd" if below else ""
    return ""


def end(strays: list[Stray], *, grace_s: float = 0.0, limit_s: float = 10.0) -> list[Stray]:
    """Ask them to stop, kill what has not after `grace_s`; those that are still there after `limit_s` more."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, limit_s)):
        if number == signal.SIGTERM and not grace_s:
            continue
        strays = [stray for stray in strays if is_alive(stray.pid, stray.ticks)]
        for stray in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stray.pid, number)
        give_up_s = MACHINE.monotonic() + wait_s
        for stray in strays:
            _wait(stray, give_up_s)
    return [stray for stray in strays if is_alive(stray.pid, stray.ticks)]


def _wait(stray: Stray, give_up_s: float) -> None:
    try:
        descriptor = os.pidfd_open(stray.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(stray.pid, stray.ticks):
            select.select([descriptor], [], [], max(give_up_s - MACHINE.monotonic(), 0))
    finally:
        os.close(descriptor)
