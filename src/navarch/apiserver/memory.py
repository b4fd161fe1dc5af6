"""Memory that a passing peak has left behind, given back to the operating system.

glibc keeps what is freed for the next time. After a burst of writes, or the few great works that an API server does
once, the next time may be far away.
"""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Collect what is unreachable, then `trim`."""
    gc.collect()
    trim()


def trim() -> None:
    """Hand free pages to the system; where the C library is another than glibc nothing happens. Takes milliseconds,
    during which other threads go on."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    malloc_trim(0)
