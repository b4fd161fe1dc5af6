"""Container logs: reading the files that the runtime writes in CRI's format (`time stream tag text`), and following
them over rotation until the container ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

from navarch.api.time import parse_time
from navarch.numbers import is_digits
from navarch.records import frozen

_BLOCK: Final = 64 << 10
_POLL_S: Final = 0.1


@frozen
class LogOptions:
    """What of a log is wanted; None means no limit."""

    follow: bool = False
    timestamps: bool = False
    since: datetime | None = None
    tail_lines: int | None = None
    limit_bytes: int | None = None
    stream: str = "All"


def is_true(text: str) -> bool:
    return text in ("1", "true", "True")


def options_of(query: Mapping[str, str], now: datetime) -> LogOptions:
    """From the parameters of a request.  Raises ValueError."""
    since = parse_time(query["sinceTime"]) if query.get("sinceTime") else None
    if query.get("sinceSeconds"):
        since = now - timedelta(seconds=int(query["sinceSeconds"]))
    return LogOptions(
        follow=is_true(query.get("follow", "")),
        timestamps=is_true(query.get("timestamps", "")),
        since=since,
        tail_lines=int(query["tailLines"]) if query.get("tailLines") else None,
        limit_bytes=int(query["limitBytes"]) if query.get("limitBytes") else None,
        stream=query.get("stream") or "All",
    )


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines of a file begin."""
    file.seek(0, os.SEEK_END)
    end = position = file.tell()
    if lines <= 0:
        return end
    found = 0
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        # The newline that ends the last line begins no further one.
        stop = size - 1 if position + size == end and block.endswith(b"\n") else size
        while (stop := block.rfind(b"\n", 0, stop)) >= 0:
            found += 1
            if found == lines:
                return position + stop + 1
    return 0


def render(line: bytes, options: LogOptions) -> bytes:
    """What a reader sees of one line of the file; b"" where nothing."""
    parts = line.split(b" ", 3)
    if len(parts) < 4:
        return b""
    stamp, stream, tag, text = parts
    if options.stream != "All" and stream.decode() != options.stream.lower():
        return b""
    if options.since is not None:
        try:
            if parse_time(_microseconds(stamp.decode())) < options.since:
                return b""
        except ValueError:
            return b""
    # A partial line goes on in the next entry.
    ending = b"" if tag.split(b":")[0] == b"P" else b"\n"
    return (stamp + b" " if options.timestamps else b"") + text + ending


def _microseconds(stamp: str) -> str:
    """A time with nanoseconds, cut to what Python reads."""
    whole, dot, rest = stamp.partition(".")
    if not dot:
        return stamp
    digits = rest.rstrip("Z+-:0123456789") or rest
    fraction = ""
    for character in digits:
        if not is_digits(character):
            break
        fraction += character
    return f"{whole}.{fraction[:6]}{rest[len(fraction) :]}"


async def read_log(path: Path, options: LogOptions, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log in chunks; with `follow` until the container no longer runs and all is read.  Raises
    FileNotFoundError."""
    left = options.limit_bytes
    async for chunk in _chunks(path, options, running):
        if left is None:
            yield chunk
            continue
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return


async def _chunks(path: Path, options: LogOptions, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    file = path.open("rb")
    try:
        if options.tail_lines is not None:
            file.seek(tail_offset(file, options.tail_lines))
        rest = b""
        while True:
            # Asked before reading: what the container wrote before it ended must not be missed.
            alive = options.follow and running()
            block = file.read(_BLOCK)
            if block:
                *lines, rest = (rest + block).split(b"\n")
                said = b"".join([render(line, options) for line in lines])
                if said:
                    yield said
                # Other work must go on while a long log is read.
                await asyncio.sleep(0)
                continue
            if _rotated(path, file):
                file.close()
                file = path.open("rb")
                rest = b""
                continue
            if not alive:
                if rest and (said := render(rest, options)):
                    yield said
                return
            await asyncio.sleep(_POLL_S)
    finally:
        file.close()


def _rotated(path: Path, file: BinaryIO) -> bool:
    """Whether the path now names another file than the open one."""
    try:
        current = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(file.fileno())
    return (current.st_dev, current.st_ino) != (opened.st_dev, opened.st_ino)
