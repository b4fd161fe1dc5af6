"""What clients did and what they were told: the evidence that everything else here judges.

An operation has the moment at which it was sent and, unless its answer was lost with the server, the one at which the
answer was there. Times are of one clock in one process, so "before" means before. Each write carries a token that no
other carries; a value is known by it wherever it is seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    CREATE = "create"
    REPLACE = "replace"
    PATCH = "patch"
    APPLY = "apply"
    DELETE = "delete"
    GET = "get"


class Outcome(Enum):
    DONE = "done"
    EXISTS = "already exists"
    CONFLICT = "conflict"
    MISSING = "not found"
    # The answer was lost, or says that nobody knows.
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Operation:
    """One request for one key. `expected` (a revision, and the token that went with it) is what the client wants to
    find, if it wants anything; `revision`, `seen` and `uid` are what the answer says."""

    kind: Kind
    key: str
    token: str = ""
    expected: int = 0
    expected_token: str = ""
    invoked: int = 0
    returned: int = 0
    outcome: Outcome = Outcome.UNKNOWN
    revision: int = 0
    seen: str = ""
    uid: str = ""

    def __str__(self) -> str:
        wanted = f" if {self.expected}/{self.expected_token}" if self.expected or self.expected_token else ""
        answer = f"{self.outcome.value} {self.revision or ''} {self.seen if self.kind is Kind.GET else ''}".strip()
        return f"{self.kind.value} {self.key} {self.token}{wanted}: {answer} [{self.invoked}..{self.returned or '?'}]"


@dataclass(slots=True)
class Listing:
    """A list's answer: what was asked for, its revision, and each key's revision and token. `fresh` says that it has
    to show everything that was acknowledged before it was sent; `at_least` and `exactly` bound its revision."""

    asked: str
    invoked: int
    returned: int
    revision: int
    items: dict[str, tuple[int, str]]
    fresh: bool = False
    at_least: int = 0
    exactly: int = 0
    parity: str = ""


@dataclass(slots=True, frozen=True)
class Seen:
    """One event that a watcher was sent; a bookmark has no key."""

    type: str
    revision: int
    key: str = ""
    token: str = ""


@dataclass(slots=True)
class Following:
    """What one watcher saw without a gap: everything after `since`, across reconnections. With `initial` it began with
    what there was, up to `initial_until`, the revision of the bookmark that ends it."""

    watcher: str
    since: int
    parity: str = ""
    key: str = ""
    seen: list[Seen] = field(default_factory=list)
    initial: dict[str, tuple[int, str]] | None = None
    initial_until: int = 0
    resumed: int = 0

    @property
    def reached(self) -> int:
        """Up to which revision it has been told everything."""
        return self.seen[-1].revision if self.seen else max(self.since, self.initial_until)


class Recorder:
    """Collects the evidence of one session."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.listings: list[Listing] = []
        self.followings: list[Following] = []
        self.oddities: list[str] = []

    def begin(self, operation: Operation) -> Operation:
        operation.invoked = time.monotonic_ns()
        self.operations.append(operation)
        return operation

    def drop(self, operation: Operation) -> None:
        """It never reached a server."""
        self.operations.remove(operation)

    def by_key(self) -> Iterator[tuple[str, list[Operation]]]:
        keys: dict[str, list[Operation]] = {}
        for operation in self.operations:
            keys.setdefault(operation.key, []).append(operation)
        yield from keys.items()
