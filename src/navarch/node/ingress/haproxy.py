"""The HAProxy of a node: started when there is something to serve, changed while it serves, outliving its node's agent.

In: rendered files, commands. A new configuration is checked before anything is replaced; then the files are put in
place, the configuration last and at once, and HAProxy's master is told to take it: it hands the listening sockets to a
new worker, and the old one ends when it has answered what it had begun. Like containers the proxy goes on while no
agent runs; a successor finds it by its pid file and takes it over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

from navarch.node.ingress.rendering import CONFIGURATION, SOCKET, Rendered
from navarch.world import MACHINE

log = logging.getLogger(__name__)

_BINARY: Final = "haproxy"
_PID_FILE: Final = "haproxy.pid"
_LOG: Final = "haproxy.log"
_CANDIDATE: Final = "candidate.cfg"
_READY_S: Final = 20.0
_LOOK_S: Final = 0.02
_END_S: Final = 5.0


class ProxyError(Exception):
    """HAProxy is not there, refuses a configuration, or does not do what it is told; the message is for people."""


def find_binary() -> str:
    """Raises ProxyError."""
    found = shutil.which(_BINARY) or shutil.which(_BINARY, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ProxyError("Ingresses need HAProxy, which is not installed; on Debian: apt-get install haproxy")
    return found


class HAProxy:
    """Runs in `folder`, which is its alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        if self._child is not None:
            self._child.poll()
        return bool(_pid_of(self._folder))

    async def apply(self, rendered: Rendered) -> None:
        """Serve this from now on.  Raises ProxyError, OSError; what was served before is served on then."""
        binary = find_binary()
        await MACHINE.in_thread(self._write, rendered)
        await self._check(binary)
        # What it said of earlier configurations is of no use any more, and would add up.
        (self._folder / _LOG).write_bytes(b"")
        os.replace(self._folder / _CANDIDATE, self._folder / CONFIGURATION)
        pid = _pid_of(self._folder)
        if pid:
            os.kill(pid, signal.SIGUSR2)
        else:
            self._start(binary)
        await self._until_served(rendered.generation)
        self._forget_before(rendered.generation)

    async def tell(self, commands: list[str]) -> None:
        """Commands for the worker that serves.  Raises ProxyError, OSError."""
        for command in commands:
            answer = await self._ask(command)
            # It answers nothing, or what it did; refusals are sentences of their own kinds.
            if answer and not answer.startswith(("IP changed", "port changed", "no need to change", "nothing changed")):
                raise ProxyError(f"HAProxy answers {command!r} with {answer!r}")

    def _write(self, rendered: Rendered) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / "empty").mkdir(exist_ok=True, mode=0o755)
        for name, data in rendered.files.items():
            file = self._folder / (_CANDIDATE if name == CONFIGURATION else name)
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                out.write(data)

    async def _check(self, binary: str) -> None:
        """Raises ProxyError where HAProxy would not take the configuration."""
        checking = await asyncio.create_subprocess_exec(
            binary, "-c", "-q", "-f", _CANDIDATE, cwd=self._folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, said = await checking.communicate()
        if checking.returncode:
            raise ProxyError(f"HAProxy refuses its configuration: {said.decode(errors='replace').strip()[-2000:]}")

    def _start(self, binary: str) -> None:
        (self._folder / _PID_FILE).unlink(missing_ok=True)
        with (self._folder / _LOG).open("ab") as said:
            self._child = subprocess.Popen(
                [binary, "-W", "-f", CONFIGURATION, "-p", _PID_FILE],
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip

    async def _until_served(self, generation: str) -> None:
        give_up_s = MACHINE.monotonic() + _READY_S
        while MACHINE.monotonic() < give_up_s:
            with contextlib.suppress(OSError):
                if f"<{generation}>" in await self._ask("get var proc.generation"):
                    return
            if self._child is not None and self._child.poll() is not None:
                break
            await asyncio.sleep(_LOOK_S)
        said = (self._folder / _LOG).read_text(errors="replace").strip()[-2000:]
        raise ProxyError(f"HAProxy does not serve: {said or 'it says nothing'}")

    async def _ask(self, command: str) -> str:
        # Reached by a short name, whatever the folder is called: the names of sockets are.
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)
        try:
            writer.write(command.encode() + b"\n")
            return (await reader.read()).decode(errors="replace").strip()
        finally:
            writer.close()

    def _forget_before(self, generation: str) -> None:
        """Remove what only earlier generations had; the worker has read its files when it serves."""
        for entry in self._folder.iterdir():
            if entry.is_dir() and entry.name not in (generation, "empty"):
                shutil.rmtree(entry, ignore_errors=True)


def _pid_of(folder: Path) -> int:
    """The master that runs in the folder; 0 where there is none."""
    try:
        pid = int((folder / _PID_FILE).read_text().split()[0])
        if Path(os.readlink(f"/proc/{pid}/cwd")) != folder.resolve():
            return 0
        return pid if _BINARY in os.path.basename(os.readlink(f"/proc/{pid}/exe")) else 0
    except (OSError, ValueError, IndexError):
        return 0


def purge(folder: Path) -> None:
    """End the proxy that runs in the folder, and remove it. Idempotent."""
    pid = _pid_of(folder)
    for number in (signal.SIGTERM, signal.SIGKILL) if pid else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        give_up_s = MACHINE.monotonic() + _END_S
        while _pid_of(folder) == pid and MACHINE.monotonic() < give_up_s:
            MACHINE.pause(_LOOK_S)
        if _pid_of(folder) != pid:
            break
    shutil.rmtree(folder, ignore_errors=True)
