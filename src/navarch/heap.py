"""Keeping long-lived processes small: what the C library holds back goes back to the operating system.

glibc keeps what is freed for the next time, and makes an arena per thread. After a start, a burst of writes or one of
the few great works of an API server, the next time may be far away. Where the C library is another, nothing happens.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable
from typing import Final

_ARENA_MAX: Final = -8
_ARENAS: Final = 2
_FIRST_TRIM_S: Final = 10.0
_TRIM_EVERY_S: Final = 300.0


def _of_glibc(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None
    return found


def limit_arenas() -> None:
    """Have threads share two arenas; to be called before there are threads."""
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(_ARENA_MAX, _ARENAS)


def trim() -> None:
    """Hand free pages to the system. Takes milliseconds, during which other threads go on."""
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def give_back() -> None:
    """Collect what is unreachable, then `trim`."""
    gc.collect()
    trim()


async def trim_for_ever() -> None:
    """Give back what is free, soon after the start and then now and again."""
    delay_s = _FIRST_TRIM_S
    while True:
        await asyncio.sleep(delay_s)
        give_back()
        delay_s = _TRIM_EVERY_S
