"""A continuous load of requests through a service, and what became of every one of them.

`Load` opens a connection per request, from several threads, as browsers and scripts do; `Echo` keeps one connection
open and says something on it again and again, as database clients do.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import dns.message

_ASKED = 12
# Longer than any request.
_ENDS_WITHIN_S = 90.0


@dataclass(slots=True)
class Failure:
    """`at_s` is on the monotonic clock, when the request began."""

    at_s: float
    why: str


@dataclass(slots=True)
class Outcome:
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return sum(self.answers.values()) + len(self.failures)


def fetch(address: str, port: int = 80, path: str = "/", timeout_s: float = 20.0) -> str:
    """The body of one HTTP request on a connection of its own.  Raises OSError where it is not answered in full."""
    with socket.create_connection((address, port), timeout=timeout_s) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: test\r\n\r\n".encode())
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator or b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise OSError(f"no answer: {data[:80]!r}")
    return body.decode().strip()


def resolve(address: str, port: int = 53) -> str:
    """Ask cluster DNS for a name, again after as long as glibc's resolver waits (5 s).  Raises OSError."""
    query = dns.message.make_query("kubernetes.default.svc.cluster.local.", "A")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((address, port))
        # A datagram may be lost (with a server that dies over it); being refused, a resolver gives up at once. It would
        # ask twice; on a machine that is busy with other things a server may need longer than that to begin anew.
        for _ in range(_ASKED):
            client.send(query.to_wire())
            with contextlib.suppress(TimeoutError):
                return dns.message.from_wire(client.recv(4096)).answer[0][0].to_text()
    raise TimeoutError(f"no answer to {_ASKED} questions")


class Load:
    """`with Load(address) as load:` requests run all the time; `load.outcome` tells, complete after the block."""

    def __init__(
        self,
        address: str,
        port: int = 80,
        *,
        threads: int = 4,
        pause_s: float = 0.004,
        request: Callable[[str, int], str] = fetch,
    ) -> None:
        self.outcome = Outcome()
        self._request = request
        self._at = (address, port)
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_ENDS_WITHIN_S)
            assert not thread.is_alive(), "a request that never ends"

    def _run(self) -> None:
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                body, failure = self._request(*self._at), None
            except OSError as error:
                body, failure = "", Failure(began_s, f"{type(error).__name__}: {error}")
            with self._lock:
                if failure is not None:
                    self.outcome.failures.append(failure)
                else:
                    self.outcome.answers[body] += 1
            time.sleep(self._pause_s)


class Echo:
    """One connection to an echo server, used all the time. `broken` says why it ended, if it did."""

    def __init__(self, address: str, port: int) -> None:
        self.broken = ""
        self.said = 0
        self._connection = socket.create_connection((address, port), timeout=5)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._connection.close()

    def _run(self) -> None:
        while not self._stop.is_set() and not self.broken:
            try:
                self._connection.sendall(b"hello\n")
                if self._connection.recv(100) == b"hello\n":
                    self.said += 1
                else:
                    self.broken = "closed by the server"
            except OSError as error:
                self.broken = f"{type(error).__name__}: {error}"
            time.sleep(0.01)
