"""Whether the kernel killed a container for memory, from the kernel's own log.

containerd is told so only when the container's own cgroup was at its limit; with one container in a pod it is often the
pod's cgroup, which counts the sandbox as well, that reaches the same limit first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

KERNEL_LOG: Final = Path("/dev/kmsg")
KILLED: Final = 128 + 9
_RECORD_BYTES: Final = 8192


def was_killed_for_memory(container_id: str, log: Path = KERNEL_LOG) -> bool:
    """False also where the log cannot be read. Takes a few milliseconds: the log is read from its beginning."""
    wanted = container_id.encode()
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        while True:
            try:
                record = os.read(descriptor, _RECORD_BYTES)
            except BrokenPipeError:
                # Overwritten while it was read; the next read goes on with the oldest record there is.
                continue
            except OSError:
                return False
            if not record:
                return False
            if b"oom-kill:" in record and wanted in record:
                return True
    finally:
        os.close(descriptor)
