"""The supervisor: starts a cluster's processes, restarts those that die with a growing delay, stops them on SIGTERM.

It is one small loop over process descriptors, signals and timers, on the standard library alone, so that it costs
next to nothing. It holds the API port's listening socket: while the API server restarts, connections wait instead of
being refused. Its own death harms nothing: processes go on, and the first of them to notice starts another, which
takes them over by the pids in `run/state.json` (one at a time holds the lock `run/supervisor.lock`).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path

from navarch.cluster.config import ClusterConfig, ConfigError
from navarch.cluster.processes import ProcessSpec, specs
from navarch.cluster.state import ClusterState, ComponentState, alive, start_ticks
from navarch.world import MACHINE

log = logging.getLogger("navarch.supervisor")

_FIRST_DELAY_S = 0.1
_LAST_DELAY_S = 30.0
_STEADY_S = 60.0
_STOP_GRACE_S = 15.0
LISTEN_FD = "NAVARCH_LISTEN_FD"


class _Process:
    """One supervised process, started here or taken over."""

    def __init__(self, spec: ProcessSpec, state: ComponentState) -> None:
        self.spec = spec
        self.state = state
        self.child: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.restart_at_s = 0.0
        self.delay_s = _FIRST_DELAY_S
        self.gate: int = -1


class Supervisor:
    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.selector = selectors.DefaultSelector()
        before = ClusterState.load(config.run)
        self.state = ClusterState(os.getpid(), start_ticks(os.getpid()), MACHINE.now().timestamp())
        self.processes: list[_Process] = []
        for spec in specs(config):
            known = before.components.get(spec.name, ComponentState())
            known.restarts_before = known.restarts
            self.state.components[spec.name] = known
            self.processes.append(_Process(spec, known))
        self.stopping = False
        self._listener: socket.socket | None = None
        self._kill_at_s = 0.0

    def run(self) -> int:
        """Until SIGTERM or SIGINT has stopped everything."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self.selector.register(wake_read, selectors.EVENT_READ, None)
        self._begin()
        while not (self.stopping and all(process.pidfd < 0 for process in self.processes)):
            for key, _ in self.selector.select(self._next_timer_s()):
                if key.data is None:
                    self._take_signals(wake_read)
                else:
                    self._ended(key.data)
            self._restart_due()
            self._kill_late()
        self.state.stopping = True
        self._save()
        log.info("stopped")
        return 0

    def _begin(self) -> None:
        adopted = [process for process in self.processes if alive(process.state)]
        for process in adopted:
            log.info("took over %s, pid %d", process.spec.name, process.state.pid)
            self._watch(process)
        fresh = [process for process in self.processes if process not in adopted]
        if any(process.spec.listens for process in fresh):
            self._listen()
        for process in fresh:
            self._start(process)
        if any(process.gate >= 0 for process in fresh):
            self._make_keys()
        for process in fresh:
            self._open_gate(process)
        self._save()

    def _make_keys(self) -> None:
        """In a child, so that the memory that cryptography takes goes away with it; the components load meanwhile."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                from navarch.cluster import pki

                pki.ensure(self.config)
                status = 0
            except Exception:
                log.exception("the cluster's keys could not be made")
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        if status:
            raise SystemExit("the cluster's keys could not be made; the log says why")

    def _listen(self) -> None:
        listener = socket.create_server((self.config.bind_address, self.config.port), backlog=4096, reuse_port=False)
        listener.setblocking(False)
        self._listener = listener

    def _start(self, process: _Process) -> None:
        spec = process.spec
        descriptors: list[int] = []
        # Two arenas are enough for a loop and its few threads; each further one holds megabytes that are never used.
        env = {**os.environ, **spec.env, "PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2"}
        if spec.listens:
            if self._listener is None:
                self._listen()
            assert self._listener is not None
            env[LISTEN_FD] = str(self._listener.fileno())
            descriptors.append(self._listener.fileno())
        self.config.logs.mkdir(parents=True, exist_ok=True)
        gate_read, gate_write = os.pipe()
        with open(self.config.logs / f"{spec.name}.log", "ab") as output:
            process.child = subprocess.Popen(
                spec.argv,
                stdin=gate_read if spec.waits else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                pass_fds=descriptors,
                # A Ctrl-C in the terminal is the supervisor's to act on, in its order.
                start_new_session=True,
            )
        os.close(gate_read)
        process.gate = gate_write
        state = process.state
        state.pid = process.child.pid
        state.start_ticks = start_ticks(process.child.pid)
        state.state = "running"
        state.since = MACHINE.now().timestamp()
        log.info("started %s, pid %d", spec.name, state.pid)
        self._watch(process)

    def _open_gate(self, process: _Process) -> None:
        if process.gate >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(process.gate, b"\n")
            os.close(process.gate)
            process.gate = -1

    def _watch(self, process: _Process) -> None:
        try:
            process.pidfd = os.pidfd_open(process.state.pid)
        except ProcessLookupError:
            # It ended between being started and being watched; reaped like any other.
            process.pidfd = -1
            self._ended(process)
            return
        self.selector.register(process.pidfd, selectors.EVENT_READ, process)

    def _ended(self, process: _Process) -> None:
        if process.pidfd >= 0:
            self.selector.unregister(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = -1
        code = process.child.wait() if process.child is not None else None
        process.child = None
        state = process.state
        state.last_exit = _exit_text(code)
        if self.stopping:
            state.state = "stopped"
            self._stop_next()
        else:
            if MACHINE.now().timestamp() - state.since > _STEADY_S:
                process.delay_s = _FIRST_DELAY_S
            process.restart_at_s = MACHINE.monotonic() + process.delay_s
            log.warning("%s ended (%s), restarting in %.1f s", process.spec.name, state.last_exit, process.delay_s)
            process.delay_s = min(process.delay_s * 2, _LAST_DELAY_S)
            state.state = "backoff"
            state.restarts += 1
        self._save()

    def _restart_due(self) -> None:
        now_s = MACHINE.monotonic()
        for process in self.processes:
            if process.restart_at_s and process.restart_at_s <= now_s and not self.stopping:
                process.restart_at_s = 0.0
                try:
                    self._start(process)
                except OSError as error:
                    log.error("cannot start %s: %s", process.spec.name, error)
                    process.restart_at_s = now_s + process.delay_s
                    process.delay_s = min(process.delay_s * 2, _LAST_DELAY_S)
                else:
                    self._open_gate(process)
                self._save()

    def _next_timer_s(self) -> float | None:
        due = [process.restart_at_s for process in self.processes if process.restart_at_s]
        if self.stopping:
            due.append(self._kill_at_s)
        return max(0.0, min(due) - MACHINE.monotonic()) if due else None

    def _take_signals(self, wake_read: int) -> None:
        numbers = set(os.read(wake_read, 512))
        if numbers & {signal.SIGTERM, signal.SIGINT} and not self.stopping:
            log.info("stopping")
            self.stopping = True
            self.state.stopping = True
            for process in self.processes:
                process.restart_at_s = 0.0
            self._stop_next()
            self._save()

    def _stop_next(self) -> None:
        """Stop in the reverse of the starting order, one after the other: the API server outlives its clients."""
        for process in reversed(self.processes):
            if process.pidfd >= 0:
                self._kill_at_s = MACHINE.monotonic() + _STOP_GRACE_S
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process.pidfd, signal.SIGTERM)
                return

    def _kill_late(self) -> None:
        if self.stopping and MACHINE.monotonic() >= self._kill_at_s:
            for process in reversed(self.processes):
                if process.pidfd >= 0:
                    log.warning("%s did not stop in %.0f s, killing it", process.spec.name, _STOP_GRACE_S)
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
                    self._kill_at_s = MACHINE.monotonic() + _STOP_GRACE_S
                    return

    def _save(self) -> None:
        self.state.save(self.config.run)


def _exit_text(code: int | None) -> str:
    if code is None:
        return "ended"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def take_lock(run: Path) -> int:
    """The descriptor of the held lock.  Raises BlockingIOError while another supervisor has it."""
    run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def spawn(config: ClusterConfig) -> subprocess.Popen[bytes]:
    """Start a supervisor in the background; one that finds another at work ends at once."""
    config.logs.mkdir(parents=True, exist_ok=True)
    with open(config.logs / "supervisor.log", "ab") as output:
        return subprocess.Popen(
            (sys.executable, "-m", "navarch.cluster.supervisor", str(config.root)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )


def main(argv: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = ClusterConfig.load(Path(argv[1]))
        lock = take_lock(config.run)
    except ConfigError as error:
        log.error("%s", error)
        return 2
    except BlockingIOError:
        log.info("another supervisor is at work")
        return 0
    try:
        return Supervisor(config).run()
    except OSError as error:
        log.error("%s", error)
        return 1
    finally:
        os.close(lock)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
