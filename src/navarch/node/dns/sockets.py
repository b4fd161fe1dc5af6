"""The server's sockets, which outlive its process: what pods ask while the node agent is restarted waits for it.

A resolver that is refused gives up at once, one that hears nothing asks again seconds later. So a process that does
nothing (a shell that waits for its input to end) has the sockets too; when the agent dies, the kernel goes on queueing,
and the successor takes the sockets from that process. Left alone, it ends by itself after a while.

Invariant: at every moment a process that the file names has the sockets. Successors may die, too, and in the midst of
taking over; so whoever had them before is ended only when it is written down who has them now.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import select
import signal
import socket
import subprocess
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_PIDFD_GETFD: Final = 438
# Longer than a restart takes on a machine that is busy with other things.
_WAIT_S: Final = 30
# For a process that was killed to be gone, which takes it a moment.
_END_MS: Final = 2000

Pair = tuple[socket.socket, socket.socket]
"""Listening for TCP, bound for UDP, on one address and port."""


def bind(address: str, port: int) -> Pair:
    """Fresh sockets; `port` 0 picks one.  Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    stream, datagrams = socket.socket(family, socket.SOCK_STREAM), socket.socket(family, socket.SOCK_DGRAM)
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stream.bind((address, port))
        stream.listen(128)
        datagrams.bind((address, stream.getsockname()[1]))
    except OSError:
        stream.close()
        datagrams.close()
        raise
    with contextlib.suppress(OSError):
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    for each in (stream, datagrams):
        each.setblocking(False)
    return stream, datagrams


class Keeper:
    """Keeps one pair of sockets; `file` says where a successor finds them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._process: subprocess.Popen[bytes] | None = None
        # Who had them before, as a pidfd.
        self._before = -1

    def take_over(self, address: str) -> Pair | None:
        """A predecessor's sockets, if they are for the address; `keep` them. Whatever else it has left is ended."""
        try:
            record = json.loads(self._file.read_text())
            pid, fds = int(record["pid"]), (int(record["stream"]), int(record["datagrams"]))
            if _started(pid) != record["started"]:
                return None
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError, KeyError):
            return None
        taken: list[socket.socket] = []
        try:
            for fd in fds:
                mine = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, fd, 0)
                if mine < 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
                taken.append(socket.socket(fileno=mine))
            names = {each.getsockname()[:2] for each in taken}
            if len(names) != 1 or names.pop()[0] != address:
                raise OSError(f"they are not for {address}")
        except OSError as error:
            log.info("the sockets of the server before this one: %s", error)
            for each in taken:
                each.close()
            _end(pidfd)
            return None
        self._before = pidfd
        return taken[0], taken[1]

    def keep(self, pair: Pair) -> None:
        """Have the sockets kept from now on; without that, they merely end with this process."""
        stream, datagrams = (each.fileno() for each in pair)
        try:
            self._process = subprocess.Popen(
                ["sh", "-c", f"read _; exec sleep {_WAIT_S}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(stream, datagrams),
                cwd="/",
                start_new_session=True,
            )
            pid = self._process.pid
            record = {"pid": pid, "started": _started(pid), "stream": stream, "datagrams": datagrams}
            partial = self._file.with_suffix(".partial")
            partial.write_text(json.dumps(record))
            partial.replace(self._file)
        except OSError as error:
            log.warning("the server's sockets will not outlive it: %s", error)
        self._end_predecessor()

    def _end_predecessor(self) -> None:
        if self._before >= 0:
            _end(self._before)
            self._before = -1

    def release(self) -> None:
        """End in an orderly way: nothing is kept."""
        self._file.unlink(missing_ok=True)
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._end_predecessor()


def _end(pidfd: int) -> None:
    """Returns when it is gone, and with it its hold on the address, which somebody may want to bind next."""
    with contextlib.suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    ended.poll(_END_MS)
    os.close(pidfd)


def _started(pid: int) -> str:
    """When a process started, which tells it from a later one of the same number.  Raises OSError."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
