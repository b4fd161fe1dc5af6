"""Which keys expire when, for the backends that must see to it themselves.

In: each write's deadline (or none).  Out: the keys whose time is over, with the revision that must still be theirs, so
that a key written anew in the meantime stays. A heap with one entry per write; entries that were overtaken are dropped
when their time comes.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush


class Deadlines:
    """`deadline_s` is in seconds of whichever clock the store reads."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str, int]] = []

    def load(self, known: list[tuple[float, str, int]]) -> None:
        """Start anew from (deadline, key, revision)."""
        self._heap = known
        heapify(known)

    def add(self, key: str, revision: int, deadline_s: float) -> None:
        heappush(self._heap, (deadline_s, key, revision))

    def over(self, now_s: float) -> list[tuple[str, int]]:
        """Take out the keys whose time is over, with the revision at which that was said of them."""
        found: list[tuple[str, int]] = []
        while self._heap and self._heap[0][0] <= now_s:
            _, key, revision = heappop(self._heap)
            found.append((key, revision))
        return found
