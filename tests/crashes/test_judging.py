"""Each planted fault is named, and evidence without one passes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from .history import Following, Kind, Listing, Operation, Outcome, Recorder, Seen
from .judging import judge
from .truth import PREFIX, Truth

Row = tuple[int, str, bytes | None]


def stored(revision: int, name: str, token: str, parity: str = "even") -> Row:
    metadata = {"name": name, "uid": f"uid-{name}", "labels": {"parity": parity}}
    return revision, f"{PREFIX}{name}", json.dumps({"metadata": metadata, "data": {"token": token}}).encode()


def gone(revision: int, name: str) -> Row:
    return revision, f"{PREFIX}{name}", None


ROWS: list[Row] = [
    stored(10, "s-a", "t1"),
    stored(12, "s-b", "t2", "odd"),
    stored(13, "s-a", "t3", "odd"),
    gone(15, "s-b"),
]


def wrote(kind: Kind, name: str, token: str, revision: int, **more: Any) -> Operation:
    outcome = more.pop("outcome", Outcome.DONE)
    at = {"invoked": revision * 10, "returned": revision * 10 + 5, **more}
    return Operation(kind, name, token, revision=revision, outcome=outcome, **at)


def evidence() -> Recorder:
    recorder = Recorder()
    deletion = Operation(Kind.DELETE, "s-b", invoked=150, returned=155, outcome=Outcome.DONE, uid="uid-s-b")
    recorder.operations = [
        wrote(Kind.CREATE, "s-a", "t1", 10), wrote(Kind.CREATE, "s-b", "t2", 12), wrote(Kind.PATCH, "s-a", "t3", 13),
        deletion,
    ]  # fmt: skip
    recorder.listings = [Listing("all", 140, 141, 14, {"s-a": (13, "t3"), "s-b": (12, "t2")}, fresh=True)]
    recorder.followings = [
        Following("everything", 9, seen=[
            Seen("ADDED", 10, "s-a", "t1"), Seen("ADDED", 12, "s-b", "t2"), Seen("BOOKMARK", 12),
            Seen("MODIFIED", 13, "s-a", "t3"), Seen("DELETED", 15, "s-b", "t2"),
        ]),
        Following("even", 9, "even", seen=[Seen("ADDED", 10, "s-a", "t1"), Seen("DELETED", 13, "s-a", "t1")]),
        Following("odd", 0, "odd", initial={"s-b": (12, "t2")}, initial_until=12, seen=[
            Seen("ADDED", 13, "s-a", "t3"),
        ]),
        Following("one", 11, key="s-b", seen=[Seen("ADDED", 12, "s-b", "t2"), Seen("BOOKMARK", 14)]),
    ]  # fmt: skip
    return recorder


def faults(recorder: Recorder, rows: list[Row] = ROWS) -> set[str]:
    return {fault.what for fault in judge(recorder, Truth(rows, "s-"))}


def test_a_correct_server_has_no_fault() -> None:
    assert faults(evidence()) == set()


def test_a_write_that_is_not_stored_is_found() -> None:
    assert "acknowledged write lost" in faults(evidence(), [row for row in ROWS if row[0] != 13])
    assert "another revision than acknowledged" in faults(evidence(), [*ROWS[:2], stored(14, "s-a", "t3"), ROWS[3]])
    assert "acknowledged deletion lost" in faults(evidence(), ROWS[:3])


def test_a_write_that_happened_twice_is_found() -> None:
    assert "happened twice" in faults(evidence(), [*ROWS, stored(16, "s-a", "t3")])


def test_what_nobody_did_is_found() -> None:
    assert "written by nobody" in faults(evidence(), [*ROWS, stored(16, "s-a", "t9")])
    assert "deleted by nobody" in faults(evidence(), [*ROWS, gone(16, "s-a")])


def test_a_refused_write_that_is_stored_is_found() -> None:
    recorder = evidence()
    recorder.operations.append(wrote(Kind.CREATE, "s-b", "t4", 0, outcome=Outcome.EXISTS, invoked=170, returned=171))
    assert "refused, but stored" in faults(recorder, [*ROWS, stored(16, "s-b", "t4")])


def test_a_revision_that_goes_back_over_two_keys_is_found() -> None:
    recorder = evidence()
    recorder.operations.append(wrote(Kind.CREATE, "s-c", "t4", 11, invoked=200, returned=201))
    rows = sorted([*ROWS, stored(11, "s-c", "t4")])
    assert "revision goes back" in faults(recorder, rows)


def test_a_revision_that_is_used_twice_is_found() -> None:
    recorder = evidence()
    recorder.operations.append(wrote(Kind.CREATE, "s-c", "t4", 13, invoked=120, returned=201))
    assert "revision used twice" in faults(recorder, [*ROWS[:3], stored(13, "s-c", "t4"), ROWS[3]])


def test_lists_that_are_wrong_or_stale_are_found() -> None:
    recorder = evidence()
    recorder.listings = [Listing("all", 140, 141, 14, {"s-a": (13, "t3")}, fresh=True)]
    assert faults(recorder) == {"wrong list"}
    recorder.listings = [Listing("all", 140, 141, 12, {"s-a": (10, "t1"), "s-b": (12, "t2")}, fresh=True)]
    assert faults(recorder) == {"stale list"}
    recorder.listings[0].fresh = False
    assert faults(recorder) == set()
    recorder.listings[0].at_least = 13
    assert faults(recorder) == {"list older than asked for"}


def test_a_write_after_a_list_that_shows_its_future_is_found() -> None:
    recorder = evidence()
    recorder.listings = [Listing("all", 90, 91, 10, {"s-a": (10, "t1")}, fresh=True)]
    assert faults(recorder) == {"revision goes back"}


def test_missed_repeated_disordered_and_foreign_events_are_found() -> None:
    recorder = evidence()
    seen = list(recorder.followings[0].seen)
    for wrong in (
        seen[1:],
        [seen[0], *seen],
        [seen[1], seen[0], *seen[2:]],
        [*seen[:2], seen[2], replace(seen[3], type="ADDED"), seen[4]],
        [*seen[:4], Seen("MODIFIED", 14, "s-a", "t9"), seen[4]],
    ):
        recorder.followings[0].seen = wrong
        assert "wrong events" in faults(recorder)


def test_a_bookmark_that_hides_an_event_is_found() -> None:
    recorder = evidence()
    recorder.followings[3].seen = [Seen("BOOKMARK", 14)]
    assert faults(recorder) == {"wrong events"}


def test_a_selection_that_is_not_left_is_found() -> None:
    recorder = evidence()
    recorder.followings[1].seen = [Seen("ADDED", 10, "s-a", "t1"), Seen("BOOKMARK", 13)]
    assert faults(recorder) == {"wrong events"}


def test_wrong_initial_events_are_found() -> None:
    recorder = evidence()
    recorder.followings[2].initial = {}
    assert faults(recorder) == {"wrong list"}


def test_odd_answers_are_told() -> None:
    recorder = evidence()
    recorder.oddities.append("PATCH: 500")
    assert faults(recorder) == {"odd answer"}
