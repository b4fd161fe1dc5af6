"""Logs that are rotated while they are written and read: no line is lost or comes twice, nobody else may read them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from navarch.cli import logs
from navarch.cli.logs import LogReader
from navarch.cluster import logfiles

_WRITER = """
import logging, os, sys, threading
from pathlib import Path
from navarch.cluster import logfiles
path = Path(sys.argv[1])
os.dup2(logfiles.open_log(path), 1)
os.dup2(1, 2)
logfiles.log_to(path)
log = logging.getLogger("writer")
def write(name):
    for number in range(2000):
        log.info("%s-%d", name, number)
        if number % 100 == 0:
            print(f"raw {name}-{number}", flush=True)
threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def said(lines: list[str]) -> list[str]:
    return [line.split()[-1] for line in lines if "writer" in line]


EVERY = {f"{name}-{number}" for name in "abc" for number in range(2000)}


def lines_of(path: Path) -> list[str]:
    return [line for file in logfiles.rotated(path) for line in file.read_text().splitlines()]


def run_writer(path: Path, **limits: str) -> None:
    subprocess.run(
        [sys.executable, "-c", _WRITER, str(path)], env={**os.environ, **limits}, check=True, timeout=60
    )  # fmt: skip


def test_a_process_rotates_its_own_log_and_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "x.log"

    run_writer(path, NAVARCH_LOG_MAX_BYTES="20000", NAVARCH_LOG_FILES="50")

    lines = lines_of(path)
    assert len(logfiles.rotated(path)) > 10
    assert sorted(said(lines)) == sorted(EVERY)
    assert sum("raw" in line for line in lines) == 60
    assert all(file.read_bytes().endswith(b"\n") for file in logfiles.rotated(path))


def test_size_and_number_of_files_are_bounded_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "x.log"

    run_writer(path, NAVARCH_LOG_MAX_BYTES="20000", NAVARCH_LOG_FILES="3")

    files = logfiles.rotated(path)
    assert [file.name for file in files] == ["x.log.2", "x.log.1", "x.log"]
    assert all(file.stat().st_size < 22_000 for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2"]


def test_following_goes_over_rotations(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("before\n")
    reader = LogReader(path)
    seen = reader.last(10)
    writing = threading.Thread(
        target=run_writer, args=(path,), kwargs={"NAVARCH_LOG_MAX_BYTES": "20000", "NAVARCH_LOG_FILES": "50"}
    )
    writing.start()
    while writing.is_alive():
        seen += reader.more()
        time.sleep(0.01)
    seen += reader.more()

    assert seen[0] == "before\n"
    assert sorted(said(seen)) == sorted(EVERY)


def test_a_rotation_amid_the_look_for_files_makes_nobody_read_all_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.log"
    path.with_name("x.log.1").write_text("older\n")
    path.write_text("newer\n")
    reader = LogReader(path)
    assert reader.last(10) == ["older\n", "newer\n"]
    os.close(logfiles.rotate(path))
    path.write_text("newest\n")
    # Seen before the file that is read came to its place, and after the next one had come.
    amid = iter([[path.with_name("x.log.2"), path]])
    monkeypatch.setattr(logs, "rotated", lambda path: next(amid, None) or logfiles.rotated(path))

    assert list(reader.more()) == ["newest\n"]


def test_the_last_lines_come_from_older_files_too(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for number, name in enumerate(("x.log.2", "x.log.1", "x.log")):
        (tmp_path / name).write_text("".join(f"{number}{each}\n" for each in "abc"))

    assert LogReader(path).last(5) == ["1b\n", "1c\n", "2a\n", "2b\n", "2c\n"]
    assert LogReader(path).last(0) == []
    reader = LogReader(path)
    reader.last(0)
    with path.open("a") as more:
        more.write("half a li")
    assert list(reader.more()) == []
    with path.open("a") as more:
        more.write("ne\n")
    assert list(reader.more()) == ["half a line\n"]


def test_what_is_emptied_by_hand_goes_on_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("a long line of before\n")
    reader = LogReader(path)
    reader.last(1)

    path.write_text("new\n")

    assert list(reader.more()) == ["new\n"]


def test_what_comes_by_a_pipe_is_rotated_in_whole_lines_and_survives_its_reader(tmp_path: Path) -> None:
    pipe, path = tmp_path / "x.output", tmp_path / "x.log"
    first = logfiles.PipeLog(pipe, path, max_bytes=1000, files=50)
    writing = first.writing_end()
    written = [f"line {number}".ljust(30) for number in range(600)]
    for line in written[:200]:
        os.write(writing, line.encode() + b"\n")
        first.pump()
    os.close(first.descriptor)

    for line in written[200:400]:
        # Nobody reads; the process is not killed for it, and the lines wait.
        os.write(writing, line.encode() + b"\n")
    second = logfiles.PipeLog(pipe, path, max_bytes=1000, files=50)
    for line in written[400:]:
        os.write(writing, line.encode() + b"\n")
    os.write(writing, b"the end")
    second.close()

    assert lines_of(path) == [*written, "the end"]
    assert len(logfiles.rotated(path)) > 5
    assert all(file.read_bytes().endswith(b"\n") for file in logfiles.rotated(path)[:-1])
    os.close(writing)


def test_without_room_for_a_new_file_the_old_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.log"
    path.write_text("kept\n")
    (tmp_path / "x.log.new").mkdir()

    with pytest.raises(OSError, match="directory"):
        logfiles.rotate(path)

    assert path.read_text() == "kept\n"
    assert not (tmp_path / "x.log.1").exists()


def test_logs_of_an_older_version_are_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir(mode=0o755)
    for name in ("a.log", "a.log.1"):
        (folder / name).write_text("x")
        (folder / name).chmod(0o644)

    logfiles.secure(folder)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
