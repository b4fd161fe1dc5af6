"""How the components of the controllers' process are, for `kubectl get componentstatuses`.

A component answers on a socket in the cluster's run folder; the API server asks there. In: the folder, a component's
name. Out: nothing where it is well, else what is wrong. A process that is stuck does not answer in time, one that has
ended is not there: both are told.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

COMPONENTS: Final = ("controller-manager", "scheduler")
"""By their names in Kubernetes."""

Probe = Callable[[], Awaitable[str]]
_SOCKET: Final = "components.sock"
_PATIENCE_S: Final = 5.0
_OK: Final = b"ok\n"


@contextmanager
def _place(folder: Path) -> Iterator[str]:
    """The socket's path, short enough for the kernel wherever the folder is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)


async def serve(folder: Path) -> None:
    """Answer until cancelled."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    name = (await reader.readline()).decode(errors="replace").strip()
                    writer.write(_OK if name in COMPONENTS else b"there is no such component\n")
                    await writer.drain()
        finally:
            writer.close()

    try:
        (folder / _SOCKET).unlink(missing_ok=True)
        # The folder is held open as long as the server is, which removes the socket by this path.
        with _place(folder) as path:
            async with await asyncio.start_unix_server(answer, path) as server:
                await server.serve_forever()
    except OSError as error:
        # A file system without sockets: the components do their work all the same, and are told not to answer.
        log.warning("nobody can ask how the components are: %s", error)


async def ask(folder: Path, component: str) -> str:
    """What is wrong with a component; empty for nothing."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            with _place(folder) as path:
                reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(f"{component}\n".encode())
                answer = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        return f"{component} does not answer within {_PATIENCE_S:.0f} s"
    except OSError as error:
        return f"{component} does not answer: {os.strerror(error.errno or 0)}"
    return "" if answer == _OK else answer.decode(errors="replace").strip() or f"{component} does not answer"


def probes(folder: Path) -> Mapping[str, Probe]:
    return {component: partial(ask, folder, component) for component in COMPONENTS}
