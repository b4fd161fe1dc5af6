"""Termination messages: the last words of a container, from its file, or from its log where it failed and left none."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from navarch.node.contained import read_head
from navarch.node.runtime.base import MESSAGE_PATH, MESSAGE_POLICY, ContainerStatus
from navarch.node.runtime.logs import LogOptions, render, tail_offset

_FILE_LIMIT: Final = 4096
_LOG_LIMIT: Final = 2048
_LOG_LINES: Final = 80


def termination_message(status: ContainerStatus) -> str:
    """The message of an ended container, from its status; empty where there is none. It reads files: call it
    in a thread."""
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
        return read_head(path, _FILE_LIMIT).decode(errors="replace")
    except OSError:
        return ""


def _log_tail(path: Path) -> str:
    """The last lines of a log, as people read it; one that the container did not end has no end here either."""
    try:
        with path.open("rb") as file:
            file.seek(tail_offset(file, _LOG_LINES))
            lines = file.read().split(b"\n")
    except OSError:
        return ""
    said = b"".join(render(line, LogOptions()) for line in lines)
    return said[-_LOG_LIMIT:].decode(errors="replace")
