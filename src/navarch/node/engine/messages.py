"""Termination messages: the last words of a container, from its file, or from its log where it failed and left none."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from navarch.node.runtime.base import MESSAGE_PATH, MESSAGE_POLICY, ContainerStatus

_FILE_LIMIT: Final = 4096
_LOG_LIMIT: Final = 2048
_LOG_LINES: Final = 80


def termination_message(status: ContainerStatus) -> str:
    """The message of an ended container, from its status; empty where there is none."""
    wanted = status.annotations.get(MESSAGE_PATH)
    text = ""
    for mount in status.mounts:
        if wanted and mount.container_path == wanted:
            text = _head(Path(mount.host_path))
    if not text and status.exit_code != 0 and status.annotations.get(MESSAGE_POLICY) == "FallbackToLogsOnError":
        text = _log_tail(Path(status.log_path)) if status.log_path else ""
    return text


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_LIMIT).decode(errors="replace")
    except OSError:
        return ""


def _log_tail(path: Path) -> str:
    """The last lines of a log in CRI's format, without the times and stream names before each."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - 8 * _LOG_LIMIT, 0))
            lines = file.read().splitlines()[-_LOG_LINES:]
    except OSError:
        return ""
    said = [line.split(b" ", 3)[3] + b"\n" for line in lines if line.count(b" ") >= 3]
    return b"".join(said)[-_LOG_LIMIT:].decode(errors="replace")
