"""Reading what containers may have written: a path below their reach can be a link out of it, a pipe that nobody writes
to, a device, or a file without end, and can become another one at any moment.

So a path is walked by descriptors that follow no link, what it leads to is looked at before it is opened, and no more
is read than was asked for. Disks are touched: call these in a thread.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class NotAFile(OSError):
    """There is something, and it is no regular file."""


def read_head(path: Path, limit: int) -> bytes:
    """The first `limit` bytes of the regular file at `path`, whose directory is the node's own.  Raises OSError."""
    return _read(os.open(path, _LOOK), limit)


def read_inside(root: Path, relative: str, limit: int) -> bytes:
    """The first `limit` bytes of a regular file inside of `root`. Links that stay inside are followed by name; the walk
    meets none.  Raises OSError, with `EXDEV` where the path leads out."""
    top = os.path.realpath(root)
    resolved = Path(os.path.realpath(os.path.join(top, relative)))
    if not resolved.is_relative_to(top):
        raise OSError(errno.EXDEV, "the path leads out of its volume")
    current = os.open(top, _LOOK)
    for part in resolved.relative_to(top).parts:
        try:
            following = os.open(part, _LOOK, dir_fd=current)
        finally:
            os.close(current)
        current = following
    return _read(current, limit)


def _read(looked_at: int, limit: int) -> bytes:
    """The head of what a descriptor stands for that nothing was opened by yet; closes it."""
    try:
        if not stat.S_ISREG(os.fstat(looked_at).st_mode):
            raise NotAFile(errno.EINVAL, "not a regular file")
        opened = os.open(f"/proc/self/fd/{looked_at}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(looked_at)
    with open(opened, "rb") as file:
        return file.read(limit)
