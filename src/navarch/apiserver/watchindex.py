"""Which watchers a change may concern, found without asking all of them.

In: watchers, each with what its selectors demand.  Out: those that have to look at a change: who wants everything, the
object's namespace, its name or another field as it is or was, or one of its labels. Each is kept in one place, the
emptiest of those that it could be in (`in (a, b)` is a place for each value), so that a change for two watchers of ten
thousand costs what it costs with two.

Invariant: a watcher that wants an object, as it is or was before the change, is among those that are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from navarch.apiserver.changes import Change
from navarch.apiserver.watchers import EVERYTHING, NAMESPACE, Watcher

_Place = tuple[str, ...]
_LABELS = "labels"


class WatcherIndex:
    """The watchers of one resource."""

    def __init__(self) -> None:
        # In each place in the order in which they came.
        self._places: dict[_Place, dict[Watcher, None]] = {}
        self._chosen: dict[Watcher, tuple[_Place, ...]] = {}
        self._labelled = 0

    def __bool__(self) -> bool:
        return bool(self._chosen)

    def __iter__(self) -> Iterator[Watcher]:
        return iter(list(self._chosen))

    def clear(self) -> None:
        self._places.clear()
        self._chosen.clear()
        self._labelled = 0

    def add(self, watcher: Watcher) -> None:
        chosen = min(_alternatives(watcher), key=self._crowd)
        self._chosen[watcher] = chosen
        self._labelled += chosen[0][0] == _LABELS
        for place in chosen:
            self._places.setdefault(place, {})[watcher] = None

    def discard(self, watcher: Watcher) -> None:
        chosen = self._chosen.pop(watcher, ())
        self._labelled -= bool(chosen) and chosen[0][0] == _LABELS
        for place in chosen:
            found = self._places[place]
            del found[watcher]
            if not found:
                del self._places[place]

    def _crowd(self, places: tuple[_Place, ...]) -> int:
        return sum(len(self._places.get(place, ())) for place in places)

    def concerned(self, change: Change, selectable: Sequence[str]) -> Iterator[Watcher]:
        """Each once. Watchers may come and go while the result is gone through."""
        shown, old = change.new or change.old, change.old
        assert shown is not None
        places: list[_Place] = [EVERYTHING, (NAMESPACE, shown.namespace), ("metadata.name", shown.name)]
        for path in selectable:
            value = shown.fields[path]
            places.append((path, value))
            if old is not None and old.fields[path] != value:
                places.append((path, old.fields[path]))
        known = self._places
        found = [tuple(known[place]) for place in places if place in known]
        if self._labelled:
            found.append(self._labelled_alike(change))
        return chain.from_iterable(found)

    def _labelled_alike(self, change: Change) -> tuple[Watcher, ...]:
        """One that is in the places of several values is found by the old one and by the new one."""
        known = self._places
        found: dict[Watcher, None] = {}
        for cached in (change.new, None if change.steady else change.old):
            if cached is not None:
                for key, value in cached.labels.items():
                    for namespace in ("", cached.namespace) if cached.namespace else ("",):
                        found.update(known.get((_LABELS, namespace, key, value), {}))
        return tuple(found)


def _alternatives(watcher: Watcher) -> list[tuple[_Place, ...]]:
    """All places that would do; those of labels are never wider than a namespace."""
    scope = watcher.scope
    namespace = watcher.namespace
    by_labels: list[tuple[_Place, ...]] = [
        tuple((_LABELS, namespace, key, value) for value in values) for key, values in watcher.labels
    ]
    return by_labels if by_labels and scope[0] in ("", NAMESPACE) else [*by_labels, (scope,)]
