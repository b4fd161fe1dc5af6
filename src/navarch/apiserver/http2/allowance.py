"""How much a client may ask for that brings nothing: floods of pings, settings, resets, empty frames, tiny pieces.

Each such frame costs; time and what is sent to the client give back, since who reads much says often that it has read.
Who has spent all of it is told to calm down, and the connection ends.
"""

from __future__ import annotations

from typing import Final

from navarch.http2.frames import Code, ConnectionFault

_MOST: Final = 2000.0
_PER_S: Final = 100.0
# Of what reading earns.
_EARNED_MAX: Final = 100_000.0
# Clients say that they have read after 4 kB, on the connection and on the stream.
_BYTES_EACH: Final = 1024
_PER_SENDING: Final = 3


class Allowance:
    """One connection's."""

    __slots__ = ("_at_s", "_left")

    def __init__(self, now_s: float) -> None:
        self._left = _MOST
        self._at_s = now_s

    def spend(self, cost: int, now_s: float) -> None:
        """Raises ConnectionFault."""
        if self._left < _MOST:
            self._left = min(_MOST, self._left + (now_s - self._at_s) * _PER_S)
        self._at_s = now_s
        self._left -= cost
        if self._left < 0:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def earn(self, sent: int) -> None:
        """So many bytes go to the client."""
        if self._left < _EARNED_MAX:
            self._left += _PER_SENDING + sent // _BYTES_EACH
