"""Statuses that are alike: what a patch makes of one is remembered, and holds for the thousands that follow.

In: what a status was, and what a patch says of it.  Out: what it becomes, and who owns which fields then, from memory
where that has been asked of a status like it. Alike are those that differ in texts into which nothing looks but to tell
whether two are the same: times, IPv4 addresses, containers' ids, names of volumes with tokens. Which of these texts are
the same is part of the question; everything else in it has to be the same, byte for byte.

Invariant: what is remembered was also worked out for a status with made-up texts, and was what memory says of that. A
function that looked into the texts would say something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from navarch.api.errors import Obj, StatusError
from navarch.api.field_sets import FieldSet
from navarch.api.managers import Manager
from navarch.api.scalar_decoders import DecodeError

_MOST: Final = 256
_MOST_OWNERS: Final = 16
_SEEN_MOST: Final = 1024
# Bytes of a status, of a patch or of managedFields; how many texts they have together.
_LONGEST: Final = 8192
_MOST_TEXTS: Final = 200
# How often asking may be in vain before it is given up, and for how often then.
_PATIENCE: Final = 64
_PAUSE: Final = 512

_YEAR_AND_DAY: Final = (
    rb"[12]\d{3}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
_TIME: Final = _YEAR_AND_DAY + rb"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ"
_BYTE: Final = rb"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_ADDRESS: Final = _BYTE + rb"(?:\." + _BYTE + rb"){3}"
_CONTAINER: Final = rb"containerd://[0-9a-f]{64}"
_VOLUME: Final = rb"kube-api-access-[a-z0-9]{5}"
# A value of a field; a quotation mark in a text is escaped, so that this is found in none.
_TEXT: Final = re.compile(rb'":"(' + b"|".join((_TIME, _ADDRESS, _CONTAINER, _VOLUME)) + rb')"')
# By length, which tells the four apart, how another text of the same sort is made.
_MADE_UP: Final[Mapping[int, Callable[[int], bytes]]] = {
    20: lambda number: b"2001-02-03T04:%02d:%02dZ" % divmod(number, 60),
    77: lambda number: b"containerd://%064x" % number,
    21: lambda number: b"kube-api-access-%05d" % number,
}
_SORTS: Final = {**dict.fromkeys(range(7, 16), b"a"), 20: b"t", 21: b"v", 77: b"c"}
# In managedFields: times, which ownership does not depend on, and addresses by which items are found.
_IN_ENTRIES: Final = re.compile(rb'"time":"[^"]*"|k:\{\\"ip\\":\\"(' + _ADDRESS + rb')\\"\}')
_ITEM: Final = re.compile(r'k:\{"ip":"(' + _ADDRESS.decode() + r')"\}')
_NO_TEXT: Final = 255

# Makes of a status, and what is said of it, what it becomes; None if that is not to be remembered.
Make = Callable[[Obj, Obj], Obj | None]
# A set of fields with places for addresses; one without is itself.
_Tree = Any
# Who owns something after a write: their fields (None: as before), and whether they came by some of them now.
Ownership = Sequence[tuple[Manager, FieldSet | None, bool]]
# The same, worked out of an object, what it becomes, and the former's managedFields.
TakeOver = Callable[[Obj, Obj, list[Obj]], Ownership]


class _Known:
    """What becomes of statuses that are alike: bytes, with places (every second) for texts."""

    __slots__ = ("order", "owners", "pieces")

    def __init__(self, status: bytes, places: Mapping[bytes, int]) -> None:
        parts = _TEXT.split(status)
        self.order = [places[text] for text in parts[1::2]]
        self.pieces = _quoted(parts)
        self.owners: dict[tuple[bytes, bytes, Manager], list[tuple[Manager, _Tree | None, bool]] | None] = {}

    def status(self, texts: Sequence[bytes]) -> bytes:
        pieces = self.pieces.copy()
        pieces[1::2] = [texts[at] for at in self.order]
        return b"".join(pieces)


class Outcome:
    """What becomes of one status."""

    __slots__ = ("_known", "_places", "status")

    def __init__(self, known: _Known, places: dict[bytes, int]) -> None:
        self._known = known
        self._places = places
        self.status: Obj = orjson.loads(known.status(list(places)))

    def owners(self, old: Obj, new: Obj, me: Manager, take_over: TakeOver) -> Ownership:
        """Who owns what when `me` makes `new` of `old`, of which only the status differs: it is this outcome's,
        perhaps completed by what it says itself."""
        entries, places = old["metadata"]["managedFields"], self._places
        data = orjson.dumps(entries)
        parts = _IN_ENTRIES.split(data)
        if len(data) > _LONGEST or len(places) + len(parts) > _MOST_TEXTS:
            return take_over(old, new, entries)
        marks = bytes([_NO_TEXT if text is None else places.setdefault(text, len(places)) for text in parts[1::2]])
        key, remembered = (b"\0".join(parts[::2]), marks, me), self._known.owners
        known = remembered.get(key)
        if known is None:
            found = take_over(old, new, entries)
            if key not in remembered:
                # Nothing is relied on to be there still: big objects are looked at in a thread, beside the event loop.
                if len(remembered) >= _MOST_OWNERS:
                    remembered.clear()
                remembered[key] = self._learnt(found, old, new, data, take_over)
            return found
        texts = [text.decode() for text in places]
        return [(who, None if tree is None else _filled(tree, texts), gains) for who, tree, gains in known]

    def _learnt(
        self, found: Ownership, old: Obj, new: Obj, entries: bytes, take_over: TakeOver
    ) -> list[tuple[Manager, _Tree | None, bool]] | None:
        """What to remember of an ownership; None where it does not hold for others."""
        places = {text.decode(): place for text, place in self._places.items()}
        others = [text.decode() for text in _made_up(self._places)]

        def other(one: re.Match[bytes]) -> bytes:
            text: bytes | None = one[1]
            return one[0] if text is None else one[0].replace(text, others[places[text.decode()]].encode())

        def renamed(obj: Obj) -> Obj:
            return {**obj, "status": orjson.loads(_TEXT.sub(other, orjson.dumps(obj["status"])))}

        try:
            known = [(who, owned and _with_places(owned, places), gains) for who, owned, gains in found]
            twin = take_over(renamed(old), renamed(new), orjson.loads(_IN_ENTRIES.sub(other, entries)))
        except KeyError:
            # The object says something that neither the status nor the patch did.
            return None
        same = [(who, None if tree is None else _filled(tree, others), gains) for who, tree, gains in known] == [*twin]
        return known if same else None


class StatusOutcomes:
    """Those of one server."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes, bytes, bytes], _Known | None] = {}
        # Asked once so far: most of what will never be asked again is not worth another look.
        self._seen: set[tuple[str, bytes, bytes, bytes]] = set()
        self._patience = _PATIENCE

    def find(self, way: str, was: Obj, change: Obj, make: Make) -> Outcome | None:
        """What `make` makes of a status and what is said of it, if that is known; None where it is to be worked out,
        also where something is wrong. `way` tells apart what is made in different ways; `make` may change what it is
        given."""
        self._patience -= 1
        if self._patience < 0:
            if self._patience < -_PAUSE:
                self._patience = _PATIENCE
            return None
        before, said = orjson.dumps(was), orjson.dumps(change)
        if len(before) > _LONGEST or len(said) > _LONGEST:
            return None
        first, second = _TEXT.split(before), _TEXT.split(said)
        if len(first) + len(second) > _MOST_TEXTS:
            return None
        places: dict[bytes, int] = {}
        marks = bytes([places.setdefault(text, len(places)) for text in (*first[1::2], *second[1::2])])
        between = b"\0".join((*first[::2], b"\0", *second[::2]))
        key = (way, between, marks, b"".join([_SORTS[len(text)] for text in places]))
        if key not in self._known:
            if key not in self._seen:
                self._see(key)
                return None
            if len(self._known) >= _MOST:
                self._known = {}
            self._known[key] = _learn(before, said, places, make)
        known = self._known.get(key)
        if known is None:
            return None
        self._patience = _PATIENCE
        return Outcome(known, places)

    def _see(self, key: tuple[str, bytes, bytes, bytes]) -> None:
        if len(self._seen) >= _SEEN_MOST:
            self._seen = set()
        self._seen.add(key)


def _learn(was: bytes, said: bytes, places: Mapping[bytes, int], make: Make) -> _Known | None:
    """None for what is not to be remembered: what is refused, or depends on more than which texts are the same."""
    others = _made_up(places)

    def renamed(data: bytes) -> bytes:
        return _TEXT.sub(lambda one: b'":"%s"' % others[places[one[1]]], data)

    try:
        made = make(orjson.loads(was), orjson.loads(said))
        twin = make(orjson.loads(renamed(was)), orjson.loads(renamed(said)))
        if made is None or twin is None:
            return None
        known = _Known(orjson.dumps(made), places)
    except (StatusError, DecodeError, KeyError):
        return None
    return known if known.status(others) == orjson.dumps(twin) else None


def _made_up(texts: Iterable[bytes]) -> list[bytes]:
    """Other texts of the same sorts."""
    return [_MADE_UP.get(len(text), _made_up_address)(number) for number, text in enumerate(texts)]


def _made_up_address(number: int) -> bytes:
    return b"198.18.0.%d" % number


def _quoted(parts: Sequence[bytes]) -> list[bytes]:
    """The pieces between texts, with the marks in which these are; every second is a place."""
    pieces, last = list(parts), len(parts) - 1
    for at in range(0, len(parts), 2):
        pieces[at] = (b'"' if at else b"") + parts[at] + (b'":"' if at < last else b"")
    return pieces


class _Varying(list[tuple[str | int, _Tree]]):
    """A part of a set in which there are items that are found by an address, whose place is the key then."""


def _with_places(owned: FieldSet, places: Mapping[str, int]) -> _Tree:
    """Raises KeyError for an address without a place."""
    children: list[tuple[str | int, _Tree]] = []
    for key, below in owned.items():
        item = _ITEM.fullmatch(key)
        children.append((key if item is None else places[item[1]], _with_places(below, places)))
    if any(key.__class__ is int or below.__class__ is _Varying for key, below in children):
        return _Varying(children)
    return owned


def _filled(tree: _Tree, texts: Sequence[str]) -> FieldSet:
    if tree.__class__ is dict:
        whole: FieldSet = tree
        return whole
    return {key if key.__class__ is str else f'k:{{"ip":"{texts[key]}"}}': _filled(below, texts) for key, below in tree}
