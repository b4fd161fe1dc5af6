"""Sets of CPUs (or of memory nodes) as the kernel writes them: `0-3,8`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

_NUMBER: Final = re.compile(r"[0-9]+")


def parse(text: str) -> frozenset[int]:
    """Raises ValueError with the words of Kubernetes."""
    found: set[int] = set()
    if not text.strip():
        return frozenset()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        for number in (first, *((last,) if dash else ())):
            if not _NUMBER.fullmatch(number):
                raise ValueError(f'strconv.Atoi: parsing "{number}": invalid syntax')
        if dash and int(first) > int(last):
            raise ValueError(f'invalid range "{part}" ({first} > {last})')
        found.update(range(int(first), int(last or first) + 1) if dash else (int(first),))
    return frozenset(found)


def text_of(numbers: Iterable[int]) -> str:
    """`0-3,8`."""
    ordered = sorted(set(numbers))
    starts = [one for before, one in pairwise([-2, *ordered]) if one != before + 1]
    ends = [one for one, after in pairwise([*ordered, -2]) if after != one + 1]
    return ",".join(str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True))
