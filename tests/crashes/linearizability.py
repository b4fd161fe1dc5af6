"""Is there an order of operations that explains every answer, and in which none moves out of its own time?

Wing and Gong's search, with Lowe's memory of what was tried: operations are taken one by one, always one that nobody
else's answer precedes, as long as the model allows it; where it goes no further, the last is given back. What has been
tried is a set of operations and the state that they led to; nothing is tried twice. An operation without an answer may
take effect at any time after it was sent, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

State = TypeVar("State", bound=Hashable)
Op = TypeVar("Op")

FOREVER: Final = 1 << 62
TRIES_MAX: Final = 500_000
_NONE: Final[Mapping[int, int]] = {}


class Call(NamedTuple):
    """When an operation was sent and answered (FOREVER: never)."""

    invoked: int
    returned: int


class Verdict(NamedTuple):
    """`stuck` is, for a history that nothing explains, how many operations the best try explained."""

    linearizable: bool
    stuck: int = 0
    undecided: bool = False


class Search(Generic[State, Op]):
    """`step` gives the state after an operation, or None where its answer contradicts the state before."""

    def __init__(self, step: Callable[[State, Op], State | None]) -> None:
        self._step = step

    def check(
        self, initial: State, operations: Sequence[Op], calls: Sequence[Call], alike: Mapping[int, int] = _NONE
    ) -> Verdict:
        """`alike` maps an operation to an earlier one, as good in every way, that is tried in its place first."""
        entries = _Entries(calls)
        answered = sum(call.returned != FOREVER for call in calls)
        state, done, explained, best = initial, 0, 0, 0
        tried: set[tuple[int, State]] = set()
        frames: list[_Frame[State]] = [_Frame(iter(entries.candidates()), state)]
        while explained < answered:
            frame = frames[-1]
            for number in frame.candidates:
                if number in alike and not done >> alike[number] & 1:
                    continue
                after = self._step(state, operations[number])
                if after is None or (done | 1 << number, after) in tried:
                    continue
                done |= 1 << number
                tried.add((done, after))
                if len(tried) > TRIES_MAX:
                    return Verdict(False, best, undecided=True)
                explained += calls[number].returned != FOREVER
                best = max(best, explained)
                frame.taken, state = number, after
                entries.lift(number)
                frames.append(_Frame(iter(entries.candidates()), state))
                break
            else:
                # Nothing goes on from here: the last is given back.
                frames.pop()
                if not frames:
                    return Verdict(False, best)
                number, state = frames[-1].taken, frames[-1].state
                done &= ~(1 << number)
                explained -= calls[number].returned != FOREVER
                entries.unlift(number)
        return Verdict(True)


class _Frame(Generic[State]):
    """A state, what may come next, and what is being tried."""

    __slots__ = ("candidates", "state", "taken")

    def __init__(self, candidates: Iterator[int], state: State) -> None:
        self.candidates = candidates
        self.state = state
        self.taken = -1


class _Entries:
    """Calls and answers in the order of time, as a list that an operation can be taken out of and put back into."""

    def __init__(self, calls: Sequence[Call]) -> None:
        marks = [(call.invoked, 1, number) for number, call in enumerate(calls)]
        # Of one moment, the answer counts as later: more orders are possible, so nobody is accused wrongly.
        marks += [(call.returned, 2, number) for number, call in enumerate(calls) if call.returned != FOREVER]
        marks.sort()
        self._what = [(kind == 1, number) for _, kind, number in marks]
        count = len(marks)
        self._next: list[int] = [*range(1, count + 1), 0]  # the last place is the head, and the end
        self._previous: list[int] = [count, *range(count)]
        self._next[count] = 0 if count else count
        self._end = count
        self._calls: dict[int, int] = {}
        self._answers: dict[int, int] = {}
        for place, (is_call, number) in enumerate(self._what):
            (self._calls if is_call else self._answers)[number] = place

    def candidates(self) -> list[int]:
        """The operations that no answer precedes; those without an answer last, as they are seldom needed."""
        certain: list[int] = []
        doubtful: list[int] = []
        place = self._next[self._end]
        while place != self._end and self._what[place][0]:
            number = self._what[place][1]
            (certain if number in self._answers else doubtful).append(number)
            place = self._next[place]
        return certain + doubtful

    def lift(self, number: int) -> None:
        for place in self._places(number):
            self._next[self._previous[place]] = self._next[place]
            self._previous[self._next[place]] = self._previous[place]

    def unlift(self, number: int) -> None:
        for place in reversed(self._places(number)):
            self._next[self._previous[place]] = place
            self._previous[self._next[place]] = place

    def _places(self, number: int) -> list[int]:
        answer = self._answers.get(number)
        return [self._calls[number]] if answer is None else [self._calls[number], answer]
