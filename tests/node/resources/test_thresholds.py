"""When the node is short of something, and what follows from it."""

from __future__ import annotations

from navarch.node.config import EvictionConfig
from navarch.node.resources.pressure import Pressure
from navarch.node.resources.signals import Left
from navarch.node.thresholds import MEMORY, NODE_DISK, PIDS, thresholds_of
from tests.clocks import SetClock

MI = 1 << 20


def pressure(clock: SetClock, **stated: dict[str, str]) -> Pressure:
    return Pressure(EvictionConfig(thresholds_of(**{"hard": {}, **stated})), clock)


def test_a_hard_threshold_counts_at_once_and_its_condition_stays_for_a_while() -> None:
    clock = SetClock()
    node = pressure(clock, hard={"memory.available": "100Mi"})

    assert [one.signal for one in node.take({MEMORY: Left(99 * MI, 1000 * MI)})] == [MEMORY]
    assert node.pressed() == ["MemoryPressure"]

    assert node.take({MEMORY: Left(100 * MI, 1000 * MI)}) == []
    clock.pass_s(60 * 4)
    assert node.pressed() == ["MemoryPressure"]
    clock.pass_s(60 * 2)
    assert node.pressed() == []


def test_a_soft_threshold_counts_after_its_grace_period() -> None:
    clock = SetClock()
    node = pressure(clock, soft={"nodefs.available": "10%"}, grace={"nodefs.available": "30s"})
    low = {NODE_DISK: Left(9, 100)}

    assert node.take(low) == []
    assert node.pressed() == ["DiskPressure"]
    clock.pass_s(29)
    assert node.take(low) == []
    clock.pass_s(2)
    assert [one.signal for one in node.take(low)] == [NODE_DISK]


def test_a_soft_threshold_that_was_not_crossed_for_a_moment_begins_anew() -> None:
    clock = SetClock()
    node = pressure(clock, soft={"nodefs.available": "10%"}, grace={"nodefs.available": "30s"})
    node.take({NODE_DISK: Left(9, 100)})
    clock.pass_s(20)
    node.take({NODE_DISK: Left(11, 100)})
    clock.pass_s(20)

    assert node.take({NODE_DISK: Left(9, 100)}) == []


def test_more_than_the_threshold_is_won_back_where_that_is_asked_for() -> None:
    node = pressure(SetClock(), hard={"nodefs.available": "10%"}, reclaim={"nodefs.available": "5%"})

    assert node.take({NODE_DISK: Left(12, 100)}) == []
    assert node.take({NODE_DISK: Left(9, 100)})
    assert node.take({NODE_DISK: Left(12, 100)})
    assert node.take({NODE_DISK: Left(15, 100)}) == []


def test_memory_comes_before_all_else() -> None:
    node = pressure(SetClock(), hard={"pid.available": "10%", "memory.available": "10%"})

    due = node.take({PIDS: Left(1, 100), MEMORY: Left(1, 100)})

    assert [one.resource for one in due] == ["memory", "pids"]
    assert node.pressed() == ["MemoryPressure", "PIDPressure"]
    assert node.level_of("pids", due) == (10, 1)


def test_a_threshold_of_zero_is_none() -> None:
    node = pressure(SetClock(), hard={"memory.available": "0%"})

    assert node.take({MEMORY: Left(0, 100)}) == []


def test_who_wants_to_know_is_told_when_a_condition_comes() -> None:
    node = pressure(SetClock(), hard={"memory.available": "100Mi"})
    told = []
    node.on_change = lambda: told.append(node.pressed())

    node.take({MEMORY: Left(1, 1000 * MI)})
    node.take({MEMORY: Left(1, 1000 * MI)})

    assert told == [["MemoryPressure"]]
