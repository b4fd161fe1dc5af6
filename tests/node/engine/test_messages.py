"""The last words of a container, as its status has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from navarch.node.engine.messages import termination_message
from navarch.node.runtime.base import MESSAGE_PATH, MESSAGE_POLICY, ContainerStatus, Mount, State

STAMP = "2026-01-01T00:00:00.123456789Z stdout"


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (f"{STAMP} P DONE\n", "DONE"),
        (f"{STAMP} F one\n{STAMP} F two\n", "one\ntwo\n"),
        (f"{STAMP} P long \n{STAMP} F line\n", "long line\n"),
    ],
)
def test_the_log_is_the_message_where_a_failed_container_left_none(tmp_path: Path, log: str, message: str) -> None:
    path = tmp_path / "0.log"
    path.write_text(log)
    annotations = {MESSAGE_POLICY: "FallbackToLogsOnError"}
    status = ContainerStatus("id", "c", 0, State.EXITED, exit_code=1, annotations=annotations, log_path=str(path))

    assert termination_message(status) == message


def test_of_a_long_log_the_end_is_the_message(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(f"{STAMP} F line {number:05}\n" for number in range(1000)))
    annotations = {MESSAGE_POLICY: "FallbackToLogsOnError"}
    status = ContainerStatus("id", "c", 0, State.EXITED, exit_code=1, annotations=annotations, log_path=str(path))

    message = termination_message(status)

    assert message.startswith("line 00920\n")
    assert message.endswith("line 00999\n")
    assert len(message) <= 2048


def _left(path: Path) -> ContainerStatus:
    mounts = (Mount("/dev/termination-log", str(path)),)
    return ContainerStatus(
        "id", "c", 0, State.EXITED, annotations={MESSAGE_PATH: "/dev/termination-log"}, mounts=mounts
    )


def test_the_head_of_a_large_file_is_the_message(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"last words \xff" + b"x" * 10000)

    message = termination_message(_left(path))

    assert message.startswith("last words \ufffdx")
    assert len(message) == 4096


def test_a_pipe_or_a_link_is_no_message(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")

    assert [termination_message(_left(tmp_path / name)) for name in ("pipe", "link", "none")] == ["", "", ""]
