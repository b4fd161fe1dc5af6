"""What one object of the API may do: the sequential model that histories are held against.

A state is absence or a value, with the revision that it has. Of a write whose answer was lost the revision is not known
until somebody reads it; then only a lower bound is. Revisions only grow, over deletions too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from .history import Kind, Operation, Outcome
from .linearizability import FOREVER, Call, Search, Verdict


class State(NamedTuple):
    """`token` is empty for what does not exist; `revision` is that of the value if `exact`, else a lower bound."""

    token: str = ""
    revision: int = 0
    exact: bool = True


def step(state: State, operation: Operation) -> State | None:
    """The state after it, or None where its answer cannot be: not in this state."""
    outcome = operation.outcome
    if operation.kind is Kind.GET:
        return _read(state, operation)
    if outcome in (Outcome.DONE, Outcome.UNKNOWN):
        return _write(state, operation) if _possible(state, operation) else None
    if outcome is Outcome.EXISTS:
        return state if state.token else None
    if outcome is Outcome.MISSING:
        return state if not state.token else None
    return state if _conflicts(state, operation) else None


def _read(state: State, operation: Operation) -> State | None:
    if operation.outcome is Outcome.MISSING:
        return state if not state.token else None
    if operation.seen != state.token:
        return None
    if state.exact:
        return state if operation.revision == state.revision else None
    return State(state.token, operation.revision) if operation.revision > state.revision else None


def _possible(state: State, operation: Operation) -> bool:
    """Whether it may take effect here."""
    if operation.kind is Kind.CREATE:
        return not state.token
    if operation.kind is Kind.APPLY:
        return True
    return bool(state.token) and _is_expected(state, operation)


def _is_expected(state: State, operation: Operation) -> bool:
    if operation.expected and state.exact and operation.expected != state.revision:
        return False
    return not operation.expected_token or operation.expected_token == state.token


def _conflicts(state: State, operation: Operation) -> bool:
    return bool(state.token) and not _is_expected(state, operation)


def _write(state: State, operation: Operation) -> State | None:
    if operation.kind is Kind.DELETE:
        return State("", state.revision, exact=False)
    if not operation.revision:
        return State(operation.token, state.revision, exact=False)
    if operation.revision <= state.revision:
        return None
    return State(operation.token, operation.revision)


def judge(operations: Sequence[Operation], initial: State = State()) -> Verdict:
    """Of one key."""
    if _impossible(operations):
        return Verdict(False)
    known = _observed(operations)
    calls = [Call(each.invoked, FOREVER if each.outcome is Outcome.UNKNOWN else each.returned) for each in known]
    narrowed = _narrowed(known, calls)
    if any(call.invoked > call.returned for call in narrowed):
        return Verdict(False)
    return Search(step).check(initial, known, narrowed, _alike(known))


def _impossible(operations: Sequence[Operation]) -> bool:
    """Whether something was read that nobody wrote, or a revision is of two values: no search is needed then."""
    written = {operation.token for operation in operations}
    values: dict[int, str] = {}
    for operation in operations:
        if operation.outcome is Outcome.DONE and operation.revision:
            value = operation.seen if operation.kind is Kind.GET else operation.token
            if value not in written or values.setdefault(operation.revision, value) != value:
                return True
    return False


def _observed(operations: Sequence[Operation]) -> list[Operation]:
    """A write without an answer whose value somebody read did happen, before that was told. Values that nobody read are
    all the same."""
    read: dict[str, Operation] = {}
    for operation in operations:
        if operation.kind is Kind.GET and operation.seen:
            first = read.get(operation.seen, operation)
            read[operation.seen] = operation if operation.returned <= first.returned else first
    expected = {operation.expected_token for operation in operations}
    known: list[Operation] = []
    for operation in operations:
        if operation.outcome is Outcome.UNKNOWN and operation.token:
            reader = read.get(operation.token)
            if reader is not None:
                operation = replace(
                    operation, outcome=Outcome.DONE, revision=reader.revision, returned=reader.returned
                )  # fmt: skip
            elif operation.token not in expected:
                operation = replace(operation, token="?")
        known.append(operation)
    return known


def _narrowed(operations: Sequence[Operation], calls: Sequence[Call]) -> list[Call]:
    """Writes took effect in the order of their revisions, and reads between what they read and the next: what follows
    from that for when each can have been."""
    groups: dict[int, tuple[list[int], list[int]]] = {}
    for number, operation in enumerate(operations):
        if operation.outcome is Outcome.DONE and operation.revision:
            groups.setdefault(operation.revision, ([], []))[operation.kind is Kind.GET].append(number)
    steps = [group for revision in sorted(groups) for group in groups[revision] if group]
    invoked, returned = [call.invoked for call in calls], [call.returned for call in calls]
    earliest = 0
    for group in steps:
        for number in group:
            invoked[number] = max(invoked[number], earliest)
        earliest = max(earliest, *(invoked[number] for number in group))
    latest = FOREVER
    for group in reversed(steps):
        for number in group:
            returned[number] = min(returned[number], latest)
        latest = min(latest, *(returned[number] for number in group))
    return [Call(*each) for each in zip(invoked, returned, strict=True)]


def _alike(operations: Sequence[Operation]) -> dict[int, int]:
    """Of unanswered operations that do the same, those that were sent first may do it wherever the others may."""
    alike: dict[int, int] = {}
    last: dict[tuple[object, ...], int] = {}
    for number in sorted(range(len(operations)), key=lambda number: operations[number].invoked):
        operation = operations[number]
        if operation.outcome is Outcome.UNKNOWN:
            kind = Kind.REPLACE if operation.kind is Kind.PATCH else operation.kind
            same = (kind, operation.token, operation.expected, operation.expected_token)
            if same in last:
                alike[number] = last[same]
            last[same] = number
    return alike
