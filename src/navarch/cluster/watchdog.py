"""The other half of supervision: each component watches the supervisor, and when that has died without stopping the
cluster, starts a new one, which takes the running processes over."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from navarch.cluster import vanished
from navarch.cluster.config import ClusterConfig
from navarch.cluster.run_supervisor import spawn
from navarch.cluster.state import ClusterState
from navarch.world import MACHINE

log = logging.getLogger(__name__)

_SETTLE_S = 0.5
_RETRY_S = 2.0


async def watch_supervisor(config: ClusterConfig, leave: Callable[[], object]) -> None:
    """Until cancelled. A supervisor that stops the cluster says so in the state before it ends. `leave` is called where
    none could start any more, because the cluster's folder is gone."""
    while True:
        state = ClusterState.load(config.run)
        if state.supervisor_alive:
            await _ended(state.supervisor_pid)
            state = ClusterState.load(config.run)
        if state.stopping:
            return
        if vanished.is_gone(config):
            log.error("%s is gone, and the supervisor is too: ending", config.root)
            leave()
            return
        if not state.supervisor_alive:
            # All components notice at the same moment; the lock lets one supervisor live, a little patience spares
            # the others the attempt.
            await asyncio.sleep(MACHINE.unpredictable().uniform(0, _SETTLE_S))
            if ClusterState.load(config.run).supervisor_alive:
                continue
            log.warning("the supervisor is gone, starting another")
            try:
                child = spawn(config)
            except OSError as error:
                log.error("no supervisor could be started: %s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            await asyncio.sleep(_RETRY_S)
            child.poll()


async def _ended(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
