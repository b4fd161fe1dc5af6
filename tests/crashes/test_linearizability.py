"""The search finds what cannot have happened, and accepts what can; held against trying every order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from .history import Kind, Operation, Outcome
from .linearizability import FOREVER, Call, Search
from .register import State, judge, step

DONE, CONFLICT, MISSING, EXISTS, UNKNOWN = (
    Outcome.DONE, Outcome.CONFLICT, Outcome.MISSING, Outcome.EXISTS, Outcome.UNKNOWN,
)  # fmt: skip


def create(token: str, revision: int, at: tuple[int, int], outcome: Outcome = DONE) -> Operation:
    return Operation(Kind.CREATE, "k", token, invoked=at[0], returned=at[1], outcome=outcome, revision=revision)


def put(token: str, revision: int, at: tuple[int, int], expected: int = 0, outcome: Outcome = DONE) -> Operation:
    return Operation(
        Kind.REPLACE, "k", token, expected, invoked=at[0], returned=at[1], outcome=outcome, revision=revision
    )


def delete(at: tuple[int, int], outcome: Outcome = DONE) -> Operation:
    return Operation(Kind.DELETE, "k", invoked=at[0], returned=at[1], outcome=outcome)


def get(token: str, revision: int, at: tuple[int, int]) -> Operation:
    outcome = DONE if token else MISSING
    return Operation(Kind.GET, "k", invoked=at[0], returned=at[1], outcome=outcome, revision=revision, seen=token)


def fine(*operations: Operation) -> bool:
    return judge(operations).linearizable


def test_one_after_the_other_is_fine() -> None:
    assert fine(create("a", 1, (0, 1)), get("a", 1, (2, 3)), put("b", 4, (4, 5), expected=1), get("b", 4, (6, 7)))


def test_a_lost_acknowledged_write_is_found() -> None:
    assert not fine(create("a", 1, (0, 1)), put("b", 2, (2, 3)), get("a", 1, (4, 5)))


def test_a_stale_read_is_found_and_one_at_the_same_time_is_not() -> None:
    first, second = create("a", 1, (0, 1)), put("b", 2, (2, 6))
    assert fine(first, second, get("a", 1, (3, 4)))
    assert fine(first, second, get("b", 2, (3, 4)))
    assert not fine(first, second, get("b", 2, (3, 4)), get("a", 1, (5, 7)))


def test_two_compare_and_swaps_of_one_revision_are_found() -> None:
    assert not fine(create("a", 1, (0, 1)), put("b", 2, (2, 5), expected=1), put("c", 3, (2, 5), expected=1))
    lost = put("c", 0, (2, 5), expected=1, outcome=CONFLICT)
    assert fine(create("a", 1, (0, 1)), put("b", 2, (2, 5), expected=1), lost)


def test_a_refusal_without_a_reason_is_found() -> None:
    assert not fine(create("a", 1, (0, 1)), put("b", 0, (2, 3), expected=1, outcome=CONFLICT))
    assert not fine(create("a", 1, (0, 1)), create("b", 0, (2, 3)), delete((4, 5)))
    assert not fine(create("a", 0, (0, 1), EXISTS))
    assert fine(create("a", 1, (0, 1)), delete((2, 3)), put("b", 0, (4, 5), outcome=MISSING))


def test_revisions_that_go_back_or_are_used_again_are_found() -> None:
    assert not fine(create("a", 5, (0, 1)), put("b", 4, (2, 3)))
    assert not fine(create("a", 5, (0, 1)), delete((2, 3)), create("b", 5, (4, 5)))
    assert not fine(create("a", 5, (0, 1)), get("a", 6, (2, 3)))


def test_what_came_back_after_its_deletion_is_found() -> None:
    assert not fine(create("a", 1, (0, 1)), delete((2, 3)), get("a", 1, (4, 5)))


def test_an_unanswered_write_may_have_happened_or_not_but_not_both() -> None:
    first, unknown = create("a", 1, (0, 1)), put("b", 0, (2, 0), outcome=UNKNOWN)
    assert fine(first, unknown, get("a", 1, (3, 4)))
    assert fine(first, unknown, get("b", 7, (3, 4)))
    # It may even happen late.
    assert fine(first, unknown, get("a", 1, (3, 4)), get("b", 7, (5, 6)), get("b", 7, (7, 8)))
    assert not fine(first, unknown, get("b", 7, (3, 4)), get("a", 1, (5, 6)))
    assert not fine(first, unknown, get("b", 7, (3, 4)), get("b", 8, (5, 6)))
    assert not fine(first, get("b", 7, (2, 3)), put("b", 0, (4, 0), outcome=UNKNOWN))


def test_an_unanswered_deletion_explains_absence() -> None:
    gone = get("", 0, (4, 5))
    assert not fine(create("a", 1, (0, 1)), gone)
    assert fine(create("a", 1, (0, 1)), delete((2, 0), UNKNOWN), gone)


def test_hundreds_of_operations_with_many_unanswered_are_decided() -> None:
    chance = random.Random(7)
    history = _honest(chance, operations=600, clients=8, lost=0.1)
    assert judge(history).linearizable
    reads = [each for each in history if each.kind is Kind.GET and each.seen]
    reads[len(reads) // 2].seen = reads[0].seen
    verdict = judge(history)
    assert not verdict.linearizable
    assert not verdict.undecided


def test_a_refusal_without_a_reason_is_found_among_hundreds_of_operations() -> None:
    history = _honest(random.Random(8), operations=300, clients=4, lost=0.02)
    refused = next(each for each in history[150:] if each.outcome is MISSING and each.kind is Kind.REPLACE)
    refused.outcome = CONFLICT
    verdict = judge(history)
    assert not verdict.linearizable
    assert not verdict.undecided


def _honest(chance: random.Random, operations: int, clients: int, lost: float) -> list[Operation]:
    """What clients would be told by an object that is one: each operation takes effect at a moment of its own time."""
    history: list[Operation] = []
    moments: list[tuple[int, Operation]] = []
    for client in range(clients):
        now = client
        for number in range(operations // clients):
            invoked = now + chance.randint(1, 20)
            moment = invoked + chance.randint(1, 20)
            now = moment + chance.randint(1, 20)
            kind = chance.choice([Kind.CREATE, Kind.REPLACE, Kind.APPLY, Kind.DELETE, Kind.GET, Kind.GET])
            token = f"{client}.{number}" if kind not in (Kind.GET, Kind.DELETE) else ""
            moments.append((moment, Operation(kind, "k", token, invoked=invoked, returned=now)))
    state = State()
    for revision, (_, operation) in enumerate(sorted(moments, key=lambda each: each[0]), 1):
        if operation.kind is Kind.GET:
            operation.outcome = DONE if state.token else MISSING
            operation.seen, operation.revision = state.token, state.revision if state.token else 0
        elif operation.kind is Kind.CREATE and state.token:
            operation.outcome = EXISTS
        elif operation.kind in (Kind.REPLACE, Kind.DELETE) and not state.token:
            operation.outcome = MISSING
        else:
            operation.outcome = DONE
            state = State("" if operation.kind is Kind.DELETE else operation.token, revision)
            operation.revision = revision if operation.token else 0
        if operation.kind is not Kind.GET and chance.random() < lost:
            operation.outcome, operation.revision, operation.returned = UNKNOWN, 0, 0
        history.append(operation)
    return history


# Against every order there is. The answer to a deletion has no revision.

_OPERATIONS = st.lists(
    st.builds(
        lambda kind, token, outcome, revision, seen, invoked, takes: Operation(
            kind,
            "k",
            token if kind not in (Kind.GET, Kind.DELETE) else "",
            invoked=invoked,
            returned=invoked + takes,
            outcome=outcome if kind is not Kind.GET else (DONE if seen else MISSING),
            revision=0 if kind is Kind.DELETE or (kind is Kind.GET and not seen) else revision,
            seen=seen if kind is Kind.GET else "",
        ),
        st.sampled_from(list(Kind)),
        st.sampled_from("abc"),
        st.sampled_from([DONE, DONE, DONE, MISSING, EXISTS, UNKNOWN]),
        st.integers(1, 4),
        st.sampled_from(["", "a", "b", "c"]),
        st.integers(0, 12),
        st.integers(1, 6),
    ),
    max_size=5,
)


@given(_OPERATIONS)
def test_it_agrees_with_trying_every_order(operations: list[Operation]) -> None:
    for operation in operations:
        if operation.outcome is UNKNOWN:
            operation.revision = 0
    assert judge(operations).linearizable == _by_force(operations)


def _by_force(operations: Sequence[Operation]) -> bool:
    answered = [each for each in operations if each.outcome is not UNKNOWN]
    unanswered = [each for each in operations if each.outcome is UNKNOWN]
    for count in range(len(unanswered) + 1):
        for happened in itertools.combinations(unanswered, count):
            if any(map(_explains, itertools.permutations([*answered, *happened]))):
                return True
    return False


def _explains(order: Sequence[Operation]) -> bool:
    state: State | None = State()
    for place, operation in enumerate(order):
        if any(later.outcome is not UNKNOWN and later.returned < operation.invoked for later in order[place + 1 :]):
            return False
        state = step(state, operation)
        if state is None:
            return False
    return True


def test_what_an_operation_without_an_answer_forbids_is_nothing() -> None:
    """Only the model speaks: a counter that two unanswered additions may have reached."""
    search: Search[int, int] = Search(
        lambda state, wanted: state + 1 if wanted < 0 else state if state == wanted else None
    )
    calls = [Call(0, FOREVER), Call(0, FOREVER), Call(5, 6)]
    assert all(search.check(0, [-1, -1, read], calls).linearizable for read in (0, 1, 2))
    assert not search.check(0, [-1, -1, 3], calls).linearizable
