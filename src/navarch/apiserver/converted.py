"""What is wanted of objects in a version that a converter makes: their fields are known once they are there.

In: a `Selection` with terms to be asked of objects as they are shown, and objects or notices that the rest of it wants.
Out: those that the whole of it wants, notices with the type that they have then. What is converted here is what is sent
afterwards, so that nothing is converted twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from navarch.apiserver.changes import ADDED, DELETED, MODIFIED, Cached, Notice
from navarch.apiserver.codec import decode
from navarch.apiserver.encodings import Encodings
from navarch.apiserver.selecting import Selection
from navarch.apiserver.served import ServedKind

# Objects that are converted in one go where it is not known how many of them are wanted.
_AT_ONCE = 500


async def wanted_of(
    encodings: Encodings, kind: ServedKind, selection: Selection, items: Sequence[Cached]
) -> list[Cached]:
    """Those of which the selection's last terms hold, too.  Raises StatusError where they cannot be converted."""
    shown = selection.shown
    if shown is None or not items:
        return list(items)
    found: list[Cached] = []
    for start in range(0, len(items), _AT_ONCE):
        block = items[start : start + _AT_ONCE]
        for cached, data in zip(block, await encodings.all(kind, block), strict=True):
            fields: Mapping[str, str] = kind.strategy.selected(decode(data))
            if shown.matches(lambda path, fields=fields: fields.get(path, "")):  # type: ignore[misc]
                found.append(cached)
    return found


async def first_of(
    encodings: Encodings, kind: ServedKind, selection: Selection, items: Sequence[Cached], limit: int
) -> tuple[list[Cached], int]:
    """Up to `limit` of those that are wanted, and how many objects had to be looked at for them."""
    found: list[Cached] = []
    for start in range(0, len(items), _AT_ONCE):
        block = items[start : start + _AT_ONCE]
        wanted = [cached for cached in block if selection.wanted is None or selection.wanted(cached)]
        for cached in await wanted_of(encodings, kind, selection, wanted):
            found.append(cached)
            if len(found) == limit:
                return found, start + block.index(cached) + 1
    return found, len(items)


async def notices_of(
    encodings: Encodings, kind: ServedKind, selection: Selection, notices: Sequence[Notice]
) -> list[Notice]:
    """What a watcher is told.  Raises StatusError where objects cannot be converted."""
    sides = [
        cached
        for notice in notices
        if (change := notice.change) is not None
        for cached in (change.old, change.new)
        if cached is not None and (selection.wanted is None or selection.wanted(cached))
    ]
    wanted = {id(cached) for cached in await wanted_of(encodings, kind, selection, sides)}
    found: list[Notice] = []
    for notice in notices:
        change = notice.change
        if change is None:
            found.append(notice)
            continue
        before, after = (cached is not None and id(cached) in wanted for cached in (change.old, change.new))
        if before or after:
            found.append(change.notice((MODIFIED if before else ADDED) if after else DELETED))
    return found
