"""Watchers that do not read, over real sockets: what they cost the server of memory, and that it comes back."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from navarch.http2 import frames
from tests.apiserver.http2.wire import GET

WATCHERS = 100
PATH = "/api/v1/configmaps?watch=1&resourceVersion=2"
WATCH = f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
# Two watches of a client that says that it has room for everything, and of one that has as much room as it was given.
MUCH = 1 << 30
ROOMY = frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: MUCH}) + frames.window_update(0, MUCH)
TWO = [frames.PREFACE + said + GET(1, PATH) + GET(3, PATH) for said in (ROOMY, frames.settings({}))]


class Server:
    """A server in a process of its own (`slow_readers.py`)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def tell(self, command: str) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return int(self._line())

    def memory_mb(self, field: str = "VmRSS") -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:")) >> 10


@pytest.fixture
def protocol() -> str:
    return "http/1.1"


@pytest.fixture
def server(protocol: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.apiserver.slow_readers", "3", protocol]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("protocol", "changes", "size"),
    [("http/1.1", 1500, 20_000), ("http/1.1", 8000, 100), ("h2", 8000, 100)],
    ids=["long events", "many events", "many events over HTTP/2"],
)
def test_watchers_that_do_not_read_cost_little_and_are_cut_off(
    server: Server, protocol: str, changes: int, size: int
) -> None:
    asked = [WATCH] * WATCHERS if protocol == "http/1.1" else TWO * (WATCHERS // 4)
    with ExitStack() as stack:
        for watches in asked:
            reader = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            reader.sendall(watches)
        wait_until(lambda: server.tell("say") == WATCHERS)

        server.tell(f"change {changes} {size}")
        wait_until(lambda: server.tell("say") == 0)

    # What anybody who reads costs as well: the ring, the store's history, a line per change.
    shared_mb = 3 * changes * (size + 700) >> 20
    assert server.memory_mb("VmHWM") < 100 + shared_mb + WATCHERS
    assert server.tell("collect") < 20 * WATCHERS
    wait_until(lambda: server.memory_mb() < 100 + shared_mb)


def wait_until(holds: object, timeout_s: float = 60) -> None:
    assert callable(holds)
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)
