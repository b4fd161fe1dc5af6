"""The program `etcd` of `navarch envtest`: what a test harness asks of an etcd, and a place for the objects.

In: etcd's flags.  Out: a server that is healthy, and says where kube-apiserver's database goes: in `--data-dir`, so
that objects live as long as they would in etcd, whatever becomes of kube-apiserver. Other programs of a test, such as
an API server behind that one, have etcd's keys, watches and leases over gRPC, in memory; what else they ask for is
refused in words, over HTTP with 501 and over gRPC with UNIMPLEMENTED.

Started by hand beside every test run, so nothing heavy is imported before somebody speaks gRPC.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from navarch.cluster.flags.pflag import LIST, NUMBER, SWITCH, TEXT, Flag, FlagError, Flags, help_text, parse

VERSION: Final = "3.6.5"
ABOUT: Final = "etcd, as far as tests need one: its health, a place for kube-apiserver's objects, keys in memory."
_EFFECTIVE: Final[Mapping[str, str]] = {LIST: "listen-client-urls", TEXT: "data-dir name", SWITCH: "help version"}
_IDLE: Final[Mapping[str, str]] = {
    SWITCH: """
        client-cert-auth enable-pprof force-new-cluster initial-election-tick-advance peer-auto-tls auto-tls
        peer-client-cert-auth pre-vote strict-reconfig-check unsafe-no-fsync log-outputs-rotation
        experimental-initial-corrupt-check enable-log-rotation socket-reuse-port socket-reuse-address
        experimental-enable-distributed-tracing feature-initial-corrupt-check
    """,
    NUMBER: """
        auto-compaction-retention-count backend-batch-limit election-timeout heartbeat-interval
        max-concurrent-streams max-request-bytes max-snapshots max-txn-ops max-wals quota-backend-bytes snapshot-count
    """,
    TEXT: """
        auth-token auto-compaction-mode auto-compaction-retention backend-batch-interval bcrypt-cost cert-file
        cipher-suites client-crl-file config-file discovery-srv discovery-token feature-gates
        experimental-corrupt-check-time experimental-watch-progress-notify-interval grpc-keepalive-interval
        grpc-keepalive-min-time grpc-keepalive-timeout initial-cluster initial-cluster-state initial-cluster-token
        key-file log-format log-level log-outputs log-rotation-config-json logger metrics peer-cert-file
        peer-cert-allowed-cn peer-crl-file peer-key-file peer-trusted-ca-file trusted-ca-file tls-max-version
        tls-min-version wal-dir watch-progress-notify-interval corrupt-check-time compaction-batch-limit
    """,
    LIST: """
        advertise-client-urls cors host-whitelist initial-advertise-peer-urls listen-client-http-urls
        listen-metrics-urls listen-peer-urls
    """,
}
FLAGS: Final[Mapping[str, Flag]] = MappingProxyType({
    name: Flag(name, type_, effective, "h" if name == "help" else "")
    for effective, groups in ((True, _EFFECTIVE), (False, _IDLE))
    for type_, names in groups.items()
    for name in names.split()
})  # fmt: skip
_URL: Final = "http://localhost:2379"
_PREFACE: Final = b"PRI * HTTP/2.0\r\n"
_HEAD_MAX: Final = 64 << 10
_IDLE_S: Final = 60.0
_NOT_HERE: Final = (
    "this etcd belongs to `navarch envtest`: it answers for its health and serves keys, watches and leases over gRPC, "
    "in memory; kube-apiserver keeps its objects in a database of its own"
)
_CHUNK: Final = 1 << 16


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], database: Path, warm: str) -> None:
        self.answers: Mapping[str, bytes] = {
            "/health": b'{"health":"true","reason":""}',
            "/livez": b"ok\n",
            "/readyz": b"ok\n",
            "/version": json.dumps(
                {"etcdserver": VERSION, "etcdcluster": "3.6.0", "storage": "3.6.0"}, separators=(",", ":")
            ).encode(),
            "/navarch": json.dumps({"database": str(database), "warm": warm}).encode(),
        }
        super().__init__(address, _Connection)


class _Keys:
    """The gRPC server within, from the first connection that speaks gRPC on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name = f"navarch-etcd-{os.getpid()}"
        self._server: object = None

    def connect(self) -> socket.socket:
        with self._lock:
            if self._server is None:
                from navarch.cluster.kube import etcd_service

                self._server = etcd_service.serve(f"unix-abstract:{self._name}", VERSION, _NOT_HERE)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"\0{self._name}")
        return connection


_KEYS: Final = _Keys()


class _Connection(socketserver.StreamRequestHandler):
    timeout = _IDLE_S

    def handle(self) -> None:
        try:
            while self._answer():
                pass
        except (OSError, ValueError):
            # Gone, or no client of ours.
            return

    def _answer(self) -> bool:
        """Answer one request; whether there may be another."""
        line = self.rfile.readline(_HEAD_MAX)
        if line == _PREFACE:
            self._join(line)
            return False
        words = line.decode("latin-1").split()
        if len(words) != 3:
            return False
        method, target, version = words
        headers = self._headers()
        self.rfile.read(min(int(headers.get("content-length", "0")), _HEAD_MAX))
        server = self.server
        assert isinstance(server, _Server)
        body = server.answers.get(target.partition("?")[0]) if method in ("GET", "HEAD") else None
        status = "200 OK"
        if body is None:
            status = "501 Not Implemented"
            body = json.dumps({"error": _NOT_HERE, "code": 12, "message": _NOT_HERE}).encode()
        keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        self.wfile.write(head.encode() + (b"" if method == "HEAD" else body))
        return keep

    def _join(self, begun: bytes) -> None:
        """Pass on what comes and goes until one end closes."""
        # gRPC's clients are silent for longer than HTTP's.
        self.connection.settimeout(None)
        with _KEYS.connect() as within:
            within.sendall(begun)
            back = threading.Thread(target=_copy, args=(within.recv, self.connection), daemon=True)
            back.start()
            assert isinstance(self.rfile, io.BufferedReader)
            _copy(self.rfile.read1, within)
            back.join()

    def _headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while (line := self.rfile.readline(_HEAD_MAX)).strip():
            name, _, value = line.decode("latin-1").partition(":")
            found[name.strip().lower()] = value.strip()
        return found


def _copy(read: Callable[[int], bytes], target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := read(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def serve(flags: Flags) -> int:
    """Until SIGTERM.  Raises FlagError, OSError."""
    folder = Path(flags.text("data-dir") or f"{flags.text('name', 'default')}.etcd").absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    addresses = [_address(url) for url in flags.texts("listen-client-urls") or (_URL,)]
    warm = folder / "kube-apiserver.sock"
    servers = [_Server(address, folder / "navarch.db", str(warm)) for address in addresses]
    # Held open until this process ends, which is how the other one learns of it.
    _alive = _warm_up(warm)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        # At once, whoever is still connected: nothing here has to be written down.
        signal.signal(number, lambda *_: os._exit(0))
    while True:
        signal.pause()


def _warm_up(path: Path) -> int:
    """Start an API server that waits at the socket `path`, see `warm`; what ends when it shall end."""
    ours, its = os.pipe()
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        try:
            listening.bind(str(path))
        except OSError:
            # The path is too long: then kube-apiserver imports everything itself.
            return its
        listening.listen(1)
        listening.set_inheritable(True)
        program = [sys.executable, "-m", "navarch.cluster.kube.warm", str(listening.fileno())]
        os.posix_spawn(program[0], program, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, ours, 0)])
    os.close(ours)
    return its


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise FlagError(f"cannot listen on {url}: the etcd of `navarch envtest` speaks plain HTTP")
    return parts.hostname or "localhost", parts.port or 2379


def main(argv: list[str]) -> int:
    try:
        # Go's own flags, which have one dash or two.
        flags = parse(FLAGS, [f"-{word}" if word.startswith("-") and word[1:2] != "-" else word for word in argv])
        if flags.switch("help"):
            print(help_text(ABOUT, "etcd", FLAGS.values()), end="")
            return 0
        if flags.switch("version"):
            print(f"etcd Version: {VERSION}")
            return 0
        return serve(flags)
    except FlagError as error:
        why = str(error).replace("unknown flag: --", "flag provided but not defined: -")
        print(f"error verifying flags, {why}. See 'etcd --help'.", file=sys.stderr)
    except OSError as error:
        print(f"etcd: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
