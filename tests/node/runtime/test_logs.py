"""Reading and following container logs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.node.runtime.logs import LogOptions, read_log, render, tail_offset

LINE = "2026-01-01T00:00:00.123456789Z stdout F text\n"


@given(st.lists(st.text(alphabet="ab", max_size=50_000), max_size=8), st.integers(0, 10))
def test_the_tail_is_the_last_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[str], count: int) -> None:
    path = tmp_path_factory.mktemp("log") / "f"
    path.write_text("".join(line + "\n" for line in lines))
    with path.open("rb") as file:
        file.seek(tail_offset(file, count))
        assert file.read().decode().splitlines() == (lines[-count:] if count else [])


def test_a_line_is_shown_as_asked() -> None:
    line = LINE.strip().encode()
    since = datetime(2026, 1, 2, tzinfo=UTC)

    assert render(line, LogOptions()) == b"text\n"
    assert render(line.replace(b" F ", b" P "), LogOptions()) == b"text"
    assert render(line, LogOptions(timestamps=True)) == b"2026-01-01T00:00:00.123456789Z text\n"
    assert render(line, LogOptions(since=since)) == b""
    assert render(line, LogOptions(stream="Stderr")) == b""


async def test_following_goes_on_over_rotation(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(LINE.replace("text", "one"))
    alive = True
    said = b""

    async def follow() -> None:
        nonlocal said
        async for chunk in read_log(path, LogOptions(follow=True), lambda: alive):
            said += chunk

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    path.rename(tmp_path / "0.log.1")
    path.write_text(LINE.replace("text", "two"))
    await asyncio.sleep(0.3)
    alive = False
    await asyncio.wait_for(following, 2)

    assert said == b"one\ntwo\n"
