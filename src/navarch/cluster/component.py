"""One process of a cluster: `python -m navarch.cluster.component NAME DATA_DIR`, started by the supervisor; NAME may be
that of a further node's process (`node@default-worker-1`), which runs in that node's network namespace.

Everything heavy is imported first; then the process waits at its gate (`gate.py`) until it is recorded and the
cluster's keys are there, and runs until SIGTERM, which ends it in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, cast

from navarch.cluster import gate, logfiles, workers
from navarch.cluster.config import ClusterConfig

log = logging.getLogger("navarch.component")

# name -> the module whose `run(config)` is the component
_COMPONENTS = {
    "apiserver": "navarch.cluster.run_apiserver",
    "controllers": "navarch.cluster.run_controllers",
    "node": "navarch.cluster.run_node",
}


class _Component(Protocol):
    async def run(self, config: ClusterConfig) -> None: ...


def _exec_containerd(config: ClusterConfig, name: str, worker: str) -> None:
    from navarch.node.containerd import ContainerdConfig, ContainerdPaths, command, environment

    own = workers.config_of(config, worker) if worker else config
    paths = ContainerdPaths(data=own.root / "node", run=own.run)
    ContainerdConfig.of_this_machine(paths).write()
    gate.enter(config.run, name, inheritable=True)
    if worker:
        workers.enter(config, worker)
    argv = command(paths)
    os.execvpe(argv[0], argv, environment())


def _load(name: str) -> _Component:
    return cast(_Component, load(_COMPONENTS[name]))


def load(module: str) -> Any:
    """Import a module of a process of ours."""
    # aiohttp makes a TLS context with every CA of the machine as it is imported, 40 ms for something that no component
    # uses: all of them name the CA they trust.
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = os.devnull
    # All that is made lives for ever; looking through it again and again for garbage takes a sixth of the time.
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.enable()
        del os.environ["SSL_CERT_FILE"]
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before


def new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    make = cast(Callable[[], asyncio.AbstractEventLoop], uvloop.new_event_loop)
    return make()


async def _until_stopped(work: Coroutine[Any, Any, None], config: ClusterConfig) -> None:
    from navarch.cluster.watchdog import watch_supervisor

    loop = asyncio.get_running_loop()
    main = asyncio.ensure_future(work)
    watchdog = asyncio.ensure_future(watch_supervisor(config, main.cancel))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await main
    finally:
        watchdog.cancel()
        await asyncio.gather(watchdog, return_exceptions=True)


def tune_collector() -> None:
    # What was imported lives for ever and need not be looked at again, not even once: what of it is garbage is little
    # beside the time. JSON objects come in large numbers without cycles, so the young generation is let grow.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def main(argv: list[str]) -> int:
    name, config = argv[1], ClusterConfig.load(Path(argv[2]))
    logfiles.log_to(config.logs / f"{name}.log", os.environ.get("NAVARCH_LOG_LEVEL", "INFO").upper())
    kind, _, worker = name.partition("@")
    try:
        if kind == "containerd":
            _exec_containerd(config, name, worker)
        component = _load(kind)
        gate.enter(config.run, name)
        if worker:
            # Before there is any other thread.
            workers.enter(config, worker)
    except gate.NotAdmitted as error:
        log.error("%s", error)
        return 1
    tune_collector()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            own = workers.config_of(config, worker) if worker else config
            runner.run(_until_stopped(component.run(own), config))
        except Exception:
            log.exception("%s failed", name)
            return 1
    log.info("%s stopped", name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
