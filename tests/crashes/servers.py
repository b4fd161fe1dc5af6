"""API server processes as clusters have them, with their own certificates and TLS, that are started and killed at will,
over a SQLite file or an etcd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

from navarch.cluster import pki
from navarch.cluster.config import ClusterConfig

from ..ports import free_port
from .connection import Connection, Lost, NotSent

# Forks the process of `navarch up`, without its supervisor, as often as it is asked: what takes long, the imports, is
# done once. A line says which folder and which failpoints; the answer is a pid.
_NURSERY = """
import asyncio, logging, os, signal, sys, traceback
from pathlib import Path
from navarch.cluster.component import new_event_loop
from navarch.cluster.config import ClusterConfig
from navarch.cluster.run_apiserver import run
from navarch.store import failpoints
import navarch.store.sqlite, navarch.store.etcd.store

def live(folder, points):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    config = ClusterConfig.load(Path(folder))
    for name, action in (point.split("=") for point in points.split(";") if point):
        failpoints.point(name).arm(action)
    log = os.open(config.root / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.WARNING)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run(config))

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        code = 1
        try:
            live(*line.rstrip("\\n").split("\\t"))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    print(pid, flush=True)
"""


class Nursery:
    """Where servers come from."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _NURSERY]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, folder: Path, failpoints: str) -> int:
        """A descriptor of the process (`pidfd_open`): its pid may be somebody else's once it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(folder, failpoints, sep="\t", file=self._process.stdin, flush=True)
        return os.pidfd_open(int(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Server:
    """One API server; others of the same cluster have `keys` in common with it."""

    def __init__(self, nursery: Nursery, folder: Path, store: str, keys: Path | None = None) -> None:
        if keys is not None:
            folder.mkdir(parents=True)
            shutil.copytree(keys, folder / "pki")
        self.config = ClusterConfig(
            name="crashes", data_dir=str(folder), port=free_port(), store=store, runtime="simulated"
        )
        self.config.save()
        pki.ensure(self.config)
        self.tls = ssl.create_default_context(cafile=str(self.config.pki / "ca.crt"))
        self.tls.load_cert_chain(str(self.config.pki / "admin.crt"), str(self.config.pki / "admin.key"))
        self._nursery = nursery
        self._process: int | None = None

    @property
    def log(self) -> Path:
        return self.config.root / "server.log"

    def connection(self) -> Connection:
        return Connection(self.config.port, self.tls)

    def start(self, failpoints: str = "") -> None:
        self._process = self._nursery.start(self.config.root, failpoints)

    async def ready(self, timeout_s: float = 60) -> bool:
        """Until it serves; False where it ended before."""
        connection = self.connection()
        try:
            async with asyncio.timeout(timeout_s):
                while self.running:
                    try:
                        if (await connection.ask("GET", "/api/v1/namespaces/default"))[0] == 200:
                            return True
                    except (NotSent, Lost):
                        pass
                    await asyncio.sleep(0.02)
            return False
        finally:
            connection.close()

    @property
    def running(self) -> bool:
        # The descriptor becomes readable when the process ends.
        return self._process is not None and not select.select([self._process], [], [], 0)[0]

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            select.select([self._process], [], [])
            os.close(self._process)
            self._process = None

    async def ended(self, timeout_s: float) -> None:
        """Until it has ended by itself, at a failpoint, or that time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.running:
                    await asyncio.sleep(0.01)
