"""The supervisor's process: how it is started, by whoever needs one, and how it begins.

At the most one lives: the second to begin finds the lock held and ends. Those that only start one (the command line,
and each component whose supervisor has died) load nothing of what it does.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from navarch.cluster import locks, logfiles
from navarch.cluster.config import ClusterConfig, ConfigError

log = logging.getLogger("navarch.supervisor")

# Empty arguments, which nobody sees: room for the longer command lines of those that are forked from it.
_ROOM = ("",) * 96


def spawn(config: ClusterConfig) -> subprocess.Popen[bytes]:
    """Start a supervisor in the background; one that finds another at work ends at once.  Raises OSError."""
    logfiles.secure(config.logs)
    try:
        output = logfiles.open_log(log_path(config))
    except OSError as error:
        if not log_path(config).parent.is_dir():
            raise
        log.error("no log of the supervisor: %s", error)
        output = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return subprocess.Popen(
            (sys.executable, "-m", "navarch.cluster.run_supervisor", str(config.root), *_ROOM),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(output)


def log_path(config: ClusterConfig) -> Path:
    return config.logs / f"{locks.SUPERVISOR}.log"


def main(argv: list[str]) -> int:
    from navarch.cluster.supervisor import STOPS, Supervisor

    try:
        config = ClusterConfig.load(Path(argv[1]))
    except ConfigError as error:
        logging.basicConfig(format=logfiles.FORMAT)
        log.error("%s", error)
        return 2
    logfiles.log_to(log_path(config))
    # Whoever sees the lock held may ask to stop, and is heard once everything is ready to listen.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        locks.hold(config.run, locks.SUPERVISOR)
        if locks.holder(config.run, locks.SUPERVISOR, locks.STOPPING):
            log.info("the cluster is being taken down")
            return 0
        return Supervisor(config).run()
    except locks.HeldError:
        log.info("another supervisor is at work")
        return 0
    except OSError as error:
        log.error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
