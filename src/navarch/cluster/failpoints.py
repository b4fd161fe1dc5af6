"""Places where a test may make a process fail: `NAVARCH_FAILPOINTS=supervisor.started=kill,state.save=full`.

`kill` ends the process at the place as `kill -9` would, `full` raises what a full disk raises. Without the variable a
place costs a look into an empty dictionary.
"""

from __future__ import annotations

import errno
import os
import signal

_ACTIONS = dict(part.split("=", 1) for part in os.environ.get("NAVARCH_FAILPOINTS", "").split(",") if "=" in part)


def reach(place: str) -> None:
    """Raises OSError where a test wants the disk to be full here."""
    action = _ACTIONS.get(place)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
