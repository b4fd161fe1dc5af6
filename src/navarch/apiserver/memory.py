"""Memory that a passing peak has left behind, given back to the operating system.

glibc keeps what is freed for the next time; after the few great works that an API server does once, there is none.
"""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Free pages go to the system; where the C library is another than glibc nothing happens. Takes milliseconds."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    trim(0)
