"""etcd servers for tests: real ones, one or a cluster, that can be killed, stopped and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType

from ..ports import free_ports


def etcd_binary() -> str | None:
    """`$NAVARCH_TEST_ETCD`, or what is installed (Debian's etcd-server)."""
    return os.environ.get("NAVARCH_TEST_ETCD") or shutil.which("etcd")


MISSING = "etcd is not installed (as root: apt-get install etcd-server)"


class Etcd:
    """`members` processes on this machine; with `tls` (a folder with ca.crt, server.crt, server.key) clients must show
    a certificate."""

    def __init__(self, members: int = 1, *, tls: Path | None = None, arguments: tuple[str, ...] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="navarch-etcd-")
        self._tls = tls
        self._arguments = arguments
        ports = free_ports(2 * members)
        self._clients, self._peers = ports[:members], ports[members:]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * members

    @property
    def endpoints(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self._clients]

    @property
    def url(self) -> str:
        return "etcd://" + ",".join(self.endpoints)

    def __enter__(self) -> Etcd:
        for index in range(len(self._clients)):
            self.start(index)
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for index, process in enumerate(self._processes):
            if process is not None:
                self.kill(index)
        self._folder.cleanup()

    def start(self, index: int = 0) -> None:
        binary = etcd_binary()
        assert binary is not None
        scheme = "https" if self._tls else "http"
        client = f"{scheme}://127.0.0.1:{self._clients[index]}"
        peer = f"http://127.0.0.1:{self._peers[index]}"
        cluster = ",".join(f"m{number}=http://127.0.0.1:{port}" for number, port in enumerate(self._peers))
        command = [binary, "--name", f"m{index}", "--data-dir", f"{self._folder.name}/m{index}",
                   "--listen-client-urls", client, "--advertise-client-urls", client,
                   "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                   "--initial-cluster", cluster, "--log-level", "error", *self._arguments]  # fmt: skip
        if self._tls:
            command += ["--client-cert-auth", "--trusted-ca-file", str(self._tls / "ca.crt"),
                        "--cert-file", str(self._tls / "server.crt"),
                        "--key-file", str(self._tls / "server.key")]  # fmt: skip
        log = open(f"{self._folder.name}/m{index}.log", "ab")  # noqa: SIM115 - the process keeps it
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        self._processes[index] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        log.close()

    def wait(self) -> None:
        """Until each member that runs has a leader (or, with TLS, listens)."""
        deadline = time.monotonic() + 30
        for index, process in enumerate(self._processes):
            while process is not None and not self._ready(index):
                assert process.poll() is None, Path(f"{self._folder.name}/m{index}.log").read_text()
                assert time.monotonic() < deadline, "etcd did not start"
                time.sleep(0.02)

    def _ready(self, index: int) -> bool:
        try:
            if self._tls:
                socket.create_connection(("127.0.0.1", self._clients[index]), 1).close()
                return True
            with urllib.request.urlopen(f"http://127.0.0.1:{self._clients[index]}/health", timeout=5) as answer:
                return b'"true"' in answer.read()
        except OSError:
            return False

    def kill(self, index: int = 0) -> None:
        process = self._processes[index]
        assert process is not None
        process.kill()
        process.wait()
        self._processes[index] = None

    def pause(self, index: int = 0) -> None:
        """It goes on existing and says nothing: a machine that hangs, a network that is cut."""
        self._signal(index, signal.SIGSTOP)

    def resume(self, index: int = 0) -> None:
        self._signal(index, signal.SIGCONT)

    def _signal(self, index: int, number: signal.Signals) -> None:
        process = self._processes[index]
        assert process is not None
        process.send_signal(number)
