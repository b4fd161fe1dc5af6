"""API server processes as clusters have them, with their own certificates and TLS, that are started and killed at will,
over a SQLite file or an etcd."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

from navarch.cluster import pki
from navarch.cluster.config import ClusterConfig

from ..store.etcd_server import free_ports
from .connection import Connection, Lost, NotSent

# The process of `navarch up`, without its supervisor.
_SERVER = """
import asyncio, logging, sys
from pathlib import Path
from navarch.cluster.component import new_event_loop
from navarch.cluster.config import ClusterConfig
from navarch.cluster.run_apiserver import run

logging.basicConfig(level=logging.WARNING)
with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(run(ClusterConfig.load(Path(sys.argv[1]))))
"""


class Server:
    """One API server; others of the same cluster have `keys` in common with it."""

    def __init__(self, folder: Path, store: str, keys: Path | None = None) -> None:
        if keys is not None:
            folder.mkdir(parents=True)
            shutil.copytree(keys, folder / "pki")
        self.config = ClusterConfig(
            name="crashes", data_dir=str(folder), port=free_ports(1)[0], store=store, runtime="simulated"
        )
        self.config.save()
        pki.ensure(self.config)
        self.tls = ssl.create_default_context(cafile=str(self.config.pki / "ca.crt"))
        self.tls.load_cert_chain(str(self.config.pki / "admin.crt"), str(self.config.pki / "admin.key"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.config.root / "server.log"

    def connection(self) -> Connection:
        return Connection(self.config.port, self.tls)

    def start(self, failpoints: str = "") -> None:
        environment = {**os.environ, "NAVARCH_FAILPOINTS": failpoints}
        with open(self.log, "ab") as log:
            command = [sys.executable, "-c", _SERVER, str(self.config.root)]
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

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
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    async def ended(self, timeout_s: float) -> bool:
        """Whether it ended by itself, at a failpoint, within that time."""
        process = self._process
        assert process is not None
        try:
            async with asyncio.timeout(timeout_s):
                while process.poll() is None:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True
