"""A cluster whose folder was deleted, or moved, while it ran: no process of it can be started again, and what it writes
is read by nobody. Its supervisor looks now and then, ends the processes, and takes away what they leave elsewhere.

In: the configuration, as it was read when there still was one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

from navarch.cluster import config as settings
from navarch.cluster import workers
from navarch.cluster.config import ClusterConfig, ConfigError

log = logging.getLogger("navarch.supervisor")

# What a folder that somebody deletes may still hold: what was mounted in it, and what was written meanwhile.
_LEFT = ("run", "node", "workers", "logs")


def is_gone(config: ClusterConfig) -> bool:
    """Neither settings nor keys are where the cluster lives. What cannot be looked at is believed to be there."""
    return not _exists(config.root / "cluster.json") and not _exists(config.pki)


def _exists(path: Path) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def keep_settings(config: ClusterConfig, *, missed: bool) -> bool:
    """Settings that went alone are written anew: each process reads them when it starts. Whether they are missing,
    which they have to be at two looks (`missed` at the last): who is deleting the folder finds nothing new in it."""
    if _exists(config.root / "cluster.json"):
        return False
    if missed:
        try:
            config.save()
            log.warning("%s was missing, and has been written anew", config.root / "cluster.json")
        except OSError as error:
            log.error("the settings are missing, and cannot be written: %s", error)
    return True


def clean_up(config: ClusterConfig) -> None:
    """Remove what nobody could remove any more, as `navarch down` finds a cluster by its folder: containers, mounts,
    networks, entries in the user's kubeconfig. Its processes must have ended."""
    from navarch.cluster import kubeconfig

    try:
        kubeconfig.remove(config)
        settings.forget(config)
        if config.runtime == "containerd":
            _remove_traces(config)
    except (ConfigError, OSError) as error:
        log.error("of the cluster that was in %s something is left: %s", config.root, error)


def _remove_traces(config: ClusterConfig) -> None:
    from navarch.cluster.teardown import remove_traces

    # The folder is there once more for as long as that takes: processes that take part read the settings.
    config.save()
    for name in workers.names(config):
        workers.config_of(config, name).root.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        remove_traces(config, grace_s=0.0)
        for name in _LEFT:
            shutil.rmtree(config.root / name, ignore_errors=True)
    finally:
        (config.root / "cluster.json").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # Whoever has put something else there keeps it.
            config.root.rmdir()
