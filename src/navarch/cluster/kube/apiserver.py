"""The program `kube-apiserver`: an API server that is told everything by kube-apiserver's flags.

In: the command line.  Out: a process that serves until SIGTERM. Objects are kept in the etcd that `--etcd-servers`
names, or, where that is the stand-in of `navarch envtest`, in a database in its data folder. Controllers run here only
where NAVARCH_ENVTEST_CONTROLLERS says so: kube-apiserver alone collects no garbage and empties no namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from navarch.cluster.flags.apiserver_flags import ABOUT, FLAGS
from navarch.cluster.flags.pflag import FlagError, Flags, help_text, parse
from navarch.cluster.kube.environment import kubernetes_version

if TYPE_CHECKING:
    from navarch.cluster.flags.apiserver_settings import KubeApiServer

log = logging.getLogger("kube-apiserver")


def main(argv: list[str]) -> int:
    try:
        flags = parse(FLAGS, argv)
        if flags.switch("help"):
            print(help_text(ABOUT, "kube-apiserver", FLAGS.values()), end="")
            return 0
        if flags.switch("version"):
            print(f"Kubernetes v{kubernetes_version()}.0+navarch")
            return 0
        from navarch.cluster.component import load, new_event_loop, tune_collector

        load("navarch.cluster.kube.apiserver_run")
        from navarch.cluster.flags.apiserver_settings import from_flags

        settings = from_flags(flags)
    except FlagError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    logging.basicConfig(level=os.environ.get("NAVARCH_LOG_LEVEL", "INFO").upper(), stream=sys.stderr)
    _mention_idle(flags)
    tune_collector()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            runner.run(_until_stopped(settings))
        except Exception:
            log.exception("command failed")
            return 1
    return 0


def _mention_idle(flags: Flags) -> None:
    idle = sorted(name for name in flags.values if not FLAGS[name].effective)
    if idle:
        log.warning("accepted without effect: %s", ", ".join(f"--{name}" for name in idle))


async def _until_stopped(settings: KubeApiServer) -> None:
    from navarch.cluster.kube.apiserver_run import run

    loop = asyncio.get_running_loop()
    main = asyncio.ensure_future(run(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await main


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
