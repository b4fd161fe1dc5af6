"""Expectations: what a controller has asked for but not yet seen in its informer.

Without them a controller whose informer is behind would create the same pods twice. Creations are counted before they
are sent, so that an event that overtakes the answer is still recognised; deletions are remembered by uid, as the same
pod may be reported several times. Invariant: an expectation older than five minutes holds nobody up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from datetime import datetime, timedelta

from navarch.api.meta import Key
from navarch.records import mutable
from navarch.world import Clock

_LIFETIME = timedelta(minutes=5)


@mutable
class _Expected:
    since: datetime
    creations: int = 0
    deletions: set[str] = field(default_factory=set)


class Expectations:
    """By key of the managing object."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expected: dict[Key, _Expected] = {}

    def expect_creations(self, key: Key, count: int) -> None:
        """`count` more objects will appear."""
        self._of(key).creations += count

    def expect_deletions(self, key: Key, uids: Iterable[str]) -> None:
        """These objects will begin to go away."""
        self._of(key).deletions.update(uids)

    def creation_observed(self, key: Key, count: int = 1) -> bool:
        """One has appeared, or its creation failed; True where this fulfilled the last expectation."""
        expected = self._expected.get(key)
        if expected is None or expected.creations <= 0:
            return False
        expected.creations -= count
        return self._fulfilled(expected)

    def deletion_observed(self, key: Key, uid: str) -> bool:
        """One is going away, or its deletion failed; True where this fulfilled the last expectation."""
        expected = self._expected.get(key)
        if expected is None or uid not in expected.deletions:
            return False
        expected.deletions.discard(uid)
        return self._fulfilled(expected)

    def satisfied(self, key: Key) -> bool:
        """Whether the informer shows all that was asked for."""
        expected = self._expected.get(key)
        if expected is None or self._fulfilled(expected) or self._clock.now() - expected.since > _LIFETIME:
            self._expected.pop(key, None)
            return True
        return False

    def forget(self, key: Key) -> None:
        self._expected.pop(key, None)

    def _of(self, key: Key) -> _Expected:
        expected = self._expected.get(key)
        if expected is None:
            expected = self._expected[key] = _Expected(self._clock.now())
        else:
            expected.since = self._clock.now()
        return expected

    @staticmethod
    def _fulfilled(expected: _Expected) -> bool:
        return expected.creations <= 0 and not expected.deletions
