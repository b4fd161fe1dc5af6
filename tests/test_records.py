"""Classes of `records` are what `dataclass` would have made of them; they only compile less, and later."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any

import pytest

from navarch.records import frozen, mutable


@frozen
class Place:
    """Where something is."""

    name: str
    labels: tuple[str, ...] = ()
    taken: list[str] = field(default_factory=list, compare=False, repr=False)


@frozen
class Room(Place):
    floor: int = 0


@frozen(eq=False)
class Lock:
    owner: str


@mutable
class Counter:
    key: str
    seen: int = 0
    log: list[int] = field(default_factory=list)
    last: str = field(init=False, compare=False, repr=False)


@frozen
class Squared:
    side: int
    area: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "area", self.side**2)


@frozen
class Nothing:
    pass


@mutable
class Named:
    name: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and self.name.lower() == other.name.lower()

    def __repr__(self) -> str:
        return f"<{self.name}>"


# The same by the standard library, at run time alone.
_STANDARD: dict[Callable[..., Any], Callable[..., Any]] = {
    frozen: dataclass(frozen=True, slots=True),
    mutable: dataclass(slots=True),
}


def _made(decorate: Callable[..., Any]) -> Any:
    class Pod:
        name: str
        ports: tuple[int, ...] = ()
        notes: list[str] = field(default_factory=list)
        version: int = field(default=1, compare=False)
        node: str = field(default="", repr=False)

    return decorate(Pod)


@pytest.mark.parametrize("ours", [frozen, mutable])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("a",), {}),
        (("a", (80,), ["x"], 2, "n"), {}),
        (("a",), {"node": "n", "ports": (1, 2)}),
        ((), {"name": "a"}),
        ((), {}),
        (("a", (), [], 1, "", "too many"), {}),
        (("a",), {"unknown": 1}),
        (("a",), {"name": "twice"}),
    ],
)
def test_objects_are_made_and_shown_as_by_the_standard_library(
    ours: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    def outcome(cls: Any) -> str:
        try:
            return repr(cls(*arguments, **named))
        except TypeError as error:
            return str(error)

    assert outcome(_made(ours)) == outcome(_made(_STANDARD[ours]))


def test_objects_with_the_same_compared_fields_are_equal_and_have_one_hash() -> None:
    assert Place("a", ("x",), ["1"]) == Place("a", ("x",), ["2"])
    assert len({Place("a"), Place("a", taken=["1"]), Place("b")}) == 2


def test_an_object_of_another_class_is_not_equal() -> None:
    assert Room("a") != Place("a")
    assert Place("a") != object()
    assert Room("a", floor=1) != Room("a", floor=2)
    assert Nothing() == Nothing()


def test_without_eq_an_object_equals_itself_alone() -> None:
    lock = Lock("a")

    assert lock == lock
    assert lock != Lock("a")
    assert len({lock, Lock("a")}) == 2


def test_each_object_has_a_default_of_its_own() -> None:
    first, second = Counter("a"), Counter("b")

    first.log.append(1)

    assert second.log == []


def test_a_field_that_is_not_given_can_be_assigned_later() -> None:
    counter = Counter("a")
    with pytest.raises(AttributeError):
        _ = counter.last

    counter.last = "now"

    assert counter.last == "now"


def test_what_is_worked_out_after_the_fields_is_there() -> None:
    assert Squared(3).area == 9


def test_a_frozen_object_refuses_changes() -> None:
    place = Place("a")

    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'name'"):
        place.name = "b"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'name'"):
        del place.name

    assert place.name == "a"


def test_a_mutable_object_that_compares_is_not_hashed() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Counter("a"))


def test_there_is_no_room_for_other_attributes() -> None:
    with pytest.raises(AttributeError):
        Counter("a").other = 1  # type: ignore[attr-defined]


def test_a_class_keeps_the_methods_that_it_has() -> None:
    assert Named("A") == Named("a")
    assert repr(Named("A")) == "<A>"


def test_the_functions_for_dataclasses_take_them() -> None:
    room = Room("a", floor=1)

    assert replace(room, floor=2) == Room("a", floor=2)
    assert asdict(room) == {"name": "a", "labels": (), "taken": [], "floor": 1}
    assert [each.name for each in fields(Room)] == ["name", "labels", "taken", "floor"]


@pytest.mark.parametrize("made", [Room("a", ("x",), floor=1), Counter("a", 3, [1])])
def test_copies_and_what_was_pickled_equal_the_original(made: object) -> None:
    copies = [copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))]

    assert copies == [made] * 3


def test_cases_of_a_match_name_fields_by_their_place() -> None:
    match Room("a", ("x",)):
        case Room(name, labels):
            assert (name, labels) == ("a", ("x",))


def test_nothing_is_inherited_from_a_frozen_class_of_the_standard_library() -> None:
    @dataclass(frozen=True)
    class Standard:
        name: str

    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):

        @frozen
        class Ours(Standard):
            pass


def test_a_method_that_compiled_itself_is_not_compiled_again() -> None:
    pod = _made(frozen)
    pod("a")

    first = pod.__init__
    pod("b")

    assert pod.__init__ is first
