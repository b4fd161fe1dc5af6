"""How the processes of a cluster that are Python begin alike: forked from one process that has loaded what they share.

In: which component is to begin, its descriptors and its environment.  Out: its pid; it is the supervisor's child like
one that was started by `exec`, only that half of what it would load is there already, in memory that it shares with
its siblings. The process that they are forked from is itself a fork of the supervisor, does nothing but load modules,
has one thread and no event loop, and ends when all have begun: restarts begin from nothing.

Invariants: who is forked has its own session, descriptors, signals, logging and command line (by which `strays.py` and
people tell processes apart), and none of the supervisor's locks. Where anything of this cannot be had (a command line
with too little room, another thread, a module that cannot be loaded), `ForkError` says so, and the caller starts the
process by `exec`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import io
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

from navarch.cluster import locks

log = logging.getLogger("navarch.forkserver")

# By name, as `exec` would start it: it starts supervisors itself.
ENTRY: Final = "navarch.cluster.component"
# What the API server, the controllers and a node all load: these, and what they bring. Nothing that starts threads
# (numpy does), and nothing that only one of them needs.
SHARED: Final = (
    ENTRY,
    "navarch.cluster.certificates",
    "navarch.cluster.flags.pflag",
    "navarch.client.informer",
    "navarch.kinds.core.service",
    "navarch.api.cel.environment",
    "navarch.sim.usage",
)
_PR_SET_CHILD_SUBREAPER: Final = 36
_LOADED_WITHIN_S: Final = 60.0
_MESSAGE_MAX: Final = 64 << 10
_DESCRIPTORS_MAX: Final = 32


class ForkError(Exception):
    """Nobody was forked; the message says why."""


class Forked:
    """A child, as `subprocess.Popen` is one."""

    def __init__(self, pid: int, server: ForkServer) -> None:
        self.pid = pid
        self._server = server

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int | None:
        """The exit code, negative for a signal; None where the kernel does not tell."""
        # It is the supervisor's own child only when the process between them has ended.
        self._server.close()
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            return None
        return os.waitstatus_to_exitcode(status)


class ForkServer:
    """The supervisor's end; from the first moment on, modules are being loaded."""

    def __init__(self) -> None:
        """Raises ForkError, OSError."""
        begin, end = _command_line()
        self._room = end - begin
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Those whose parent has ended become this process's children instead of init's.
        _adopt_orphans(True)
        self._pid = os.fork()
        if self._pid == 0:
            _end_with(_serve, theirs)
        theirs.close()
        self._socket.settimeout(_LOADED_WITHIN_S)

    def fork(
        self, argv: tuple[str, ...], streams: tuple[int, int], env: dict[str, str], listening: dict[str, list[int]]
    ) -> Forked:
        """Begin the component that `argv` would start. `streams` are its standard input and output; `env` is added to
        the environment; `listening` are descriptors to be kept, and the variable that names them.  Raises ForkError."""
        if self._pid <= 0:
            raise ForkError("there is no fork server any more")
        title = b"\0".join(map(os.fsencode, argv)) + b"\0"
        if len(title) > self._room:
            raise ForkError("the command line of the supervisor leaves no room for that of the process")
        kept = [descriptor for descriptors in listening.values() for descriptor in descriptors]
        request = {"argv": argv, "env": env, "listening": {name: len(each) for name, each in listening.items()}}
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [*streams, *kept])
            answer = self._socket.recv(_MESSAGE_MAX)
        except OSError as error:
            os.kill(self._pid, signal.SIGKILL)
            self.close()
            raise ForkError(f"the fork server does not answer: {error}") from None
        if not answer:
            self.close()
            raise ForkError("the fork server has ended")
        return Forked(int(answer), self)

    def close(self) -> None:
        """From here on nobody is forked, and those that were are this process's children."""
        if self._pid <= 0:
            return
        self._socket.close()
        os.waitpid(self._pid, 0)
        self._pid = 0
        _adopt_orphans(False)


def _adopt_orphans(on: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _command_line() -> tuple[int, int]:
    """Where this process's arguments begin and end in its memory.  Raises ForkError."""
    # The command's name may hold blanks and parentheses, so fields are counted after the last one.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = (int(fields[45]), int(fields[46])) if len(fields) > 46 else (0, 0)
    if not 0 < begin < end:
        raise ForkError("this kernel does not say where the arguments are")
    return begin, end


# In the process that forks.


def _end_with(run: Any, *arguments: Any) -> NoReturn:
    """Never goes back to what the parent was doing: its frames, and their `finally`, are not this process's."""
    code = 1
    try:
        code = run(*arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        log.exception("a process that was forked failed")
    finally:
        logging.shutdown()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _serve(requests: socket.socket) -> int:
    """Load what is shared, then fork one process for each request, until the supervisor has no more."""
    _forget_parent(requests.fileno())
    # Better here than in each of those that are forked, where the kernel does not let it be done.
    _call_itself(Path("/proc/self/cmdline").read_bytes())
    component = importlib.import_module(ENTRY)
    for module in SHARED:
        component.load(module)
    with contextlib.suppress(ImportError):
        component.load("uvloop")
    if len(os.listdir("/proc/self/task")) != 1:
        # What other threads hold at the fork would be held for ever.
        log.error("something that is loaded has started a thread; processes begin without what they share")
        return 1
    # The collector would write into every object, and so take it out of the memory that is shared.
    gc.disable()
    gc.freeze()
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, _MESSAGE_MAX, _DESCRIPTORS_MAX)
        if not data:
            return 0
        pid = os.fork()
        if pid == 0:
            requests.close()
            _end_with(_become, json.loads(data), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(str(pid).encode())


def _forget_parent(keep: int) -> None:
    """Nothing of the supervisor's but its standard streams and `keep`. Objects that own one of the descriptors live on
    in its frames, which never end here, and so do not close another that has got the same number."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    locks.forget()
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) > 2 and int(entry) != keep:
            # The one by which the folder was read is closed already.
            with contextlib.suppress(OSError):
                os.close(int(entry))


def _become(request: dict[str, Any], descriptors: list[int]) -> int:
    """Be the process that is asked for."""
    from navarch import heap

    # A Ctrl-C in the terminal is the supervisor's to act on, in its order.
    os.setsid()
    stdin, output, *kept = descriptors
    os.dup2(stdin, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(stdin)
    os.close(output)
    argv: list[str] = request["argv"]
    _call_itself(b"\0".join(map(os.fsencode, argv)))
    os.environ.update(request["env"])
    for name, count in request["listening"].items():
        os.environ[name] = ",".join(map(str, kept[:count]))
        del kept[:count]
    sys.argv = ["", *argv[3:]]
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)
    logging.root.handlers.clear()
    heap.limit_arenas()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    return int(importlib.import_module(ENTRY).main(sys.argv) or 0)


def _call_itself(arguments: bytes) -> None:
    """Be known by these arguments, as `ps` shows them.  Raises ForkError, OSError."""
    begin, end = _command_line()
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(begin)
        memory.write(arguments.ljust(end - begin, b"\0"))
