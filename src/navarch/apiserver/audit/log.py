"""The audit log as a file: a line for each event, rotated by size, with the oldest files deleted.

In: events.  Out: lines in JSON, or in Kubernetes' older form of text.  A line is with the operating system when its
request is answered. What is put aside is compressed, and the oldest of it deleted, while events go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from navarch.api.meta import Obj
from navarch.records import frozen
from navarch.world import World

log = logging.getLogger(__name__)

STANDARD_OUTPUT: Final = "-"
_PACKED: Final = ".gz"
_WHEN: Final = "%Y-%m-%dT%H-%M-%S"
_MEGABYTE: Final = 1 << 20
# What the log is rotated at where nobody says.
_SIZE_MB: Final = 100


@frozen
class LogSettings:
    """`--audit-log-…`: zero is without limit, but for the size."""

    path: str
    form: str = "json"
    max_age_days: int = 0
    max_backups: int = 0
    max_size_mb: int = 0
    compress: bool = False


class AuditLog:
    """Open from the first event to `close`."""

    def __init__(self, settings: LogSettings, world: World) -> None:
        self._settings = settings
        self._world = world
        self._limit = (settings.max_size_mb or _SIZE_MB) * _MEGABYTE
        self._file: BinaryIO | None = None
        self._size = 0
        # What was put aside and has not been looked after yet, and what does that.
        self._aside: list[Path] = []
        self._tidying: asyncio.Task[None] | None = None
        self.failures = 0

    def write(self, event: Obj) -> None:
        """What cannot be written is logged: a request is answered all the same, as by Kubernetes."""
        line = _json(event) if self._settings.form == "json" else _legacy(event)
        try:
            file = self._opened(len(line))
            file.write(line)
            file.flush()
            self._size += len(line)
        except OSError as error:
            self.failures += 1
            log.error("an audit event could not be written: %s", error)

    async def close(self) -> None:
        if self._file is not None and self._settings.path != STANDARD_OUTPUT:
            self._file.close()
        self._file = None
        if self._tidying is not None:
            await self._tidying

    def _opened(self, more: int) -> BinaryIO:
        if self._file is None:
            if self._settings.path == STANDARD_OUTPUT:
                self._file = sys.stdout.buffer
                return self._file
            path = Path(self._settings.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _private(path)
            self._size = path.stat().st_size
        if self._size + more > self._limit and self._size and self._settings.path != STANDARD_OUTPUT:
            self._rotate()
        return self._file

    def _rotate(self) -> None:
        assert self._file is not None
        self._file.close()
        path, now = Path(self._settings.path), self._world.now()
        backup = _backup(path, now)
        while backup.exists() or backup.with_name(backup.name + _PACKED).exists():
            now += timedelta(milliseconds=1)
            backup = _backup(path, now)
        path.replace(backup)
        self._file, self._size = _private(path), 0
        self._aside.append(backup)
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.create_task(self._tidy(), name="audit log")

    async def _tidy(self) -> None:
        """Compressing a large file takes seconds, in which others want to be served."""
        while self._aside:
            try:
                await self._world.in_thread(self._look_after, self._aside.pop(0), self._world.now())
            except OSError as error:
                log.error("what was put aside of the audit log cannot be looked after: %s", error)

    def _look_after(self, backup: Path, now: datetime) -> None:
        if self._settings.compress:
            packed = backup.with_name(backup.name + _PACKED)
            with backup.open("rb") as plain, _private(packed) as file, gzip.open(file, "wb") as into:
                shutil.copyfileobj(plain, into)
            backup.unlink()
        settings = self._settings
        backups = sorted(_backups(Path(settings.path)), reverse=True)
        oldest = now - timedelta(days=settings.max_age_days)
        for index, (when, old) in enumerate(backups):
            if (settings.max_backups and index >= settings.max_backups) or (settings.max_age_days and when < oldest):
                old.unlink(missing_ok=True)


def _backup(path: Path, when: datetime) -> Path:
    return path.with_name(f"{path.stem}-{when:{_WHEN}}.{when.microsecond // 1000:03}{path.suffix}")


def _backups(path: Path) -> Iterator[tuple[datetime, Path]]:
    """What was put aside of a log, and when; other files beside it may have names that begin as its own does."""
    for each in path.parent.iterdir():
        name = each.name.removesuffix(_PACKED)
        if not (name.startswith(f"{path.stem}-") and name.endswith(path.suffix)):
            continue
        text = name[len(path.stem) + 1 : len(name) - len(path.suffix)]
        with contextlib.suppress(ValueError):
            yield datetime.strptime(text, f"{_WHEN}.%f").replace(tzinfo=UTC), each


def _private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def _json(event: Obj) -> bytes:
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)


def _legacy(event: Obj) -> bytes:
    user, reference = event["user"], event.get("objectRef") or {}
    acting = event.get("impersonatedUser") or {}
    status = event.get("responseStatus")
    answer = str(status["code"]) if status else "<deferred>"
    as_groups = _quoted_list(acting["groups"]) if acting.get("groups") else "<lookup>" if acting else "<self>"
    return (
        f"{event['stageTimestamp']} AUDIT: id={_quoted(event['auditID'])} stage={_quoted(event['stage'])} "
        f"ip={_quoted((event.get('sourceIPs') or ['<unknown>'])[0])} method={_quoted(event['verb'])} "
        f"user={_quoted(user.get('username') or '<none>')} groups={_quoted_list(user.get('groups') or ['<none>'])} "
        f"as={_quoted(acting.get('username') or '<self>')} asgroups={as_groups} "
        f"user-agent={_quoted(event.get('userAgent', ''))} "
        f"namespace={_quoted(reference.get('namespace') or '<none>')} uri={_quoted(event['requestURI'])} "
        f"response={_quoted(answer)}\n"
    ).encode()


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()


def _quoted_list(texts: list[str]) -> str:
    return ",".join(map(_quoted, texts))
