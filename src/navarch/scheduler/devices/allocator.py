"""The search: devices that one node reaches, for all claims of a pod together, or the knowledge that there are none.

Depth first over claims, requests, alternatives and devices, in this order; the first solution is taken, so an earlier
alternative is preferred to a later one, and within a request devices are tried in combinations, not in every order.
Each level of the search is a generator on a stack: it makes a move, gives what comes next, and takes the move back when
it is asked for the next one or closed.  Whoever runs the search decides how far it goes at a time.
Invariant: while it goes on, `chosen` and all sums are those of the moves that stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from navarch.kinds.resource.taints import tolerates
from navarch.records import frozen
from navarch.scheduler.devices.capacity import Amounts, amounts, fits
from navarch.scheduler.devices.pools import Counter, Device, DeviceId, PoolId, Reach
from navarch.scheduler.devices.requests import MOST_RESULTS, Alternative, ClaimError, Constraint, Wanted
from navarch.scheduler.devices.taken import Taken

LONGEST_SEARCH: Final = 200_000
"""Devices tried until a search is given up: Kubernetes gives up after ten seconds."""


class NotHere(Exception):
    """Why the node's devices cannot be allocated at present, where there is more to say than that they do not do."""


class SearchTooLong(Exception):
    """There may be a solution; nobody waits for it."""


class Choice(NamedTuple):
    claim: int
    alternative: Alternative
    device: Device
    consumed: Amounts | None
    """By full name, where the device allows several allocations."""


@frozen
class _Place:
    """Where the search is: `alternative` is -1 until one is chosen, `start` is the first device to try."""

    claim: int
    request: int = 0
    alternative: int = -1
    nth: int = 0
    start: int = 0


class Search:
    """One search; when `run` has ended, `solution` is what it found, None where there is nothing to find."""

    def __init__(self, wanted: Sequence[Wanted], reaches: Sequence[Reach], taken: Taken) -> None:
        self._wanted = wanted
        # Devices that are ready at once come before those that have to be waited for.
        self._reaches = sorted(reaches, key=lambda reach: (reach.binds_later, reach.pool.id))
        self._devices = [device for reach in self._reaches for device in reach.usable]
        self._pools = {reach.pool.id: reach.pool for reach in self._reaches}
        self._taken = taken
        self._using: dict[DeviceId, dict[int, int]] = {}
        self._shares: dict[DeviceId, list[Amounts]] = {}
        self._consumed: dict[PoolId, dict[Counter, Fraction]] = {}
        self._available: dict[PoolId, dict[Counter, Fraction]] = {}
        self._all: dict[tuple[int, int, int], list[Device]] = {}
        self._values: dict[tuple[int, int], list[object]] = {}
        """By claim and constraint: the values of the devices that it holds together."""
        self._results = [0] * len(wanted)
        self.chosen: list[Choice] = []
        self.solution: tuple[Choice, ...] | None = None
        self.steps = 0

    def run(self, limit: int = LONGEST_SEARCH) -> Iterator[None]:
        """Search; gives way after every move. Raises ClaimError, NotHere, SearchTooLong."""
        self._look_at_all()
        stack = [self._moves(_Place(0))]
        while stack:
            following = next(stack[-1], None)
            if following is None:
                stack.pop()
            elif following.claim == len(self._wanted):
                # Kept apart: the moves are taken back when nobody needs their generators any more.
                self.solution = tuple(self.chosen)
                return
            else:
                stack.append(self._moves(following))
            if self.steps > limit:
                raise SearchTooLong
            yield
        if any(reach.is_invalid for reach in self._reaches):
            raise NotHere("invalid resource pools were encountered")

    def _look_at_all(self) -> None:
        """What requests for all devices mean on this node."""
        for c, wanted in enumerate(self._wanted):
            least = 0
            for r, alternatives in enumerate(wanted.requests):
                counts = []
                for a, alternative in enumerate(alternatives):
                    count = alternative.count
                    if count is None:
                        count = len(self._all_devices((c, r, a), alternative))
                    counts.append(count)
                least += min(counts)
            if least > MOST_RESULTS:
                what = f"number of requested devices {least} exceeds the claim limit of {MOST_RESULTS}"
                raise ClaimError(f"claim {wanted.shown}: {what}")

    def _all_devices(self, key: tuple[int, int, int], alternative: Alternative) -> list[Device]:
        where = f"claim {alternative.claim}, request {alternative.name.rpartition('/')[2]}: asks for all devices"
        for reach in self._reaches:
            if reach.is_incomplete:
                raise NotHere(f"{where}, but resource pool {reach.pool.id} is currently being updated")
            if reach.is_invalid:
                raise NotHere(f"{where}, but resource pool {reach.pool.id} is currently invalid")
        self._all[key] = [device for device in self._devices if alternative.selects(device)]
        return self._all[key]

    # Moves.

    def _moves(self, at: _Place) -> Iterator[_Place]:
        wanted = self._wanted[at.claim]
        if at.request == len(wanted.requests):
            yield _Place(at.claim + 1)
            return
        alternatives = wanted.requests[at.request]
        if at.alternative < 0:
            for index in range(len(alternatives)):
                yield _Place(at.claim, at.request, index)
            return
        alternative = alternatives[at.alternative]
        every = self._all.get((at.claim, at.request, at.alternative)) if alternative.count is None else None
        count = alternative.count if every is None else len(every)
        assert count is not None
        if every is not None and not every:
            return
        if at.nth >= count:
            yield _Place(at.claim, at.request + 1)
            return
        if self._results[at.claim] + count - at.nth > MOST_RESULTS:
            return
        if every is not None:
            yield from self._try(at, alternative, every[at.nth], 0)
            return
        for index in range(at.start, len(self._devices)):
            yield from self._try(at, alternative, self._devices[index], index + 1)

    def _try(self, at: _Place, alternative: Alternative, device: Device, start: int) -> Iterator[_Place]:
        self.steps += 1
        choice = self._choice(at.claim, alternative, device)
        if choice is None or not self._hold(choice):
            return
        self._make(choice)
        try:
            yield _Place(at.claim, at.request, at.alternative, at.nth + 1, start)
        finally:
            self._take_back(choice)

    def _choice(self, claim: int, alternative: Alternative, device: Device) -> Choice | None:
        """The device for the request, None where it is taken, not wanted, tainted, or too small."""
        using = self._using.get(device.id)
        if alternative.admin_access:
            if using and claim in using:
                return None
        elif using or self._taken.whole(device.id):
            return None
        if not alternative.selects(device):
            return None
        for taint in device.taints:
            if not any(tolerates(toleration, taint) for toleration in alternative.tolerations):
                return None
        consumed: Amounts | None = None
        if device.capacity or alternative.capacity:
            consumed = amounts(alternative.capacity, device)
            already = self._taken.amounts(device.id)
            if consumed is None or not fits(consumed, device, already, *self._shares.get(device.id, ())):
                return None
        if not self._has_counters(device):
            return None
        return Choice(claim, alternative, device, (consumed or {}) if device.is_shared else None)

    def _make(self, choice: Choice) -> None:
        device = choice.device
        if not self._counts_already(device):
            self._consume(device, 1)
        if choice.consumed is None:
            users = self._using.setdefault(device.id, {})
            users[choice.claim] = users.get(choice.claim, 0) + 1
        else:
            self._shares.setdefault(device.id, []).append(choice.consumed)
        self._results[choice.claim] += 1
        self.chosen.append(choice)

    def _take_back(self, choice: Choice) -> None:
        device = choice.device
        self.chosen.pop()
        self._results[choice.claim] -= 1
        if choice.consumed is None:
            users = self._using[device.id]
            users[choice.claim] -= 1
            if not users[choice.claim]:
                del users[choice.claim]
            if not users:
                del self._using[device.id]
        else:
            shares = self._shares[device.id]
            shares.pop()
            if not shares:
                del self._shares[device.id]
        if not self._counts_already(device):
            self._consume(device, -1)
        for index, constraint in enumerate(self._wanted[choice.claim].constraints):
            if constraint.concerns(choice.alternative):
                self._values[choice.claim, index].pop()

    # Constraints.

    def _hold(self, choice: Choice) -> bool:
        """Add the device to the constraints of its claim, or to none of them where one does not hold."""
        constraints = self._wanted[choice.claim].constraints
        added: list[list[object]] = []
        for index, constraint in enumerate(constraints):
            if not constraint.concerns(choice.alternative):
                continue
            values = self._values.setdefault((choice.claim, index), [])
            if not _holds(constraint, values, value := choice.device.attribute(constraint.attribute)):
                for others in added:
                    others.pop()
                return False
            values.append(value)
            added.append(values)
        return True

    # Counters that devices of a pool share.

    def _counts_already(self, device: Device) -> bool:
        """Whether the counters of a device with several users are accounted for by another of them."""
        return device.is_shared and (self._taken.shared(device.id) or bool(self._shares.get(device.id)))

    def _has_counters(self, device: Device) -> bool:
        if not device.consumes or self._counts_already(device):
            return True
        id = PoolId(device.id.driver, device.id.pool)
        available, consumed = self._available_in(id), self._consumed.get(id, {})
        return all(
            consumed.get(counter, 0) + amount <= available.get(counter, 0)
            for counter, amount in device.consumes.items()
        )

    def _consume(self, device: Device, sign: int) -> None:
        if device.consumes:
            consumed = self._consumed.setdefault(PoolId(device.id.driver, device.id.pool), {})
            for counter, amount in device.consumes.items():
                consumed[counter] = consumed.get(counter, Fraction(0)) + sign * amount

    def _available_in(self, id: PoolId) -> dict[Counter, Fraction]:
        known = self._available.get(id)
        if known is None:
            pool = self._pools[id]
            known = self._available[id] = dict(pool.counters)
            for name in self._taken.of_pool(id):
                device = pool.by_name.get(name)
                for counter, amount in (device.consumes if device is not None else {}).items():
                    if counter in known:
                        known[counter] -= amount
        return known


def _holds(constraint: Constraint, values: Sequence[object], value: object) -> bool:
    if value is None:
        return False
    if constraint.distinct:
        return value not in values
    return not values or values[0] == value
