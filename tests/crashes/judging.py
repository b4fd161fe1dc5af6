"""The verdict: everything in the evidence that a correct server could not have said, in words.

Each key's history is linearizable (`register`). Beside that, what the store says happened (`truth`) is compared with
what clients were told: no acknowledged write is missing or has happened twice, refused ones did not happen, revisions
follow the order of time over all keys, every list is the state at its revision and no older than it may be, and every
watcher was sent exactly the changes that it asked for, in order, up to where it came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import register
from .history import Following, Kind, Listing, Operation, Outcome, Recorder, Seen
from .truth import Change, Truth

Shown = dict[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Fault:
    what: str
    details: str

    def __str__(self) -> str:
        return f"{self.what}: {self.details}"


def judge(evidence: Recorder, truth: Truth) -> list[Fault]:
    """Every fault; none is what is hoped for."""
    faults = [Fault("odd answer", oddity) for oddity in evidence.oddities]
    faults += keys(evidence)
    faults += writes(evidence.operations, truth)
    faults += order(evidence.operations, evidence.listings)
    faults += lists(evidence.listings, truth)
    for following in evidence.followings:
        faults += watch(following, truth)
    return faults


def keys(evidence: Recorder) -> Iterator[Fault]:
    """Each key by itself, from what clients were told alone."""
    for key, operations in evidence.by_key():
        verdict = register.judge(operations)
        if not verdict.linearizable:
            told = "\n    ".join(map(str, operations))
            what = "cannot be decided" if verdict.undecided else "not linearizable"
            yield Fault(what, f"{key}, explained {verdict.stuck} of {len(operations)}:\n    {told}")


def writes(operations: Sequence[Operation], truth: Truth) -> Iterator[Fault]:
    """What was acknowledged is stored, once, as it was told; what was refused is not."""
    stored: dict[str, list[Change]] = {}
    deletions: dict[str, Change] = {}
    for change in truth:
        if change.token:
            stored.setdefault(change.token, []).append(change)
        else:
            deletions[change.uid] = change
    known = {operation.token: operation for operation in operations if operation.token}
    for token, changes in stored.items():
        operation = known.get(token)
        if operation is None:
            yield Fault("written by nobody", f"{changes[0]}")
        elif operation.outcome not in (Outcome.DONE, Outcome.UNKNOWN):
            yield Fault("refused, but stored", f"{operation}; {changes[0].revision}")
        if len(changes) > 1:
            yield Fault("happened twice", f"{operation}: {[change.revision for change in changes]}")
    for operation in operations:
        if operation.outcome is not Outcome.DONE:
            continue
        if operation.token:
            revisions = [change.revision for change in stored.get(operation.token, ())]
            if not revisions:
                yield Fault("acknowledged write lost", str(operation))
            elif operation.revision not in revisions:
                yield Fault("another revision than acknowledged", f"{operation}; stored at {revisions}")
        elif operation.kind is Kind.DELETE and operation.uid not in deletions:
            yield Fault("acknowledged deletion lost", str(operation))
    yield from _deletions(operations, deletions)


def _deletions(operations: Sequence[Operation], deletions: dict[str, Change]) -> Iterator[Fault]:
    deleting = [each for each in operations if each.kind is Kind.DELETE]
    acknowledged = Counter(each.uid for each in deleting if each.outcome is Outcome.DONE)
    unanswered = Counter(each.key for each in deleting if each.outcome is Outcome.UNKNOWN)
    unexplained = Counter(change.key for uid, change in deletions.items() if uid not in acknowledged)
    for uid, times in acknowledged.items():
        if times > 1:
            yield Fault("deleted twice", uid)
    for key, times in unexplained.items():
        if times > unanswered[key]:
            yield Fault("deleted by nobody", f"{key}, {times} times")


def order(operations: Sequence[Operation], listings: Sequence[Listing]) -> Iterator[Fault]:
    """Revisions follow time, over all keys: whoever starts after an answer gets a greater one, and a list is at least
    as new as what was acknowledged before it."""
    revisions: dict[int, Operation] = {}
    # (time, what: an answer before a call of the same moment, revision, operation or list)
    marks: list[tuple[int, int, int, Operation | Listing]] = []
    for operation in operations:
        if operation.outcome is Outcome.DONE and operation.token:
            if operation.revision in revisions:
                yield Fault("revision used twice", f"{revisions[operation.revision]}; {operation}")
            revisions[operation.revision] = operation
            marks.append((operation.invoked, 1, operation.revision, operation))
            marks.append((operation.returned, 0, operation.revision, operation))
    for listing in listings:
        if listing.fresh:
            marks.append((listing.invoked, 1, listing.revision, listing))
            marks.append((listing.returned, 0, listing.revision, listing))
    marks.sort(key=lambda mark: mark[:2])
    written = read = 0
    for _, calls, revision, what in marks:
        if calls:
            if isinstance(what, Operation) and revision <= max(written, read):
                yield Fault("revision goes back", f"{what} after {max(written, read)} was known")
            elif isinstance(what, Listing) and revision < max(written, read):
                yield Fault("stale list", f"{what.asked} at {revision} after {max(written, read)} was known")
        elif isinstance(what, Operation):
            written = max(written, revision)
        else:
            read = max(read, revision)


def lists(listings: Sequence[Listing], truth: Truth) -> Iterator[Fault]:
    """Each is the state at its revision."""
    changes = iter([*truth, None])
    change = next(changes)
    shown: Shown = {}
    parities: dict[str, str] = {}
    for listing in sorted(listings, key=lambda each: each.revision):
        while change is not None and change.revision <= listing.revision:
            if change.token:
                shown[change.key], parities[change.key] = (change.revision, change.token), change.parity
            else:
                shown.pop(change.key, None)
            change = next(changes)
        wanted = {key: value for key, value in shown.items() if not listing.parity or parities[key] == listing.parity}
        if listing.items != wanted:
            yield Fault("wrong list", f"{listing.asked} at {listing.revision}: {_difference(listing.items, wanted)}")
        if listing.exactly and listing.revision != listing.exactly:
            yield Fault("list of another revision", f"{listing.asked}: {listing.revision}")
        if listing.revision < listing.at_least:
            yield Fault("list older than asked for", f"{listing.asked}: {listing.revision} < {listing.at_least}")


def _difference(got: Shown, wanted: Shown) -> str:
    odd = [f"{key} is {got.get(key)}, not {wanted.get(key)}" for key in sorted({*got, *wanted})
           if got.get(key) != wanted.get(key)]  # fmt: skip
    return "; ".join(odd[:5])


def watch(following: Following, truth: Truth) -> Iterator[Fault]:
    """It was sent each change that concerns it once, in order, and nothing else."""
    who = f"{following.watcher} (from {following.since}, resumed {following.resumed} times)"
    since = following.since
    if following.initial is not None:
        since = following.initial_until
        listing = Listing(who, 0, 0, since, following.initial, parity=following.parity)
        yield from lists([listing], truth)
    reached = since
    events: list[Seen] = []
    for seen in following.seen:
        if seen.key:
            if seen.revision <= reached and (events or seen.revision <= since):
                yield Fault("event repeated or late", f"{who}: {seen} after {reached}")
            events.append(seen)
        elif seen.revision < reached:
            yield Fault("bookmark goes back", f"{who}: {seen.revision} after {reached}")
        reached = max(reached, seen.revision)
    wanted = [shown for change in truth if since < change.revision <= reached
              if (shown := expected(change, following)) is not None]  # fmt: skip
    if events != wanted:
        missed = [event for event in wanted if event not in set(events)]
        added = [event for event in events if event not in set(wanted)]
        yield Fault("wrong events", f"{who}: missed {missed[:5]}, odd {added[:5]} of {len(wanted)}")


def expected(change: Change, following: Following) -> Seen | None:
    """What a watcher with this selection must be sent of a change."""
    if following.key and change.key != following.key:
        return None
    before = change.before is not None and following.parity in ("", change.before.parity)
    now = bool(change.token) and following.parity in ("", change.parity)
    if now:
        return Seen("MODIFIED" if before else "ADDED", change.revision, change.key, change.token)
    if before and change.before is not None:
        # One that leaves the selection is shown as it was, with the revision of the change.
        return Seen("DELETED", change.revision, change.key, change.before.token)
    return None
