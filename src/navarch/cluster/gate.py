"""How a process of a cluster comes to life: it waits until it has been written down, then holds its lock until it ends.

In: standard input, a pipe from the supervisor. A byte says that this process is recorded and that the cluster's keys
are there. If the pipe ends without one, the supervisor died before it had recorded it, and nobody may live whom nobody
knows: it ends, having done nothing.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from navarch.cluster import locks

log = logging.getLogger("navarch.component")

# Set by the supervisor; a process that is started by hand has no gate to wait at.
GATE = "NAVARCH_GATE"


class NotAdmitted(Exception):
    """This process must end; the message says why."""


def enter(run: Path, name: str, *, inheritable: bool = False) -> None:
    """Block until this process may live, and hold its lock from then on (over an `exec`, if `inheritable`).

    Raises NotAdmitted.
    """
    if os.environ.pop(GATE, ""):
        try:
            admitted = os.read(0, 1)
        except OSError as error:
            raise NotAdmitted(f"the supervisor cannot be heard: {error}") from error
        if not admitted:
            raise NotAdmitted("the supervisor ended before it had recorded this process")
    try:
        locks.hold(run, name, inheritable=inheritable)
    except locks.HeldError as error:
        raise NotAdmitted(f"another {name} of this cluster lives: {error}") from None
    except OSError as error:
        raise NotAdmitted(f"cannot take the lock {locks.path_of(run, name)}: {error.strerror}") from error
