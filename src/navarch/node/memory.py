"""Keeping a long-lived, mostly idle process small: what the C library holds back goes back to the system.

Most of a node agent's memory after its start is not in use: imports and the first lists of objects leave holes in the
allocator's arenas, of which glibc makes one per thread unless told otherwise.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from typing import Final

_ARENA_MAX: Final = -8
_ARENAS: Final = 2
_FIRST_TRIM_S: Final = 10.0
_TRIM_EVERY_S: Final = 300.0


def limit_arenas() -> None:
    """Have threads share two arenas; to be called before there are threads. Does nothing where glibc is not in use."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _ARENAS)


async def trim_for_ever() -> None:
    """Give back what is free, soon after the start and then now and again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    delay_s = _FIRST_TRIM_S
    while trim is not None:
        await asyncio.sleep(delay_s)
        gc.collect()
        trim(0)
        delay_s = _TRIM_EVERY_S
