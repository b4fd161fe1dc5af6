"""One attempt to place a pod with claims: what has to be allocated, and for each node whether its devices do.

In: the pod's claims as they are now, and the inventory.  Out: a verdict for each node that is asked about; asked before
the decision for many nodes, with a turn for all others in between, or for a single one at once.
Invariant: a node is searched once in an attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Final

from navarch.api.meta import Obj, name_of
from navarch.records import frozen, mutable
from navarch.scheduler.devices.allocator import LONGEST_SEARCH, Choice, NotHere, Search, SearchTooLong
from navarch.scheduler.devices.inventory import DeviceInventory
from navarch.scheduler.devices.requests import Wanted
from navarch.scheduler.terms import node_selector_matches

NONE_FIT: Final = "cannot allocate all claims"
ELSEWHERE: Final = "resourceclaim not available on the node"
STALE: Final = "cannot schedule extended resource claim"
TOO_LONG: Final = "timed out trying to allocate devices"
_AT_ONCE: Final = 5_000
"""Devices tried where nobody can have a turn meanwhile: some ten milliseconds."""
_TURN: Final = 400
"""Devices tried until others have a turn."""


@frozen
class Verdict:
    """`reason` says why the node's devices do not do; else `chosen` are those that the claims `wanted` would get."""

    reason: str = ""
    wanted: Sequence[Wanted] = ()
    chosen: Sequence[Choice] = ()


@mutable(eq=False)
class Plan:
    """`for_node` gives what has to be allocated on a node beside the claims that the pod names."""

    inventory: DeviceInventory
    wanted: Sequence[Wanted]
    """Claims without devices."""
    allocated: Sequence[Obj]
    """Claims that have them."""
    for_node: Callable[[Obj], Wanted | None]
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    is_closed: bool = False
    """Whether enough nodes were found, so that others count as unfit unlooked at."""
    unavailable: dict[str, Obj] = field(default_factory=dict)
    """By uid: claims whose devices cannot be reached from some node."""
    has_failed: bool = False
    """Whether devices of a claim will never be ready."""
    stale: Obj | None = None
    """A claim for extended resources that an earlier attempt has left."""
    made: Obj | None = None
    """The claim for extended resources, as this attempt has made it."""
    mappings: dict[Wanted, list[Obj]] = field(default_factory=dict)
    """For claims for extended resources: which container uses which request."""
    node_name: str = ""
    """What was decided on, with the allocations by the claim's uid."""
    given: Mapping[str, Obj] = field(default_factory=dict)

    def verdict(self, node: Obj) -> Verdict:
        """Raises ClaimError."""
        known = self.verdicts.get(name_of(node))
        if known is None:
            trial = self._trial(node, _AT_ONCE)
            while True:
                try:
                    next(trial)
                except StopIteration as ended:
                    known = self.verdicts[name_of(node)] = ended.value
                    break
        return known

    async def search(self, nodes: Iterable[Obj], enough: int) -> None:
        """Look at nodes until `enough` of them do. Raises ClaimError."""
        steps = found = 0
        for node in nodes:
            if not node:
                # Gone while others were looked at.
                continue
            trial = self._trial(node, LONGEST_SEARCH)
            while True:
                steps += 1
                if steps % _TURN == 0:
                    await asyncio.sleep(0)
                try:
                    next(trial)
                except StopIteration as ended:
                    verdict: Verdict = ended.value
                    break
            self.verdicts[name_of(node)] = verdict
            found += not verdict.reason
            if found >= enough:
                self.is_closed = True
                return

    def _trial(self, node: Obj, limit: int) -> Generator[None, None, Verdict]:
        if self.stale is not None:
            return Verdict(STALE)
        is_elsewhere = self.has_failed
        for claim in self.allocated:
            selector = claim["status"]["allocation"].get("nodeSelector")
            if selector is not None and not node_selector_matches(selector, node):
                self.unavailable[claim["metadata"]["uid"]] = claim
                is_elsewhere = True
        if is_elsewhere:
            return Verdict(ELSEWHERE)
        extended = self.for_node(node)
        wanted = [*self.wanted, extended] if extended is not None else self.wanted
        if not wanted:
            return Verdict()
        search = Search(wanted, self.inventory.reaches(node), self.inventory.taken)
        try:
            yield from search.run(limit)
        except NotHere as reason:
            return Verdict(str(reason))
        except SearchTooLong:
            return Verdict(TOO_LONG)
        return Verdict(NONE_FIT) if search.solution is None else Verdict("", wanted, search.solution)
