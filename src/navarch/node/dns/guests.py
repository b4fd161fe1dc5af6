"""Who is being served at the moment: a bounded number in all, and of these a quarter by any one address, so that a pod
that asks without end takes nobody else's place."""

from __future__ import annotations

from collections import Counter


class Guests:
    """`limit` places in all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._each = max(limit // 4, 1)
        self._of: Counter[str] = Counter()
        self._all = 0

    def enter(self, address: str) -> bool:
        """Take a place; False where there is none for this address."""
        if self._all >= self._limit or self._of[address] >= self._each:
            return False
        self._of[address] += 1
        self._all += 1
        return True

    def leave(self, address: str) -> None:
        self._all -= 1
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]
