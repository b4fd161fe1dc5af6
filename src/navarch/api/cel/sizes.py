"""Ranges of sizes and of costs, from least to most; numbers stop at 2⁶⁴-1, as Kubernetes' do."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from navarch.api.cel.ast import Node
from navarch.api.cel.types import Type

MOST: Final = 2**64 - 1


class Range(NamedTuple):
    """From least to most: of a cost or a size."""

    low: int
    high: int

    def plus(self, other: Range) -> Range:
        return Range(min(self.low + other.low, MOST), min(self.high + other.high, MOST))

    def times(self, other: Range) -> Range:
        return Range(min(self.low * other.low, MOST), min(self.high * other.high, MOST))

    def scaled(self, factor: float) -> Range:
        return Range(_scaled(self.low, factor), _scaled(self.high, factor))

    def union(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))


def _scaled(value: int, factor: float) -> int:
    product = math.ceil(float(value) * factor)
    return min(product, MOST)


def fixed(value: int) -> Range:
    return Range(value, value)


UNKNOWN: Final = Range(0, MOST)
ONE: Final = fixed(1)
ZERO: Final = fixed(0)

Path = tuple[str, ...]


class Known(NamedTuple):
    """What is known of a node when the cost of a call on it is asked."""

    node: Node | None
    path: Path
    type: Type
    size: Range
