"""How many seats each priority level has: its share of the server's, and what levels lend and borrow.

In: levels as they are configured, and how many seats each has wanted.  Out: limits. Everything here is a pure function;
the rules and their numbers are those of Kubernetes' API priority and fairness (KEP-1040): a level may use its nominal
seats, lends the part of them that it allows and does not need, and borrows up to its own limit, in proportion to what
the levels have lately wanted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Final, NamedTuple

from navarch.api.meta import Obj
from navarch.records import frozen, mutable

# With a turn every ten seconds, half of a demand is forgotten in five minutes.
ADJUST_EVERY_S: Final = 10.0
_SMOOTHING: Final = 0.977
_SHARES: Final = 30
_QUEUING: Final = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}


class Queuing(NamedTuple):
    """How requests wait that find no seat."""

    queues: int
    hand_size: int
    queue_length_limit: int


@frozen
class LevelConfig:
    """A PriorityLevelConfiguration. `borrowing_percent` None: without a limit; `queuing` None: rejected at once."""

    name: str
    uid: str
    exempt: bool
    shares: int
    lendable_percent: int = 0
    borrowing_percent: int | None = None
    queuing: Queuing | None = None


def config_of(obj: Obj) -> LevelConfig:
    """What a stored PriorityLevelConfiguration says."""
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    name, uid = metadata["name"], metadata.get("uid", "")
    if spec.get("type") == "Exempt":
        exempt = spec.get("exempt") or {}
        return LevelConfig(
            name, uid, True, int(exempt.get("nominalConcurrencyShares") or 0), int(exempt.get("lendablePercent") or 0)
        )
    limited = spec.get("limited") or {}
    response = limited.get("limitResponse") or {}
    queuing = None
    if response.get("type") == "Queue":
        said = {**_QUEUING, **{key: value for key, value in (response.get("queuing") or {}).items() if value}}
        queuing = Queuing(said["queues"], said["handSize"], said["queueLengthLimit"])
    shares, borrowing = limited.get("nominalConcurrencyShares"), limited.get("borrowingLimitPercent")
    return LevelConfig(
        name,
        uid,
        False,
        _SHARES if shares is None else int(shares),
        int(limited.get("lendablePercent") or 0),
        None if borrowing is None else int(borrowing),
        queuing,
    )


class Limits(NamedTuple):
    """`nominal` by its shares; never below `least`, what it does not lend; never above `most`."""

    nominal: int
    least: int
    most: int


def limits_of(levels: Sequence[LevelConfig], seats: int) -> dict[str, Limits]:
    """The limits of each level when the server has so many seats for all."""
    shares = sum(level.shares for level in levels)
    found = {}
    for level in levels:
        nominal = math.ceil(seats * level.shares / shares) if shares else 0
        least = nominal - round(nominal * level.lendable_percent / 100)
        borrowing = level.borrowing_percent
        most = nominal + (seats if borrowing is None else round(nominal * borrowing / 100))
        found[level.name] = Limits(nominal, least, most)
    return found


@mutable
class Demand:
    """How many seats a level has wanted, running and waiting together, since the last `turn`; and how many it is
    thought to want."""

    now: int = 0
    highest: int = 0
    smoothed: float = 0.0
    _since_s: float = 0.0
    _began_s: float = 0.0
    _sum: float = field(default=0.0)
    _squares: float = field(default=0.0)

    def change(self, by: int, now_s: float) -> None:
        passed = now_s - self._since_s
        if passed > 0:
            self._sum += self.now * passed
            self._squares += self.now * self.now * passed
            self._since_s = now_s
        self.now += by
        if self.now > self.highest:
            self.highest = self.now

    def turn(self, now_s: float) -> int:
        """End a period. Returns the highest demand in it; `smoothed` follows what it was on average and a deviation
        more, up at once and down slowly."""
        self.change(0, now_s)
        passed, highest = now_s - self._began_s, self.highest
        if passed > 0:
            average = self._sum / passed
            deviation = math.sqrt(max(0.0, self._squares / passed - average * average))
            envelope = average + deviation
            self.smoothed = max(envelope, _SMOOTHING * self.smoothed + (1 - _SMOOTHING) * envelope)
        self._began_s = self._since_s = now_s
        self._sum = self._squares = 0.0
        self.highest = self.now
        return highest


class Wish(NamedTuple):
    """What a level wants of what there is: `target` seats, never less than `least` nor more than `most`."""

    target: float
    least: float
    most: float


def shared_out(total: float, wishes: Mapping[str, Wish]) -> dict[str, float]:
    """Give away all of `total` in proportion to the targets, within each one's bounds; the bounds themselves where they
    leave no room. Found by halving: a proportion, within bounds, grows with its factor."""
    if not wishes:
        return {}
    if sum(wish.least for wish in wishes.values()) >= total:
        return {name: wish.least for name, wish in wishes.items()}
    if sum(wish.most for wish in wishes.values()) <= total:
        return {name: wish.most for name, wish in wishes.items()}

    def given(factor: float) -> dict[str, float]:
        return {name: min(max(wish.least, wish.target * factor), wish.most) for name, wish in wishes.items()}

    low, high = 0.0, max((wish.most / wish.target for wish in wishes.values() if wish.target > 0), default=1.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(given(middle).values()) < total else (low, middle)
    return given(high)


def current_limits(
    limits: Mapping[str, Limits], demands: Mapping[str, tuple[int, float]], seats: int
) -> dict[str, int]:
    """What the levels that are limited may use for the next while. `demands`: of each the highest and the smoothed."""
    wishes = {}
    for name, limit in limits.items():
        highest, smoothed = demands[name]
        least = max(limit.least, min(limit.nominal, highest))
        # Somebody who wants nothing still has a share of what nobody wants.
        wishes[name] = Wish(max(least, min(limit.most, smoothed), 1.0), least, limit.most)
    return {name: round(value) for name, value in shared_out(seats, wishes).items()}
