"""A step of a loop that fails is told, and what comes after it is done."""

from __future__ import annotations

import asyncio
import logging

import pytest

from navarch.client.supervision import Failures
from navarch.node.engine.attempts import attempt
from navarch.node.runtime.base import RuntimeFailure


async def failing(error: BaseException) -> str:
    raise error


async def test_what_a_step_brings_is_handed_on() -> None:
    assert await attempt("adding", asyncio.sleep(0, 3), Failures()) == 3


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeFailure("no such container"), "sweeping: no such container"),
        (OSError(28, "No space left on device", "/x"), "sweeping: /x: no space left on device"),
        (ConnectionResetError("gone"), "sweeping: gone"),
    ],
)
async def test_what_the_runtime_and_the_system_say_is_a_warning(
    error: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    failures = Failures()

    assert await attempt("sweeping", failing(error), failures) is None

    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.WARNING, words)]
    assert failures.counts == {}


@pytest.mark.parametrize(
    ("error", "kind"), [(KeyError("name"), "KeyError"), (asyncio.CancelledError(), "AbandonedError")]
)
async def test_anything_else_is_counted(error: BaseException, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures()

    assert await attempt("sweeping", failing(error), failures) is None

    assert failures.counts == {kind: 1}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_who_is_cancelled_ends() -> None:
    task = asyncio.create_task(attempt("waiting", asyncio.Event().wait(), Failures()))
    await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
