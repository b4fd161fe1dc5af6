"""Queries of the machine's logs (`/logs/?query=NAME`), as Kubernetes' kubelet answers them: what services have written
into the journal, or where it does not know them (or there is none) into files that are called as they are.

In: the parameters of a request, which `read` and `problems` hold against Kubernetes' rules.  Out: text, as it is found.
A name leads to no file outside the folder of logs, nor to an option of `journalctl`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from navarch.api.errors import FieldError, invalid_value, required, too_many
from navarch.api.time import format_time, parse_time
from navarch.records import frozen
from navarch.world import World

_MOST_LINES: Final = 100_000
_LONGEST_NAME: Final = 256
_MOST_SERVICES: Final = 4
_LONGEST_S: Final = 30.0
_PIECE: Final = 1 << 16
_UNSAFE: Final = re.compile(r"[^a-zA-Z\-_0-9@]")
_ANY_OF_SLASHES: Final = re.compile(r"[/\\]")


@frozen
class LogQuery:
    """Of services or of a file; the rest narrows down what services have written."""

    services: Sequence[str] = ()
    files: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    lines: int | None = None
    boot: int | None = None
    pattern: str = ""

    @property
    def narrows(self) -> bool:
        return replace(self, services=(), files=()) != LogQuery()


def read(parameters: Sequence[tuple[str, str]]) -> tuple[LogQuery, list[FieldError]]:
    """The query, and what in it cannot be read; one that says nothing is no query."""
    named = [value for name, value in parameters if name == "query"]
    files = [one for one in named if _ANY_OF_SLASHES.search(one)]
    services = [one for one in named if not _ANY_OF_SLASHES.search(one) and one.strip()]
    first: dict[str, str] = {}
    for name, value in parameters:
        first.setdefault(name, value)
    errors = [invalid_value("query", named, "query cannot be empty")] if named and not files and not services else []
    query = LogQuery(
        tuple(services),
        tuple(files),
        _time(first, "sinceTime", errors),
        _time(first, "untilTime", errors),
        boot=_number(first, "boot", errors),
        lines=_number(first, "tailLines", errors),
        pattern=first.get("pattern", ""),
    )
    return query, errors


def _time(parameters: Mapping[str, str], name: str, errors: list[FieldError]) -> datetime | None:
    text = parameters.get(name)
    if not text:
        return None
    try:
        return parse_time(text)
    except ValueError:
        errors.append(invalid_value(name, text, "invalid time format"))
        return None


def _number(parameters: Mapping[str, str], name: str, errors: list[FieldError]) -> int | None:
    text = parameters.get(name)
    if not text:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
        errors.append(invalid_value(name, text, f'strconv.Atoi: parsing "{text}": invalid syntax'))
        return None
    return int(text)


def problems(query: LogQuery, place: Path) -> list[FieldError]:
    """What is wrong with a query that could be read."""
    errors = [invalid_value("query", one, words) for one in query.services for words in _unsafe(one)]
    if len(query.services) > _MOST_SERVICES:
        errors.append(too_many("query", len(query.services), _MOST_SERVICES))
    errors += _of_files(query, place)
    if query.since is not None and query.until is not None and query.since > query.until:
        errors.append(invalid_value("untilTime", format_time(query.until), "must be after `sinceTime`"))
    if query.boot is not None and query.boot > 0:
        errors.append(invalid_value("boot", query.boot, "must be less than 1"))
    if query.lines is not None and not 0 <= query.lines <= _MOST_LINES:
        errors.append(invalid_value("tailLines", query.lines, f"must be between 0 and {_MOST_LINES}, inclusive"))
    try:
        re.compile(query.pattern)
    except re.error as error:
        errors.append(invalid_value("pattern", query.pattern, f"error parsing regexp: {error}"))
    return errors


def _unsafe(service: str) -> list[str]:
    if len(service) > _LONGEST_NAME:
        return ["length must be less than 100"]
    return ["input contains unsupported characters"] if _UNSAFE.search(service) else []


def _of_files(query: LogQuery, place: Path) -> list[FieldError]:
    files = list(query.files)
    if not files:
        return [] if query.services else [required("query", "cannot be empty with options")]
    if query.services:
        both = f"[{' '.join(files)}], [{' '.join(query.services)}]"
        return [invalid_value("query", both, "cannot specify a file and service")]
    if len(files) > 1:
        return [invalid_value("query", files, "cannot specify more than one file")]
    if query.narrows:
        return [invalid_value("query", files, "cannot specify file with options")]
    if _inside(place, files[0]) is None:
        return [invalid_value("query", files, f"stat {place}/{files[0].lstrip('/')}: no such file or directory")]
    return []


def _inside(place: Path, name: str) -> Path | None:
    """What has the name below the folder; None where there is nothing, or a link leads out of it."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        found = (place / name.lstrip("/")).resolve(strict=True)
        return found if found.is_relative_to(place.resolve()) else None
    return None


async def answer(query: LogQuery, place: Path, world: World) -> AsyncGenerator[bytes, None]:
    """What the services have written; what is wrong is said in the same text, as it comes after more of it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_S):
            known = await _units()
            native = [one for one in query.services if f"{one}.service" in known]
            others = [one for one in query.services if one not in native]
            if native:
                async for piece in _journal(query, native):
                    yield piece
            if others and query.narrows:
                names = " ".join(others)
                words = f"options present and query resolved to log files for [{names}]\ntry without specifying options"
                yield f"\n{words}\n".encode()
                return
            for service in others:
                async for piece in _file(service, place, world):
                    yield piece


async def _units() -> str:
    """The units that the journal knows of; nothing where there is no journal."""
    output = b""
    with contextlib.suppress(OSError):
        async for piece in _output("--field", "_SYSTEMD_UNIT"):
            output += piece
    return output.decode(errors="replace")


async def _journal(query: LogQuery, services: Sequence[str]) -> AsyncGenerator[bytes, None]:
    arguments = ["--utc", "--no-pager", "--output=short-precise"]
    if query.since is not None:
        arguments.append(f"--since={query.since:%Y-%m-%d %H:%M:%S} UTC")
    if query.until is not None:
        arguments.append(f"--until={query.until:%Y-%m-%d %H:%M:%S} UTC")
    if query.lines is not None:
        arguments += ["--pager-end", f"--lines={query.lines}"]
    arguments += [f"--unit={service}" for service in services]
    if query.pattern:
        arguments += [f"--grep={query.pattern}", "--case-sensitive=false"]
    if query.boot is not None:
        arguments += ["--boot", str(query.boot)]
    try:
        async for piece in _output(*arguments):
            yield piece
    except OSError:
        yield b"\nerror: journal output not available\n"


async def _output(*arguments: str) -> AsyncGenerator[bytes, None]:
    """What `journalctl` writes, its complaints too.  Raises OSError."""
    process = await asyncio.create_subprocess_exec(
        "journalctl",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        while piece := await process.stdout.read(_PIECE):
            yield piece
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _file(service: str, place: Path, world: World) -> AsyncGenerator[bytes, None]:
    """A service's own file, by the names that are usual."""
    for name in (service, f"{service}.log", f"{service}/{service}.log"):
        found = await world.in_thread(_inside, place, name)
        if found is None or not await world.in_thread(found.is_file):
            continue
        try:
            opened = await world.in_thread(found.open, "rb")
            try:
                while piece := await world.in_thread(opened.read, _PIECE):
                    yield piece
            finally:
                await world.in_thread(opened.close)
        except OSError as error:
            yield f"\nerror getting log for {service}: {error}\n".encode()
        return
    yield f"\nlog not found for {service}\n".encode()
