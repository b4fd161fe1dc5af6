"""Named places before and after each durable step, where a test can end the process, fail the step or wait.

Off, which is always but in tests, a place costs one look at `armed`. `NAVARCH_FAILPOINTS` switches them on:
`sqlite.write.after=kill`, several with `;` between them. What can happen: `kill` (as by `kill -9`), `error` (an
OSError, as from a full disk), `wait` (until the process is killed). `=kill:3` lets it happen from the third visit on.
"""

from __future__ import annotations

import os
import signal
from typing import Final

_VARIABLE: Final = "NAVARCH_FAILPOINTS"
_known: dict[str, Point] = {}

armed = False


class Point:
    """One place; declared where it is used, as a constant of its module."""

    __slots__ = ("_action", "_visits", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._action = ""
        self._visits = 0
        _known[name] = self

    def arm(self, action: str) -> None:
        """`kill`, `error` or `wait`, with `:N` from the Nth visit on; nothing disarms.  Raises ValueError."""
        what, _, visits = action.partition(":")
        if what not in ("", "kill", "error", "wait"):
            raise ValueError(f"a failpoint can kill, error or wait, not {what!r}")
        global armed
        self._action, self._visits = what, int(visits or 1)
        armed = any(point._action for point in _known.values()) or bool(_asked)

    def visit(self) -> None:
        """Call it where `armed` is true."""
        action = self._action or _asked.get(self.name, "")
        if action and not self._action:
            self.arm(action)
        if not self._action:
            return
        self._visits -= 1
        if self._visits > 0:
            return
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._action == "wait":
            signal.pause()
        raise OSError(28, f"failpoint {self.name}")


def point(name: str) -> Point:
    return _known[name]


def known() -> list[str]:
    """Every place in the modules that are loaded."""
    return sorted(_known)


def _parse(text: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in text.split(";") if part)


_asked: Final = _parse(os.environ.get(_VARIABLE, ""))
armed = bool(_asked)
