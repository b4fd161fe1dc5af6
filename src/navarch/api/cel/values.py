"""CEL's values in Python, and what compares and converts them.

Strings, booleans, doubles, bytes, lists and null are Python's own, maps and objects are dicts, ints are ints that fit
64 bits; `Uint`, `Duration`, `Timestamp`, `Optional`, `TypeValue` and what libraries define (`Opaque`) are classes.
Invariant: what JSON holds is used as it is, never copied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import orjson

from navarch.api.cel.errors import CelError, CostExceeded

NO_OVERLOAD: Final = "no such overload"
INT_LIMIT: Final = 2**63
NANO: Final = 10**9
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# The first second of year 1 and the last of year 9999.
_EARLIEST, _LATEST = -62135596800, 253402300799


class Uint(int):
    __slots__ = ()


class Duration:
    __slots__ = ("nanos",)

    def __init__(self, nanos: int) -> None:
        if not -INT_LIMIT <= nanos < INT_LIMIT:
            raise CelError("duration overflow")
        self.nanos = nanos

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.nanos == other.nanos

    def __hash__(self) -> int:
        return hash(("duration", self.nanos))

    def __str__(self) -> str:
        return _decimal(self.nanos) + "s"


class Timestamp:
    """Nanoseconds since 1970, in UTC."""

    __slots__ = ("nanos",)

    def __init__(self, nanos: int) -> None:
        if not _EARLIEST <= nanos // NANO <= _LATEST:
            raise CelError("timestamp overflow")
        self.nanos = nanos

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timestamp) and self.nanos == other.nanos

    def __hash__(self) -> int:
        return hash(("timestamp", self.nanos))

    def moment(self) -> datetime:
        """To the microsecond."""
        return EPOCH + timedelta(microseconds=self.nanos // 1000)

    def __str__(self) -> str:
        seconds, nanos = divmod(self.nanos, NANO)
        text = (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
        return f"{text}{f'.{nanos:09d}'.rstrip('0') if nanos else ''}Z"


class Optional:
    """A value that may be none."""

    __slots__ = ("present", "value")

    def __init__(self, value: Any, *, present: bool) -> None:
        self.value = value
        self.present = present

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Optional) or self.present != other.present:
            return False
        return not self.present or equal(self.value, other.value)

    def __hash__(self) -> int:
        return hash(("optional", self.present))


NONE: Final = Optional(None, present=False)


def some(value: Any) -> Optional:
    return Optional(value, present=True)


class TypeValue:
    """What `type(x)` gives."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypeValue) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class Opaque:
    """A value that only a library's functions look into."""

    __slots__ = ()
    type_name: ClassVar[str] = "opaque"


class Made(list[Any]):
    """A list that an expression made. `weight` is how much is in it, however often the same list is in it: what looks
    at all of it costs by that, or a few doublings of `[x, x]` would take years."""

    __slots__ = ("weight",)

    def __init__(self, items: Iterable[Any] = (), known_weight: int | None = None) -> None:
        super().__init__(items)
        self.weight = _bounded(_sum(self) if known_weight is None else known_weight)


class MadeMap(dict[Any, Any]):
    """A map that an expression made."""

    __slots__ = ("weight",)

    def __init__(self, entries: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__(entries)
        self.weight = _bounded(_sum(self.values()))


class Defaulting(dict[Any, Any]):
    """A map that has a value for every key, though it contains few."""

    __slots__ = ("default",)

    def __init__(self, entries: Mapping[Any, Any], default: Any) -> None:
        super().__init__(entries)
        self.default = default


class Message(MadeMap):
    """An object that an expression made: `Object{…}`."""

    __slots__ = ("type_name",)

    def __init__(self, name: str, entries: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__(entries)
        self.type_name = name


_HEAVIEST: Final = 1_000_000


def _bounded(weight: int) -> int:
    if weight > _HEAVIEST:
        raise CostExceeded
    return weight


def _sum(values: Iterable[Any]) -> int:
    total = 0
    # The same large object may be in it many times.
    seen: dict[int, int] = {}
    for each in values:
        kind = type(each)
        if kind is str or kind is int or kind is bool:
            total += 1
        elif kind is dict or kind is list:
            known = seen.get(id(each))
            if known is None:
                known = seen[id(each)] = weight(each)
            total += known
        else:
            total += weight(each)
    return total


def weight(value: Any) -> int:
    kind = type(value)
    if kind is Made or kind is MadeMap or kind is Message:
        return int(value.weight)
    if isinstance(value, (list, dict)):
        try:
            # Of JSON: its text, which is counted fastest.
            return 1 + len(orjson.dumps(value)) // 8
        except TypeError:
            return 1 + len(value)
    return 1 + value.weight if kind is Optional and value.present and isinstance(value.value, (Made, MadeMap)) else 1


class SetList(list[Any]):
    """A list in which order says nothing (`x-kubernetes-list-type: set`)."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list) or len(self) != len(other):
            return False
        theirs = {_identity(each) for each in other}
        return all(_identity(each) in theirs for each in self)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def plus(self, other: list[Any]) -> SetList:
        """What both have, each once."""
        mine = {_identity(each) for each in self}
        return SetList([*self, *(each for each in other if _identity(each) not in mine)])


def _identity(value: Any) -> Any:
    """What two items of a set have in common that are equal: comparing each with each would take their square."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, (dict, list)):
        return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return value


class MapList(list[Any]):
    """A list whose items are told apart by keys (`x-kubernetes-list-type: map`)."""

    __slots__ = ("keys",)

    def __init__(self, items: Iterable[Any], keys: tuple[str, ...]) -> None:
        super().__init__(items)
        self.keys = keys

    def _key(self, item: Any) -> tuple[Any, ...]:
        return tuple(item.get(key) for key in self.keys) if isinstance(item, dict) else (item,)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list) or len(self) != len(other):
            return False
        theirs = {self._key(item): item for item in other}
        return all(key in theirs and equal(item, theirs[key]) for item in self for key in (self._key(item),))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def plus(self, other: list[Any]) -> MapList:
        """Items of the other replace those of the same key, in their place; others follow."""
        at = {self._key(item): index for index, item in enumerate(self)}
        items = list(self)
        for item in other:
            key = self._key(item)
            if key in at:
                items[at[key]] = item
            else:
                items.append(item)
        return MapList(items, self.keys)


_NAMES: Final[dict[type, str]] = {
    bool: "bool",
    int: "int",
    Uint: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    dict: "map",
    SetList: "list",
    Made: "list",
    MadeMap: "map",
    MapList: "list",
    type(None): "null_type",
    Duration: "google.protobuf.Duration",
    Timestamp: "google.protobuf.Timestamp",
    Optional: "optional_type",
    TypeValue: "type",
}


def type_name(value: Any) -> str:
    name = _NAMES.get(type(value))
    if name is not None:
        return name
    return str(getattr(value, "type_name", "map" if isinstance(value, dict) else "unknown"))


_PLAIN: Final = frozenset({str, int, bytes, Uint, float, bool, type(None)})
_NUMBERS: Final = frozenset({int, float, Uint})


def equal(a: Any, b: Any) -> bool:
    """CEL's equality: numbers of all kinds compare by value, otherwise different types are not equal."""
    kind = type(a)
    if kind is type(b) and kind in _PLAIN:
        return bool(a == b)
    if a != b:
        return False
    # Python also holds that True is 1.
    return _alike(a, b)


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return isinstance(a, bool) and isinstance(b, bool)
    if isinstance(a, list) and not isinstance(a, (SetList, MapList)):
        return all(_alike(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return all(_alike(value, b[key]) for key, value in a.items())
    return True


def compare(a: Any, b: Any) -> int:
    """Negative, zero or positive.  Raises CelError where the two have no order."""
    kind, other = type(a), type(b)
    if kind in _NUMBERS and other in _NUMBERS:
        return int(a > b) - int(a < b)
    if kind is other and kind in (str, bytes, bool):
        if kind is str and not (a.isascii() and b.isascii()):
            a, b = a.encode(), b.encode()
        return int(a > b) - int(a < b)
    if kind is other and kind in (Duration, Timestamp):
        return int(a.nanos > b.nanos) - int(a.nanos < b.nanos)
    raise CelError(NO_OVERLOAD)


def contains(container: Any, item: Any) -> bool:
    if isinstance(container, list):
        if type(item) is str:
            return bool(item in container)
        return any(equal(item, each) for each in container)
    if isinstance(container, dict):
        return has_key(container, item)
    raise CelError(NO_OVERLOAD)


def has_key(container: dict[Any, Any], key: Any) -> bool:
    kind = type(key)
    if kind is str or kind in _NUMBERS or kind is bool:
        return key in container
    raise CelError(NO_OVERLOAD)


def size(value: Any) -> int:
    if isinstance(value, (str, bytes, list, dict)):
        return len(value)
    raise CelError(NO_OVERLOAD)


def length(value: Any) -> int:
    """What cost is counted by: 1 for what has no size."""
    kind = type(value)
    if kind is str or kind is bytes or kind is list or kind is dict:
        return len(value)
    if kind is Made or kind is MadeMap or kind is Message:
        return int(value.weight)
    return len(value) if isinstance(value, (str, bytes, list, dict)) else 1


def shown(value: Any) -> str:
    """As Go's %v writes a key."""
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, float):
        return go_float(value)
    if isinstance(value, list):
        return "[" + " ".join(shown(each) for each in value) + "]"
    if isinstance(value, bytes):
        return "[" + " ".join(str(each) for each in value) + "]"
    return str(value)


# Numbers


def checked_int(value: int) -> int:
    if not -INT_LIMIT <= value < INT_LIMIT:
        raise CelError("integer overflow")
    return value


def checked_uint(value: int) -> Uint:
    if not 0 <= value < 2**64:
        raise CelError("unsigned integer overflow")
    return Uint(value)


def go_float(value: float) -> str:
    """The shortest text, with an exponent where Go writes one."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    _, _, exponent = f"{value:.17e}".partition("e")
    shortest = repr(value)
    mantissa, _, given = shortest.partition("e")
    figures = mantissa.lstrip("-").replace(".", "").strip("0") or "0"
    power = int(exponent) if not given else int(given)
    sign = "-" if value < 0 else ""
    if power < -4 or power >= 21:
        rest = f".{figures[1:]}" if len(figures) > 1 else ""
        return f"{sign}{figures[0]}{rest}e{'-' if power < 0 else '+'}{abs(power):02d}"
    if value.is_integer():
        return str(int(value))
    return sign + format(abs(value), "f").rstrip("0") if given else shortest


def _decimal(nanos: int) -> str:
    sign = "-" if nanos < 0 else ""
    whole, rest = divmod(abs(nanos), NANO)
    return f"{sign}{whole}{f'.{rest:09d}'.rstrip('0') if rest else ''}"
