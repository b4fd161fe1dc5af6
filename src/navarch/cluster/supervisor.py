"""The supervisor: starts a cluster's processes, restarts those that die with a growing delay, stops them on SIGTERM.

It is one small loop over process descriptors, signals and timers, on the standard library alone, so that it costs
next to nothing. It holds the API port's listening sockets: while the API server restarts, connections wait instead of
being refused. Its own death harms nothing: processes go on, and the first of them to notice starts another, which
takes them over.

Invariants: a process is written down before it may live (it waits at its gate, `gate.py`); one that lives holds its
lock (`locks.py`), so that it is found although nothing could be written; nobody lives twice.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import signal
import socket
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from navarch.cluster import locks, logfiles, strays, vanished
from navarch.cluster.config import ClusterConfig
from navarch.cluster.gate import GATE
from navarch.cluster.listening import LISTEN_FDS, listen
from navarch.cluster.processes import ProcessSpec, specs
from navarch.cluster.state import FAILED, HOPELESS, ClusterState, ComponentState, alive, start_ticks
from navarch.store import failpoints
from navarch.world import MACHINE

if TYPE_CHECKING:
    from navarch.cluster.forkserver import Forked, ForkServer

log = logging.getLogger("navarch.supervisor")

_FIRST_DELAY_S = 0.1
_LAST_DELAY_S = 30.0
# A process that has lived this long was well.
_STEADY_S = 30.0
_STOP_GRACE_S = 15.0
_SAVE_AGAIN_S = 2.0
_STARTED = failpoints.Point("supervisor.started")
_RECORDED = failpoints.Point("supervisor.recorded")
_GATE_OPEN = failpoints.Point("supervisor.gate")
_STRAYS_ROUNDS = 10
# A child between its fork and its program cannot be told from others, and holds what its parent held.
_LETTING_GO_S = 5.0
_LOOK_EVERY_S = 0.05
# How often it is looked whether the cluster is still there.
_LOOK_AFTER_FOLDER_S = 2.0
STOPS = (signal.SIGTERM, signal.SIGINT)


class _Process:
    """One supervised process, started here or taken over."""

    def __init__(self, spec: ProcessSpec, state: ComponentState) -> None:
        self.spec = spec
        self.state = state
        self.child: subprocess.Popen[bytes] | Forked | None = None
        self.pidfd = -1
        self.gate = -1
        self.began_s = 0.0
        self.restart_at_s = 0.0
        self.delay_s = _FIRST_DELAY_S
        self.output: logfiles.PipeLog | None = None


class Supervisor:
    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.selector = selectors.DefaultSelector()
        before = ClusterState.load(config.run)
        self.state = ClusterState(os.getpid(), start_ticks(os.getpid()), MACHINE.now().timestamp())
        self.processes: list[_Process] = []
        for spec in specs(config):
            known = before.components.get(spec.name, ComponentState())
            if not alive(known):
                known.begin_anew()
            self.state.components[spec.name] = known
            self.processes.append(_Process(spec, known))
        self.stopping = False
        self._gone = False
        self._settings_missed = False
        self._look_at_s = 0.0
        self._forks: ForkServer | None = None
        self._listeners: list[socket.socket] = []
        self._port_is_free_at_s = 0.0
        self._kill_at_s = 0.0
        self._save_at_s = 0.0

    def run(self) -> int:
        """Until SIGTERM or SIGINT has stopped everything, or the cluster is gone."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        self.selector.register(wake_read, selectors.EVENT_READ, partial(self._take_signals, wake_read))
        self._begin()
        while not (self.stopping and all(process.pidfd < 0 for process in self.processes)):
            for key, _ in self.selector.select(self._next_timer_s()):
                key.data()
            self._look_after_folder()
            self._restart_due()
            self._kill_late()
            if self._save_at_s and MACHINE.monotonic() >= self._save_at_s:
                self._save()
        self.state.stopping = True
        self._save()
        for process in self.processes:
            if process.output is not None:
                process.output.close()
        log.info("stopped")
        if self._gone:
            vanished.clean_up(self.config)
        return HOPELESS if self._gone else 0

    # Beginning

    def _begin(self) -> None:
        with contextlib.suppress(OSError):
            logfiles.secure(self.config.logs)
        self._end_strays()
        adopted = [process for process in self.processes if alive(process.state)]
        for process in adopted:
            self._adopt(process)
        fresh = [process for process in self.processes if process not in adopted]
        self._prepare_forks([process.spec for process in fresh])
        try:
            if any(process.spec.listens for process in fresh):
                self._listen()
            for process in fresh:
                if not process.spec.needs_keys:
                    self._start(process)
            if self._forks is not None:
                # While what the others share is being loaded.
                if any(process.gate >= 0 for process in fresh):
                    self._let_in(fresh)
                self._make_keys()
            for process in fresh:
                if process.spec.needs_keys:
                    self._start(process)
        except OSError as error:
            if not adopted:
                raise
            # What lives needs a supervisor all the same; the others are tried again.
            log.error("cannot start everything: %s", error)
            for process in fresh:
                if process.child is None:
                    self._back_off(process)
        forked = self._end_forks()
        self._let_in(fresh)
        if not forked and any(process.gate >= 0 for process in fresh):
            self._make_keys()
        for process in fresh:
            self._open_gate(process)

    def _let_in(self, processes: list[_Process]) -> None:
        """Write down who has been started, then let those live that do not wait for the keys."""
        self._save()
        if failpoints.armed:
            _RECORDED.visit()
        for process in processes:
            if not process.spec.needs_keys:
                self._open_gate(process)

    def _prepare_forks(self, specs: list[ProcessSpec]) -> None:
        """Where several processes are to be started that share much, load that once for all of them."""
        if sum(spec.shares for spec in specs) < 2:
            return
        from navarch.cluster.forkserver import ForkError, ForkServer

        try:
            self._forks = ForkServer()
        except (ForkError, OSError) as error:
            log.warning("each process loads everything itself: %s", error)

    def _end_forks(self) -> bool:
        """Whether there were any."""
        if self._forks is None:
            return False
        self._forks.close()
        self._forks = None
        return True

    def _end_strays(self) -> None:
        """End what is of this cluster and was not recorded: whoever it was started by has died over it, or has lost its
        lock with the file (there may be one supervisor, and this one holds the lock)."""
        known = {(state.pid, state.start_ticks) for state in self.state.components.values()}
        # Who is ended may be about to start a supervisor: its child still has its sockets. So until nobody is found.
        for _ in range(_STRAYS_ROUNDS):
            found = [stray for stray in strays.processes_of(self.config.root) if (stray.pid, stray.ticks) not in known]
            if not found:
                return
            # First who would start the others anew.
            found.sort(key=lambda stray: stray.name != locks.SUPERVISOR)
            for stray in found:
                log.warning("ending %s, pid %d, which nobody knows", stray.name, stray.pid)
            for stray in strays.end(found):
                log.error("%s, pid %d, does not end", stray.name, stray.pid)
                known.add((stray.pid, stray.ticks))
            self._port_is_free_at_s = MACHINE.monotonic() + _LETTING_GO_S

    def _adopt(self, process: _Process) -> None:
        log.info("took over %s, pid %d", process.spec.name, process.state.pid)
        lived_s = max(MACHINE.now().timestamp() - process.state.since, 0.0)
        process.began_s = MACHINE.monotonic() - lived_s
        process.state.state = "running"
        if process.spec.piped:
            # What it says meanwhile waits in its pipe.
            with contextlib.suppress(OSError):
                self._open_output(process)
        self._watch(process)

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
        if not status:
            return
        if self.config.admin_kubeconfig.exists():
            # There are some, and only that they could not be looked after (a full disk).
            log.error("going on with the keys that are there")
        else:
            raise SystemExit("the cluster's keys could not be made; the log says why")

    def _listen(self) -> None:
        """Raises OSError where the port is taken; after strays were ended, by one that has yet to let go of it."""
        while True:
            try:
                self._listeners = listen(self.config.listen_addresses, self.config.port)
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE or MACHINE.monotonic() >= self._port_is_free_at_s:
                    raise
                MACHINE.pause(_LOOK_EVERY_S)

    # One process

    def _start(self, process: _Process) -> None:
        """Start a process, which then waits at its gate.  Raises OSError, with nothing started."""
        spec = process.spec
        if (pid := locks.holder(self.config.run, spec.name)) > 0:
            # It lives; only that it could not be written down.
            process.state.become(pid)
            self._adopt(process)
            return
        # Two arenas are enough for a loop and its few threads; each further one holds megabytes that are never used.
        env = {**spec.env, "PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2", GATE: "1"}
        descriptors: list[int] = []
        if spec.listens:
            if not self._listeners:
                self._listen()
            descriptors = [listener.fileno() for listener in self._listeners]
            env[LISTEN_FDS] = ",".join(map(str, descriptors))
        output = self._output_for(process)
        gate_read, process.gate = os.pipe2(os.O_CLOEXEC)
        try:
            process.child = self._forked(spec, gate_read, output, env) or subprocess.Popen(
                spec.argv,
                stdin=gate_read,
                stdout=output,
                stderr=output,
                env={**os.environ, **env},
                pass_fds=descriptors,
                # A Ctrl-C in the terminal is the supervisor's to act on, in its order.
                start_new_session=True,
            )
            if failpoints.armed:
                _STARTED.visit()
            self._record(process, process.child.pid)
        except BaseException:
            self._undo(process)
            raise
        finally:
            os.close(gate_read)
            if output >= 0:
                os.close(output)

    def _forked(self, spec: ProcessSpec, gate: int, output: int, env: dict[str, str]) -> Forked | None:
        """The process, where it can be forked; None where it is to be started by `exec`."""
        if self._forks is None or not spec.shares:
            return None
        from navarch.cluster.forkserver import ForkError

        listening = [listener.fileno() for listener in self._listeners] if spec.listens else []
        try:
            return self._forks.fork(spec.argv, (gate, output), env, {LISTEN_FDS: listening} if listening else {})
        except ForkError as error:
            log.warning("%s loads everything itself: %s", spec.name, error)
            return None

    def _record(self, process: _Process, pid: int) -> None:
        state = process.state
        state.pid, state.start_ticks, state.state = pid, start_ticks(pid), "running"
        state.since = MACHINE.now().timestamp()
        process.began_s = MACHINE.monotonic()
        log.info("started %s, pid %d", process.spec.name, pid)
        self._watch(process)

    def _undo(self, process: _Process) -> None:
        os.close(process.gate)
        process.gate = -1
        if process.child is not None:
            process.child.kill()
            process.child.wait()
            process.child = None

    def _output_for(self, process: _Process) -> int:
        """Where its output goes; on a full disk nowhere, which is no reason not to run it."""
        try:
            if process.spec.piped:
                return self._open_output(process).writing_end()
            return logfiles.open_log(self.config.logs / f"{process.spec.name}.log")
        except OSError as error:
            log.error("no log of %s: %s", process.spec.name, error)
            return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def _open_output(self, process: _Process) -> logfiles.PipeLog:
        if process.output is None:
            name = process.spec.name
            made = logfiles.PipeLog(self.config.run / f"{name}.output", self.config.logs / f"{name}.log")
            process.output = made
            self.selector.register(made.descriptor, selectors.EVENT_READ, made.pump)
        return process.output

    def _open_gate(self, process: _Process) -> None:
        if process.gate >= 0:
            if failpoints.armed:
                _GATE_OPEN.visit()
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
        self.selector.register(process.pidfd, selectors.EVENT_READ, partial(self._ended, process))

    def _ended(self, process: _Process) -> None:
        if process.pidfd >= 0:
            self.selector.unregister(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = -1
        code = process.child.wait() if process.child is not None else None
        process.child = None
        if process.output is not None:
            process.output.pump()
        state = process.state
        state.last_exit = _exit_text(code)
        if self.stopping:
            state.state = "stopped"
            self._stop_next()
        elif code == HOPELESS:
            self._give_up(process)
        else:
            if MACHINE.monotonic() - process.began_s >= _STEADY_S:
                process.delay_s = _FIRST_DELAY_S
                state.failures = 0
            log.warning("%s ended (%s), restarting in %.1f s", process.spec.name, state.last_exit, process.delay_s)
            state.restarts += 1
            state.failures += 1
            self._back_off(process)
        self._save()

    def _give_up(self, process: _Process) -> None:
        """It has said that another try will not help; that is for somebody to mend, who then starts the cluster."""
        log.error("%s cannot start, as its log says, and is not tried again", process.spec.name)
        process.state.state = FAILED
        if process.spec.listens:
            # Who connects is to be refused, not to wait.
            for listener in self._listeners:
                listener.close()
            self._listeners = []

    def _back_off(self, process: _Process) -> None:
        process.state.state = "backoff"
        process.restart_at_s = MACHINE.monotonic() + process.delay_s
        process.delay_s = min(process.delay_s * 2, _LAST_DELAY_S)

    def _restart_due(self) -> None:
        now_s = MACHINE.monotonic()
        for process in self.processes:
            if process.restart_at_s and process.restart_at_s <= now_s and not self.stopping:
                process.restart_at_s = 0.0
                try:
                    self._start(process)
                except OSError as error:
                    log.error("cannot start %s: %s", process.spec.name, error)
                    self._back_off(process)
                self._save()
                self._open_gate(process)

    def _next_timer_s(self) -> float:
        due = [process.restart_at_s for process in self.processes if process.restart_at_s]
        due.append(self._kill_at_s if self.stopping else self._look_at_s)
        if self._save_at_s:
            due.append(self._save_at_s)
        return max(0.0, min(due) - MACHINE.monotonic())

    # Stopping

    def _take_signals(self, wake_read: int) -> None:
        numbers = set(os.read(wake_read, 512))
        if not numbers.isdisjoint(STOPS) and not self.stopping:
            log.info("stopping")
            self._stop()

    def _look_after_folder(self) -> None:
        """Without its folder no process could be started again."""
        if self.stopping or MACHINE.monotonic() < self._look_at_s:
            return
        self._look_at_s = MACHINE.monotonic() + _LOOK_AFTER_FOLDER_S
        if vanished.is_gone(self.config):
            log.error("%s is gone, and with it the cluster: ending its processes", self.config.root)
            self._gone = True
            self._stop()
        else:
            self._settings_missed = vanished.keep_settings(self.config, missed=self._settings_missed)

    def _stop(self) -> None:
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
        """Write down what is. Where that cannot be (a full disk), the locks tell, and it is tried again."""
        if self._gone:
            return
        try:
            self.state.save(self.config.run)
            self._save_at_s = 0.0
        except OSError as error:
            if not self._save_at_s:
                log.error("cannot write down what runs, going on all the same: %s", error)
            self._save_at_s = MACHINE.monotonic() + _SAVE_AGAIN_S


def _exit_text(code: int | None) -> str:
    if code is None:
        return "ended"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
