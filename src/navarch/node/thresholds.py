"""Thresholds of eviction: how little of a resource may be left, as `KubeletConfiguration` writes it (of
`memory.available`, `100Mi` or `5%`), for how long, and how much is to be won back. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from navarch.api import quantity
from navarch.api.durations import parse_s

MEMORY: Final = "memory.available"
ALLOCATABLE_MEMORY: Final = "allocatableMemory.available"
NODE_DISK, NODE_INODES = "nodefs.available", "nodefs.inodesFree"
IMAGE_DISK, IMAGE_INODES = "imagefs.available", "imagefs.inodesFree"
CONTAINER_DISK, CONTAINER_INODES = "containerfs.available", "containerfs.inodesFree"
PIDS: Final = "pid.available"

RESOURCES: Final[Mapping[str, str]] = {
    MEMORY: "memory",
    ALLOCATABLE_MEMORY: "memory",
    IMAGE_DISK: "ephemeral-storage",
    IMAGE_INODES: "inodes",
    CONTAINER_DISK: "ephemeral-storage",
    CONTAINER_INODES: "inodes",
    NODE_DISK: "ephemeral-storage",
    NODE_INODES: "inodes",
    PIDS: "pids",
}
"""What is short where a signal says so."""

CONDITIONS: Final[Mapping[str, str]] = {
    signal: {"memory": "MemoryPressure", "pids": "PIDPressure"}.get(resource, "DiskPressure")
    for signal, resource in RESOURCES.items()
}
"""The node's condition where a signal says so."""

_PERCENT: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)%*")


class ThresholdError(ValueError):
    """A threshold cannot be; the message is Kubernetes'."""


@dataclass(frozen=True, slots=True)
class Level:
    """An amount, or a part of what there is."""

    amount: Fraction = Fraction(0)
    part: Fraction | None = None

    def of(self, capacity: int) -> int:
        return int(capacity * self.part if self.part is not None else self.amount)


@dataclass(frozen=True, slots=True)
class Threshold:
    """`signal` is crossed when less than `level` is left; it is acted on after `grace_s`, at once where that is 0, and
    until `reclaim` more than that is there again."""

    signal: str
    level: Level
    grace_s: float = 0.0
    reclaim: Level = Level()

    @property
    def hard(self) -> bool:
        return not self.grace_s

    @property
    def resource(self) -> str:
        return RESOURCES[self.signal]


def thresholds_of(
    hard: Mapping[str, str],
    soft: Mapping[str, str] | None = None,
    grace: Mapping[str, str] | None = None,
    reclaim: Mapping[str, str] | None = None,
) -> tuple[Threshold, ...]:
    """Raises ThresholdError."""
    periods = dict(_periods(grace or {}))
    won_back = dict(_reclaims(reclaim or {}))
    result = [Threshold(signal, level) for signal, level in _levels(hard)]
    for signal, level in _levels(soft or {}):
        if signal not in periods:
            raise ThresholdError(f"grace period must be specified for the soft eviction threshold {signal}")
        result.append(Threshold(signal, level, periods[signal]))
    return tuple(Threshold(one.signal, one.level, one.grace_s, won_back.get(one.signal, one.reclaim)) for one in result)


def _levels(stated: Mapping[str, str]) -> Iterator[tuple[str, Level]]:
    """Those that are not switched off by `0%` or `100%`."""
    for signal, text in stated.items():
        _check(signal)
        if text in ("0%", "100%"):
            continue
        level = _level(text)
        if level.part is not None:
            if level.part < 0:
                raise ThresholdError(f"eviction percentage threshold {signal} must be >= 0%: {text}")
            if level.part > 1:
                raise ThresholdError(f"eviction percentage threshold {signal} must be <= 100%: {text}")
        elif level.amount <= 0:
            raise ThresholdError(f"eviction threshold {signal} must be positive: {quantity.canonical(text)}")
        yield signal, level


def _reclaims(stated: Mapping[str, str]) -> Iterator[tuple[str, Level]]:
    for signal, text in stated.items():
        _check(signal)
        level = _level(text)
        if level.part is not None and level.part <= 0:
            raise ThresholdError(f"eviction percentage minimum reclaim {signal} must be positive: {text}")
        if level.amount < 0:
            raise ThresholdError(f"negative eviction minimum reclaim specified for {signal}")
        yield signal, level


def _periods(stated: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for signal, text in stated.items():
        _check(signal)
        try:
            seconds = parse_s(text)
        except ValueError as error:
            raise ThresholdError(str(error)) from None
        if seconds < 0:
            raise ThresholdError(f"invalid eviction grace period specified: {text}, must be a positive value")
        yield signal, seconds


def _check(signal: str) -> None:
    if signal not in RESOURCES:
        raise ThresholdError(f"unsupported eviction signal {signal}")


def _level(text: str) -> Level:
    if text.endswith("%"):
        if not _PERCENT.fullmatch(text):
            number = text.rstrip("%")
            raise ThresholdError(f'strconv.ParseFloat: parsing "{number}": invalid syntax')
        return Level(part=Fraction(text.rstrip("%")) / 100)
    try:
        return Level(Fraction(quantity.parse(text)))
    except ValueError as error:
        raise ThresholdError(str(error)) from None
