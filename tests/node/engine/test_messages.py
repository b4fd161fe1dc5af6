"""The last words of a container, as its status has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch.node.engine.messages import termination_message
from navarch.node.runtime.base import MESSAGE_POLICY, ContainerStatus, State

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
