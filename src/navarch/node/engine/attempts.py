"""`attempt`: one step of a slow loop on a node (sweeping, rotating logs, evicting), which may fail.

In: a step. Out: what comes of it; None, and a line in the log, where it fails, so that the steps after it do their work
all the same. What the runtime or the operating system says is a warning; all else is a fault of ours, and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TypeVar

from navarch.client.supervision import Failures, unless_cancelled
from navarch.node import oserrors
from navarch.node.runtime.base import RuntimeFailure

T = TypeVar("T")

log = logging.getLogger(__name__)


async def attempt(what: str, step: Awaitable[T], failures: Failures) -> T | None:
    """What comes of the step, None where it fails; `what` it is in the log."""
    try:
        return await unless_cancelled(step)
    except (RuntimeFailure, OSError) as error:
        log.warning("%s: %s", what, oserrors.words(error))
    except Exception as error:
        failures.note(what, error)
    return None
